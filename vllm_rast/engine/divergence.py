"""How far the mix moves an engine's rows away from the base: sums that stay on the device until somebody asks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from vllm.distributed import tensor_model_parallel_all_gather

from vllm_rast.engine.gather import OneGather
from vllm_rast.engine.token_gates import GatedRows
from vllm_rast.kernels.combine import TRACE_COLUMNS, combine_logits

KL = TRACE_COLUMNS.index("kl")


class TraceSums:
    """The sum of KL(mix || base) over the rows that mix, and their number.

    A row is one position whose logits the engine asked for: every decoded token, and under speculation every draft.
    A row is mixed if the base and another model take part; rows of a single model are left out, and so are rows that a
    gate leaves to the base, and rows without a KL (a nan, or a token that the base rules out). Adding waits for
    nothing, so the engine never stops for it.
    """

    def __init__(self, device: torch.device) -> None:
        self.sums = torch.zeros(2, dtype=torch.float64, device=device)

    def combine(
        self,
        logits: Sequence[torch.Tensor],
        weights: torch.Tensor,
        one_gather: OneGather | None = None,
        gated: GatedRows | None = None,
    ) -> torch.Tensor:
        """combine_logits, in the base's place if that is float32, and the trace of its rows. [num_rows, vocab]

        With one_gather the logits are this rank's slices, whose columns beyond the vocabulary are left as they are.
        Rows with a gate are not added here: what they are is not known yet.
        """
        out = logits[0] if logits[0].dtype == torch.float32 else torch.empty_like(logits[0], dtype=torch.float32)
        columns = out.shape[1] if one_gather is None else one_gather.known(one_gather.vocab)
        trace = torch.empty(len(weights), len(TRACE_COLUMNS), device=weights.device)
        combine_logits([logits[0][:, :columns], *logits[1:]], weights, out=out[:, :columns], trace=trace)
        if one_gather is not None:
            traces = tensor_model_parallel_all_gather(trace, dim=0)
            trace = merge_slices(traces.view(-1, *trace.shape))
        kl = trace[:, KL]
        self.add(kl if gated is None else kl.index_fill(0, gated.rows, -1), weights)
        return out

    def add(self, kl: torch.Tensor, weights: torch.Tensor) -> None:
        """KL(mix || base) of rows, [num_rows], below 0 for a row not to be counted. weights: [num_rows, num_models]."""
        mixes = (weights[:, 0] != 0) & (weights[:, 1:] != 0).any(dim=1)
        kl = kl.double()
        counted = mixes & kl.isfinite() & (kl >= 0)
        self.sums += torch.stack([torch.where(counted, kl, 0).sum(), counted.sum().double()])

    @torch.inference_mode()  # as the engine's steps, whichever of them made the tensor
    def read(self, take: bool = False) -> dict[str, float]:
        """{"kl_nats", "rows"} since the start, or since the last reading that took them away. Waits for the device."""
        kl_nats, rows = self.sums.tolist()
        if take:
            self.sums.zero_()
        return {"kl_nats": kl_nats, "rows": int(rows)}


def merge_slices(traces: torch.Tensor) -> torch.Tensor:
    """The traces of whole rows, [num_rows, 5] in float32, from those of their slices, [num_slices, num_rows, 5].

    A slice's KL is between the parts of both distributions that lie in it. With s the slice's share of the mix,
    KL = sum of s * (slice's KL + its lse_mix - its lse_base) - (lse_mix - lse_base).
    """
    base_max, base_lse, mix_max, mix_lse, kl = traces.double().unbind(-1)
    whole_base, whole_mix = base_lse.logsumexp(0), mix_lse.logsumexp(0)
    share = (mix_lse - whole_mix).exp()
    moved = torch.where(share == 0, 0, share * (kl + mix_lse - base_lse)).sum(0)
    merged = (moved - (whole_mix - whole_base)).clamp_(min=0)
    return torch.stack([base_max.amax(0), whole_base, mix_max.amax(0), whole_mix, merged], dim=-1).float()
