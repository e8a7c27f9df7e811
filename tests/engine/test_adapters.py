"""PEFT adapters in a mix: the tokens of peft's own merge_and_unload, in float32."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from adapters import adapted, make_adapter
from greedy import decode, expected, make_prompts
from random_models import make_model, quantise
from safetensors.torch import load_file, save_file
from test_checks import engine_config, refused

from vllm_rast import ModelPair, RastConfig, UserError
from vllm_rast.engine.adapters import Adapter, weights_file
from vllm_rast.engine.members import member_model_configs, rast_config
from vllm_rast.engine.memory import memory_plan
from vllm_rast.mix.adapter import CONFIG, WEIGHTS
from vllm_rast.mix.model_names import ModelSource, parse_model
from vllm_rast.reference import ReferenceLLM

# What peft's LoRA can do and can be merged, and the model that it is tried on.
KINDS: list[tuple[str, dict[str, Any]]] = [
    ("negative", {}),
    (
        "negative",
        {"use_rslora": True, "rank_pattern": {"layers.0.self_attn.q_proj": 2}, "alpha_pattern": {"up_proj": 3}},
    ),
    ("negative", {"use_dora": True, "target_modules": ["q_proj", "o_proj", "up_proj"]}),
    ("negative", {"modules_to_save": ["lm_head", "norm"], "bias": "all", "target_modules": ["q_proj", "v_proj"]}),
    ("negative", {"lora_bias": True, "target_modules": ["q_proj", "k_proj"]}),
    ("negative", {"layers_to_transform": [1], "bias": "lora_only", "target_modules": ["q_proj", "v_proj", "up_proj"]}),
    ("llama", {"target_modules": "all-linear", "init_lora_weights": "gaussian"}),
    ("llama", {"target_modules": ["embed_tokens", "lm_head", "k_proj"], "use_dora": True}),
    ("gpt2", {"target_modules": ["c_attn", "c_fc"], "fan_in_fan_out": True, "use_dora": True}),
]


@pytest.fixture(scope="module")
def foundations(random_models: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("foundations")
    return {**random_models, "gpt2": make_model(folder / "gpt2", 6, architecture="gpt2", vocab=98)}


@pytest.fixture(scope="module")
def config(foundations: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> RastConfig:
    """An adapter as the base, and one of each kind as a positive, without a word about negatives."""
    root = tmp_path_factory.mktemp("adapters")
    base = make_adapter(root / "base", foundations["base"], 20)
    adapters = [
        make_adapter(root / f"{i}-{model}", foundations[model], i, **lora) for i, (model, lora) in enumerate(KINDS)
    ]
    return RastConfig(base, tuple(ModelPair(adapter) for adapter in adapters))


def test_what_an_adapter_stands_on_is_the_negative(config: RastConfig, foundations: dict[str, str]) -> None:
    assert [pair.negative for pair in config.pairs] == [foundations[model] for model, _ in KINDS]
    named = ModelPair(config.pairs[0].positive, foundations["other"])
    assert named.negative == foundations["other"]
    assert RastConfig.from_dict(foundations["base"], config.to_dict()).sources == config.sources


def test_every_kind_of_adapter(start_engine: Callable[..., Any], config: RastConfig) -> None:
    engine = start_engine(config.base, pairs=list(config.pairs))
    pairs = len(config.pairs)
    single = ["base", *(f"positive:{i}" for i in range(1, pairs + 1))]
    alphas = [*single, "negative", *([float(i == j) for j in range(pairs)] for i in range(pairs)), 0.3]
    prompts = make_prompts(len(alphas), seed=50)
    answers = decode(engine, prompts, alphas)
    assert answers == expected(ReferenceLLM(config), prompts, alphas, answers)
    different = {tuple(answer) for answer in decode(engine, prompts[:1] * (pairs + 2), [*single, "negative"])}
    assert len(different) == pairs + 2, "an adapter changed nothing"


def test_merged_weights_are_peft_s_to_the_last_bit(config: RastConfig) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    for pair in config.pairs:
        source = parse_model(str(pair.positive), "positive")
        model = AutoModelForCausalLM.from_pretrained(source.path)
        weights = {name: weight.clone() for name, weight in model.state_dict().items()}
        assert source.adapter is not None
        want = PeftModel.from_pretrained(model, source.adapter.path).merge_and_unload().state_dict()
        merged = dict(Adapter(source).merge(weights.items(), tied="gpt2" in source.path))
        assert merged.keys() == want.keys()
        changed = [name for name, weight in merged.items() if not torch.equal(weight, weights[name])]
        assert set(changed) == set(Adapter(source).changes) and changed
        for name, weight in merged.items():
            assert torch.equal(weight, want[name]), name


def test_a_sum_is_rounded_by_nobody_but_the_layer(config: RastConfig) -> None:
    """bfloat16 weights from disk give a sum in float32, with all that bfloat16 would lose."""
    source = parse_model(str(config.pairs[0].positive), "positive")
    adapter = Adapter(source)
    weights = {name: weight.bfloat16() for name, weight in load_file(f"{source.path}/model.safetensors").items()}
    exact = dict(adapter.merge(((name, weight.float()) for name, weight in weights.items()), tied=False))
    for name, weight in adapter.merge(weights.items(), tied=False):
        changed = name in adapter.changes
        assert weight.dtype == (torch.float32 if changed else torch.bfloat16)
        assert not changed or (torch.equal(weight, exact[name]) and not torch.equal(weight, weight.bfloat16().float()))


@pytest.mark.parametrize("target", [["embed_tokens"], ["lm_head", "q_proj"]])
def test_a_shared_head_works_as_in_training(
    start_engine: Callable[..., Any], foundations: dict[str, str], tmp_path: Path, target: list[str]
) -> None:
    """peft's merge_and_unload would change embeddings and head alike; the model that was trained has one changed."""
    tied = make_model(tmp_path / "tied", 8, architecture="llama", vocab=98, tied=True)
    trained = adapted(tied, 30, target_modules=target)
    trained.save_pretrained(tmp_path / "adapter")
    engine = start_engine(foundations["base"], positive=str(tmp_path / "adapter"))
    prompts = make_prompts(4, seed=51)
    reference = ReferenceLLM(RastConfig.build(foundations["base"], foundations["other"], tied))
    reference.models[1] = trained
    alphas = ["positive", "negative", 0.5, "positive"]
    answers = decode(engine, prompts, alphas)
    assert answers == expected(reference, prompts, alphas, answers)
    assert answers[0] != decode(engine, prompts[:1], ["negative"])[0]


