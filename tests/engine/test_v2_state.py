"""How weights reach the tokens: V1's table of a batch, V2's table of slots, both on the device (run here on a CPU)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from vllm.v1.worker.gpu.model_states.default import DefaultModelState

from vllm_rast import RastConfig
from vllm_rast.engine.decode_traces import Asked
from vllm_rast.engine.token_traces import TraceRequest
from vllm_rast.engine.v1_runner import TokenWeights
from vllm_rast.engine.v2_state import RastModelState
from vllm_rast.mix.alpha import MAX_POINTS, parse_alpha
from vllm_rast.mix.gate import closed_at

CONFIG = RastConfig.build("o/base", "o/rl", "o/small")
LATE: dict[str, Any] = {"alpha": 0.5, "warmup": 3}
RAMP: dict[str, Any] = {"ramp": [[1, 0], [4, 1]]}


def fake_model(max_tokens: int = 32) -> Any:
    weights, gates = torch.full((max_tokens, 3), 9.0), torch.full((max_tokens, 3), 7.0)
    return SimpleNamespace(token_weights=weights, token_gates=gates, rast_config=CONFIG)


def request(alpha: Any, prompt: int = 1, name: str = "a", **more: Any) -> Any:
    """What both runners read: V1's CachedRequestState and V2's NewRequestData call the prompt's length differently."""
    extra = more if alpha is None else {"alpha": alpha, **more}
    params = SimpleNamespace(extra_args=extra or None, seed=11)
    ids = list(range(prompt))
    return SimpleNamespace(
        req_id=name, sampling_params=params, num_prompt_tokens=prompt, prompt_len=prompt, prompt_token_ids=ids
    )


def fill(weights: TokenWeights, req_ids: list[str], requests: Any, counts: list[int], computed: list[int]) -> None:
    """One step: computed[i] tokens of request i ran before, counts[i] follow."""
    owner = np.repeat(np.arange(len(counts)), counts)
    positions = np.concatenate([np.arange(start, start + n) for start, n in zip(computed, counts, strict=True)])
    weights.fill(req_ids, requests, torch.from_numpy(owner), torch.from_numpy(positions))


def wanted(alpha: Any, prompt: int, positions: range) -> list[list[float]]:
    generated = np.array([max(0, position + 1 - prompt) for position in positions])
    return parse_alpha(CONFIG, alpha).rows_at(generated).tolist()


def test_v1_spreads_rows_over_tokens() -> None:
    model = fake_model()
    weights = TokenWeights(model)
    requests = {"a": request(0.5), "b": request("positive"), "c": request(None)}
    fill(weights, ["a", "b", "c"], requests, [2, 1, 3], [0, 5, 7])
    wanted = [[1, 0.5, -0.5]] * 2 + [[0, 1, 0]] + [[1, 1, -1]] * 3
    assert model.token_weights[:6].tolist() == wanted
    assert (model.token_weights[6:] == 9).all()
    # The next step: one request left, another moved, a third came.
    requests["d"] = request(0)
    fill(weights, ["c", "d", "a"], requests, [1, 4, 1], [10, 0, 2])
    assert model.token_weights[:6].tolist() == [[1, 1, -1]] + [[1, 0, 0]] * 4 + [[1, 0.5, -0.5]]


def test_v1_follows_schedules_through_chunks_and_moves() -> None:
    model = fake_model()
    weights = TokenWeights(model)
    requests = {"late": request(LATE, prompt=4), "ramp": request(RAMP, prompt=2), "flat": request(2, prompt=9)}
    # The prompt in two chunks beside others, then the request in another place, then drafts, then resumed from 0.
    steps: list[tuple[list[str], list[int], list[int]]] = [
        (["late", "flat"], [3, 9], [0, 0]),
        (["late", "ramp"], [1, 2], [3, 0]),
        (["ramp", "flat", "late"], [3, 1, 4], [2, 9, 4]),
        (["late", "ramp"], [8, 1], [0, 5]),
    ]
    alphas = {"late": LATE, "ramp": RAMP, "flat": 2}
    for req_ids, counts, computed in steps:
        fill(weights, req_ids, requests, counts, computed)
        rows = []
        for name, count, start in zip(req_ids, counts, computed, strict=True):
            rows += wanted(alphas[name], requests[name].num_prompt_tokens, range(start, start + count))
        assert model.token_weights[: len(rows)].tolist() == rows
    assert model.token_weights[:8].tolist() == [[1, 0, 0]] * 6 + [[1, 0.5, -0.5]] * 2, "3 prompt rows choose nothing"


