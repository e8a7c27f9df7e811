"""The two ways in which weights reach the tokens: V1's on the host, V2's on the device (run here on a CPU)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from vllm.v1.worker.gpu.model_states.default import DefaultModelState

from vllm_rast import RastConfig
from vllm_rast.engine.runner import TokenWeights
from vllm_rast.engine.state import RastModelState
from vllm_rast.weights import weight_row

CONFIG = RastConfig.build("o/base", "o/rl", "o/small")


def fake_model(max_tokens: int = 32) -> Any:
    return SimpleNamespace(
        token_weights=torch.full((max_tokens, 3), 9.0), weight_row=lambda alpha: weight_row(CONFIG, alpha)
    )


def request(alpha: Any) -> Any:
    extra = None if alpha is None else {"alpha": alpha}
    return SimpleNamespace(sampling_params=SimpleNamespace(extra_args=extra))


def test_v1_spreads_rows_over_tokens() -> None:
    model = fake_model()
    weights = TokenWeights(model)
    requests = {"a": request(0.5), "b": request("positive"), "c": request(None)}
    weights.fill(["a", "b", "c"], requests, np.array([2, 1, 3]))
    wanted = [[1, 0.5, -0.5]] * 2 + [[0, 1, 0]] + [[1, 1, -1]] * 3
    assert model.token_weights[:6].tolist() == wanted
    assert (model.token_weights[6:] == 9).all()
    # The next step: one request left, another moved, a third came.
    requests["d"] = request(0)
    weights.fill(["c", "d", "a"], requests, np.array([1, 4, 1]))
    assert model.token_weights[:6].tolist() == [[1, 1, -1]] + [[1, 0, 0]] * 4 + [[1, 0.5, -0.5]]


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch) -> RastModelState:
    def bare(self: Any, vllm_config: Any, model: Any, encoder_cache: Any, device: Any) -> None:
        self.model, self.max_num_reqs, self.rope_state, self.prompt_embeds_state = model, 8, None, None

    monkeypatch.setattr(DefaultModelState, "__init__", bare)
    return RastModelState(None, fake_model(), None, torch.device("cpu"))  # type: ignore[arg-type]


def batch(slots: list[int], counts: list[int], padded: int) -> Any:
    ends = np.cumsum([0, *counts])
    # Padded requests repeat the end, as in vLLM's full CUDA graphs.
    starts = torch.tensor([*ends, ends[-1]], dtype=torch.int32)
    return SimpleNamespace(
        num_reqs=len(slots),
        num_tokens_after_padding=padded,
        query_start_loc=starts,
        idx_mapping=torch.tensor(slots, dtype=torch.int32),
    )


def test_v2_spreads_slots_over_tokens(state: RastModelState) -> None:
    for slot, alpha in [(3, 0.5), (0, "negative"), (5, None)]:
        state.add_request(slot, request(alpha))
    state.apply_staged_writes()
    assert state.prepare_inputs(batch([5, 3, 0], [1, 3, 2], padded=8), None) == {}
    wanted = [[1, 1, -1]] + [[1, 0.5, -0.5]] * 3 + [[0, 0, 1]] * 2
    assert state.token_weights[:6].tolist() == wanted
    assert (state.token_weights[8:] == 9).all(), "only this step's tokens are written"


def test_v2_reuses_a_slot(state: RastModelState) -> None:
    state.add_request(2, request(0.5))
    state.apply_staged_writes()
    state.add_request(2, request(2))
    state.apply_staged_writes()
    address = state.token_weights.data_ptr()
    state.prepare_inputs(batch([2], [4], padded=4), None)
    assert state.token_weights[:4].tolist() == [[1, 2, -2]] * 4
    assert state.token_weights.data_ptr() == address, "CUDA graphs hold the address"


def test_v2_is_offered_to_the_runner() -> None:
    from vllm_rast.engine.ensemble import Ensemble

    assert Ensemble.get_model_state_cls() is RastModelState
