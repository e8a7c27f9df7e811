"""The V1 runner: writes each scheduled token's weights before the model runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from vllm.v1.worker.cpu_model_runner import CPUModelRunner
from vllm.v1.worker.gpu_model_runner import GPUModelRunner

from vllm_rast.engine.ensemble import Ensemble
from vllm_rast.engine.members import requested_alpha, skips_idle_models


class TokenWeights:
    """The weights of the requests in a batch, spread over their tokens into the ensemble's buffer."""

    def __init__(self, ensemble: Ensemble) -> None:
        self.ensemble = ensemble
        max_tokens, num_models = ensemble.token_weights.shape
        pinned = ensemble.token_weights.is_cuda
        self.staging = torch.empty(max_tokens, num_models, pin_memory=pinned)
        self.skips_idle_models = skips_idle_models()
        self.known: dict[str, tuple[float, ...]] = {}
        self.req_ids: list[str] = []
        self.rows = np.empty((0, num_models), dtype=np.float32)

    def row(self, request: Any) -> tuple[float, ...]:
        return self.ensemble.weight_row(requested_alpha(request.sampling_params))

    def fill(self, req_ids: list[str], requests: dict[str, Any], num_tokens: np.ndarray) -> None:
        """req_ids [num_reqs] in batch order; requests by id; num_tokens [num_reqs] scheduled for each in this step."""
        if req_ids != self.req_ids:
            # Requests come and go in almost every step: keep the rows of those that stay, forget the others.
            self.known = {req_id: self.known.get(req_id) or self.row(requests[req_id]) for req_id in req_ids}
            self.rows = np.array(list(self.known.values()), dtype=np.float32)
            self.req_ids = list(req_ids)
            if self.skips_idle_models:
                self.ensemble.active = tuple((self.rows != 0).any(axis=0).tolist())
        total = int(num_tokens.sum())
        staged = self.staging[:total]
        np.copyto(staged.numpy(), np.repeat(self.rows, num_tokens, axis=0))
        self.ensemble.token_weights[:total].copy_(staged, non_blocking=True)


class RastRunnerMixin:
    """`_prepare_inputs` is where the V1 runner knows which request every token of the step belongs to."""

    model: Any
    input_batch: Any
    requests: dict[str, Any]
    _token_weights: TokenWeights | None = None

    def _prepare_inputs(self, scheduler_output: Any, num_scheduled_tokens: np.ndarray) -> Any:
        prepared = super()._prepare_inputs(scheduler_output, num_scheduled_tokens)  # type: ignore[misc]
        if self._token_weights is None:
            self._token_weights = TokenWeights(self.get_model())  # type: ignore[attr-defined]
        req_ids = self.input_batch.req_ids[: self.input_batch.num_reqs]
        self._token_weights.fill(req_ids, self.requests, num_scheduled_tokens)
        return prepared


class RastCPUModelRunner(RastRunnerMixin, CPUModelRunner):
    """V1 on a CPU.

    Where only a part of a prompt has run, V1 throws the sampled token away and turns the request's generator back by
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
