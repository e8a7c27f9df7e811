"""The same exactness in engines that cannot share a process or a dtype: bfloat16, compiled, two ranks."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import forked
import pytest
from adapters import make_adapter
from greedy import GATES, decode, expected, make_prompts, params
from paths import ROOT
from random_models import NUM_TOKENS, make_model, needs_int8, quantise

from vllm_rast import ModelPair, RastConfig
from vllm_rast.reference import ReferenceLLM

ALPHAS: list[Any] = [0, 0.5, 1, 2, "positive", "base", *GATES[:3]]
# Hidden states in bfloat16 carry 8 bits: measured on these models, a logprob moves by 0.017 on average, at most 0.083.
BFLOAT16_TOLERANCE = 0.15


def test_bfloat16_logprobs(start_engine: Callable[..., Any], tmp_path: Path) -> None:
    """The mix in bfloat16 against the same formula on float32 models. Logits of a spread near 1, as trained ones."""
    small = {"spread": 0.12, "vocab": 98}
    models = {
        "positive": make_model(tmp_path / "positive", 2, **small),
        "negative": make_model(tmp_path / "negative", 3, **small),
    }
    base = make_model(tmp_path / "base", 1, architecture="llama", layers=3, width=128, heads=4, spread=0.08)
    engine = start_engine(base, **models, dtype="bfloat16")
    reference = ReferenceLLM(RastConfig.build(base, **models))
    prompts = make_prompts(4, seed=30, shortest=30)
    sampling = {"prompt_logprobs": 0, "max_tokens": 1}
    differences = []
    for prompt, alpha in zip(prompts, [0, 0.5, 1, "positive"], strict=True):
        (output,) = engine.generate([{"prompt_token_ids": prompt}], params(alpha, **sampling), use_tqdm=False)
        logprobs = reference.logits(prompt, alpha).log_softmax(-1)
        for place in range(1, len(prompt)):
            got = output.prompt_logprobs[place][prompt[place]].logprob
            differences.append(abs(got - float(logprobs[place - 1, prompt[place]])))
    assert 0 < sum(differences) / len(differences) < BFLOAT16_TOLERANCE / 3
    assert max(differences) < BFLOAT16_TOLERANCE


def test_bfloat16_heads_are_not_rounded(start_engine: Callable[..., Any], random_models: dict[str, str]) -> None:
    engine = start_engine(random_models["base"], positive=random_models["positive"], dtype="bfloat16")
    (prompt,) = make_prompts(1, seed=31)

    def logits_are_finer_than_bfloat16(model: Any) -> bool:
        import torch

        hidden = torch.randn(4, model.widths[0], dtype=torch.bfloat16)
        logits = model.members[0].compute_logits(hidden)
        return logits.dtype == torch.float32 and bool((logits != logits.bfloat16().float()).float().mean() > 0.9)

    decode(engine, [prompt], [1])
    assert engine.apply_model(logits_are_finer_than_bfloat16) == [True]


@needs_int8
def test_a_quantised_small_model(
    start_engine: Callable[..., Any], random_models: dict[str, str], tmp_path: Path
) -> None:
    """Eight-bit projections and a plain head, beside a base that is not quantised: the tokens of stock vLLM."""
    small = quantise(make_model(tmp_path / "small", 7, architecture="llama", vocab=98))

    def methods(model: Any) -> dict[str, str]:
        small = model.members[1] if hasattr(model, "members") else model
        methods = {name: getattr(module, "quant_method", None) for name, module in small.named_modules()}
        return {name: type(method).__name__ for name, method in methods.items() if method is not None}

    stock = start_engine(small, plain=True)
    mix = start_engine(random_models["base"], positive=small, negative=random_models["negative"])
    (found,) = mix.apply_model(methods)
    assert found == stock.apply_model(methods)[0]
    assert found["model.layers.0.mlp.down_proj"] == "CompressedTensorsLinearMethod"
    assert found["lm_head"] == "UnquantizedEmbeddingMethod"
    prompts = make_prompts(4, seed=34)
    real_ids = {"allowed_token_ids": list(range(NUM_TOKENS))}
    assert decode(mix, prompts, ["positive"] * 4, **real_ids) == decode(stock, prompts, [None] * 4, **real_ids)


SCRIPT = """
import json, sys
from vllm import SamplingParams
from vllm_rast import RastLLM

if __name__ == "__main__":
    job = json.load(open(sys.argv[1]))
    engine = RastLLM(job["base"], positive=job["positive"], negative=job.get("negative"), dtype="float32",
                     max_model_len=256, max_num_seqs=8, block_size=32, **job["options"])
    ranks = job["options"].get("tensor_parallel_size", 1)
    if ranks > 1:
        from counting import count_gathers, counted
        engine.apply_model(count_gathers)
    answers = []
    for sampling in job["samplings"]:
        outputs = engine.generate(
            [{"prompt_token_ids": prompt} for prompt in job["prompts"]],
            [SamplingParams(max_tokens=24, extra_args={"alpha": alpha}, **sampling) for alpha in job["alphas"]],
            use_tqdm=False,
        )
        answers.append([list(output.outputs[0].token_ids) for output in outputs])
    json.dump(answers, open(sys.argv[2], "w"))
    if ranks > 1:
        json.dump(engine.apply_model(counted), open(sys.argv[3], "w"))
