"""The V2 runner: token traces look at the rows that it samples from. Weights and gates reach it by `v2_state`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from vllm.v1.worker.cpu.model_runner import CPUModelRunner
from vllm.v1.worker.gpu.model_runner import GPUModelRunner

from vllm_rast.engine.decode_traces import Step
from vllm_rast.engine.token_traces import Given


class TokenTracesMixin:
    """`sample` is where the V2 runner has a step's rows, whose they are, and what was chosen of them."""

    model: Any
    model_state: Any

    def sample(self, hidden_states: torch.Tensor, input_batch: Any, grammar_output: Any) -> Any:
        """What vLLM's gives: (SamplerOutput, how many tokens count of each request, how many drafts were rejected)."""
        if self.model.token_traces is not None:
            given = list(self.given_answers(input_batch))
            self.model.token_traces.read(self.model, hidden_states, given, self.model_state.given)
        sampled = super().sample(hidden_states, input_batch, grammar_output)  # type: ignore[misc]
        if any(req_id in self.model_state.asked for req_id in input_batch.req_ids):
            self.note_traces(hidden_states, input_batch, sampled[0].sampled_token_ids, sampled[1])
        return sampled

    def given_answers(self, input_batch: Any) -> Iterator[Given]:
        """The requests of this step whose answers are to be read."""
        for i, req_id in enumerate(input_batch.req_ids):
            if req_id in self.model_state.given:
                asked, tokens = self.model_state.given[req_id]
                begin, new, row = (
                    int(some[i])
                    for some in (
                        input_batch.num_computed_prefill_tokens_np,
                        input_batch.num_scheduled_tokens,
                        input_batch.query_start_loc_np,
                    )
                )
                yield Given(req_id, asked, tokens, begin, new, row)

    def note_traces(self, hidden: torch.Tensor, input_batch: Any, tokens: torch.Tensor, counts: torch.Tensor) -> None:
        """tokens: ids, [num_reqs, up to 1 + drafts]. counts: how many count of each request, [num_reqs]; none if only a
        part of its prompt has run."""
        numbers = torch.arange(tokens.shape[1], device=tokens.device)
        step = Step(
            input_batch.req_ids,
            np.diff(input_batch.cu_num_logits_np),
            tokens,
            numbers < counts[:, None],
            input_batch.positions[input_batch.logits_indices],
        )
        traces = self.model.decode_traces
        traces.note(self.model, hidden[input_batch.logits_indices], step, self.model_state.asked)
        traces.forget(self.model_state.asked)


class RastGPUModelRunnerV2(TokenTracesMixin, GPUModelRunner):
    """V2 on CUDA."""


class RastCPUModelRunnerV2(TokenTracesMixin, CPUModelRunner):
    """V2 on a CPU, where Triton's interpreter runs its kernels."""
