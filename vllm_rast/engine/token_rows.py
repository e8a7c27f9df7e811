"""From the requests' schedules to one row of weights for every token of a step, on the device, for both runners.

A table holds the lines of `Schedule.points` of several requests, [num_requests, width, num_columns] in float32;
shorter schedules are filled up with points that begin at infinity. Lines are counted from the prompt's first token, so
a request's place in the table and a token's position are all that a row follows from, whatever ran before: chunks of
a prompt, a resumed request's own answer, drafts, cached blocks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from vllm_rast.mix.schedule import LENGTH, START, weights_after, weights_of


def stack_points(points: Sequence[np.ndarray], width: int = 1) -> np.ndarray:
    """One table of several requests' points, at least `width` wide."""
    width = max(width, *(len(some) for some in points))
    if width == 1:
        return np.concatenate(points)[:, None]
    table = np.zeros((len(points), width, points[0].shape[1]), dtype=np.float32)
    table[:, :, START] = np.inf
    table[:, :, LENGTH] = 1  # a length: nobody divides by 0
    for filled, some in zip(table, points, strict=True):
        filled[: len(some)] = some
    return table


def to_device(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """A copy on the device, without waiting for it: the caching host allocator keeps pinned memory until it is done."""
    tensor = torch.from_numpy(array)
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


def some_rows(logits: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
    """These rows, in ascending order; without a copy if they are all."""
    return logits if len(rows) == len(logits) else logits[to_device(rows, logits.device)]


def write_token_rows(out: torch.Tensor, table: torch.Tensor, owner: torch.Tensor, positions: torch.Tensor) -> None:
    """Write the weights of every token into out, [num_tokens, num_models].

    owner: each token's line in the table, [num_tokens]. positions: its place in prompt and answer, [num_tokens].
    A table of width 1 holds constants alone and costs one copy.
    """
    if table.shape[1] == 1:
        torch.index_select(weights_of(table[:, 0]), 0, owner, out=out)
        return
    places = positions.to(torch.float32).unsqueeze(1)
    # A first point counts from the beginning of the prompt, so only the later ones' starts are compared.
    point = (table[:, 1:, START][owner] <= places).sum(dim=1)
    out.copy_(weights_after(table[owner, point], places))
