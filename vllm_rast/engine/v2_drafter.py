"""Drafting in the V2 runner: the ensemble's own small model, on the device from the first draft to the last."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from vllm.config import CUDAGraphMode, VllmConfig
from vllm.forward_context import BatchDescriptor, set_forward_context
from vllm.v1.worker.gpu import model_runner
from vllm.v1.worker.gpu.attn_utils import build_slot_mappings_by_layer
from vllm.v1.worker.gpu.dp_utils import dispatch_cg_and_sync_dp
from vllm.v1.worker.gpu.spec_decode.speculator import DraftModelSpeculator
from vllm.v1.worker.gpu.spec_decode.target_dependent_ar.cudagraph_utils import SpeculatorCudaGraphManager

from vllm_rast.engine.coupling import draw_drafts
from vllm_rast.engine.ensemble import Ensemble
from vllm_rast.engine.members import rast_config


@contextmanager
def drafting_by_the_ensemble(vllm_config: VllmConfig) -> Iterator[None]:
    """While V2's runner is made: it asks for its speculator by a name in its module."""
    config = rast_config(vllm_config)
    if config is None or not config.speculate:
        yield
        return
    with patch.object(model_runner, "init_speculator", V2Drafter):
        yield


class V2Drafter(DraftModelSpeculator):
    """What V2 asks a speculator for, without a second model.

    As `SharedDrafter` does for V1, each draft costs one token through the drafter, whose keys and values the verifying
    pass has written. How many drafts were kept is known on the device alone, and a request drafts as many each time:
    those that it cannot use are not scheduled. What a request writes that still reads its prompt, its next tokens
    overwrite.

    graphs: of one draft of each request, forward, head and sampling, where vLLM captures whole decode steps.
    samples: whether a request of this step has a temperature; a graph is made for those that do.
    """

    def __init__(self, vllm_config: VllmConfig, device: torch.device, req_states: Any = None) -> None:
        super().__init__(vllm_config, device)
        self.supports_mm_inputs = False
        self.graphs: SpeculatorCudaGraphManager | None = None
        self.model: Any = None  # there is no second one
        self.ensemble: Ensemble | None = None
        self.samples = True

    def load_model(self, target_model: nn.Module) -> None:
        """Nothing is loaded; the drafter's attention layers are found among those that there are."""
        assert isinstance(target_model, Ensemble)
        self.ensemble = target_model
        self.draft_attn_layer_names = target_model.draft_layers(self.vllm_config)

    def load_draft_model(self, target_model: nn.Module, target_attn_layer_names: set[str]) -> nn.Module:
        """What vLLM's own `load_model` asks for, and this one does not."""
        raise NotImplementedError

    def init_cudagraph_manager(self, cudagraph_mode: CUDAGraphMode) -> None:
        whole = cudagraph_mode.decode_mode() == CUDAGraphMode.FULL
        mode = CUDAGraphMode.FULL_DECODE_ONLY if whole else CUDAGraphMode.NONE
        self.graphs = SpeculatorCudaGraphManager(self.vllm_config, self.device, mode, decode_query_len=1)

    def capture(self) -> None:
        assert self.graphs is not None
        self.idx_mapping.zero_()
        self.samples = True
        self.graphs.capture(
            self.draft,
            self.model_state,
            self.input_buffers,
            self.block_tables,
            self.attn_groups,
            self.kv_cache_config,
            progress_bar_desc="Capturing drafts",
        )

    @torch.inference_mode()
    def propose(
        self,
        input_batch: Any,
        attn_metadata: Any,
        slot_mappings: Any,
        last_hidden_states: torch.Tensor,
        aux_hidden_states: Any,
        num_sampled: torch.Tensor,
        num_rejected: torch.Tensor,
        last_sampled: torch.Tensor,
        next_prefill_tokens: torch.Tensor,
        temperature: torch.Tensor,
        seeds: torch.Tensor,
        dp_sync_state: Any = None,
        dummy_run: bool = False,
        skip_attn_for_dummy_run: bool = False,
        mm_inputs: Any = None,
        is_profile: bool = False,
        num_speculative_tokens: int | None = None,
    ) -> torch.Tensor:
        """The drafts after this step, [num_reqs, num_speculative_steps].

        num_rejected: [num_reqs]. last_sampled: by slot, [max_num_reqs, 1]. temperature, seeds: by slot, [max_num_reqs].
        """
        num_reqs = input_batch.num_reqs
        count = self.num_speculative_steps if num_speculative_tokens is None else num_speculative_tokens
        self._copy_request_inputs(num_reqs, input_batch.idx_mapping, temperature, seeds, dummy_run=dummy_run)
        self.begin(input_batch, num_rejected, last_sampled, count)
        self.samples = dummy_run or self.model_state.verifier.samples(input_batch.idx_mapping_np)
        batch, _ = dispatch_cg_and_sync_dp(self.graphs, num_reqs, num_reqs, 1, 1, 0, need_eager=is_profile)
        for place in range(count):
            inputs = (None, None) if skip_attn_for_dummy_run else self.attention(input_batch, batch, place)
            if batch.cg_mode == CUDAGraphMode.FULL:
                assert self.graphs is not None
                self.graphs.run_fullgraph(batch)
            else:
                self.draft(num_reqs, batch.num_tokens, *inputs)
            self.draft_tokens[:num_reqs, place] = self.input_buffers.input_ids[:num_reqs]
        return self.draft_tokens[:num_reqs]

    def begin(self, input_batch: Any, num_rejected: torch.Tensor, last_sampled: torch.Tensor, count: int) -> None:
        """Fill the buffers for the first draft: each request's last token, at its place in prompt and answer."""
        buffers, num_reqs = self.input_buffers, input_batch.num_reqs
        buffers.input_ids[:num_reqs] = last_sampled[input_batch.idx_mapping[:num_reqs]].view(-1)
        # Drafts beyond the last place are never scheduled; it is written in their stead, and never read.
        places = (input_batch.seq_lens[:num_reqs] - num_rejected[:num_reqs]).clamp(max=self.max_model_len - 1)
        buffers.positions[:num_reqs] = places
        buffers.seq_lens[:num_reqs] = places + 1
        buffers.seq_lens[num_reqs:] = 0  # rows that pad a graph
        torch.arange(num_reqs + 1, dtype=torch.int32, out=buffers.query_start_loc[: num_reqs + 1])
        buffers.query_start_loc[num_reqs + 1 :] = num_reqs
        longest = int(input_batch.seq_lens_cpu_upper_bound[:num_reqs].max())
        self.draft_max_seq_len = min(longest + count, self.max_model_len)

    def attention(self, input_batch: Any, batch: Any, place: int) -> tuple[dict[str, Any] | None, dict[str, Any]]:
        """Metadata and slots of the drafter's layers, of every group of the cache, for the draft at `place`."""
        buffers, num_reqs = self.input_buffers, input_batch.num_reqs
        slots = self.block_tables.compute_slot_mappings(
            self.idx_mapping[:num_reqs], buffers.query_start_loc[: num_reqs + 1], buffers.positions, batch.num_tokens
        )
        metadata = self._build_uniform_attn_metadata(
            batch_desc=batch,
            num_reqs=num_reqs,
            num_query_per_req=1,
            seq_lens_cpu_upper_bound=input_batch.seq_lens_cpu_upper_bound,
            step=place + 1,
        )
        return metadata, build_slot_mappings_by_layer(slots, self.kv_cache_config)

    def draft(
        self,
        num_reqs: int,
        num_tokens: int,
        attn_metadata: dict[str, Any] | None,
        slot_mappings: dict[str, Any] | None,
        num_tokens_across_dp: torch.Tensor | None = None,
        cudagraph_runtime_mode: CUDAGraphMode = CUDAGraphMode.NONE,
        num_speculative_steps: int = 0,
    ) -> None:
        """One draft of each request, from the token in the buffers, where the draft takes its place.

        num_tokens: at least num_reqs; rows beyond pad a graph. The parameters are those of what vLLM captures.
        """
        assert self.ensemble is not None
        buffers = self.input_buffers
        with set_forward_context(
            attn_metadata,
            self.vllm_config,
            num_tokens=num_tokens,
            cudagraph_runtime_mode=cudagraph_runtime_mode,
            slot_mapping=slot_mappings,
            batch_descriptor=BatchDescriptor(num_tokens=num_tokens),
        ):
            logits = self.ensemble.draft(buffers.input_ids[:num_tokens], buffers.positions[:num_tokens])[:num_reqs]
        slots, positions = self.idx_mapping[:num_reqs], buffers.positions[:num_reqs]
        tokens = logits.argmax(dim=1)
        if self.samples:
            temperatures = self.temperature[slots]
            sampled = draw_drafts(logits, self.seeds[slots], positions + 1, temperatures)
            tokens = torch.where(temperatures > 0, sampled, tokens)
        buffers.input_ids[:num_reqs] = tokens
        positions.add_(1).clamp_(max=self.max_model_len - 1)
        buffers.seq_lens[:num_reqs].add_(1).clamp_(max=self.max_model_len)
