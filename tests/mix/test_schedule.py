"""Alpha as a function of the generated position: its forms, its arithmetic, and token for token in the engine."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vllm_rast import ModelPair, RastConfig, UserError
from vllm_rast.engine.token_rows import stack_points, write_token_rows
from vllm_rast.evaluation.tasks.rows import parse_rows
from vllm_rast.mix.alpha import (
    FORMS,
    MAX_ALPHA,
    MAX_POINTS,
    MAX_POSITION,
    MAX_TEXT,
    kind_of,
    parse_alpha,
    read_points,
    weight_row,
)
from vllm_rast.mix.schedule import Schedule

ONE_PAIR = RastConfig.build("o/base", "o/rl", "o/small", alpha=0.75)
TWO_PAIRS = RastConfig.build("o/base", "o/rl", "o/small", pairs=[ModelPair("o/rl2", "o/small", 0.25)])
HUGE = 10**5000  # Python writes no such integer as text

# Every form, with its alpha at the first generated positions for the one pair of ONE_PAIR.
EXAMPLES: list[tuple[Any, list[float]]] = [
    ({"alpha": 1, "warmup": 3}, [0, 0, 0, 1, 1, 1]),
    ({"alpha": 1, "warmup": 0}, [1, 1, 1, 1, 1, 1]),
    ({"alpha": [0.5], "until": 2}, [0.5, 0.5, 0, 0, 0, 0]),
    ({"alpha": 1, "until": 0}, [0, 0, 0, 0, 0, 0]),
    ({"alpha": 2, "warmup": 1, "until": 4}, [0, 2, 2, 2, 0, 0]),
    ({"until": 4}, [0.75, 0.75, 0.75, 0.75, 0, 0]),
    ({"warmup": 5}, [0, 0, 0, 0, 0, 0.75]),
    ({"steps": [[2, 1], [3, -0.5]]}, [0, 0, 1, -0.5, -0.5, -0.5]),
    ([[0, 1], [1, [2]], [5, 0]], [1, 2, 2, 2, 2, 0]),
    (((1, 1),), [0, 1, 1, 1, 1, 1]),
    ({"ramp": [[1, 0], [5, 2]]}, [0, 0, 0.5, 1, 1.5, 2]),
    ({"ramp": [[0, 1], [1, 2], [3, 0], [4, 0]]}, [1, 2, 1, 0, 0, 0]),
    ({"ramp": [[2, 0.5]]}, [0.5, 0.5, 0.5, 0.5, 0.5, 0.5]),
    (' {"alpha": 1, "warmup": 3}', [0, 0, 0, 1, 1, 1]),
    ("[[0, 1], [4, 0]]", [1, 1, 1, 1, 0, 0]),
    ("[0.25]", [0.25, 0.25, 0.25, 0.25, 0.25, 0.25]),
]


@pytest.mark.parametrize(("alpha", "wanted"), EXAMPLES)
def test_forms(alpha: Any, wanted: list[float]) -> None:
    rows = parse_alpha(ONE_PAIR, alpha).rows_at(np.arange(6))
    assert rows.dtype == np.float32
    assert rows.tolist() == [[1, value, -value] for value in wanted]
    far = parse_alpha(ONE_PAIR, alpha).rows_at(np.array([MAX_POSITION]))
    assert far.tolist() == [[1, wanted[-1], -wanted[-1]]]


@pytest.fixture
def new_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """One entry of FORMS: {"pulse": [position, alpha]} is that alpha for one token."""

    def read_pulse(config: RastConfig, value: Any, option: str) -> Schedule:
        position, alpha = value
        return read_points(config, [[position, alpha], [position + 1, 0]], option)

    monkeypatch.setitem(FORMS, "pulse", read_pulse)


def test_a_new_form_is_understood_everywhere(new_form: None) -> None:
    for alpha in ({"pulse": [2, 0.5]}, '{"pulse": [2, 0.5]}'):
        assert parse_alpha(ONE_PAIR, alpha).rows_at(np.arange(4))[:, 1].tolist() == [0, 0, 0.5, 0]
        assert kind_of(ONE_PAIR, alpha) == "schedule"
    (row,) = parse_rows(['x={"pulse": [2, 0.5]}'], ONE_PAIR)
    assert row.entry(ONE_PAIR)["formula"] == 'o/base + alpha(t) * (o/rl - o/small) with alpha(t) = {"pulse": [2, 0.5]}'
    with pytest.raises(UserError, match="pulse stands alone"):
        parse_alpha(ONE_PAIR, {"pulse": [2, 0.5], "until": 3})
    with pytest.raises(UserError, match="warmup or until, or steps, or ramp, or pulse$"):
        parse_alpha(ONE_PAIR, {"pulze": [2, 0.5]})
    with pytest.raises(UserError, match="needs warmup, until, steps, ramp or pulse;"):
        parse_alpha(ONE_PAIR, {})


def test_one_alpha_for_each_pair() -> None:
    schedule = parse_alpha(TWO_PAIRS, {"ramp": [[0, [1, 0]], [2, [0, 4]]]})
    assert schedule.rows_at(np.arange(3)).tolist() == [[1, 1, -1, 0], [1, 0.5, -2.5, 2], [1, 0, -4, 4]]
    assert schedule.used == (True, True, True, True)
    assert parse_alpha(TWO_PAIRS, {"alpha": [1, 0], "until": 9}).used == (True, True, True, False)
    assert parse_alpha(TWO_PAIRS, {"warmup": 9, "alpha": 0}).used == (True, False, False, False)


def test_constants_are_schedules_of_one_point() -> None:
    for alpha in (None, 0, 2, [0.5, -1], "base", "positive:2"):
        schedule = parse_alpha(TWO_PAIRS, alpha)
        assert schedule.rows == (weight_row(TWO_PAIRS, alpha),) and schedule.positions == (0,)


def test_a_weight_that_float32_calls_zero_uses_no_model() -> None:
    """The engine skips by float32 weights, so the cache must be told by float32 weights."""
    assert parse_alpha(ONE_PAIR, 1e-46).used == (True, False, False)
    assert parse_alpha(ONE_PAIR, 1e-44).used == (True, True, True)


@pytest.mark.parametrize(
    ("alpha", "kind"),
    [
        (None, "mix"),
        (0, "mix"),
        ([1, 2], "mix"),
        ("base", "base"),
        ("positive:1", "positive"),
        ("negative:2", "negative"),  # the same model stands in both pairs
        ("positive:2", "positive:2"),
        ({"alpha": 1, "warmup": 2}, "schedule"),
        ('{"alpha": 1, "warmup": 2}', "schedule"),
    ],
)
def test_kinds(alpha: Any, kind: str) -> None:
    assert kind_of(TWO_PAIRS, alpha) == kind


BAD: list[tuple[Any, str]] = [
    ({}, "alpha: a schedule needs"),
    ({"alpha": 1}, "alpha: a schedule needs"),
    ({"alpha": 1, "warmup": 2, "x": 3}, "alpha: unknown key 'x'"),
    ({1: 2}, "alpha: unknown key 1"),
    ({"x" * 10**6: 1}, "alpha: unknown key 'xxx"),
    ({"steps": [[0, 1]], "ramp": [[0, 1]]}, "alpha: steps stands alone"),
    ({"ramp": [[0, 1]], "until": 3}, "alpha: ramp stands alone"),
    ({"alpha": None, "warmup": 1}, "alpha.alpha: expected a number, got None"),
    ({"alpha": "base", "warmup": 1}, "alpha.alpha: expected a number, got 'base'"),
    ({"alpha": {"alpha": 1, "warmup": 1}, "warmup": 1}, "alpha.alpha: expected a number"),
    ({"alpha": [1, 2], "warmup": 1}, "alpha.alpha: 2 values for 1 pairs"),
    ({"alpha": [True], "warmup": 1}, r"alpha.alpha\[0\]: expected a number, got True"),
    ({"alpha": 1, "warmup": True}, "alpha.warmup: expected an integer"),
    ({"alpha": 1, "warmup": 1.0}, "alpha.warmup: expected an integer"),
    ({"alpha": 1, "warmup": "1"}, "alpha.warmup: expected an integer"),
    ({"alpha": 1, "warmup": None}, "alpha.warmup: expected an integer"),
    ({"alpha": 1, "warmup": -1}, "alpha.warmup: expected an integer"),
    ({"alpha": 1, "until": MAX_POSITION + 1}, "alpha.until: expected an integer"),
    ({"alpha": 1, "until": HUGE}, "alpha.until: .* an integer of 16610 bits"),
    ({"alpha": 1, "warmup": 5, "until": 5}, "alpha.until: 5 must be more than warmup"),
    ({"steps": []}, "alpha.steps: expected a list"),
    ({"steps": {}}, "alpha.steps: expected a list"),
    ({"steps": "[[0, 1]]"}, "alpha.steps: expected a list"),
    ({"steps": [0, 1]}, r"alpha.steps\[0\]: expected \[position, alpha\], got 0"),
    ({"steps": [[0]]}, r"alpha.steps\[0\]: expected \[position"),
    ({"steps": [[0, 1, 2]]}, r"alpha.steps\[0\]: expected \[position"),
    ({"steps": [[0, 1], [5, math.nan]]}, r"alpha.steps\[1\]\[1\]: expected a finite number"),
    ({"ramp": [[0, 1], [5, math.inf]]}, r"alpha.ramp\[1\]\[1\]: expected a finite number"),
    ({"ramp": [[0, 2 * MAX_ALPHA]]}, r"alpha.ramp\[0\]\[1\]: expected a finite number"),
    ({"ramp": [[0, HUGE]]}, r"alpha.ramp\[0\]\[1\]: expected a finite number .* 16610 bits"),
    ([[0, 1], [0, 2]], r"alpha\[1\]\[0\]: positions must increase, and 0 follows 0"),
    ([[4, 1], [2, 2]], r"alpha\[1\]\[0\]: positions must increase, and 2 follows 4"),
    ([[-1, 1]], r"alpha\[0\]\[0\]: expected an integer"),
    ([[0.5, 1]], r"alpha\[0\]\[0\]: expected an integer"),
    ([[0, 1], 2], r"alpha\[1\]: expected \[position, alpha\], got 2"),
    ([1, [0, 1]], "alpha: 2 values for 1 pairs"),
    ([[0, [1, 2]]], r"alpha\[0\]\[1\]: 2 values for 1 pairs"),
    ([[n, 1] for n in range(MAX_POINTS + 1)], "alpha: 65 points are too many; send at most 64"),
    ([[0, 1]] * 10**6, "alpha: 1,000,000 points are too many"),
    ([1] * 10**6, "alpha: 1000000 values for 1 pairs"),
    (HUGE, "alpha: expected a finite number .* an integer of 16610 bits"),
    (-(10**400), "alpha: expected a finite number"),
    (np.float32("nan"), "alpha: expected a finite number"),
    (1j, "alpha: expected a number"),
    ("1", "alpha: '1' is neither a number nor a model"),
    ("x" * 10**6, "alpha: 'xxx"),
    ("\n\ud800", r"alpha: '\\n\\ud800' is neither"),
    ("{", "alpha: '{' looks like JSON"),
    ("[" * MAX_TEXT, "alpha: .* looks like JSON"),
    ("[" * (MAX_TEXT + 1), "alpha: 65,537 characters are too many"),
    ('{"alpha": NaN, "warmup": 1}', "alpha.alpha: expected a finite number"),
    ('{"alpha": 1e999, "warmup": 1}', "alpha.alpha: expected a finite number"),
    ('{"until": ' + "9" * 5000 + "}", "alpha: .* looks like JSON"),
    ('["base"]', r"alpha\[0\]: expected a number, got 'base'"),
]


@pytest.mark.parametrize(("alpha", "message"), BAD, ids=range(len(BAD)))
def test_bad_schedules(alpha: Any, message: str) -> None:
    with pytest.raises(UserError, match="^" + message) as caught:
        parse_alpha(ONE_PAIR, alpha)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


NUMBERS = st.floats(-MAX_ALPHA, MAX_ALPHA) | st.integers(-3, 3)
POSITIONS = st.integers(0, 200) | st.integers(0, MAX_POSITION)
POINTS = st.lists(
    st.tuples(POSITIONS, NUMBERS | st.tuples(NUMBERS, NUMBERS)),
    min_size=1,
    max_size=MAX_POINTS,
    unique_by=lambda point: point[0],
).map(sorted)
SCHEDULES = st.one_of(
    POINTS.map(lambda points: {"steps": points}),
    POINTS.map(lambda points: {"ramp": points}),
    st.builds(lambda alpha, n: {"alpha": alpha, "warmup": n}, NUMBERS, POSITIONS),
    NUMBERS,
)


@settings(deadline=None)
@given(alpha=SCHEDULES, generated=st.lists(POSITIONS, min_size=1))
def test_ramps_and_steps_against_exact_arithmetic(alpha: Any, generated: list[int]) -> None:
    """The first pair's positive has the pair's alpha as its weight: it must be the line's value, rounded thrice."""
    rows = parse_alpha(TWO_PAIRS, alpha).rows_at(np.array(generated))
    for g, row in zip(generated, rows, strict=True):
        want, size = alpha_at(alpha, g)
        assert row[1] == pytest.approx(want, rel=1e-6, abs=1e-6 * size)
        assert row[0] == 1


