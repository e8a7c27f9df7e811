"""The benchmarks' parts: the opponent gives the reference's tokens, workloads keep their shape, results are drawn."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import forked
import pytest
import torch
from common.batched_transformers import ATTENTIONS, BatchedTransformers
from common.models import RECIPE, SHAPES, Shape, make_model, make_models
from common.workload import make_workload
from random_models import make_model as make_random_model

from vllm_rast.mix.config import RastConfig
from vllm_rast.reference import ReferenceLLM

BENCH = Path(__file__).parent
NUM_IDS = 90  # of the random models' tokenizer
PROMPTS = [[5, 6, 7], [8, 9, 10, 11, 12, 13, 14, 15, 16], [20, 21], [30, 31, 30, 31, 30]]
LENGTHS = [[7, 3], [12, 1], [5, 9], [20, 2]]


@pytest.mark.parametrize("script", sorted(path.name for path in BENCH.glob("[!t]*.py")))
def test_help_teaches(script: str) -> None:
    shown = forked.run(
        [sys.executable, str(BENCH / script), "--help"], forked.TorchPopen, capture_output=True, text=True
    )
    assert shown.returncode == 0, shown.stderr
    assert f"python scripts/bench/{script}" in shown.stdout, "the help shows no example"


@pytest.fixture(scope="module")
def random_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of random models, the small ones with fewer rows than the base."""
    root = tmp_path_factory.mktemp("models")
    return {
        "base": make_random_model(root / "base", 1, architecture="llama", layers=3, width=128, heads=4),
        "positive": make_random_model(root / "positive", 2, vocab=98, kv_heads=1),
        "negative": make_random_model(root / "negative", 3, vocab=98, kv_heads=1),
    }


@pytest.fixture(scope="module")
def mix(random_models: dict[str, str]) -> RastConfig:
    return RastConfig.build(random_models["base"], random_models["positive"], random_models["negative"], alpha=0.8)


@pytest.fixture(scope="module")
def reference_answers(mix: RastConfig) -> list[list[int]]:
    """The reference's greedy answers, each as long as the longest that is asked for."""
    reference = ReferenceLLM(mix, device="cpu")
    return [reference.generate(prompt, max_tokens=max(ends)) for prompt, ends in zip(PROMPTS, LENGTHS, strict=True)]


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("rows", [1, 4, 8])
@pytest.mark.parametrize("drop_ended", [False, True])
def test_opponent_gives_the_references_tokens(
    mix: RastConfig, reference_answers: list[list[int]], attention: str, rows: int, drop_ended: bool
) -> None:
    """Padding, shared prompts, and rows that leave change no token, and every answer has its own length."""
    opponent = BatchedTransformers(mix, "float32", "cpu", num_ids=NUM_IDS, attention=attention)
    answers = opponent.generate(PROMPTS, LENGTHS, rows=rows, drop_ended=drop_ended)
    assert answers == [
        [answer[:length] for length in ends] for answer, ends in zip(reference_answers, LENGTHS, strict=True)
    ]


def test_opponent_mixes(random_models: dict[str, str], reference_answers: list[list[int]]) -> None:
    """The test above can tell: the base alone says something else."""
    base = BatchedTransformers(RastConfig.build(random_models["base"]), "float32", "cpu", num_ids=NUM_IDS)
    assert base.generate(PROMPTS, LENGTHS, rows=8)[3][0] != reference_answers[3]


def test_opponents_samples_follow_the_mix(mix: RastConfig) -> None:
    """First tokens at temperature 1 against the reference's probabilities, by a chi-squared distance."""
    torch.manual_seed(0)
    opponent = BatchedTransformers(mix, "float32", "cpu", num_ids=NUM_IDS)
    draws = 4000
    answers = opponent.generate([PROMPTS[0]], [[1] * draws], rows=draws, temperature=1.0)
    counts = torch.bincount(torch.tensor(answers[0])[:, 0], minlength=128).double()
    expected = draws * torch.softmax(ReferenceLLM(mix, device="cpu").logits(PROMPTS[0])[-1].double(), dim=-1)
    common = expected >= 5
    distance = ((counts - expected)[common] ** 2 / expected[common]).sum()
    freedom = int(common.sum())
    assert distance < freedom + 5 * (2 * freedom) ** 0.5
    assert counts[NUM_IDS:].sum() == 0, "a padding id was sampled"


def test_workloads_keep_their_shape() -> None:
    small, large = make_workload(8, 8, 1000), make_workload(64, 8, 1000)
    for one in (small, large):
        starts = [len(prompt) for prompt in one.prompts]
        ends = [length for some in one.lengths for length in some]
        assert min(starts) >= 16 and max(starts) <= 512 and min(ends) >= 16 and max(ends) == 512
        assert max(map(max, one.prompts)) < 1000 and min(map(min, one.prompts)) >= 1
    assert small.answer_tokens / small.samples == pytest.approx(large.answer_tokens / large.samples, rel=0.02)
    assert small.prompt_tokens / 8 == pytest.approx(large.prompt_tokens / 64, rel=0.05)
    assert make_workload(8, 8, 1000) == small
    assert make_workload(8, 8, 1000, seed=1) != small


