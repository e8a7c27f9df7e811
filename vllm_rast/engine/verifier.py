"""The verifying side of V1: the token at every drafted position, and the drafts that turn out to be it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import nn
from vllm.v1.sample import rejection_sampler
from vllm.v1.sample.ops.topk_topp_sampler import apply_top_k_top_p
from vllm.v1.sample.rejection_sampler import PLACEHOLDER_TOKEN_ID, RejectionSampler

from vllm_rast.engine.coupling import draw_coupled
from vllm_rast.engine.row_processors import add_biases, mask_min_p
from vllm_rast.engine.token_rows import some_rows, to_device
from vllm_rast.mix.draft_schedule import DraftSchedule


@dataclass
class Step:
    """What sampling must know of a step's requests beyond the mixed logits. What V1 knows of them is on the host.

    draft_logits: the drafter's, [num_rows, ids], from the pass that gave the mix's.
    coupled: which requests sample by way of the drafter, [num_reqs]: those that sample and that use it.
    seeds: of the requests' noise, [num_reqs]. lengths: their tokens before this step's, [num_reqs].
    temperatures: [num_reqs]. last_rows: the row of each request's last scheduled token, [num_reqs].
    num_drafts: how many drafts of each request the step verifies, [num_reqs].
    """

    draft_logits: torch.Tensor
    coupled: np.ndarray
    seeds: np.ndarray
    lengths: np.ndarray
    temperatures: torch.Tensor
    last_rows: np.ndarray
    num_drafts: np.ndarray

    def draw(self, logits: torch.Tensor, requests: np.ndarray, rows: np.ndarray, offsets: np.ndarray) -> torch.Tensor:
        """Tokens of coupled requests, [n], from the mix's logits as they are to be sampled from, [n, vocab].

        requests: each line's request. rows: its row in the step. offsets: its place among the step's new tokens.
        """
        device = logits.device
        numbers = (self.seeds[requests], self.lengths[requests] + offsets)
        seeds, positions = (to_device(some, device) for some in numbers)
        temperatures = self.temperatures[to_device(requests, device)]
        of_drafter = None if len(rows) == len(self.draft_logits) else to_device(rows, device)  # None: all of them
        return draw_coupled(logits, self.draft_logits, seeds, positions, temperatures, of_drafter)


class CoupledSampler(nn.Module):
    """In place of the sampler's `topk_topp_sampler`, which draws the token after each request's last row."""

    def __init__(self, plain: Any) -> None:
        super().__init__()
        self.plain = plain
        self.step: Step | None = None

    def forward(
        self,
        logits: torch.Tensor,
        generators: dict[int, torch.Generator],
        k: torch.Tensor | None,
        p: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        step = self.step
        if step is None or not step.coupled.any():
            return self.plain(logits, generators, k, p)
        logits = apply_top_k_top_p(logits, k, p)
        if step.coupled.all():
            sampled = torch.empty(len(logits), dtype=torch.int64, device=logits.device)
            returned = self.processed(logits)
        else:
            sampled, returned = self.plain(logits, generators, None, None)
        (requests,) = step.coupled.nonzero()
        p = some_rows(logits, requests)
        drawn = step.draw(p, requests, step.last_rows[requests], step.num_drafts[requests])
        sampled[to_device(requests, logits.device)] = drawn
        return sampled, returned

    def processed(self, logits: torch.Tensor) -> torch.Tensor | None:
        """What vLLM's own samplers return for the two modes of logprobs that show processed logits."""
        if self.plain.logprobs_mode == "processed_logits":
            return logits
        if self.plain.logprobs_mode == "processed_logprobs":
            return logits.log_softmax(dim=-1, dtype=torch.float32)
        return None


