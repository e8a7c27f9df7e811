"""The verifying side of V2: the token at every drafted position, and the drafts that turn out to be it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from vllm.v1.worker.gpu.spec_decode.rejection_sampler import RejectionSampler

from vllm_rast.engine.coupling import draw_coupled


class V2Verifier(RejectionSampler):
    """Finds the token at each drafted position as it would be without drafts, and keeps drafts as far as they agree.

    It also samples in steps without drafts, so that a token does not depend on whether it was drafted. Everything stays
    on the device.
    """

    def __init__(self, sampler: Any, speculative_config: Any, ensemble: Any) -> None:
        super().__init__(sampler, speculative_config, ensemble.token_weights.device)
        self.ensemble = ensemble
        self.draft_logits: torch.Tensor | None = None  # of the rows that are still to be verified
        sampler.sample = self.sample

    def samples(self, slots: np.ndarray) -> bool:
        """Whether any of these requests has a temperature; the verifier then needs the drafter's logits."""
        return not bool((self.sampler.sampling_states.temperature.np[slots] == 0).all())

    def sample(
        self,
        logits: torch.Tensor,
        expanded_idx_mapping: torch.Tensor,
        idx_mapping: torch.Tensor,
        idx_mapping_np: np.ndarray,
        pos: torch.Tensor,
        *rest: Any,
        return_logprobs: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """In place of `Sampler.sample`: a token for each request, [num_reqs], and the logits that it came from."""
        self.draft_logits = self.ensemble.take_draft_logits()
        processed = self.sampler.apply_sampling_params(
            logits, expanded_idx_mapping, idx_mapping, idx_mapping_np, pos, *rest
        )
        return self.choose(processed, expanded_idx_mapping, pos), processed

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.draft_logits = self.ensemble.take_draft_logits()
        return super().__call__(*args, **kwargs)

    def _verify(
        self,
        logits: torch.Tensor,
        draft_logits: torch.Tensor | None,
        draft_sampled: torch.Tensor,
        pos: torch.Tensor,
        cu_num_logits: torch.Tensor,
        idx_mapping: torch.Tensor,
        idx_mapping_np: np.ndarray,
        expanded_idx_mapping: torch.Tensor,
        expanded_local_pos: torch.Tensor,
        seq_lens_upper_bound_np: np.ndarray,
        verify_draft_sampled: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """vLLM verifies in chunks of whole requests, one after the other: logits, tokens and how many of them count.

        logits: [num_rows, vocab]; every request has a row for its last token and one for each of its drafts.
        verify_draft_sampled: each row's token, [num_rows]; -1 for a draft that must not be kept.
        """
        processed = self.sampler.apply_sampling_params(
            logits,
            expanded_idx_mapping,
            idx_mapping,
            idx_mapping_np,
            pos,
            draft_sampled,
            expanded_local_pos,
            seq_lens_upper_bound_np,
        )
        tokens = self.choose(processed, expanded_idx_mapping, pos)
        size = (len(idx_mapping), self.num_speculative_steps + 1)
        return processed, *keep_agreeing(tokens, verify_draft_sampled, cu_num_logits, expanded_local_pos, size)

    def choose(self, logits: torch.Tensor, slots: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """The token after each row, [num_rows], greedy or sampled by way of the drafter.

        logits: as they are to be sampled from, [num_rows, vocab]. slots, positions: [num_rows], of the rows' tokens.
        """
        greedy = logits.argmax(dim=1)
        if self.draft_logits is None:
            return greedy
        drafts, self.draft_logits = self.draft_logits[: len(logits)], self.draft_logits[len(logits) :]
        states = self.sampler.sampling_states
        temperatures = states.temperature.gpu[slots]
        sampled = draw_coupled(logits.float(), drafts, states.seeds.gpu[slots], positions + 1, temperatures)
        return torch.where(temperatures > 0, sampled, greedy)


def keep_agreeing(
    tokens: torch.Tensor, drafts: torch.Tensor, starts: torch.Tensor, offsets: torch.Tensor, size: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens by request, `size` [num_reqs, 1 + most drafts], and how many of them count, [num_reqs] in int32: the
    drafts up to the first that is not the token at its place, and one more.

    tokens: after each row, [num_rows]. drafts: each row's own token, [num_rows], a draft unless it is its request's
    first. starts: each request's first row, and their number, [num_reqs + 1]. offsets: a row's place in its request,
    [num_rows].
    """
    rows = torch.arange(len(tokens), dtype=starts.dtype, device=tokens.device)
    requests, offsets = torch.searchsorted(starts[1:], rows, right=True), offsets.long()
    sampled = tokens.new_zeros(size)
    sampled[requests, offsets] = tokens
    drafted = tokens.new_full(size, -1)
    drafted[requests, offsets] = drafts.to(tokens.dtype)
    right = sampled[:, :-1] == drafted[:, 1:]
    return sampled, right.int().cumprod(dim=1).sum(dim=1, dtype=torch.int32) + 1