def alpha_at(alpha: Any, g: int) -> tuple[float, float]:
    """The first pair's alpha at position g in doubles, and the size of the values it was computed from."""

    def number(value: Any) -> float:
        return float(value[0] if isinstance(value, tuple) else value)

    if not isinstance(alpha, dict):
        return number(alpha), abs(number(alpha))
    if "warmup" in alpha:
        return (number(alpha["alpha"]) if g >= alpha["warmup"] else 0.0), 0.0
    ((form, points),) = alpha.items()
    before = [(p, number(value)) for p, value in points if p <= g]
    after = [(p, number(value)) for p, value in points if p > g]
    if not before:
        return (after[0][1] if form == "ramp" else 0.0), 0.0
    (p0, a0), (p1, a1) = before[-1], after[0] if after else (g + 1, before[-1][1])
    return (a0, 0.0) if form == "steps" else (a0 + (a1 - a0) * (g - p0) / (p1 - p0), abs(a0) + abs(a1))


@settings(deadline=None)
@given(
    alphas=st.lists(SCHEDULES, min_size=1, max_size=4),
    tokens=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 300) | POSITIONS), min_size=1, max_size=20),
    prompts=st.lists(st.integers(1, 250), min_size=4, max_size=4),
)
def test_the_engine_computes_the_same_bits(alphas: Any, tokens: list[tuple[int, int]], prompts: list[int]) -> None:
    """Positions in prompt and answer, spread with torch, against generated positions with numpy."""
    schedules = [parse_alpha(TWO_PAIRS, alpha) for alpha in alphas]
    table = torch.from_numpy(stack_points([s.points(n) for s, n in zip(schedules, prompts, strict=False)]))
    owners = [owner % len(alphas) for owner, _ in tokens]
    positions = [min(position, MAX_POSITION - 1) for _, position in tokens]
    out = torch.full((len(tokens), 4), math.nan)
    write_token_rows(out, table, torch.tensor(owners), torch.tensor(positions))
    for row, owner, position in zip(out.numpy(), owners, positions, strict=True):
        (want,) = schedules[owner].rows_at(np.array([max(0, position + 1 - prompts[owner])]))
        assert (row == want).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_the_same_bits_on_cuda_and_no_wait_for_it() -> None:
    steps = {"steps": [[position, position / 7] for position in range(3, 60, 3)]}
    schedules = [parse_alpha(TWO_PAIRS, alpha) for alpha in ({"ramp": [[5, 0.1], [78, [3, -1.7]]]}, 0.3, steps)]
    host = torch.from_numpy(stack_points([schedule.points(11) for schedule in schedules]))
    owner, positions = torch.arange(300) % 3, torch.arange(300) // 3
    want = torch.empty(300, 4)
    write_token_rows(want, host, owner, positions)
    table, out, owner, positions = host.cuda(), want.cuda().zero_(), owner.cuda(), positions.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        write_token_rows(out, table, owner, positions)
        write_token_rows(torch.empty_like(out), table[:, :1], owner, positions)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(out.cpu(), want)
