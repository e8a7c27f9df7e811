"""The V1 runner: writes each scheduled token's weights before the model runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from vllm.v1.worker.cpu_model_runner import CPUModelRunner
from vllm.v1.worker.gpu_model_runner import GPUModelRunner

from vllm_rast.engine.decode_traces import Asked, Step, wanted_trace
from vllm_rast.engine.ensemble import Ensemble
from vllm_rast.engine.members import requested_alpha, skips_idle_models
from vllm_rast.engine.token_gates import stack_gates, write_token_gates
from vllm_rast.engine.token_rows import stack_points, to_device, write_token_rows
from vllm_rast.engine.token_traces import Given, trace_request
from vllm_rast.engine.v1_speculation import SpeculatingMixin
from vllm_rast.mix.alpha import parse_alpha
from vllm_rast.mix.schedule import models_used


class TokenWeights:
    """The weights of the requests in a batch, spread over their tokens into the ensemble's buffer."""

    def __init__(self, ensemble: Ensemble) -> None:
        self.ensemble = ensemble
        self.skips_idle_models = skips_idle_models()
        self.known: dict[str, np.ndarray] = {}
        self.known_gates: dict[str, np.ndarray | None] = {}
        self.req_ids: list[str] = []
        self.table = torch.empty(0)
        self.gate_table: torch.Tensor | None = None  # None: no request of the batch has a gate
        self.models_of_requests: np.ndarray | None = None  # [num_reqs, num_models], found when it is asked for

    def read(self, req_id: str, request: Any) -> None:
        """Know the request's points and gate. vLLM keeps num_prompt_tokens as it was when a request is resumed."""
        params = request.sampling_params
        schedule = parse_alpha(self.ensemble.rast_config, requested_alpha(params))
        asked = trace_request(params)
        prompt = request.num_prompt_tokens if asked is None else asked.start
        self.known[req_id] = schedule.points(prompt)
        seed = getattr(params, "seed", None)
        self.known_gates[req_id] = None if schedule.gate is None else schedule.gate.line(seed, prompt)

    def used(self, table: np.ndarray, requests: list[Any]) -> tuple[bool, ...]:
        """Which models this step needs; token traces have numbers of all."""
        if self.ensemble.keeps_rows or any(trace_request(request.sampling_params) for request in requests):
            return (True,) * len(self.ensemble.active)
        return models_used(table.reshape(-1, table.shape[-1]))

    def fill(self, req_ids: list[str], requests: dict[str, Any], owner: torch.Tensor, positions: torch.Tensor) -> None:
        """Write the weights of this step's tokens.

        req_ids: [num_reqs] in batch order. requests: vLLM's state of each, by id. owner, positions: [num_tokens] on
        the device, each token's request, as its place in req_ids, and its place in prompt and answer.
        """
        if req_ids != self.req_ids:
            # Requests come and go in almost every step: keep the points of those that stay, forget the others.
            for req_id in req_ids:
                if req_id not in self.known:
                    self.read(req_id, requests[req_id])
            self.known = {req_id: self.known[req_id] for req_id in req_ids}
            self.known_gates = {req_id: self.known_gates[req_id] for req_id in req_ids}
            self.req_ids, self.models_of_requests = list(req_ids), None
            table = stack_points(list(self.known.values()))
            self.ensemble.keeps_rows = any(wanted_trace(requests[i].sampling_params) is not None for i in req_ids)
            if self.skips_idle_models:
                self.ensemble.active = self.used(table, [requests[i] for i in req_ids])
            self.table = to_device(table, owner.device)
            gates = stack_gates(list(self.known_gates.values()))
            self.gate_table = None if gates is None else to_device(gates, owner.device)
        weights = self.ensemble.token_weights[: len(owner)]
        write_token_rows(weights, self.table, owner, positions)
        self.ensemble.gated = self.gate_table is not None
        if self.gate_table is not None:
            gates_of_tokens = self.ensemble.token_gates[: len(owner)]
            write_token_gates(gates_of_tokens, weights, self.gate_table, owner, positions)

    def uses(self, column: int) -> np.ndarray:
        """Which of this step's requests have the keys and values of a model, [num_reqs]."""
        if not self.skips_idle_models:
            return np.ones(len(self.req_ids), dtype=bool)
        if self.models_of_requests is None:
            self.models_of_requests = np.array([models_used(self.known[req_id]) for req_id in self.req_ids])
        return self.models_of_requests[:, column]

    def forget(self, req_id: str) -> None:
        """Read a request again before the next step."""
        self.known.pop(req_id, None)
        self.req_ids = []


