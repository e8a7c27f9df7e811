"""What `speculate` turns vLLM's configuration into, and what is refused before any weights load."""

from __future__ import annotations

from typing import Any

import pytest
from test_checks import OPTIONS, engine_config, refused
from vllm.engine.arg_utils import EngineArgs

from vllm_rast import ModelPair, RastConfig, UserError
from vllm_rast.engine.members import member_model_configs, rast_config
from vllm_rast.engine.memory import memory_plan
from vllm_rast.engine.speculation import check_features
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
    ],
)
def test_what_drafts_do_not_go_with(
    random_models: dict[str, str], rast: dict[str, Any], options: dict[str, Any], named: str
) -> None:
    message = refused(random_models["base"], rast, **options)
    assert message.startswith("speculate: ") and named in message and len(message.splitlines()) == 1


def test_the_v2_runner(random_models: dict[str, str], rast: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    config = engine_config(random_models["base"], rast)
    monkeypatch.setattr(type(config), "use_v2_model_runner", True)
    with pytest.raises(UserError, match="^speculate: not with the V2 model runner yet"):
        check_features(config, [])


def test_sliding_windows(random_models: dict[str, str], rast: dict[str, Any]) -> None:
    config = engine_config(random_models["base"], rast)
    mix = rast_config(config)
    assert mix is not None
    members = member_model_configs(config, mix)
    members[2].hf_text_config.sliding_window = 64
    with pytest.raises(UserError, match="speculate: not with a model with sliding windows yet"):
        check_features(config, members)


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
