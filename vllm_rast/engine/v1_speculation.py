"""Speculation in the V1 runner: which requests draft how much, and what sampling is told of them."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from vllm.v1.worker import gpu_model_runner

from vllm_rast.engine.draft_pace import DraftPace
from vllm_rast.engine.members import rast_config
from vllm_rast.engine.row_processors import build_processors
from vllm_rast.engine.shared_drafter import Drafted, SharedDrafter
from vllm_rast.engine.verifier import CoupledSampler, Step, Verifier
from vllm_rast.mix.draft_schedule import DraftSchedule
from vllm_rast.mix.speculation import AUTO

MAX_SEED = 1 << 63


class SpeculatingMixin:
    """With `speculate`: the drafter, the verifier and the sampler of the V1 runner are ours. Else nothing changes."""

    drafter: Any
    requests: dict[str, Any]
    input_batch: Any
    discard_request_mask: Any
    max_model_len: int
    _token_weights: Any

    def __init__(self, vllm_config: Any, device: torch.device) -> None:
        config = rast_config(vllm_config)
        self._drafts = 0 if config is None else config.most_drafts
        if not self._drafts:
            super().__init__(vllm_config, device)  # type: ignore[call-arg]
            return
        assert config is not None
        with (
            patch.object(gpu_model_runner, "DraftModelProposer", SharedDrafter),
            patch.object(gpu_model_runner, "build_logitsprocs", build_processors),
        ):
            super().__init__(vllm_config, device)  # type: ignore[call-arg]
        self.sampler: Any
        self.sampler.topk_topp_sampler = CoupledSampler(self.sampler.topk_topp_sampler)
        schedule = DraftSchedule(self._drafts) if config.speculate == AUTO else None
        self.rejection_sampler = Verifier(self.sampler, self._drafts, schedule)
        self._pace = DraftPace(self._drafts, schedule)
        self._seeds: dict[str, int] = {}

    def _prepare_inputs(self, *args: Any, **kwargs: Any) -> Any:
        if self._drafts:
            sampled = not self.input_batch.sampling_metadata.all_greedy
            self.get_model().keeps_draft_logits = sampled  # type: ignore[attr-defined]
        return super()._prepare_inputs(*args, **kwargs)  # type: ignore[misc]

    def _sample(self, logits: Any, spec_decode_metadata: Any) -> Any:
        if not self._drafts:
            return super()._sample(logits, spec_decode_metadata)  # type: ignore[misc]
        if not any(spec_decode_metadata.num_draft_tokens):
            spec_decode_metadata = None  # nothing to verify: without a copy of all logits
        self.sampler.topk_topp_sampler.step = self.step(spec_decode_metadata)
        self.rejection_sampler.counts = True
        try:
            return super()._sample(logits, spec_decode_metadata)  # type: ignore[misc]
        finally:
            self.sampler.topk_topp_sampler.step, self.rejection_sampler.counts = None, False

    def step(self, spec_decode_metadata: Any) -> Step | None:
        """What sampling must know of this step's requests; None if none samples by way of the drafter."""
        draft_logits = self.get_model().take_draft_logits()  # type: ignore[attr-defined]
        if draft_logits is None:
            return None
        temperatures = self.input_batch.sampling_metadata.temperature
        req_ids = self.input_batch.req_ids
        num_drafts = np.zeros(len(req_ids), dtype=np.int64)
        if spec_decode_metadata is not None:
            num_drafts[:] = spec_decode_metadata.num_draft_tokens
        return Step(
            draft_logits=draft_logits,
            coupled=self.drafts() & (temperatures > 0).cpu().numpy(),
            seeds=self.seeds(req_ids),
            lengths=self.input_batch.num_tokens_no_spec[: len(req_ids)].astype(np.int64),
            temperatures=temperatures,
            last_rows=(num_drafts + 1).cumsum() - 1,
            num_drafts=num_drafts,
        )

    def drafts(self) -> np.ndarray:
        """Which requests have the drafter's keys and values, [num_reqs]."""
        return self._token_weights.uses(self.get_model().draft_column)  # type: ignore[attr-defined]

    def seeds(self, req_ids: list[str]) -> np.ndarray:
        """The seed of each request's noise, [num_reqs]: its own, or one that is drawn when it is first seen."""
        before, self._seeds = self._seeds, {}
        for req_id in req_ids:
            seed = self.requests[req_id].sampling_params.seed
            if seed is None:
                seed = before[req_id] if req_id in before else int(torch.randint(MAX_SEED - 1, (1,)))
            self._seeds[req_id] = seed
        return np.array([self._seeds[req_id] % MAX_SEED for req_id in req_ids], dtype=np.int64)

    def _input_fits_in_drafter(self, common_attn_metadata: Any) -> bool:
        """Each request drafts as far as its own length allows; one at its end stops nobody else."""
        if not self._drafts:
            return super()._input_fits_in_drafter(common_attn_metadata)  # type: ignore[misc]
        return common_attn_metadata is not None

    def propose_draft_token_ids(
        self,
        scheduler_output: Any,
        sampled_token_ids: Any,
        sampling_metadata: Any,
        hidden_states: Any,
        sample_hidden_states: Any,
        aux_hidden_states: Any,
        spec_decode_metadata: Any,
        common_attn_metadata: Any,
        slot_mappings: Any,
    ) -> Any:
        """vLLM calls this before it notes what was sampled: [num_reqs, up to 1 + drafts], filled up with -1."""
        if not self._drafts:
            return super().propose_draft_token_ids(  # type: ignore[misc]
                scheduler_output,
                sampled_token_ids,
                sampling_metadata,
                hidden_states,
                sample_hidden_states,
                aux_hidden_states,
                spec_decode_metadata,
                common_attn_metadata,
                slot_mappings,
            )
        requests = self.drafting(sampled_token_ids.tolist(), sampling_metadata)
        scheduled = scheduler_output.scheduled_spec_decode_tokens.values()
        rows = scheduler_output.total_num_scheduled_tokens
        most = self._pace.choose(self.input_batch.req_ids, rows, sum(map(len, scheduled)), len(requests))
        for one in requests:
            one.count = min(one.count, most)
        if most:
            self.drafter.draft(requests, common_attn_metadata.block_table_tensor)
        self._pace.note([one.count for one in requests if one.count])
        tokens: list[list[int]] = [[] for _ in self.input_batch.req_ids]
        for one in requests:
            tokens[one.row] = one.tokens
        return tokens

    def drafting(self, sampled: list[list[int]], sampling_metadata: Any) -> list[Drafted]:
        """The requests that can draft after this step, each as many tokens as it can still use."""
        req_ids = self.input_batch.req_ids
        drafts, seeds = self.drafts(), self.seeds(req_ids)
        unfinished = self.discard_request_mask.np[: len(req_ids)]
        greedy = sampling_metadata.all_greedy
        temperatures = [0.0] * len(req_ids) if greedy else sampling_metadata.temperature.tolist()
        found = []
        for row, req_id in enumerate(req_ids):
            new = [token for token in sampled[row] if token >= 0]
            if unfinished[row] or not drafts[row] or not new:
                continue
            request = self.requests[req_id]
            position = int(self.input_batch.num_tokens_no_spec[row]) + len(new) - 1
            # The verifying pass gives one token more than it accepts, and vLLM schedules none at the last place.
            params = request.sampling_params
            left = params.max_tokens - len(request.output_token_ids) - len(new) - 1
            wanted = (params.extra_args or {}).get("speculate")
            count = min(self._drafts if wanted is None else wanted, left, self.max_model_len - 2 - position)
            if count > 0:
                found.append(Drafted(row, new[-1], position, count, temperatures[row], int(seeds[row]), []))
        return found
