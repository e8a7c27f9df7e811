"""What is refused before any weights load: one line that names the option, and no engine started."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo
from random_models import WORDS, make_model
from vllm.engine.arg_utils import EngineArgs
from vllm.platforms import current_platform

from vllm_rast import ModelPair, RastConfig, UserError
from vllm_rast.engine import compiling
from vllm_rast.engine.members import member_model_configs, rast_config
from vllm_rast.engine.memory import GIB, MemoryPlan, ModelPlan, memory_plan
from vllm_rast.engine.names import LOAD_FORMAT, WORKER_CLS
from vllm_rast.engine.plugin import register

register()

OPTIONS: dict[str, Any] = {"dtype": "float32", "enforce_eager": True, "max_model_len": 256, "max_num_seqs": 4}


def engine_config(base: str, rast: dict[str, Any], **options: Any) -> Any:
    """What every entry point of vLLM does before it starts anything."""
    return EngineArgs(base, additional_config={"rast": rast}, **{**OPTIONS, **options}).create_engine_config()


def refused(base: str, rast: dict[str, Any], **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        engine_config(base, rast, **options)
    message = str(caught.value)
    assert len(message.splitlines()[0]) < 400
    return message


@pytest.fixture(scope="module")
def rast(random_models: dict[str, str]) -> dict[str, str]:
    return {"positive": random_models["positive"], "negative": random_models["negative"]}


def test_additional_config_alone_is_enough(random_models: dict[str, str], rast: dict[str, str]) -> None:
    config = engine_config(random_models["base"], rast, load_format="safetensors")
    assert config.load_config.load_format == LOAD_FORMAT
    assert config.parallel_config.worker_cls == WORKER_CLS
    mix = rast_config(config)
    assert mix is not None and mix.load_format == "safetensors"
    assert mix.pairs == (ModelPair(rast["positive"], rast["negative"], 1.0),)


def test_without_pythons_headers_nothing_is_compiled(
    random_models: dict[str, str], rast: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or else a request for logprobs would end the engine."""
    monkeypatch.setattr(compiling, "lacks_headers", lambda: True)
    monkeypatch.setenv("TORCH_COMPILE_DISABLE", "0")
    message = refused(random_models["base"], rast, enforce_eager=False)
    assert message.startswith("enforce_eager: ") and "python3-dev" in message
    with torch._dynamo.config.patch(disable=False):
        engine_config(random_models["base"], rast)
        assert torch._dynamo.config.disable and os.environ["TORCH_COMPILE_DISABLE"] == "1"


def test_where_headers_are_looked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(compiling.sysconfig, "get_path", lambda name: str(tmp_path))
    assert compiling.lacks_headers() == current_platform.is_cpu()
    (tmp_path / "Python.h").touch()
    assert not compiling.lacks_headers()


def test_a_plain_engine_is_left_alone(random_models: dict[str, str]) -> None:
    config = EngineArgs(random_models["base"], **OPTIONS).create_engine_config()
    assert config.load_config.load_format == "auto" and rast_config(config) is None
    assert config.cache_config.kv_cache_memory_bytes is None


def test_load_format_without_a_mix(random_models: dict[str, str]) -> None:
    with pytest.raises(UserError, match="load_format rast: nothing to mix"):
        EngineArgs(random_models["base"], load_format="rast", **OPTIONS).create_engine_config()


def test_missing_model(random_models: dict[str, str]) -> None:
    assert "no folder" in refused(random_models["base"], {"positive": "/nowhere/at/all"})
    assert "'owner/name'" in refused(random_models["base"], {"positive": "owner/name"})


def test_folder_without_a_model(random_models: dict[str, str], tmp_path: Path) -> None:
    assert "no config.json" in refused(random_models["base"], {"positive": str(tmp_path)})


def test_different_tokenizer(random_models: dict[str, str], tmp_path: Path) -> None:
    words = [*WORDS]
    words[40], words[41] = words[41], words[40]
    other = make_model(tmp_path / "other", 1, architecture="llama", words=words)
    message = refused(random_models["base"], {"positive": other})
    assert "differs from the base's at id 40: 'w38' instead of 'w37'" in message


def test_missing_tokenizer_can_be_waved_through(random_models: dict[str, str], tmp_path: Path) -> None:
    bare = Path(shutil.copytree(random_models["llama"], tmp_path / "bare"))
    for path in bare.glob("*token*"):
        path.unlink()
    assert "check_tokenizers" in refused(random_models["base"], {"positive": str(bare)})
    assert engine_config(random_models["base"], {"positive": str(bare), "check_tokenizers": False})


def test_too_few_embedding_rows(random_models: dict[str, str], tmp_path: Path) -> None:
    short = make_model(tmp_path / "short", 1, architecture="llama", vocab=64)
    assert "64 embedding rows do not cover" in refused(random_models["base"], {"negative": short})


def test_short_context(random_models: dict[str, str], tmp_path: Path) -> None:
    short = make_model(tmp_path / "short", 1, context=128)
    message = refused(random_models["base"], {"positive": short})
    assert "max_model_len: 256 is longer" in message and "at most 128" in message