def test_models_are_made_once_and_alike(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    first = make_model("qwen2-tiny", tmp_path / "one", seed=3)
    assert make_model("qwen2-tiny", tmp_path / "two", seed=3).name == first.name
    weights = (first / "model.safetensors").read_bytes()
    assert (tmp_path / "two" / first.name / "model.safetensors").read_bytes() == weights
    (first / "model.safetensors").write_bytes(b"kept")
    assert make_model("qwen2-tiny", tmp_path / "one", seed=3) == first
    assert (first / "model.safetensors").read_bytes() == b"kept"
    (first / RECIPE).unlink()  # as after a run that was cut off
    make_model("qwen2-tiny", tmp_path / "one", seed=3)
    assert (first / "model.safetensors").read_bytes() == weights

    folders = make_models(["qwen2-tiny", "qwen2-tiny"], tmp_path / "three")
    base, other = (AutoModelForCausalLM.from_pretrained(folder) for folder in folders)
    assert not torch.equal(base.lm_head.weight, other.lm_head.weight)
    assert base.lm_head.weight is base.model.embed_tokens.weight and base.dtype == torch.bfloat16
    matrices = sum(parameter.numel() for parameter in base.parameters() if parameter.ndim > 1)
    assert matrices == SHAPES["qwen2-tiny"].parameters


def test_half_a_billion() -> None:
    """The large shape is Qwen2.5-0.5B's: 494 million parameters with norms and biases (its model card)."""
    assert SHAPES["qwen2-0.5b"].parameters == pytest.approx(494.0e6, rel=1e-3)
    assert isinstance(SHAPES["qwen2-91m"], Shape) and SHAPES["qwen2-91m"].parameters == pytest.approx(91e6, rel=0.01)


def spread(median: float) -> dict[str, float]:
    return {"median": median, "low": median / 2, "high": 2 * median}


def results() -> dict[str, dict[str, Any]]:
    """Files as the benchmarks write them, with round numbers."""
    growth = [
        {"kind": kind, "value": value, "token_over_first": spread(ratio)}
        for kind, values in (("requests", (1, 8)), ("context", (64, 256)), ("pairs", ("stock vLLM", 0, 1)))
        for value, ratio in zip(values, (1.0, 1.25, 1.75), strict=False)
    ]
    memory = [{"pairs": 1, "planned_bytes_per_token": 3072, "allocated_over_planned": 1.0}]
    ratio = {"static batches": spread(3.25)}
    phases = {phase: {"efficiency": spread(1.25)} for phase in ("decode", "prefill")}
    kernel = {"rows": 8, "dtype": "bf16", "in_place": False, "over_copy": spread(0.875), "times_torch": spread(4.5)}
    starts = {"mode": "eager", "warmth": "cold", "ratio": spread(1.5), "mix_seconds": spread(9.0)}
    return {
        "lockstep_eager": {
            "benchmark": "lockstep",
            "setup": {"compile": False},
            "results": [{"batch": batch, **phases} for batch in (1, 8)],
        },
        "transformers": {"benchmark": "transformers", "results": [{"name": "batched", "ratio": ratio}]},
        "kernel_cpu": {"results": [kernel]},
        "growth": {"benchmark": "growth", "results": growth, "memory": memory},
        "serve": {"benchmark": "serve", "lines": [{"clients": 8, "row": "mix", "ratio": spread(0.5)}]},
        "rounding": {"benchmark": "rounding", "results": [{"alpha": 1, "way": "float32", "kl_mean": 2.5e-13}]},
        "startup": {"benchmark": "startup", "results": [starts], "imports": {"vllm_rast": spread(0.0125)}},
    }


def test_results_become_a_table_and_a_figure(tmp_path: Path) -> None:
    for name, content in results().items():
        (tmp_path / f"{name}.json").write_text(json.dumps({"machine": {"device": "somebody's CPU"}, **content}))
    figure = tmp_path / "docs" / "all.png"
    command = [sys.executable, str(BENCH / "plot.py"), "--results", str(tmp_path), "--figure", str(figure)]
    shown = subprocess.run(command, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    for line in (
        "| models one after the other / mix: prefill, batch 8, eager | 1.25 (0.62 to 2.50) | at least 1.2 |",
        "| samples per second / transformers': batched, static batches | 3.25 (1.62 to 6.50) | at least 3 |",
        "| kernel's bandwidth / a copy's: 8 rows, bf16 | 0.88 (0.44 to 1.75) | at least 0.85 |",
        "| cost of a token: requests 8 / requests 1 | 1.25 (0.62 to 2.50) |  |",
        "| cost of a token: pairs 1 / stock vLLM | 1.75 (0.88 to 3.50) |  |",
        "| KV cache per token, allocated / planned: 1 pairs | 1.000 | within 2 % |",
        "| a server's tokens per second / stock vLLM's with the base: mix, 8 clients | 0.50 (0.25 to 1.00) |  |",
        "| KL of the float64 mix to: float32, nats | 2.5e-13 |  |",
        "| `import vllm_rast`, s | 0.013 (0.006 to 0.025) | below 0.2 |",
    ):
        assert line in shown.stdout
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_a_figure_of_nothing_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCH / "plot.py"), "--results", str(tmp_path)]
    shown = subprocess.run([*command, "--figure", str(tmp_path / "x.png")], capture_output=True, text=True)
    assert shown.returncode != 0 and "--results" in shown.stderr and "Traceback" not in shown.stderr