class Verifier(RejectionSampler):
    """Finds the token at each drafted position as it would be without drafts, and keeps drafts as far as they agree.

    drafted, accepted: how many drafts there were so far at each place behind the last certain token, [most drafts].
    schedule: is told of every request's drafts, if there is one. counts: whether these are a request's at all; while
    vLLM measures its memory it verifies some that nobody made.
    """

    def __init__(self, sampler: Any, most: int, schedule: DraftSchedule | None = None) -> None:
        super().__init__(sampler)
        self.schedule = schedule
        self.counts = False
        self.drafted = np.zeros(most, dtype=np.int64)
        self.accepted = np.zeros(most, dtype=np.int64)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        constrain = rejection_sampler.apply_sampling_constraints

        def constrain_with_min_p(logits: torch.Tensor, running_sums: torch.Tensor, metadata: Any) -> torch.Tensor:
            logits, metadata = mask_min_p(logits, running_sums, metadata)
            return constrain(logits, running_sums, metadata)

        with (
            patch.object(rejection_sampler, "rejection_sample", self.agree),
            patch.object(rejection_sampler, "apply_sampling_constraints", constrain_with_min_p),
        ):
            return super().forward(*args, **kwargs)

    def apply_logits_processors(self, logits: torch.Tensor, sampling_metadata: Any, metadata: Any) -> torch.Tensor:
        logits = add_biases(logits, sampling_metadata.logitsprocs, metadata.num_draft_tokens)
        return super().apply_logits_processors(logits, sampling_metadata, metadata)

    def agree(
        self,
        draft_token_ids: torch.Tensor,
        num_draft_tokens: list[int],
        max_spec_len: int,
        cu_num_draft_tokens: torch.Tensor,
        draft_probs: torch.Tensor | None,
        target_logits: torch.Tensor,
        bonus_token_ids: torch.Tensor,
        sampling_metadata: Any,
        **_: Any,
    ) -> torch.Tensor:
        """In place of vLLM's `rejection_sample`: the step's tokens, [num_reqs, max_spec_len + 1], filled up with -1.

        target_logits: [num_drafts], as they are to be sampled from. bonus_token_ids: [num_reqs, 1], the tokens after
        the last drafts.
        """
        counts = np.array(num_draft_tokens)
        requests = np.repeat(np.arange(len(counts)), counts)
        offsets = np.arange(len(requests)) - np.repeat(counts.cumsum() - counts, counts)
        tokens = target_logits.argmax(dim=1)
        step: Step | None = self.sampler.topk_topp_sampler.step
        if step is not None and step.coupled[requests].any():
            (lines,) = step.coupled[requests].nonzero()
            p, rows = some_rows(target_logits, lines), self.target_rows(counts)[lines]
            tokens[to_device(lines, tokens.device)] = step.draw(p, requests[lines], rows, offsets[lines])
        output = torch.full((len(counts), max_spec_len + 1), PLACEHOLDER_TOKEN_ID, dtype=torch.int32)
        right = (tokens == draft_token_ids).tolist()
        values, bonus = tokens.tolist(), bonus_token_ids.flatten().tolist()
        place = 0
        for request, count in enumerate(num_draft_tokens):
            kept = 0
            while kept < count and right[place + kept]:
                kept += 1
            new = values[place : place + kept + 1] if kept < count else [*values[place : place + count], bonus[request]]
            output[request, : len(new)] = torch.tensor(new, dtype=torch.int32)
            self.note(count, kept)
            place += count
        return output.to(tokens.device)

    def note(self, count: int, kept: int) -> None:
        """A request had so many drafts, and so many of them were right."""
        if not self.counts:
            return
        self.drafted[:count] += 1
        self.accepted[:kept] += 1
        if self.schedule is not None:
            self.schedule.note_accepted(count, kept)

    @staticmethod
    def target_rows(counts: np.ndarray) -> np.ndarray:
        """The rows of the step that drafts are compared with: all but each request's last, [num_drafts]."""
        last = (counts + 1).cumsum() - 1
        return np.setdiff1d(np.arange(int(counts.sum()) + len(counts)), last)