def test_the_plan_counts_an_adapter_s_own_head(foundations: dict[str, str], tmp_path: Path) -> None:
    tied = make_model(tmp_path / "tied", 8, architecture="llama", vocab=98, tied=True)
    adapter = make_adapter(tmp_path / "adapter", tied, 30, target_modules=["lm_head"])
    config = engine_config(foundations["base"], {"positive": adapter})
    mix = rast_config(config)
    assert mix is not None
    _, positive, negative = memory_plan(config, member_model_configs(config, mix)).models
    assert positive.weight_bytes - negative.weight_bytes == 98 * 64 * 4


def spoil(folder: Path, said: dict[str, Any] | None = None, tensors: dict[str, Any] | None = None) -> str:
    """Change an adapter: what its configuration says, and tensors (None: gone)."""
    file = folder / CONFIG
    file.write_text(json.dumps({**json.loads(file.read_text()), **(said or {})}))
    weights = {**load_file(folder / WEIGHTS), **(tensors or {})}
    save_file({name: weight for name, weight in weights.items() if weight is not None}, folder / WEIGHTS)
    return str(folder)


FIRST = "base_model.model.model.layers.0.self_attn.q_proj."


@pytest.mark.parametrize(
    ("tensors", "named"),
    [
        ({f"{FIRST}lora_A.weight": torch.zeros(4, 32)}, "lora_A.weight is [4, 32], not [4, 64]"),
        ({f"{FIRST}lora_A.weight": torch.zeros(2, 64), f"{FIRST}lora_B.weight": torch.zeros(64, 2)}, "not [4, 64]"),
        ({f"{FIRST}lora_B.weight": None}, "has no partner"),
        ({f"{FIRST}lora_magnitude_vector": torch.ones(64)}, "contradict"),
        ({"base_model.model.model.layers.9.mlp.weight": torch.ones(2)}, "belongs to no weight"),
        ({"base_model.model.model.embed_tokens.weight": torch.ones(99, 64)}, "is [99, 64], not [98, 64]"),
        ({"base_model.model.prompt_encoder": torch.ones(2)}, "belongs to no weight"),
    ],
)
def test_weights_that_do_not_fit(
    config: RastConfig, foundations: dict[str, str], tmp_path: Path, tensors: dict[str, Any], named: str
) -> None:
    spoilt = shutil.copytree(str(config.pairs[0].positive), tmp_path / "spoilt")
    message = refused(foundations["base"], {"positive": spoil(Path(spoilt), tensors=tensors)})
    assert named in message and str(spoilt) in message and "\n" not in message


