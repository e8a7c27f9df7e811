"""Drafting with one of the ensemble's own small models: its weights, its keys and values, nothing beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from vllm.config import VllmConfig
from vllm.forward_context import set_forward_context
from vllm.v1.attention.backend import CommonAttentionMetadata
from vllm.v1.spec_decode.draft_model import DraftModelProposer

from vllm_rast.engine.coupling import draw_drafts
from vllm_rast.engine.ensemble import Ensemble
from vllm_rast.engine.token_rows import some_rows, to_device


@dataclass
class Drafted:
    """What one request drafts in this step.

    row: its line of the step's block table. token, position: the last token that is certain, and its place in prompt
    and answer. count: how many drafts. temperature: 0 is greedy. seed: of its noise. tokens: the drafts, once made.
    """

    row: int
    token: int
    position: int
    count: int
    temperature: float
    seed: int
    tokens: list[int]


class SharedDrafter(DraftModelProposer):
    """What V1 asks a drafter for, without a second model.

    The verifying pass has written the drafter's keys and values of every token that was accepted, and those of rejected
    ones are overwritten when their places are filled. So a draft costs one token through the drafter: the first reads
    the token that came last, each further one the draft before. (vLLM's own proposer reads the whole prompt and every
    verified token a second time, into keys and values of its own.) What the drafts leave in the cache are their own
    keys and values, in slots that the scheduler reserved for drafting, and the next verifying pass writes them again.
    """

    def __init__(self, vllm_config: VllmConfig, device: torch.device, runner: Any = None) -> None:
        # Not vLLM's own __init__: it allocates the inputs of a second model.
        self.vllm_config = vllm_config
        self.device = device
        self.supports_mm_inputs = False
        self.draft_attn_groups: list[Any] = []
        self.kv_cache_gid = -1
        self.ensemble: Ensemble | None = None

    def load_model(self, target_model: nn.Module) -> None:
        """Nothing is loaded; the drafter's attention layers are found among those that there are."""
        assert isinstance(target_model, Ensemble)
        self.ensemble = target_model
        self._draft_attn_layer_names = target_model.draft_layers(self.vllm_config)

    def initialize_cudagraph_keys(self, cudagraph_mode: Any) -> None:
        """Drafting uses no graphs of its own."""

    def dummy_run(self, num_tokens: int, *args: Any, **kwargs: Any) -> None:
        """The ensemble's own dummy run has run the drafter."""

    def draft(self, requests: Sequence[Drafted], block_table: torch.Tensor) -> None:
        """Fill in the tokens of every request. block_table: [num_reqs, blocks] of the step, the drafter's group."""
        for index in range(max((one.count for one in requests), default=0)):
            going = [one for one in requests if one.count > index]
            inputs = [one.tokens[-1] if one.tokens else one.token for one in going]
            positions = np.array([one.position + index for one in going], dtype=np.int64)
            rows = to_device(np.array([one.row for one in going]), self.device)
            logits = self.forward(inputs, positions, block_table[rows], index)
            for one, token in zip(going, choose(logits, going, positions + 1), strict=True):
                one.tokens.append(token)

    def forward(self, inputs: list[int], positions: np.ndarray, block_table: torch.Tensor, index: int) -> torch.Tensor:
        """The drafter's logits after one token of each request, [n, ids]; writes the tokens' keys and values."""
        assert self.ensemble is not None
        places = to_device(positions, self.device)
        blocks = block_table.gather(1, (places // self.block_size).unsqueeze(1)).squeeze(1)
        slots = blocks.to(torch.int64) * self.block_size + places % self.block_size
        lengths = torch.from_numpy((positions + 1).astype(np.int32))
        starts = torch.arange(len(inputs) + 1, dtype=torch.int32)
        common = CommonAttentionMetadata(
            query_start_loc=starts.to(self.device),
            query_start_loc_cpu=starts,
            seq_lens=lengths.to(self.device),
            seq_lens_cpu_upper_bound=lengths,
            num_reqs=len(inputs),
            num_actual_tokens=len(inputs),
            max_query_len=1,
            max_seq_len=int(positions.max()) + 1,
            block_table_tensor=block_table,
            slot_mapping=slots,
        )
        metadata = {
            name: built
            for group in self.draft_attn_groups
            for built in [group.build_metadata_for_drafting(common_attn_metadata=common, draft_index=index)]
            for name in group.layer_names
        }
        with set_forward_context(
            metadata,
            self.vllm_config,
            num_tokens=len(inputs),
            slot_mapping=dict.fromkeys(self._draft_attn_layer_names, slots),
        ):
            return self.ensemble.draft(torch.tensor(inputs, dtype=torch.int32, device=self.device), places)


def choose(logits: torch.Tensor, requests: Sequence[Drafted], positions: np.ndarray) -> list[int]:
    """The next draft of each request, at its position: greedy, or a sample with the request's own seed."""
    tokens = logits.argmax(dim=1)
    temperatures = np.array([one.temperature for one in requests], dtype=np.float32)
    (sampled,) = temperatures.nonzero()
    if len(sampled):
        seeds = np.array([one.seed for one in requests])[sampled]
        rows, temperature, seeds, places = (
            to_device(some, logits.device) for some in (sampled, temperatures[sampled], seeds, positions[sampled])
        )
        tokens[rows] = draw_drafts(some_rows(logits, sampled), seeds, places, temperature)
    return tokens.tolist()