class RastRunnerMixin(SpeculatingMixin):
    """`_prepare_inputs` is where the V1 runner knows which request every token of the step belongs to.

    The positions are the device's: under asynchronous scheduling with speculation the host's count on every draft
    being accepted, and vLLM corrects the device's before it returns from `_prepare_inputs`.
    """

    model: Any
    input_batch: Any
    requests: dict[str, Any]
    req_indices: Any
    query_start_loc: Any
    positions: torch.Tensor
    discard_request_mask: Any
    _token_weights: TokenWeights | None = None
    _row_positions: torch.Tensor  # of the rows that are sampled from, in steps with a request that asks for a trace

    def _prepare_inputs(self, scheduler_output: Any, num_scheduled_tokens: np.ndarray) -> Any:
        prepared = super()._prepare_inputs(scheduler_output, num_scheduled_tokens)  # type: ignore[misc]
        ensemble = self.get_model()  # type: ignore[attr-defined]
        if self._token_weights is None:
            self._token_weights = TokenWeights(ensemble)
        req_ids = self.input_batch.req_ids[: self.input_batch.num_reqs]
        total = scheduler_output.total_num_scheduled_tokens
        self._token_weights.fill(req_ids, self.requests, self.req_indices.gpu[:total], self.positions[:total])
        if ensemble.keeps_rows:
            self._row_positions = self.positions[prepared[0]]
        return prepared

    def _get_prompt_logprobs_dict(self, hidden_states: torch.Tensor, num_scheduled_tokens: dict[str, int]) -> Any:
        """Where V1 looks at the rows of a prompt, on every rank; token traces look at them here too."""
        ensemble = self.get_model()  # type: ignore[attr-defined]
        if ensemble.token_traces is not None:
            given = list(self.given_answers(num_scheduled_tokens))
            ensemble.token_traces.read(ensemble, hidden_states, given, self.requests)
        return super()._get_prompt_logprobs_dict(hidden_states, num_scheduled_tokens)  # type: ignore[misc]

    def given_answers(self, num_scheduled_tokens: dict[str, int]) -> Iterator[Given]:
        """The requests of this step whose answers are to be read."""
        starts, places = self.query_start_loc.np, self.input_batch.req_id_to_index
        for req_id, count in num_scheduled_tokens.items():
            request = self.requests[req_id]
            asked = trace_request(request.sampling_params)
            if asked is not None:
                begin, tokens = request.num_computed_tokens, request.prompt_token_ids
                yield Given(req_id, asked, tokens, begin, count, int(starts[places[req_id]]))

    def _bookkeeping_sync(self, scheduler_output: Any, sampler_output: Any, *args: Any, **kwargs: Any) -> Any:
        """Where V1 notes what a step chose; a step has a row for each request and for each of its drafts."""
        ensemble = self.get_model()  # type: ignore[attr-defined]
        rows = ensemble.take_rows()
        if rows is not None:
            self.note_traces(ensemble, rows, scheduler_output, sampler_output.sampled_token_ids)
        return super()._bookkeeping_sync(scheduler_output, sampler_output, *args, **kwargs)  # type: ignore[misc]

    def note_traces(self, ensemble: Ensemble, rows: torch.Tensor, scheduler_output: Any, tokens: torch.Tensor) -> None:
        """tokens: ids, [num_reqs, up to 1 + drafts], filled up with -1."""
        req_ids, drafts = self.input_batch.req_ids, scheduler_output.scheduled_spec_decode_tokens
        counts = np.array([1 + len(drafts.get(req_id, ())) for req_id in req_ids])
        finished = to_device(~self.discard_request_mask.np[: len(req_ids)], tokens.device)  # of their prompts
        asked = {
            req_id: Asked(number, self.requests[req_id].num_prompt_tokens)
            for req_id in req_ids
            if (number := wanted_trace(self.requests[req_id].sampling_params)) is not None
        }
        step = Step(req_ids, counts, tokens, (tokens >= 0) & finished[:, None], self._row_positions)
        ensemble.decode_traces.note(ensemble, rows, step, asked)
        ensemble.decode_traces.forget(self.requests)

    def _update_streaming_request(self, req_id: str, new_req_data: Any) -> Any:
        """A session goes on under the same id with a longer prompt and parameters of its own."""
        if self._token_weights is not None:
            self._token_weights.forget(req_id)
        return super()._update_streaming_request(req_id, new_req_data)  # type: ignore[misc]


class RastCPUModelRunner(RastRunnerMixin, CPUModelRunner):
    """V1 on a CPU.

    If only a part of a prompt has run, V1 throws the sampled token away and turns the request's generator back by
    one draw (`set_offset`). A CPU generator cannot be turned back: in vLLM 0.32 a seeded request whose prompt is cut
    into chunks ends the engine. So such requests draw from the common generator, and keep their own untouched.
    """

    _set_aside: dict[int, torch.Generator] = {}

    def _sample(self, *args: Any, **kwargs: Any) -> Any:
        generators = self.input_batch.generators
        unfinished = np.nonzero(self.discard_request_mask.np[: self.input_batch.num_reqs])[0].tolist()
        self._set_aside = {index: generators.pop(index) for index in unfinished if index in generators}
        return super()._sample(*args, **kwargs)

    def _bookkeeping_sync(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super()._bookkeeping_sync(*args, **kwargs)
        finally:
            self.input_batch.generators.update(self._set_aside)


class RastGPUModelRunner(RastRunnerMixin, GPUModelRunner):
    """V1 on CUDA."""