def test_an_adapter_without_weights(config: RastConfig, foundations: dict[str, str], tmp_path: Path) -> None:
    bare = Path(shutil.copytree(str(config.pairs[0].positive), tmp_path / "bare"))
    (bare / WEIGHTS).unlink()
    assert f"holds no {WEIGHTS}" in refused(foundations["base"], {"positive": str(bare)})


def test_an_adapter_whose_weights_are_not_on_the_hub() -> None:
    with pytest.raises(UserError, match=f"^adapter 'owner/lora@1': no {WEIGHTS} on the hub") as caught:
        weights_file(ModelSource("owner/lora", "1"))
    assert "\n" not in str(caught.value)


def test_a_quantised_foundation(config: RastConfig, foundations: dict[str, str], tmp_path: Path) -> None:
    small = quantise(str(shutil.copytree(foundations["negative"], tmp_path / "small")))
    message = refused(foundations["base"], {"positive": f"{small}+{config.pairs[0].positive}"})
    assert "is quantised; name the unquantised model, as MODEL+ADAPTER" in message


def test_peft_s_other_kinds(foundations: dict[str, str], tmp_path: Path) -> None:
    """As peft itself writes their configurations."""
    import peft

    others: list[tuple[Any, str]] = [
        (peft.PromptTuningConfig(num_virtual_tokens=4), "it is of the type 'PROMPT_TUNING', not LORA"),
        (peft.PrefixTuningConfig(num_virtual_tokens=4), "it is of the type 'PREFIX_TUNING', not LORA"),
        (peft.IA3Config(target_modules=["k_proj"], feedforward_modules=[]), "it is of the type 'IA3', not LORA"),
        (peft.AdaLoraConfig(total_step=9), "it is of the type 'ADALORA', not LORA"),
        (peft.VeraConfig(), "it is of the type 'VERA', not LORA"),
        (peft.OFTConfig(), "it is of the type 'OFT', not LORA"),
        (peft.LoraConfig(init_lora_weights="pissa"), "'pissa' changes the model it stands on"),
        (peft.LoraConfig(trainable_token_indices=[1]), "it uses trainable_token_indices"),
    ]
    for place, (config, reason) in enumerate(others):
        config.base_model_name_or_path = foundations["negative"]
        config.save_pretrained(tmp_path / str(place))
        message = refused(foundations["base"], {"positive": str(tmp_path / str(place))})
        assert reason in message and "\n" not in message


def test_a_foundation_in_the_hub_s_cache(
    start_engine: Callable[..., Any], foundations: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Named by its id alone, as in most adapters; it was downloaded before, and there is no network."""
    snapshot = tmp_path / "models--owner--small" / "snapshots" / ("0" * 40)
    shutil.copytree(foundations["other"], snapshot)
    (tmp_path / "models--owner--small" / "refs").mkdir()
    (tmp_path / "models--owner--small" / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    adapter = make_adapter(tmp_path / "adapter", foundations["other"], 40)
    named = spoil(Path(shutil.copytree(adapter, tmp_path / "named")), {"base_model_name_or_path": "owner/small"})
    engine = start_engine(foundations["base"], positive=named)
    assert engine.rast_config.pairs[0].negative == "owner/small"
    prompts, alphas = make_prompts(4, seed=52), ["positive", "negative", 0.5, 1]
    reference = ReferenceLLM(RastConfig.build(foundations["base"], adapter))
    found = decode(engine, prompts, alphas)
    assert found == expected(reference, prompts, alphas, found)
    wrong = {f"{FIRST}lora_A.weight": torch.zeros(4, 32)}
    message = refused(foundations["base"], {"positive": spoil(Path(named), tensors=wrong)})
    assert "lora_A.weight is [4, 32], not [4, 128]" in message, "what is in the cache is known before it loads"


def test_a_load_format_without_names(config: RastConfig, foundations: dict[str, str]) -> None:
    message = refused(foundations["base"], {"positive": config.pairs[0].positive}, load_format="dummy")
    assert message.startswith("load_format dummy: adapters are not merged")


def test_a_base_that_vllm_is_told_of(config: RastConfig) -> None:
    """As `vllm serve ADAPTER` with additional_config."""
    options = engine_config(config.base, {"positive": config.pairs[0].positive})
    assert options.model_config.model == config.sources[0].path
    mix = rast_config(options)
    assert mix is not None and mix.sources[0] == config.sources[0]
