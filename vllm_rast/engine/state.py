"""The V2 runner's side: per-request weights kept on the device, spread over the tokens there."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from vllm.config import VllmConfig
from vllm.v1.worker.gpu.model_states.default import DefaultModelState

from vllm_rast.engine.members import requested_alpha


class RastModelState(DefaultModelState):
    """Keeps one row of weights for every request slot, [max_num_reqs, num_models], on the device."""

    def __init__(self, vllm_config: VllmConfig, model: nn.Module, encoder_cache: Any, device: torch.device) -> None:
        super().__init__(vllm_config, model, encoder_cache, device)
        self.token_weights: torch.Tensor = model.token_weights  # type: ignore[assignment]
        num_models = self.token_weights.shape[1]
        self.slot_weights = torch.zeros(self.max_num_reqs, num_models, device=device)
        self.token_numbers = torch.arange(len(self.token_weights), dtype=torch.int32, device=device)
        self.staged: dict[int, tuple[float, ...]] = {}

    def add_request(self, req_index: int, new_req_data: Any) -> None:
        super().add_request(req_index, new_req_data)
        alpha = requested_alpha(new_req_data.sampling_params)
        self.staged[req_index] = self.model.weight_row(alpha)  # type: ignore[operator]

    def apply_staged_writes(self) -> None:
        super().apply_staged_writes()
        if not self.staged:
            return
        pinned = self.slot_weights.is_cuda
        slots = torch.tensor(list(self.staged), dtype=torch.int64, pin_memory=pinned)
        rows = torch.tensor(list(self.staged.values()), dtype=torch.float32, pin_memory=pinned)
        device = self.slot_weights.device
        # The caching host allocator keeps pinned memory until the copy has run, so the temporaries may go.
        self.slot_weights[slots.to(device, non_blocking=True)] = rows.to(device, non_blocking=True)
        self.staged.clear()

    def prepare_inputs(self, input_batch: Any, req_states: Any) -> dict[str, Any]:
        """Write the weights of this step's tokens. The map from token to request is read on the device, because
        adaptive verification of drafts moves the requests' borders there."""
        num_tokens = input_batch.num_tokens_after_padding
        ends = input_batch.query_start_loc[1 : input_batch.num_reqs + 1]
        owner = torch.searchsorted(ends, self.token_numbers[:num_tokens], right=True)
        owner.clamp_(max=input_batch.num_reqs - 1)  # padding tokens belong to nobody
        slots = input_batch.idx_mapping[: input_batch.num_reqs].long()[owner]
        torch.index_select(self.slot_weights, 0, slots, out=self.token_weights[:num_tokens])
        return super().prepare_inputs(input_batch, req_states)
