"""The one operation of the project: a weighted sum of several models' logits, with weights of its own for each row."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from vllm_rast.kernels.select import native, operation

LOGITS_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
MAX_NATIVE_MODELS = 16  # as many descriptions as travel in the arguments of one CUDA launch
# The columns of a trace: largest logit and log-sum-exp of the base, the same of the mix, KL(mix || base) in nats.
TRACE_COLUMNS = ("base_max", "base_lse", "mix_max", "mix_lse", "kl")


def combine_logits(
    logits: Sequence[torch.Tensor],
    weights: torch.Tensor,
    out: torch.Tensor | None = None,
    trace: torch.Tensor | None = None,
) -> torch.Tensor:
    """out[n, v] = sum over m of weights[n, m] * logits[m][n, v], in float32.

    logits: one tensor for each model, [num_rows, vocab_m] in float32, bfloat16 or float16; vocab_0 (the base's) is
        the width of the result, and a wider model's further columns are ignored.
    weights: [num_rows, num_models] in float32.
    out: [num_rows, vocab_0] in float32, may be `logits[0]` itself.
    trace: [num_rows, 5] in float32, dense; filled with TRACE_COLUMNS of each row, which costs a second look at numbers
        that are still in the cache. The base is read in every row, whatever its weight.

    A model whose weight in a row is 0 is not read there, so its infinities and nans do no harm. Columns beyond the
    vocabulary of a model that takes part are -inf. A row that takes one model with weight 1 is an exact copy of it.
    Every implementation rounds alike, so the result does not depend on which one runs (`vllm_rast.kernels.select`).

    In a trace, columns of -inf hold no probability and add nothing; if the base has -inf and the mix has not, KL is
    inf. A nan or +inf has no softmax: it makes nan what depends on it. The trace is good to about 1e-6 of the largest
    logit, and the same however many threads run, but not the same to the bit in every implementation.

    No gradients. Raises ValueError if shapes, dtypes or devices do not fit.
    """
    check(logits, weights, out, trace)
    if out is None:
        out = torch.empty(logits[0].shape, dtype=torch.float32, device=logits[0].device)
    plain, traced = combine_with_torch, trace_with_torch
    if native(out.device.type) and len(logits) <= MAX_NATIVE_MODELS and has_adjacent_columns(out):
        plain, traced = torch.ops.vllm_rast.combine_logits, torch.ops.vllm_rast.combine_logits_traced
        logits = [some if has_adjacent_columns(some) else some.contiguous() for some in logits]
    if trace is None:
        plain(logits, weights, out)
    else:
        traced(logits, weights, out, trace)
    return out


def has_adjacent_columns(matrix: torch.Tensor) -> bool:
    return matrix.stride(1) == 1 or matrix.shape[1] <= 1


def check(
    logits: Sequence[torch.Tensor],
    weights: torch.Tensor,
    out: torch.Tensor | None,
    trace: torch.Tensor | None = None,
) -> None:
    """Raises ValueError, one line that names the argument."""
    if not logits or any(some.dim() != 2 for some in logits):
        raise ValueError("logits: must be one matrix [num_rows, vocab] for each model, at least one")
    shape, device = logits[0].shape, logits[0].device
    for model, some in enumerate(logits):
        if some.shape[0] != shape[0] or some.device != device:
            raise ValueError(
                f"logits[{model}]: {some.shape[0]} rows on {some.device}, but {shape[0]} on {device} in logits[0]"
            )
        if some.dtype not in LOGITS_DTYPES:
            raise ValueError(f"logits[{model}]: {some.dtype} is none of float32, bfloat16, float16")
    if weights.shape != (shape[0], len(logits)) or weights.dtype != torch.float32 or weights.device != device:
        raise ValueError(
            f"weights: must be float32 {[shape[0], len(logits)]} on {device}, "
            f"got {weights.dtype} {list(weights.shape)} on {weights.device}"
        )
    if out is not None and (out.shape != shape or out.dtype != torch.float32 or out.device != device):
        raise ValueError(
            f"out: must be float32 {list(shape)} on {device}, got {out.dtype} {list(out.shape)} on {out.device}"
        )
    wanted = (shape[0], len(TRACE_COLUMNS))
    if trace is not None and (
        trace.shape != wanted or trace.dtype != torch.float32 or trace.device != device or not trace.is_contiguous()
    ):
        raise ValueError(
            f"trace: must be dense float32 {list(wanted)} on {device}, "
            f"got {trace.dtype} {list(trace.shape)} on {trace.device}"
        )


def combine_with_torch(logits: Sequence[torch.Tensor], weights: torch.Tensor, out: torch.Tensor) -> None:
    """The same in plain torch, into `out`: what the kernels are tested against, and what runs if there is none."""
    vocab = out.shape[1]
    total = torch.full_like(out, -0.0)  # the one number that adds nothing to any other, 0.0 included
    taking_part = weights != 0
    for model, model_logits in enumerate(logits):
        width = min(vocab, model_logits.shape[1])
        term = weights[:, model : model + 1] * model_logits[:, :width].float()
        # where() and not a product: 0 * inf would be nan.
        total[:, :width] += torch.where(taking_part[:, model : model + 1], term, -0.0)
    for model, model_logits in enumerate(logits):
        if model_logits.shape[1] < vocab:
            total[:, model_logits.shape[1] :].masked_fill_(taking_part[:, model : model + 1], float("-inf"))
    out.copy_(total)


def trace_with_torch(
    logits: Sequence[torch.Tensor], weights: torch.Tensor, out: torch.Tensor, trace: torch.Tensor
) -> None:
    """combine_with_torch, and the trace of each row into `trace`: with p the mix's softmax and q the base's,
    KL(p || q) = sum of p * (log p - log q) = sum of p * (mix - base) - (log-sum-exp of mix - of base)."""
    base = logits[0].float().clone()  # `out` may be the base itself
    combine_with_torch(logits, weights, out)
    base_max, base_lse = largest_and_lse(base)
    mix_max, mix_lse = largest_and_lse(out)
    p = (out.double() - mix_lse).exp()
    moved = torch.where(p == 0, 0, p * (out.double() - base)).sum(1, keepdim=True)  # -inf - -inf would be nan
    kl = (moved - (mix_lse - base_lse)).clamp_(min=0)  # below 0 by rounding alone
    torch.cat([base_max, base_lse, mix_max, mix_lse, kl], dim=1, out=trace)


def largest_and_lse(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Largest number and log-sum-exp of each row, [num_rows, 1] in float64; nan if there is a nan or +inf."""
    padded = torch.nn.functional.pad(matrix.double(), (0, 1), value=float("-inf"))  # a row may have no columns
    largest = padded.amax(1, keepdim=True)
    largest.masked_fill_(largest == float("inf"), float("nan"))
    return largest, torch.where(largest.isnan(), largest, padded.logsumexp(1, keepdim=True))


operation.impl("combine_logits", combine_with_torch, "CompositeExplicitAutograd")
operation.impl("combine_logits_traced", trace_with_torch, "CompositeExplicitAutograd")


@torch.library.register_fake("vllm_rast::combine_logits", lib=operation)
def _fake(logits: Sequence[torch.Tensor], weights: torch.Tensor, out: torch.Tensor) -> None:
    """Nothing but `out` changes, and its shape stays."""


@torch.library.register_fake("vllm_rast::combine_logits_traced", lib=operation)
def _fake_traced(logits: Sequence[torch.Tensor], weights: torch.Tensor, out: torch.Tensor, trace: torch.Tensor) -> None:
    """Nothing but `out` and `trace` changes."""
