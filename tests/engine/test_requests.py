"""Requests that an engine in its own process could not be sent: refused in a line, and the next one is answered."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import forked
import numpy as np
import pytest
import torch
from greedy import decode, expected, make_prompts, params
from random_models import NUM_TOKENS

from vllm_rast import RastConfig
from vllm_rast.engine.patches import RequestError
from vllm_rast.errors import UserError
from vllm_rast.mix.alpha import parse_alpha, plain_alpha
from vllm_rast.reference import ReferenceLLM

pytestmark = pytest.mark.engine
MIX = RastConfig.build("o/base", "o/rl", "o/small")

NUMBERS: list[tuple[Any, Any]] = [
    (np.float64(0.5), 0.5),
    (np.float32(0.5), 0.5),
    (np.int64(2), 2),
    (np.array(0.5), 0.5),
    (np.array([0.5]), [0.5]),
    (np.str_("positive"), "positive"),
    (torch.tensor(0.5), 0.5),
    (torch.tensor([0.5]), [0.5]),
    (Fraction(1, 2), 0.5),
    (Decimal("0.5"), 0.5),
    ([np.float64(0.5)], [0.5]),
    ((Fraction(1, 2),), [0.5]),
    ({"alpha": np.float32(0.5), "warmup": np.int64(3)}, {"alpha": 0.5, "warmup": 3}),
    ([[np.int64(0), np.float64(1)], [5, Fraction(1, 4)]], [[0, 1.0], [5, 0.25]]),
    ({"ramp": np.array([[0, 0.0], [8, 2.0]])}, {"ramp": [[0, 0.0], [8, 2.0]]}),
]


@pytest.mark.parametrize(("alpha", "plain"), NUMBERS)
def test_every_kind_of_number_becomes_a_plain_one(alpha: Any, plain: Any) -> None:
    assert plain_alpha(alpha) == plain
    found = plain_alpha(alpha)
    assert type(found) in (int, float, str, list, dict)
    if "ramp" not in str(plain):
        assert parse_alpha(MIX, alpha) == parse_alpha(MIX, plain)


@pytest.mark.parametrize(
    "alpha",
    [np.bool_(True), np.float64("nan"), np.array([1.0, 2.0]), Decimal("Infinity"), object(), 1j, b"base", {1, 2}],
)
def test_what_is_not_a_number_is_refused(alpha: Any) -> None:
    with pytest.raises(UserError, match="alpha"):
        parse_alpha(MIX, alpha)


@pytest.fixture(scope="module")
def engine(start_engine: Callable[..., Any], random_models: dict[str, str], monkeypatch_module: Any) -> Any:
    monkeypatch_module.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    models = {name: random_models[name] for name in ("positive", "negative")}
    with forked.spawning():
        return start_engine(random_models["base"], **models)


@pytest.fixture(scope="module")
def monkeypatch_module() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def reference(random_models: dict[str, str]) -> ReferenceLLM:
    names = ("base", "positive", "negative")
    return ReferenceLLM(RastConfig.build(*(random_models[name] for name in names)))


def test_numbers_of_other_libraries_decode_as_their_values(engine: Any, reference: ReferenceLLM) -> None:
    prompts = make_prompts(4, seed=61)
    alphas = [*np.linspace(0, 1, 3), Fraction(3, 4)]
    found = decode(engine, prompts, alphas)
    assert found == expected(reference, prompts, [0, 0.5, 1, 0.75], found)


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("stop", {"stop": ["\ud83d"]}),
        ("seed", {"seed": 2**64}),
        ("extra_args", {"extra_args": {"alpha": 0.5, "other": object()}}),
        ("allowed_token_ids", {"allowed_token_ids": [NUM_TOKENS, NUM_TOKENS + 3]}),
    ],
)
def test_what_cannot_be_sent_is_refused_and_the_next_is_answered(
    engine: Any, reference: ReferenceLLM, field: str, options: dict[str, Any]
) -> None:
    prompts = make_prompts(2, seed=62)
    bad = params(0.5)
    for name, value in options.items():
        setattr(bad, name, value)
    with pytest.raises(RequestError, match=field):
        engine.generate({"prompt_token_ids": prompts[0]}, bad, use_tqdm=False)
    found = decode(engine, prompts, [0.5, 0])
    assert found == expected(reference, prompts, [0.5, 0], found)


def test_allowed_ids_that_a_mix_can_give(engine: Any) -> None:
    allowed = params(0.5, allowed_token_ids=[NUM_TOKENS - 1, NUM_TOKENS + 3], max_tokens=4)
    (output,) = engine.generate({"prompt_token_ids": [5, 6]}, allowed, use_tqdm=False)
    assert set(output.outputs[0].token_ids) == {NUM_TOKENS - 1}
