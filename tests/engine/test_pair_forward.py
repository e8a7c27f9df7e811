"""Models that differ by adapters alone, run as one forward: the tokens of models that run apart, in float32."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from adapters import make_adapter
from greedy import SCHEDULES, decode, expected, make_prompts
from random_models import make_model

from vllm_rast import ModelPair, RastConfig, UserError
from vllm_rast.reference import ReferenceLLM

ALPHAS: list[Any] = [0, 0.5, 1, -0.5, "positive", "negative", "base", *SCHEDULES[:3]]
# Prompts in chunks, and more of them than run at once.
SMALL = {"max_num_batched_tokens": 48, "max_num_seqs": 6}


@pytest.fixture(scope="module")
def adapters(random_models: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("adapters")
    foundation = make_model(root / "foundation", 8, architecture="llama", vocab=98, kv_heads=1)
    return {
        "foundation": foundation,
        "first": make_adapter(root / "first", foundation, 1, alpha_pattern={"up_proj": 3}),
        "second": make_adapter(root / "second", foundation, 2, r=3, target_modules=["q_proj", "v_proj", "down_proj"]),
        "base": make_adapter(root / "base", random_models["base"], 3, use_rslora=True),
    }


def shares(model: Any) -> list[int]:
    """How many models of the mix each set of weights serves."""
    from vllm_rast.engine.shared_model import SharedModel

    return sorted(module.count for module in set(model.modules()) if isinstance(module, SharedModel))


def test_a_pair_in_one_forward(
    start_engine: Callable[..., Any], random_models: dict[str, str], adapters: dict[str, str]
) -> None:
    engine = start_engine(random_models["base"], positive=adapters["first"], **SMALL)
    assert engine.apply_model(shares) == [[2]]
    prompts = make_prompts(len(ALPHAS), seed=60, shortest=20, longest=100)
    reference = ReferenceLLM(RastConfig.build(random_models["base"], adapters["first"]))
    assert decode(engine, prompts, ALPHAS) == expected(reference, prompts, ALPHAS)


def test_it_drafts_as_well(
    start_engine: Callable[..., Any], random_models: dict[str, str], adapters: dict[str, str]
) -> None:
    """The drafter's half of the forward alone, with its own keys and values."""
    engine = start_engine(random_models["base"], positive=adapters["first"], speculate=3, disable_log_stats=False)
    assert engine.apply_model(shares) == [[2]]
    prompts = make_prompts(len(ALPHAS), seed=61)
    reference = ReferenceLLM(RastConfig.build(random_models["base"], adapters["first"]))
    assert decode(engine, prompts, ALPHAS) == expected(reference, prompts, ALPHAS)
    counted = {metric.name: getattr(metric, "value", 0) for metric in engine.get_metrics()}
    drafted, accepted = (counted[f"vllm:spec_decode_num_{what}_tokens"] for what in ("draft", "accepted"))
    assert 0 < accepted < drafted
    before = drafted - accepted
    decode(engine, prompts[:2], ["positive"] * 2)
    counted = {metric.name: getattr(metric, "value", 0) for metric in engine.get_metrics()}
    rejected = counted["vllm:spec_decode_num_draft_tokens"] - counted["vllm:spec_decode_num_accepted_tokens"]
    assert rejected == before, "the positive's own drafts are all accepted"


def test_several_pairs_and_a_base(
    start_engine: Callable[..., Any], random_models: dict[str, str], adapters: dict[str, str]
) -> None:
    """Two adapters and what they stand on in one forward; the base, an adapter, and its own foundation in another."""
    pairs = [ModelPair(adapters["first"]), ModelPair(adapters["second"]), ModelPair(None, random_models["base"])]
    engine = start_engine(adapters["base"], pairs=pairs)
    assert engine.apply_model(shares) == [[2, 3]]
    alphas = [0.5, [1, 0, 0], [0, 1, 0.5], [0.3, -0.4, 0], "positive:2", "negative:3", "base", [0, 0, 1]]
    prompts = make_prompts(len(alphas), seed=62)
    reference = ReferenceLLM(RastConfig(adapters["base"], tuple(pairs)))
    assert decode(engine, prompts, alphas) == expected(reference, prompts, alphas)


def test_two_is_as_one_and_holds_more(
    start_engine: Callable[..., Any], random_models: dict[str, str], adapters: dict[str, str], caplog: Any
) -> None:
    engine = start_engine(random_models["base"], positive=adapters["first"], pair_forward="two")
    assert engine.apply_model(shares) == [[]]
    prompts = make_prompts(4, seed=63)
    answers = decode(engine, prompts, [1, 0.5, "positive", 2])
    one = start_engine(random_models["base"], positive=adapters["first"], pair_forward="one")
    assert decode(one, prompts, [1, 0.5, "positive", 2]) == answers

    def weights(model: Any) -> int:
        return sum(parameter.numel() for parameter in model.parameters())

    (more,), (less,) = engine.apply_model(weights), one.apply_model(weights)
    (foundation,) = start_engine(adapters["foundation"], plain=True).apply_model(weights)
    assert more - less == foundation


@pytest.mark.parametrize(
    "options, reason",
    [
        ({"pair_forward": "both"}, "pair_forward: choose one of auto, one, two, got 'both'"),
        ({"pair_forward": "one", "positive": "negative"}, "no two models"),
    ],
)
def test_what_cannot_be_one_is_refused(
    start_engine: Callable[..., Any],
    random_models: dict[str, str],
    adapters: dict[str, str],
    options: dict[str, Any],
    reason: str,
) -> None:
    options = {"positive": "first", **options}
    options["positive"] = {**random_models, **adapters}[options["positive"]]
    with pytest.raises(UserError, match=reason):
        start_engine(random_models["base"], **options)


def test_an_adapter_that_does_more_is_a_model_of_its_own(
    start_engine: Callable[..., Any], random_models: dict[str, str], adapters: dict[str, str], tmp_path: Path
) -> None:
    dora = make_adapter(tmp_path / "dora", adapters["foundation"], 4, use_dora=True)
    with pytest.raises(UserError, match="more than a product of two factors; leave it at auto"):
        start_engine(random_models["base"], positive=dora, pair_forward="one")
    assert start_engine(random_models["base"], positive=dora).apply_model(shares) == [[]]
