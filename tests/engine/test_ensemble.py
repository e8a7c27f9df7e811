"""What vLLM's CUDA graphs of pieces of a model ask of the forward of several, with models that behave like them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from vllm_rast import RastConfig
from vllm_rast.engine.ensemble import Ensemble

TOKENS, WIDTH, BASE_IDS, SMALL_IDS = 6, 4, 20, 16


class Recorded(nn.Module):
    """A model whose pieces are graphs: it reads ids where they were at first, and writes where other models write."""

    def __init__(self, memory: torch.Tensor, offset: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.memory, self.offset = memory, offset
        self.ids: torch.Tensor | None = None
        self.seen: list[list[int]] = []

    def forward(self, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        self.ids = ids if self.ids is None else self.ids
        self.seen.append(self.ids.tolist())
        return self.memory.copy_(self.ids.unsqueeze(1) + self.offset)


@pytest.fixture
def ensemble() -> Ensemble:
    memory = torch.empty(TOKENS, WIDTH)
    members = [Recorded(memory, offset) for offset in (0.25, 0.5, 0.75)]
    scheduler = SimpleNamespace(max_num_batched_tokens=2 * TOKENS, max_num_seqs=4)
    model = SimpleNamespace(dtype=torch.float32, skip_tokenizer_init=True)
    vllm_config: Any = SimpleNamespace(model_config=model, scheduler_config=scheduler)
    return Ensemble(
        vllm_config,
        members=members,
        vocab_sizes=[BASE_IDS, SMALL_IDS, SMALL_IDS],
        widths=[WIDTH] * 3,
        config=RastConfig.build("o/base", "o/rl", "o/small"),
    )


def test_ids_stay_where_they_are_and_states_are_kept(ensemble: Ensemble) -> None:
    ensemble.copies_states = True  # as on CUDA
    ids, positions = torch.zeros(TOKENS, dtype=torch.int32), torch.arange(TOKENS)
    for first in (0, 14):
        ids.copy_(torch.arange(first, first + TOKENS))
        rows = ensemble(ids, positions)
        small = ids.clamp(max=SMALL_IDS - 1)
        for place, (wanted, offset) in enumerate([(ids, 0.25), (small, 0.5), (small, 0.75)]):
            states = rows[:, place * WIDTH : (place + 1) * WIDTH]
            assert torch.equal(states, (wanted + offset).unsqueeze(1).expand(-1, WIDTH)), f"model {place}"


def test_these_models_would_show_it(ensemble: Ensemble) -> None:
    ids = torch.arange(TOKENS, dtype=torch.int32)
    rows = ensemble(ids, torch.arange(TOKENS))
    assert torch.equal(rows[:, :WIDTH], rows[:, 2 * WIDTH : 3 * WIDTH]), "the last model's states in place of all"