def test_v1_runs_the_models_that_a_schedule_uses_anywhere() -> None:
    model = fake_model()
    weights = TokenWeights(model)
    requests = {"late": request(LATE), "base": request("base"), "never": request([[5, 1e-46]])}
    for req_ids, active in [(["base", "late"], True), (["base"], False), (["never"], False), (["late"], True)]:
        fill(weights, req_ids, requests, [1] * len(req_ids), [0] * len(req_ids))
        assert model.active == (True, active, active)


def test_v1_reads_a_session_again() -> None:
    """The same id, alone in the batch before and after: only the runner's hook tells that its prompt has grown."""
    model = fake_model()
    weights = TokenWeights(model)
    fill(weights, ["a"], {"a": request(LATE, prompt=1)}, [5], [0])
    weights.forget("a")
    fill(weights, ["a"], {"a": request(LATE, prompt=6)}, [8], [0])
    assert model.token_weights[:8].tolist() == wanted(LATE, 6, range(8)) == [[1, 0, 0]] * 8


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch) -> RastModelState:
    def bare(self: Any, vllm_config: Any, model: Any, encoder_cache: Any, device: Any) -> None:
        self.model, self.max_num_reqs, self.rope_state, self.prompt_embeds_state = model, 8, None, None

    monkeypatch.setattr(DefaultModelState, "__init__", bare)
    return RastModelState(None, fake_model(), None, torch.device("cpu"))  # type: ignore[arg-type]


