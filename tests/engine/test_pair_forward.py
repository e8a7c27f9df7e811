"""Models that differ by adapters alone, run as one forward: the tokens of models that run apart, in float32."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from adapters import make_adapter
from greedy import SCHEDULES, decode, expected, make_prompts, params
from random_models import make_model
from v1 import drafts

from vllm_rast import ModelPair, RastConfig, UserError
from vllm_rast.engine import stored
from vllm_rast.mix.adapter import WEIGHTS
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
    start_engine: Callable[..., Any],
    random_models: dict[str, str],
    adapters: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whose files' headers are read once each, from the first check to the weights."""
    opened: Counter[str] = Counter()

    def counting(file: str, *args: Any) -> Any:
        opened[file] += 1
        return open(file, *args)

    stored.read_header.cache_clear()
    monkeypatch.setattr(stored, "open", counting, raising=False)
    engine = start_engine(random_models["base"], positive=adapters["first"], pair_forward="one", **SMALL)
    assert set(opened.values()) == {1} and f"{adapters['first']}/{WEIGHTS}" in opened
    assert engine.apply_model(shares) == [[2]]
    prompts = make_prompts(len(ALPHAS), seed=60, shortest=20, longest=100)
    reference = ReferenceLLM(RastConfig.build(random_models["base"], adapters["first"]))
    found = decode(engine, prompts, ALPHAS)
    assert found == expected(reference, prompts, ALPHAS, found)


@pytest.fixture(scope="module")
def drafting(
    start_engine: Callable[..., Any], random_models: dict[str, str], adapters: dict[str, str]
) -> dict[str, Any]:
    """An engine of each form whose positive drafts: of one forward the drafter's half alone, with its own keys."""
    options = {"positive": adapters["first"], "speculate": 3, "disable_log_stats": False}
    return {form: start_engine(random_models["base"], pair_forward=form, **options) for form in ("one", "two")}


@pytest.mark.parametrize("form", ["one", "two"])
def test_drafts(drafting: dict[str, Any], random_models: dict[str, str], adapters: dict[str, str], form: str) -> None:
    engine = drafting[form]
    assert engine.apply_model(shares) == [[2] if form == "one" else []]
    prompts = make_prompts(len(ALPHAS), seed=61)
    reference = ReferenceLLM(RastConfig.build(random_models["base"], adapters["first"]))
    before = drafts(engine)
    found = decode(engine, prompts, ALPHAS)
    assert found == expected(reference, prompts, ALPHAS, found)
    drafted, accepted = drafts(engine) - before
    assert 0 < accepted.sum() < drafted.sum()
    before = drafts(engine)
    decode(engine, prompts[:2], ["positive"] * 2)
    drafted, accepted = drafts(engine) - before
    assert drafted.sum() == accepted.sum() > 0, "the positive's own drafts are all accepted"


def test_samples_are_those_of_either_form_with_and_without_drafts(drafting: dict[str, Any]) -> None:
    prompts = make_prompts(len(ALPHAS), seed=62)
    requests = [{"prompt_token_ids": prompt} for prompt in prompts]

    def samples(form: str, wanted: int) -> list[list[int]]:
        every = [params(alpha, temperature=1.0, seed=7) for alpha in ALPHAS]
        for one in every:
            one.extra_args["speculate"] = wanted
        before = drafts(drafting[form])
        outputs = drafting[form].generate(requests, every, use_tqdm=False)
        assert (drafts(drafting[form]) - before).any() == (wanted > 0)
        return [list(output.outputs[0].token_ids) for output in outputs]

    found = [samples(form, wanted) for form in drafting for wanted in (3, 0)]
    assert all(some == found[0] for some in found)
    assert found[0] != decode(drafting["one"], prompts, ALPHAS), "these are no samples"


def test_several_pairs_and_a_base(
    start_engine: Callable[..., Any], random_models: dict[str, str], adapters: dict[str, str]
) -> None:
    """Two adapters and what they stand on in one forward; the base, an adapter, and its own foundation in another."""
    pairs = [ModelPair(adapters["first"]), ModelPair(adapters["second"]), ModelPair(None, random_models["base"])]
    engine = start_engine(adapters["base"], pairs=pairs, pair_forward="one")
    assert engine.apply_model(shares) == [[2, 3]]
    alphas = [0.5, [1, 0, 0], [0, 1, 0.5], [0.3, -0.4, 0], "positive:2", "negative:3", "base", [0, 0, 1]]
    prompts = make_prompts(len(alphas), seed=62)
    reference = ReferenceLLM(RastConfig(adapters["base"], tuple(pairs)))
    found = decode(engine, prompts, alphas)
    assert found == expected(reference, prompts, alphas, found)


def test_one_holds_less(start_engine: Callable[..., Any], drafting: dict[str, Any], adapters: dict[str, str]) -> None:
    def weights(model: Any) -> int:
        return sum(parameter.numel() for parameter in model.parameters())

    (less,), (more,) = drafting["one"].apply_model(weights), drafting["two"].apply_model(weights)
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


def test_an_adapter_that_does_more_has_to_be_a_model_of_its_own(
    start_engine: Callable[..., Any], random_models: dict[str, str], adapters: dict[str, str], tmp_path: Path
) -> None:
    dora = make_adapter(tmp_path / "dora", adapters["foundation"], 4, use_dora=True)
    with pytest.raises(UserError, match="more than a product of two factors; leave it at auto"):
        start_engine(random_models["base"], positive=dora, pair_forward="one")
