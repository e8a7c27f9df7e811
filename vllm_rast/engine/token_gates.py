"""Gates in an engine: from the requests' gates to one for every token of a step, and from there to the mixed rows.

Steps without a gated request do nothing here: the runner says so on the host, in `Ensemble.gated`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from vllm_rast.kernels.gate import apply_gates
from vllm_rast.mix.gate import CARRIED, OPEN, closed_by_chance


def stack_gates(lines: Sequence[np.ndarray | None]) -> np.ndarray | None:
    """One table of the requests' `Gate.line`, [num_requests, ...]; None if none has a gate."""
    if all(line is None for line in lines):
        return None
    return np.stack([OPEN.line(None) if line is None else line for line in lines])


def write_token_gates(
    gates: torch.Tensor, weights: torch.Tensor, table: torch.Tensor, owner: torch.Tensor, positions: torch.Tensor
) -> None:
    """Write what travels with every token's row into gates, [num_tokens, 3]. Tokens that a random gate closes get the
    weights of the base alone, [num_tokens, num_models].

    table: the requests' `Gate.line`, [num_requests, ...]. owner: each token's line, [num_tokens]. positions: its place
    in prompt and answer, [num_tokens].
    """
    lines = table[owner]
    gates.copy_(lines[:, : len(CARRIED)])
    closed = closed_by_chance(lines, positions.to(torch.float32), torch.Tensor.long, torch.Tensor.float)
    weights.masked_fill_(closed[:, None], 0)
    weights[:, 0].masked_fill_(closed, 1)


class GatedRows(NamedTuple):
    """The rows of a step that have a gate: their places, [n], gates, [n, 3], and the base's logits, [n, vocab]."""

    rows: torch.Tensor
    gates: torch.Tensor
    base: torch.Tensor

    @classmethod
    def of(cls, base: torch.Tensor, gates: torch.Tensor) -> GatedRows | None:
        """Copies, since the mix takes the base's place. None if no row has a gate."""
        rows = gates.any(dim=1).nonzero().squeeze(1)
        return cls(rows, gates[rows], base[rows].float()) if len(rows) else None

    def close(self, mixed: torch.Tensor) -> torch.Tensor:
        """Put the base's logits where gates are closed, in place; returns which are, [n] booleans."""
        if len(self.rows) == len(mixed):
            return apply_gates(mixed, self.base, self.gates)
        some = mixed[self.rows]
        closed = apply_gates(some, self.base, self.gates)
        mixed.index_copy_(0, self.rows, some)
        return closed