def test_recurrent_model_cannot_share_the_layout(random_models: dict[str, str], tmp_path: Path) -> None:
    from transformers import MambaConfig, MambaForCausalLM

    MambaForCausalLM(MambaConfig(vocab_size=98, hidden_size=32, num_hidden_layers=1, state_size=4)).save_pretrained(
        tmp_path
    )
    message = refused(random_models["base"], {"positive": str(tmp_path)})
    assert "KV cache layout" in message and "recurrent" in message


@pytest.mark.parametrize("alpha", [float("nan"), float("inf"), 1e308, "much", True, [1.0, 2.0]])
def test_bad_alpha(random_models: dict[str, str], rast: dict[str, str], alpha: Any) -> None:
    assert refused(random_models["base"], {**rast, "alpha": alpha}).startswith("alpha")


def test_unknown_key(random_models: dict[str, str]) -> None:
    assert "'postive'" in refused(random_models["base"], {"postive": "x"})


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"pipeline_parallel_size": 2}, "pipeline_parallel_size"),
        ({"enable_lora": True}, "enable_lora"),
        ({"enable_prompt_embeds": True}, "enable_prompt_embeds"),
        ({"worker_cls": "some.other.Worker"}, "worker_cls"),
    ],
)
def test_what_a_mix_cannot_do(
    random_models: dict[str, str], rast: dict[str, str], options: dict[str, Any], named: str
) -> None:
    assert refused(random_models["base"], rast, **options).startswith(named)


def test_drafters_that_read_hidden_states(random_models: dict[str, str], rast: dict[str, str], tmp_path: Path) -> None:
    from vllm_rast.engine.checks import check_features

    config = engine_config(
        random_models["base"],
        rast,
        speculative_config={
            "method": "ngram",
            "num_speculative_tokens": 2,
            "prompt_lookup_max": 2,
            "prompt_lookup_min": 1,
        },
    )
    config.speculative_config.method = "eagle"
    with pytest.raises(UserError, match="speculative_config: 'eagle'"):
        check_features(config)


def test_not_enough_memory_prints_the_plan(random_models: dict[str, str], rast: dict[str, str]) -> None:
    message = refused(random_models["base"], rast, kv_cache_memory_bytes=1 << 18)
    assert message.startswith("memory: one request of max_model_len 256")
    assert "lower max_model_len to" in message and "bytes/token" in message


def test_the_plan_counts_bytes(random_models: dict[str, str], rast: dict[str, str]) -> None:
    config = engine_config(random_models["base"], rast, kv_cache_memory_bytes=1 << 24)
    mix = rast_config(config)
    assert mix is not None
    plan = memory_plan(config, member_model_configs(config, mix))
    for model, folder in zip(plan.models, [random_models["base"], rast["positive"], rast["negative"]], strict=True):
        stored = (Path(folder) / "model.safetensors").stat().st_size
        assert model.weight_bytes == pytest.approx(stored, rel=0.05)
    # 2 (key and value) x KV heads x head size x 4 bytes x layers
    assert [model.kv_bytes_per_token for model in plan.models] == [2 * 2 * 32 * 4 * 3, 2 * 32 * 4 * 2, 2 * 32 * 4 * 2]
    assert plan.tokens == (1 << 24) // 2560
    assert "6553 tokens fit" in str(plan)


def test_plan_of_unknown_weights() -> None:
    plan = MemoryPlan((ModelPlan("m", None, 100),), None, "unknown")
    plan.check(10**9)
    assert "known after loading" in str(plan)
    with pytest.raises(UserError, match="lower max_model_len to 0"):
        MemoryPlan((ModelPlan("m", GIB, 100),), -5, "x").check(1)


def test_the_plan_agrees_with_vllm(start_engine: Any, random_models: dict[str, str], rast: dict[str, str]) -> None:
    engine = start_engine(random_models["base"], **rast, kv_cache_memory_bytes=1 << 24)
    config = engine.llm_engine.vllm_config
    plan = memory_plan(config, member_model_configs(config, engine.rast_config))
    blocks = engine.llm_engine.engine_core.engine_core.scheduler.kv_cache_manager.block_pool.num_gpu_blocks
    assert plan.tokens == pytest.approx(blocks * config.cache_config.block_size, rel=0.02)


def test_layers_left_unquantised_are_found_under_the_prefix() -> None:
    """A quantised small model names the layers to leave alone without our prefix."""
    from vllm.model_executor.models.utils import WeightsMapper

    mapper = WeightsMapper(orig_to_new_prefix={"": "rast1."})
    assert mapper.apply_list(["lm_head", "model.layers.0.mlp"]) == ["rast1.lm_head", "rast1.model.layers.0.mlp"]


def test_config_round_trip() -> None:
    config = RastConfig.build("owner/base@abc", "owner/rl", "owner/small", 0.5, [ModelPair("a/b", None, -1.0)])
    assert json.loads(json.dumps(config.to_dict())) == config.to_dict()
    assert RastConfig.from_dict("owner/base@abc", config.to_dict()) == config
    assert config.sources[0].revision == "abc"
