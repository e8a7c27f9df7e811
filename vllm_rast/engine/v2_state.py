"""The V2 runner's side: the requests' weights kept on the device, spread over the tokens there.

And on the host, of requests that ask for token traces, what a trace needs of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from vllm.config import VllmConfig
from vllm.v1.worker.gpu.model_states.default import DefaultModelState

from vllm_rast.engine.decode_traces import Asked, wanted_trace
from vllm_rast.engine.members import requested_alpha
from vllm_rast.engine.token_gates import write_token_gates
from vllm_rast.engine.token_rows import stack_points, to_device, write_token_rows
from vllm_rast.engine.token_traces import TraceRequest, trace_request
from vllm_rast.mix.alpha import MAX_POINTS, parse_alpha
from vllm_rast.mix.gate import OPEN
from vllm_rast.mix.schedule import num_columns


class RastModelState(DefaultModelState):
    """Keeps a table of every request slot's points, [max_num_reqs, 1 + MAX_POINTS, num_columns].

    That is 2 MB for 1,024 slots and three models. The host knows how many points each slot has, so a step without a
    schedule reads one line for each request.
    """

    def __init__(self, vllm_config: VllmConfig, model: nn.Module, encoder_cache: Any, device: torch.device) -> None:
        super().__init__(vllm_config, model, encoder_cache, device)
        self.token_weights: torch.Tensor = model.token_weights  # type: ignore[assignment]
        line = np.zeros((1, num_columns(self.token_weights.shape[1])), dtype=np.float32)
        empty = stack_points([line], width=1 + MAX_POINTS)
        self.table = to_device(empty, device).repeat(self.max_num_reqs, 1, 1)
        self.widths = np.ones(self.max_num_reqs, dtype=np.int64)
        self.token_numbers = torch.arange(len(self.token_weights), dtype=torch.int32, device=device)
        self.staged: dict[int, np.ndarray] = {}
        self.gates = to_device(OPEN.line(None)[None], device).repeat(self.max_num_reqs, 1)
        self.gated = np.zeros(self.max_num_reqs, dtype=bool)
        self.staged_gates: dict[int, np.ndarray] = {}
        self.asked: dict[str, Asked] = {}  # requests whose tokens are traced
        self.given: dict[str, tuple[TraceRequest, list[int]]] = {}  # requests to be read, with their prompts' tokens
        self.verifier: Any = None  # with `speculate`

    def custom_sampler(self, sampler: Any) -> Any:
        """V2 asks a model here for a sampler, and for one that verifies drafts."""
        ensemble: Any = self.model
        if ensemble.draft_column is None:
            return None
        from vllm_rast.engine.v2_verifier import V2Verifier

        self.verifier = V2Verifier(sampler, self.vllm_config.speculative_config, ensemble)
        return sampler, self.verifier

    def add_request(self, req_index: int, new_req_data: Any) -> None:
        """vLLM adds a resumed request again, with the prompt alone as its prompt."""
        super().add_request(req_index, new_req_data)
        params = new_req_data.sampling_params
        schedule = parse_alpha(self.model.rast_config, requested_alpha(params))  # type: ignore[arg-type]
        prompt = self.prompt_of(new_req_data)
        self.staged[req_index] = schedule.points(prompt)
        if schedule.gate is not None:
            self.staged_gates[req_index] = schedule.gate.line(getattr(params, "seed", None), prompt)
        elif self.gated[req_index]:
            self.staged_gates[req_index] = OPEN.line(None)
        self.gated[req_index] = schedule.gate is not None

    def prompt_of(self, new_req_data: Any) -> int:
        """The length of a request's prompt proper, from which schedules count; notes what traces need of it."""
        params, req_id = new_req_data.sampling_params, new_req_data.req_id
        if (number := wanted_trace(params)) is not None:
            self.asked[req_id] = Asked(number, new_req_data.prompt_len)
        if (asked := trace_request(params)) is not None:
            self.given[req_id] = asked, new_req_data.prompt_token_ids
            return asked.start
        return new_req_data.prompt_len

    def remove_request(self, req_id: str) -> None:
        """A request ended, or was preempted."""
        super().remove_request(req_id)
        self.asked.pop(req_id, None)
        self.given.pop(req_id, None)

    def apply_staged_writes(self) -> None:
        super().apply_staged_writes()
        if not self.staged:
            return
        slots = np.fromiter(self.staged, dtype=np.int64)
        # As wide as what the slots held before, which must go.
        block = stack_points(list(self.staged.values()), width=int(self.widths[slots].max()))
        device = self.table.device
        self.table[:, : block.shape[1]][to_device(slots, device)] = to_device(block, device)
        self.widths[slots] = [len(points) for points in self.staged.values()]
        self.staged.clear()
        if self.staged_gates:
            slots = np.fromiter(self.staged_gates, dtype=np.int64)
            self.gates[to_device(slots, device)] = to_device(np.stack(list(self.staged_gates.values())), device)
            self.staged_gates.clear()

    def prepare_inputs(self, input_batch: Any, req_states: Any) -> dict[str, Any]:
        """Write the weights of this step's tokens. Which request a token belongs to, and its position, are read on the
        device, because adaptive verification of drafts moves the requests' borders there."""
        num_tokens = input_batch.num_tokens_after_padding
        ends = input_batch.query_start_loc[1 : input_batch.num_reqs + 1]
        owner = torch.searchsorted(ends, self.token_numbers[:num_tokens], right=True)
        owner.clamp_(max=input_batch.num_reqs - 1)  # padding tokens belong to nobody
        slots = input_batch.idx_mapping[: input_batch.num_reqs].long()[owner]
        running = input_batch.idx_mapping_np[: input_batch.num_reqs]
        positions, weights = input_batch.positions[:num_tokens], self.token_weights[:num_tokens]
        write_token_rows(weights, self.table[:, : int(self.widths[running].max())], slots, positions)
        model: Any = self.model
        model.keeps_draft_logits = self.verifier is not None and self.verifier.samples(running)
        model.gated = bool(self.gated[running].any())
        if model.gated:
            write_token_gates(model.token_gates[:num_tokens], weights, self.gates, slots, positions)
        return super().prepare_inputs(input_batch, req_states)
