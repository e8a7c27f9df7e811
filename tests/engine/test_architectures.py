"""Other architectures in a mix, as random tiny models: token for token against transformers, in float32."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from four_bits import quantise_randomly
from greedy import decode, expected, make_prompts, params
from random_models import NUM_TOKENS, make_model
from test_checks import engine_config, refused

from vllm_rast import RastConfig
from vllm_rast.reference import ReferenceLLM

WINDOW = 16  # tokens: shorter than the prompts
LLAMA3 = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
SLIDING = ["sliding_attention", "full_attention"]
MODELS: dict[str, dict[str, Any]] = {
    "llama3": {
        "architecture": "llama",
        "rope_parameters": {**LLAMA3, "original_max_position_embeddings": 256},
    },
    "llama-tied": {"architecture": "llama", "vocab": 98, "tied": True},
    "qwen3": {"architecture": "qwen3", "head_dim": 32},
    "qwen3-tied": {"architecture": "qwen3", "head_dim": 32, "vocab": 98, "tied": True},
    "qwen3-moe": {
        "architecture": "qwen3_moe",
        "head_dim": 32,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "norm_topk_prob": True,
    },
    "olmo3": {"architecture": "olmo3", "layers": 4, "sliding_window": WINDOW, "layer_types": SLIDING * 2},
    "olmo3-small": {"architecture": "olmo3", "vocab": 98, "sliding_window": WINDOW, "layer_types": SLIDING},
    "gemma3": {
        "architecture": "gemma3",
        "vocab": 98,
        "tied": True,
        "head_dim": 32,
        "query_pre_attn_scalar": 32,
        "sliding_window": WINDOW,
        "layer_types": [SLIDING[0], SLIDING[0], SLIDING[1]],
        "layers": 3,
    },
}
# The base, and the pair's models. The mixture of experts comes first: process groups are made with the first engine.
MIXES: dict[str, list[str]] = {
    "qwen3-moe": ["llama-tied", "qwen3"],
    "llama3": ["qwen3", "qwen3-tied"],
    "olmo3": ["olmo3-small", "qwen3-tied"],
    "qwen3": ["gemma3", "olmo3-small"],
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root: Path = tmp_path_factory.mktemp("architectures")
    return {name: make_model(root / name, seed, **said) for seed, (name, said) in enumerate(MODELS.items(), 60)}


ALPHAS: list[Any] = ["base", "positive", "negative", 0.5, 1, {"alpha": 1, "warmup": 5}]


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    return make_prompts(len(ALPHAS), seed=70, shortest=30, longest=120)


@pytest.fixture(scope="module")
def answers(models: dict[str, str], prompts: list[list[int]]) -> dict[str, list[list[int]]]:
    """Of every mix, before any engine starts: vLLM runs some architectures with transformers' own classes, which it
    changes so that they run nowhere else."""
    configs = {base: RastConfig.build(*(models[name] for name in (base, *pair))) for base, pair in MIXES.items()}
    return {base: expected(ReferenceLLM(config), prompts, ALPHAS) for base, config in configs.items()}


@pytest.mark.parametrize("base", MIXES)
def test_an_architecture(
    start_engine: Callable[..., Any],
    models: dict[str, str],
    prompts: list[list[int]],
    answers: dict[str, list[list[int]]],
    base: str,
) -> None:
    positive, negative = (models[name] for name in MIXES[base])
    engine = start_engine(models[base], positive=positive, negative=negative)
    assert decode(engine, prompts, ALPHAS) == answers[base]
    assert decode(engine, prompts, ALPHAS) == answers[base], "with a warm prefix cache"


@pytest.fixture(scope="module")
def quantised(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root: Path = tmp_path_factory.mktemp("quantised")
    small = {"architecture": "llama", "vocab": 98}
    return {kind: quantise_randomly(make_model(root / kind, 80, **small), kind) for kind in ("gptq", "awq", "fp8")}


def nats_behind(engine: Any, prompt: list[int], answer: list[int]) -> list[float]:
    """How much less likely than the likeliest each of an answer's tokens is in a model of its own."""
    whole = {"prompt_token_ids": [*prompt, *answer]}
    (output,) = engine.generate([whole], params(prompt_logprobs=-1, max_tokens=1), use_tqdm=False)
    rows = output.prompt_logprobs[len(prompt) :]
    return [
        max(row[i].logprob for i in range(NUM_TOKENS)) - row[token].logprob
        for row, token in zip(rows, answer, strict=True)
    ]


