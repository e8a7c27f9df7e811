"""Gates: what a request may say, the random one's choice, and the rule against the reference's."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vllm_rast import ModelPair, RastConfig, UserError
from vllm_rast.cli.arguments import alpha_text
from vllm_rast.engine.token_gates import GatedRows, stack_gates, write_token_gates
from vllm_rast.evaluation.tasks.rows import parse_rows
from vllm_rast.kernels.gate import apply_gates
from vllm_rast.mix.alpha import default_alpha, kind_of, parse_alpha
from vllm_rast.mix.gate import CARRIED, Gate, closed_at
from vllm_rast.reference import gated

ONE_PAIR = RastConfig.build("o/base", "o/rl", "o/small", alpha=0.75)
TWO_PAIRS = RastConfig.build("o/base", "o/rl", "o/small", pairs=[ModelPair("o/rl2", "o/small", 0.25)])


@pytest.mark.parametrize(
    ("alpha", "rows", "gate"),
    [
        ({"alpha": 1, "gate": {"js": 0.1}}, [[1, 1, -1]], Gate(js=0.1)),
        ({"gate": {"kl": 2, "top": 20}}, [[1, 0.75, -0.75]], Gate(kl=2, top=20)),
        ('{"alpha": [2], "gate": {"top": 0.1}}', [[1, 2, -2]], Gate(top=0.1)),
        ({"alpha": 1, "warmup": 3, "gate": {"random": np.float32(0.5)}}, [[1, 0, 0], [1, 1, -1]], Gate(random=0.5)),
        ({"steps": [[0, 1], [4, 2]], "gate": {"js": 0}}, [[1, 1, -1], [1, 2, -2]], Gate(js=0)),
        ({"ramp": [[0, 1]], "gate": {"js": 0.1, "kl": 1, "top": 1, "random": 1}}, [[1, 1, -1]], Gate(0.1, 1, 1, 1)),
    ],
)
def test_forms(alpha: Any, rows: list[list[float]], gate: Gate) -> None:
    schedule = parse_alpha(ONE_PAIR, alpha)
    assert schedule.points()[:, 2:5].tolist() == rows
    assert schedule.gate == gate
    assert kind_of(ONE_PAIR, alpha) == "gate"


BAD: list[tuple[Any, str]] = [
    (
        {"alpha": 1, "gate": None},
        r"alpha.gate: expected conditions such as {\"js\": 0.1}, got None; known: js, kl, top",
    ),
    ({"alpha": 1, "gate": {}}, "alpha.gate: expected conditions"),
    ({"alpha": 1, "gate": 0.1}, "alpha.gate: expected conditions"),
    ({"alpha": 1, "gate": {"jss": 0.1}}, "alpha.gate: unknown condition 'jss'; known: js, kl, top, random"),
    ({"alpha": 1, "gate": {"js": 0.7}}, "alpha.gate.js: expected nats from 0 to log 2"),
    ({"alpha": 1, "gate": {"js": -0.1}}, "alpha.gate.js: expected"),
    ({"alpha": 1, "gate": {"js": "0.1"}}, "alpha.gate.js: expected"),
    ({"alpha": 1, "gate": {"js": True}}, "alpha.gate.js: expected"),
    ({"alpha": 1, "gate": {"js": math.nan}}, "alpha.gate.js: expected"),
    ({"alpha": 1, "gate": {"kl": math.inf}}, "alpha.gate.kl: expected nats from 0 to 10000"),
    ({"alpha": 1, "gate": {"top": 0}}, "alpha.gate.top: expected a number of ids such as 20, or a share"),
    ({"alpha": 1, "gate": {"top": 1.0}}, "alpha.gate.top: expected"),
    ({"alpha": 1, "gate": {"top": 1 << 30}}, "alpha.gate.top: expected"),
    ({"alpha": 1, "gate": {"top": True}}, "alpha.gate.top: expected"),
    ({"alpha": 1, "gate": {"random": 1.5}}, "alpha.gate.random: expected a share of the tokens from 0 to 1"),
    ({"alpha": "base", "gate": {"js": 0.1}}, "alpha.alpha: expected a number, got 'base'"),
    ({"alpha": 1, "gate": {"js": 0.1}, "x": 1}, "alpha: unknown key 'x'; send alpha with gate, warmup or until"),
    ({"steps": [[0, 1]], "alpha": 1, "gate": {"js": 0.1}}, "alpha: steps stands alone"),
]


@pytest.mark.parametrize(("alpha", "message"), BAD, ids=range(len(BAD)))
def test_bad_gates(alpha: Any, message: str) -> None:
    with pytest.raises(UserError, match="^" + message) as caught:
        parse_alpha(ONE_PAIR, alpha)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_the_default_of_an_engine() -> None:
    alpha = {"alpha": [1, 0.5], "gate": {"js": 0.1}}
    pairs = [ModelPair("o/rl2", "o/small")]
    config = RastConfig.build("o/base", "o/rl", "o/small", alpha, pairs)
    assert config.alphas == (1, 0.5) and config.gate == Gate(js=0.1)
    assert parse_alpha(config, None).gate == Gate(js=0.1) and kind_of(config, None) == "gate"
    assert parse_alpha(config, 1).gate is None and parse_alpha(config, "base").gate is None, "what is said stands alone"
    through = json.loads(json.dumps(config.to_dict()))
    assert RastConfig.from_dict("o/base", through) == config
    short = {"positive": "o/rl", "negative": "o/small", "alpha": json.dumps({"gate": {"js": 0.1}})}
    assert RastConfig.from_dict("o/base", short).gate == Gate(js=0.1)
    with pytest.raises(UserError, match="^alpha: by default a number, or .* send a schedule with the request"):
        RastConfig.build("o/base", "o/rl", alpha={"alpha": 1, "warmup": 3})
    with pytest.raises(UserError, match="^gate.js: expected nats"):
        RastConfig.from_dict("o/base", {"positive": "o/rl", "gate": {"js": 2}})
    assert default_alpha(alpha_text(" {}"))[1] is None and alpha_text("0.5") == 0.5


def test_rows_of_a_table() -> None:
    (row,) = parse_rows(['late={"alpha":1,"warmup":3,"gate":{"js":0.1}}'], ONE_PAIR)
    assert row.alpha == '{"alpha": 1, "warmup": 3, "gate": {"js": 0.1}}'
    late = 'o/base + alpha(t) * (o/rl - o/small) with alpha(t) = {"alpha": 1, "warmup": 3} gated by {"js": 0.1}'
    assert row.entry(ONE_PAIR)["formula"] == late
    config = RastConfig.build("o/base", "o/rl", "o/small", {"alpha": 0.5, "gate": {"top": 20}})
    base, mix = parse_rows(["base,rast"], config)
    assert base.alpha == "base" and mix.alpha == '{"alpha": 0.5, "gate": {"top": 20}}'
    assert mix.entry(config)["formula"] == 'o/base + 0.5 * (o/rl - o/small) gated by {"top": 20}'
    (row,) = parse_rows(['x={"gate": {"js": 0.1}}'], TWO_PAIRS)
    assert row.entry(TWO_PAIRS)["formula"].endswith('+ 0.25 * (o/rl2 - o/small) gated by {"js": 0.1}')


def test_a_random_gate_chooses_its_share_by_seed_and_position() -> None:
    places = np.arange(20_000)
    for share in (0.0, 0.02, 0.5, 1.0):
        opened = ~closed_at(Gate(random=share), 7, places)
        assert opened.mean() == pytest.approx(share, abs=0.012)
    half = closed_at(Gate(random=0.5), 7, places)
    assert (closed_at(Gate(random=0.5), 7, places[100:]) == half[100:]).all()
    less = closed_at(Gate(random=0.25), 7, places)
    assert (less | ~half).all(), "a smaller share is a part of a larger one"
    for seed in (8, 7 + (1 << 32), -7, None):
        other = closed_at(Gate(random=0.5), seed, places)
        assert (other == half).mean() == pytest.approx(0.5, abs=0.02)
    assert (closed_at(Gate(random=0.5), None, places) == closed_at(Gate(random=0.5), 0, places)).all()
    assert abs(np.corrcoef(half[:-1], half[1:])[0, 1]) < 0.02
    assert not closed_at(Gate(js=0.1), 7, places).any()


@settings(deadline=None)
@given(
    seeds=st.lists(st.integers(-(2**63), 2**63 - 1) | st.none(), min_size=2, max_size=3),
    tokens=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2**24 - 1)), min_size=1, max_size=20),
    prompt=st.integers(1, 300),
)
def test_the_engine_chooses_the_same(seeds: list[int | None], tokens: list[tuple[int, int]], prompt: int) -> None:
    """Places in prompt and answer, with torch, against generated positions with numpy."""
    gate = Gate(js=0.25, random=0.5)
    stacked = stack_gates([gate.line(seed, prompt) for seed in seeds])
    assert stacked is not None
    table = torch.from_numpy(stacked)
    owners = [owner % len(seeds) for owner, _ in tokens]
    carried, weights = torch.full((len(tokens), len(CARRIED)), math.nan), torch.full((len(tokens), 3), 2.0)
    write_token_gates(carried, weights, table, torch.tensor(owners), torch.tensor([place for _, place in tokens]))
    assert carried.tolist() == [[0.25, 0, 0]] * len(tokens)
    for row, owner, (_, place) in zip(weights.tolist(), owners, tokens, strict=True):
        (closed,) = closed_at(gate, seeds[owner], np.array([max(0, place + 1 - prompt)]))
        assert row == ([1, 0, 0] if closed else [2, 2, 2])
    assert stack_gates([None, None]) is None


CONDITIONS = st.builds(
    Gate,
    js=st.none() | st.floats(0.001, 0.69),
    kl=st.none() | st.floats(0.001, 9),
    top=st.none() | st.integers(1, 60) | st.floats(0.001, 0.999),
)


@settings(deadline=None, max_examples=200)
@given(gates=st.lists(CONDITIONS, min_size=1, max_size=5), seed=st.integers(0, 10**6), size=st.floats(0.1, 4))
def test_rows_against_the_reference(gates: list[Gate], seed: int, size: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(len(gates), 40, generator=generator) * 3
    mixed = base + torch.randn(base.shape, generator=generator) * size + 5
    mixed[:, 35:] = -math.inf  # ids that the small models do not have
    lines = torch.stack([torch.from_numpy(gate.line(None)) for gate in gates])[:, : len(CARRIED)]
    before, got = mixed.clone(), mixed.clone()
    closed = apply_gates(got, base, lines)
    for row, gate in enumerate(gates):
        want = gated(before[row], base[row], gate)
        if gate.js or gate.kl:
            assert bool(closed[row]) == torch.equal(want, base[row])
        torch.testing.assert_close(got[row], want, rtol=1e-5, atol=1e-5)


def test_what_a_top_gate_leaves_alone() -> None:
    """The ids outside keep the base's probabilities, and a constant on all mixed logits changes nothing."""
    base = torch.tensor([[4.0, 3.0, 3.0, 1.0, 0.0]])
    mixed = torch.tensor([[0.0, 9.0, 5.0, 30.0, -30.0]])
    results = []
    for constant in (0.0, 100.0):
        result = mixed + constant
        apply_gates(result, base, torch.tensor([[0.0, 0.0, 2.0]]))  # the second and third likeliest are equal
        results.append(result)
    p, q = results[0].softmax(1), base.softmax(1)
    torch.testing.assert_close(results[1].softmax(1), p)
    torch.testing.assert_close(p[0, 3:], q[0, 3:])
    torch.testing.assert_close(p[0, :3] / p[0, :3].sum(), mixed[0, :3].softmax(0))


def test_rows_without_a_gate_are_not_looked_at() -> None:
    base, mixed = torch.zeros(4, 3), torch.arange(12.0).reshape(4, 3)
    gates = torch.tensor([[0, 0, 0], [0.6, 0, 0], [0, 0, 0], [0.001, 0, 0]])
    some = GatedRows.of(base, gates)
    assert some is not None and some.rows.tolist() == [1, 3]
    result = mixed.clone()
    assert some.close(result).tolist() == [True, False]
    assert torch.equal(result[[0, 2, 3]], mixed[[0, 2, 3]]) and torch.equal(result[1], base[1])
    assert GatedRows.of(base, torch.zeros(4, 3)) is None


def test_a_nan_opens_no_gate() -> None:
    base, mixed = torch.zeros(2, 3), torch.full((2, 3), math.nan)
    apply_gates(mixed, base, torch.tensor([[0.1, 0.0, 0.0], [0.0, 0.1, 0.0]]))
    assert torch.equal(mixed, base)