"""
GREEDY = {"temperature": 0}
SEEDED = {"temperature": 0.7, "seed": 5, "top_p": 0.9}


def decode_elsewhere(
    tmp_path: Path,
    models: dict[str, str],
    prompts: list[list[int]],
    options: dict[str, Any],
    samplings: Sequence[dict[str, Any]] = (GREEDY,),
    **env: str,
) -> list[list[list[int]]]:
    """Decode in a process of its own, whose environment differs: the answers to the prompts for each of `samplings`."""
    job = {**models, "options": options, "prompts": prompts, "alphas": ALPHAS, "samplings": samplings}
    (tmp_path / "job.json").write_text(json.dumps(job))
    (tmp_path / "decode.py").write_text(SCRIPT)
    command = [
        sys.executable,
        tmp_path / "decode.py",
        *(tmp_path / f"{name}.json" for name in ("job", "answers", "gathers")),
    ]
    done = forked.run(command, env={**os.environ, **env}, capture_output=True, text=True, timeout=1000)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return json.loads((tmp_path / "answers.json").read_text())


@pytest.fixture(scope="module")
def wide_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Vocabularies as Qwen2.5's: 152,064 rows are cut into 2 x 76,032, 151,936 into 2 x 75,968, so a small model's
    slices are cut again; ids of the tokenizer lie in both."""
    folder = tmp_path_factory.mktemp("wide")
    words = ["<pad>", "<eos>", "<unk>"] + [f"w{i}" for i in range(151_662)]
    small = {"words": words, "vocab": 151_936}
    return {
        "base": make_model(folder / "base", 1, words=words, vocab=152_064),
        "positive": make_model(folder / "positive", 2, architecture="llama", layers=1, **small),
        "negative": make_model(folder / "negative", 3, **small),
    }


TWO_RANKS = {"tensor_parallel_size": 2, "enforce_eager": True}
TWO_RANKS_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "1",
    "VLLM_ALLOW_INSECURE_SERIALIZATION": "1",  # for the functions that count
    "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "helpers")]),
}


def test_two_ranks(tmp_path: Path, wide_models: dict[str, str]) -> None:
    """tensor_parallel_size=2 with engine and workers in processes of their own, as a user has them. A step gathers
    once. The positive is an adapter."""
    adapter = make_adapter(tmp_path / "adapter", wide_models["positive"], 4)
    models = {**wide_models, "positive": adapter}
    prompts = make_prompts(len(ALPHAS), seed=32)
    (answers,) = decode_elsewhere(tmp_path, models, prompts, TWO_RANKS, **TWO_RANKS_ENVIRONMENT)
    mixed = ReferenceLLM(RastConfig.build(models["base"], models["positive"], models["negative"]))
    assert answers == expected(mixed, prompts, ALPHAS, answers)
    chosen = {token for answer in answers[:4] for token in answer}
    assert min(chosen) < 75_968 and max(chosen) > 76_032, "one rank's slice was never chosen from"
    for counts in json.loads((tmp_path / "gathers.json").read_text()):
        assert 0 < counts["gathers"] == counts["compute_logits"]


def test_two_ranks_that_draft(start_engine: Callable[..., Any], tmp_path: Path, wide_models: dict[str, str]) -> None:
    """Both ranks draft the same, as many as the first says, whatever their times; one gather for each pass.

    Samples are those of one rank. The positive is an adapter on the negative, and both are one forward.
    """
    base, negative = wide_models["base"], wide_models["negative"]
    positive = make_adapter(tmp_path / "adapter", negative, 5)
    prompts = make_prompts(len(ALPHAS), seed=32)
    alone = start_engine(base, positive=positive, negative=negative, speculate=1, pair_forward="two")
    samples = decode(alone, prompts, ALPHAS, **SEEDED)
    answers = expected(ReferenceLLM(RastConfig.build(base, positive, negative)), prompts, ALPHAS)
    options = {**TWO_RANKS, "speculate": "auto", "pair_forward": "one"}
    models = {**wide_models, "positive": positive}
    found = decode_elsewhere(tmp_path, models, prompts, options, [GREEDY, SEEDED], **TWO_RANKS_ENVIRONMENT)
    assert found == [answers, samples] and samples != answers
    first, second = json.loads((tmp_path / "gathers.json").read_text())
    assert first == second and first["draft"] > 0
    assert first["gathers"] == first["compute_logits"] + first["draft"]


def assert_compiled(tmp_path: Path, models: dict[str, str], *others: str, **options: Any) -> None:
    """Decode in a compiled engine. others: positives of further pairs."""
    options |= {"enforce_eager": False, "pairs": [{"positive": other} for other in others]}
    prompts = make_prompts(len(ALPHAS), seed=33)
    (answers,) = decode_elsewhere(tmp_path, models, prompts, options, VLLM_CACHE_ROOT=str(tmp_path / "cache"))
    config = RastConfig.build(*models.values(), pairs=[ModelPair(other) for other in others])
    assert answers == expected(ReferenceLLM(config), prompts, ALPHAS, answers)
    assert list((tmp_path / "cache").rglob("*")), "nothing was compiled"


def test_compiled(tmp_path: Path) -> None:
    """Two models of one layer: each piece between two attentions costs seconds of compiling."""
    base = make_model(tmp_path / "base", 1, architecture="llama", layers=1, width=128, heads=4)
    positive = make_model(tmp_path / "positive", 2, layers=1, vocab=98)
    assert_compiled(tmp_path, {"base": base, "positive": positive})


def test_compiled_with_an_adapter(tmp_path: Path) -> None:
    """A base, a model of its own, and an adapter in one forward with what it stands on; of one layer each."""
    base = make_model(tmp_path / "base", 1, architecture="llama", layers=1, width=128, heads=4)
    other, negative = (make_model(tmp_path / f"small{seed}", seed, layers=1, vocab=98, kv_heads=1) for seed in (2, 3))
    models = {"base": base, "positive": make_adapter(tmp_path / "adapter", negative, 6), "negative": negative}
    assert_compiled(tmp_path, models, other, pair_forward="one")