@pytest.mark.slow
def test_four_bits(
    start_engine: Callable[..., Any], models: dict[str, str], quantised: dict[str, str], prompts: list[list[int]]
) -> None:
    """A GPTQ and an AWQ model beside a base that is not quantised: each gives the tokens of stock vLLM, in bfloat16.

    Stock vLLM rounds its logits to bfloat16, in steps of 1/16 from 8 on, and a mix does not. So where several tokens
    are the likeliest in stock vLLM, stock takes the first of them, and a mix may take another.
    """
    engine = start_engine(models["llama3"], positive=quantised["gptq"], negative=quantised["awq"], dtype="bfloat16")
    real_ids = {"allowed_token_ids": list(range(NUM_TOKENS))}
    for name, kind in (("positive", "gptq"), ("negative", "awq")):
        stock = start_engine(quantised[kind], plain=True, dtype="bfloat16", max_logprobs=-1)
        answers = decode(engine, prompts, [name] * len(prompts), **real_ids)
        for prompt, answer in zip(prompts, answers, strict=True):
            assert not any(nats_behind(stock, prompt, answer))


def test_a_quantisation_that_is_not_here(models: dict[str, str], quantised: dict[str, str]) -> None:
    message = refused(models["llama3"], {"positive": quantised["gptq"]})
    assert "torch.float32 is not supported" in message and "set dtype to one of these" in message
    message = refused(models["llama3"], {"positive": quantised["fp8"]}, dtype="bfloat16")
    assert "no FP8 with one scale for a weight on a CPU" in message


@pytest.mark.parametrize(
    ("weights", "activations", "kind"),
    [
        ({"strategy": "tensor"}, {"strategy": "tensor", "dynamic": True}, "one scale for a weight"),
        ({"strategy": "channel"}, None, "activations of 16 bits"),
        ({"strategy": "channel"}, {"strategy": "token", "dynamic": True}, None),
    ],
)
def test_fp8_of_compressed_tensors(
    models: dict[str, str],
    tmp_path: Path,
    weights: dict[str, Any],
    activations: dict[str, Any] | None,
    kind: str | None,
) -> None:
    """Nothing is loaded here, so that what a checkpoint says is enough."""
    eight_bits = {"num_bits": 8, "type": "float", "symmetric": True}
    group = {
        "targets": ["Linear"],
        "weights": {**eight_bits, **weights, "dynamic": False},
        "input_activations": activations and {**eight_bits, **activations},
    }
    small = Path(shutil.copytree(models["llama-tied"], tmp_path / "small"))
    said = {"quant_method": "compressed-tensors", "format": "float-quantized", "config_groups": {"group_0": group}}
    config = json.loads((small / "config.json").read_text())
    (small / "config.json").write_text(json.dumps({**config, "quantization_config": said}))
    if kind is None:
        assert engine_config(models["llama3"], {"positive": str(small)}, dtype="bfloat16")
    else:
        message = refused(models["llama3"], {"positive": str(small)}, dtype="bfloat16")
        assert f"no FP8 with {kind} on a CPU" in message


def test_experts_beside_a_base_without(models: dict[str, str]) -> None:
    message = refused(models["llama3"], {"positive": models["qwen3-moe"]})
    assert "is a mixture of experts, and the base is none" in message
