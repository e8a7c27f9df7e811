"""What `speculate` turns vLLM's configuration into, and what is refused before any weights load."""

from __future__ import annotations

import dataclasses
import pickle
from types import SimpleNamespace
from typing import Any

import pytest
from test_checks import OPTIONS, engine_config, refused
from vllm import SamplingParams
from vllm.config import VllmConfig
from vllm.engine.arg_utils import EngineArgs
from vllm.exceptions import VLLMValidationError

from vllm_rast import ModelPair, RastConfig, UserError
from vllm_rast.engine.members import member_model_configs, normalise_speculate, rast_config
from vllm_rast.engine.memory import memory_plan
from vllm_rast.engine.speculation import check_features, check_scheduling, share_drafter
from vllm_rast.mix.speculation import AUTO_DRAFTS, drafter_column


@pytest.fixture(scope="module")
def rast(random_models: dict[str, str]) -> dict[str, Any]:
    return {"positive": random_models["positive"], "negative": random_models["negative"], "speculate": 3}


def test_additional_config_alone_is_enough(random_models: dict[str, str], rast: dict[str, Any]) -> None:
    arguments = EngineArgs(random_models["base"], additional_config={"rast": rast}, **OPTIONS)
    for config in (arguments.create_engine_config(), arguments.create_engine_config()):
        assert config.num_speculative_tokens == config.num_lookahead_tokens == 3
        assert not config.scheduler_config.async_scheduling
        mix = rast_config(config)
        assert mix is not None and mix.speculate == 3
        plan = memory_plan(config, member_model_configs(config, mix))
        assert [model.name for model in plan.models] == ["models0/base", "models0/positive", "models0/negative"]
        plain = engine_config(random_models["base"], {**rast, "speculate": 0})
        assert config.cache_config.kv_cache_memory_bytes == plain.cache_config.kv_cache_memory_bytes
        assert plain.speculative_config is None


def test_min_p_and_logit_bias_go_with_our_drafts_alone(random_models: dict[str, str], rast: dict[str, Any]) -> None:
    """vLLM refuses them with its own, which look at them at one position of each request."""
    asked = [SamplingParams(min_p=0.1), SamplingParams(logit_bias={5: 1.0})]
    ours = engine_config(random_models["base"], rast).speculative_config
    copied = pickle.loads(pickle.dumps(ours))  # as a server's further processes get it
    theirs = EngineArgs(random_models["base"], speculative_config={"method": "ngram", "num_speculative_tokens": 2})
    for params in asked:
        for speculative in (ours, copied, None):
            params._validate_spec_decode(speculative)
        with pytest.raises(VLLMValidationError, match="min_p and logit_bias"):
            params._validate_spec_decode(theirs.create_engine_config().speculative_config)


def test_auto_keeps_room_for_as_many_as_it_may_choose(random_models: dict[str, str], rast: dict[str, Any]) -> None:
    config = engine_config(random_models["base"], {**rast, "speculate": "auto"})
    assert config.num_speculative_tokens == config.num_lookahead_tokens == AUTO_DRAFTS
    mix = rast_config(config)
    assert mix is not None and mix.speculate == "auto" and mix.most_drafts == AUTO_DRAFTS


@pytest.mark.parametrize("speculate", [-1, 17, True, 1.5, "three", "Auto", None, [1]])
def test_a_wrong_number(random_models: dict[str, str], rast: dict[str, Any], speculate: Any) -> None:
    assert refused(random_models["base"], {**rast, "speculate": speculate}).startswith("speculate: expected an integer")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"speculative_config": {"method": "ngram", "num_speculative_tokens": 2}}, "speculative_config"),
        ({"spec_tokens": 2}, "spec_tokens"),
        ({"data_parallel_size": 2}, "data_parallel_size"),
        ({"async_scheduling": True}, "async_scheduling"),
        ({"logits_processors": ["some.module:Processor"]}, "logits_processors"),
    ],
)
def test_what_drafts_do_not_go_with(
    random_models: dict[str, str], rast: dict[str, Any], options: dict[str, Any], named: str
) -> None:
    message = refused(random_models["base"], rast, **options)
    assert message.startswith("speculate: ") and named in message and len(message.splitlines()) == 1


@pytest.fixture
def config(random_models: dict[str, str], rast: dict[str, Any]) -> VllmConfig:
    return engine_config(random_models["base"], rast)


def on_v2(config: VllmConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(config), "use_v2_model_runner", True)


def test_the_v2_runner(config: VllmConfig, random_models: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """It pads requests with drafts for its graphs, and schedules asynchronously."""
    mix = rast_config(config)
    assert mix is not None and config.speculative_config is not None
    assert config.speculative_config.num_speculative_tokens_per_batch_size == [(1, OPTIONS["max_num_seqs"], 3)]
    on_v2(config, monkeypatch)
    config.speculative_config.num_speculative_tokens_per_batch_size = None
    config.scheduler_config.async_scheduling = True
    share_drafter(config, mix, [])
    assert config.speculative_config.num_speculative_tokens_per_batch_size is None
    assert config.scheduler_config.async_scheduling and config.num_lookahead_tokens == 3
    check_scheduling(EngineArgs(random_models["base"], async_scheduling=True), config)
    with pytest.raises(UserError, match='^speculate: not with "auto" in the V2 model runner yet; give a number'):
        check_features(config, dataclasses.replace(mix, speculate="auto"), [])


def test_a_request_of_the_v2_runner_has_as_many_drafts_as_any() -> None:
    for wanted in (None, 3):
        assert normalise_speculate(SimpleNamespace(extra_args={"speculate": wanted}), 3, fewer=False) == 3
    for wanted in (0, 2):
        with pytest.raises(UserError, match="^speculate: vLLM's V2 runner drafts 3 tokens for every request"):
            normalise_speculate(SimpleNamespace(extra_args={"speculate": wanted}), 3, fewer=False)


def test_sliding_windows(config: VllmConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    mix = rast_config(config)
    assert mix is not None
    members = member_model_configs(config, mix)
    members[2].hf_text_config.sliding_window = 64
    with pytest.raises(UserError, match="speculate: not with a model with sliding windows in the V1 model runner yet"):
        check_features(config, mix, members)
    on_v2(config, monkeypatch)
    check_features(config, mix, members)


def test_the_drafter(random_models: dict[str, str]) -> None:
    some = random_models
    pairs = [ModelPair(None, some["negative"]), ModelPair(some["positive"], some["base"])]

    def column(**options: Any) -> int:
        return drafter_column(RastConfig.build(some["base"], pairs=pairs, speculate=1, **options))

    assert column() == column(drafter="positive:2") == 2
    assert column(drafter="negative") == column(drafter="negative:1") == 1
    for drafter, message in [
        ("base", "the base itself"),
        ("negative:2", "the base itself"),
        ("positive:3", "is no model of the mix; choose one of negative, negative:1, positive, positive:2"),
        (1, "is no model of the mix"),
    ]:
        with pytest.raises(UserError, match=f"^drafter: .*{message}"):
            column(drafter=drafter)
    with pytest.raises(UserError, match="^speculate: the positive drafts, and no pair has one"):
        RastConfig.build(some["base"], negative=some["negative"], speculate=1)
    assert RastConfig.build(some["base"], negative=some["negative"], speculate=0).speculate == 0
