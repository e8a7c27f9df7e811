"""The one operation of the project: a weighted sum of several models' logits, with weights of its own for each row."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def combine_logits(
    logits: Sequence[torch.Tensor], weights: torch.Tensor, out: torch.Tensor | None = None
) -> torch.Tensor:
    """out[n, v] = sum over m of weights[n, m] * logits[m][n, v], in float32.

    logits: one tensor for each model, [num_rows, vocab_m] in float32, bfloat16 or float16; vocab_0 (the base's) is
        the width of the result, and a wider model's further columns are ignored.
    weights: [num_rows, num_models] in float32.
    out: [num_rows, vocab_0] in float32, may be `logits[0]` itself.

    A model whose weight in a row is 0 is not read there, so its infinities and nans do no harm. Columns beyond the
    vocabulary of a model that takes part are -inf. A row that takes one model with weight 1 is an exact copy of it.
    """
    num_rows, vocab = logits[0].shape
    if out is None:
        out = torch.empty(num_rows, vocab, dtype=torch.float32, device=logits[0].device)
    total = torch.full_like(out, -0.0)  # the one number that adds nothing to any other, 0.0 included
    for model, model_logits in enumerate(logits):
        weight = weights[:, model : model + 1]
        taking_part = weight != 0
        width = min(vocab, model_logits.shape[1])
        term = weight * model_logits[:, :width].float()
        # where() and not a product: 0 * inf would be nan.
        total[:, :width] += torch.where(taking_part, term, -0.0)
        if width < vocab:
            total[:, width:].masked_fill_(taking_part, float("-inf"))
    return out.copy_(total)