def batch(slots: list[int], counts: list[int], padded: int, computed: list[int] | None = None) -> Any:
    ends = np.cumsum([0, *counts])
    positions = np.zeros(padded, dtype=np.int64)
    for end, count, start in zip(ends[1:], counts, computed or [0] * len(counts), strict=True):
        positions[end - count : end] = np.arange(start, start + count)
    # Padded requests repeat the end, as in vLLM's full CUDA graphs.
    starts = torch.tensor([*ends, ends[-1]], dtype=torch.int32)
    return SimpleNamespace(
        num_reqs=len(slots),
        num_tokens_after_padding=padded,
        query_start_loc=starts,
        idx_mapping=torch.tensor(slots, dtype=torch.int32),
        idx_mapping_np=np.array(slots),
        positions=torch.from_numpy(positions),
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


def test_v2_follows_schedules(state: RastModelState) -> None:
    alphas = {3: LATE, 0: RAMP, 5: 2}
    prompts = {3: 4, 0: 2, 5: 9}
    for slot, alpha in alphas.items():
        state.add_request(slot, request(alpha, prompts[slot]))
    state.apply_staged_writes()
    for slots, counts, computed in [([5, 3], [9, 3], [0, 0]), ([3, 0, 5], [5, 7, 1], [3, 0, 9]), ([3], [9], [0])]:
        state.prepare_inputs(batch(slots, counts, padded=sum(counts) + 2, computed=computed), None)
        rows = []
        for slot, count, start in zip(slots, counts, computed, strict=True):
            rows += wanted(alphas[slot], prompts[slot], range(start, start + count))
        assert state.token_weights[: len(rows)].tolist() == rows


def test_v2_forgets_the_schedule_of_a_slot(state: RastModelState) -> None:
    longest = {"steps": [[position, position / 100] for position in range(1, 1 + MAX_POINTS)]}
    state.add_request(2, request(longest))
    state.apply_staged_writes()
    state.prepare_inputs(batch([2], [20], padded=20, computed=[50]), None)
    assert state.token_weights[:20].tolist() == wanted(longest, 1, range(50, 70))
    state.add_request(2, request(2))
    state.add_request(1, request(LATE))
    state.apply_staged_writes()
    state.prepare_inputs(batch([2, 1], [4, 4], padded=8, computed=[60, 1]), None)
    assert state.token_weights[:8].tolist() == [[1, 2, -2]] * 4 + [[1, 0, 0]] * 2 + [[1, 0.5, -0.5]] * 2
    assert state.widths.tolist() == [1, 2, 1, 1, 1, 1, 1, 1]


GATED: dict[str, Any] = {"alpha": 0.5, "warmup": 2, "gate": {"js": 0.25, "top": 20, "random": 0.5}}


def rows_of_gated(prompt: int, positions: range) -> list[list[float]]:
    generated = np.array([max(0, position + 1 - prompt) for position in positions])
    schedule = parse_alpha(CONFIG, GATED)
    assert schedule.gate is not None
    closed = closed_at(schedule.gate, 11, generated)
    assert 0 < closed.sum() < len(closed)
    return np.where(closed[:, None], [1, 0, 0], schedule.rows_at(generated)).tolist()


def test_v1_spreads_gates_over_tokens() -> None:
    model = fake_model()
    weights = TokenWeights(model)
    requests = {"gated": request(GATED, prompt=4), "flat": request(2)}
    fill(weights, ["flat"], requests, [3], [0])
    assert not model.gated and (model.token_gates == 7).all(), "nothing is written for nobody"
    fill(weights, ["flat", "gated"], requests, [2, 12], [3, 0])
    assert model.gated
    assert model.token_gates[:14].tolist() == [[0, 0, 0]] * 2 + [[0.25, 0, 20]] * 12
    assert model.token_weights[:14].tolist() == [[1, 2, -2]] * 2 + rows_of_gated(4, range(12))
    # Resumed from the beginning, the same tokens are closed.
    fill(weights, ["gated"], requests, [7], [5])
    assert model.token_weights[:7].tolist() == rows_of_gated(4, range(12))[5:]
    fill(weights, ["flat"], requests, [1], [5])
    assert not model.gated


def test_v2_spreads_gates_over_tokens(state: RastModelState) -> None:
    model: Any = state.model
    state.add_request(2, request(2))
    state.add_request(3, request(GATED, prompt=4))
    state.apply_staged_writes()
    state.prepare_inputs(batch([2], [4], padded=4), None)
    assert not model.gated
    state.prepare_inputs(batch([2, 3], [2, 12], padded=16, computed=[4, 0]), None)
    assert model.gated
    assert model.token_gates[:14].tolist() == [[0, 0, 0]] * 2 + [[0.25, 0, 20]] * 12
    assert model.token_weights[:14].tolist() == [[1, 2, -2]] * 2 + rows_of_gated(4, range(12))
    # The gate leaves with its request.
    state.add_request(3, request(2))
    state.add_request(1, request(GATED))
    state.apply_staged_writes()
    state.prepare_inputs(batch([3, 1], [4, 1], padded=8), None)
    assert model.token_gates[:5].tolist() == [[0, 0, 0]] * 4 + [[0.25, 0, 20]]
    assert model.token_weights[:4].tolist() == [[1, 2, -2]] * 4


def test_v2_knows_whose_tokens_are_traced(state: RastModelState) -> None:
    """Until a request ends; one that brings an answer has the schedule of its prompt proper."""
    state.add_request(0, request(1, prompt=5, name="decodes", trace=3))
    state.add_request(1, request(LATE, prompt=9, name="reads", token_trace={"key": 7, "start": 4, "last": 2}))
    state.add_request(2, request(1, name="neither"))
    state.apply_staged_writes()
    assert state.asked == {"decodes": Asked(number=3, prompt=5)}
    assert state.given == {"reads": (TraceRequest(key=7, start=4, last=2), list(range(9)))}
    state.prepare_inputs(batch([1], [9], padded=9), None)
    assert state.token_weights[:9].tolist() == wanted(LATE, 4, range(9))
    for name in ("decodes", "reads", "neither"):
        state.remove_request(name)
    assert not state.asked and not state.given


def test_v2_is_offered_to_the_runner() -> None:
    from vllm_rast.engine.ensemble import Ensemble

    assert Ensemble.get_model_state_cls() is RastModelState
