"""The mix's own drafts in the V2 runner, CUDA's default, run here on a CPU: Triton's interpreter executes its kernels.

For each of vLLM's two ways to schedule an engine runs in a process of its own; see `v2_drafting`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import test_architectures
import torch
from decode_trace import assert_decode_trace
from exact import assert_coupled
from greedy import GATES, MAX_TOKENS, SCHEDULES, expected, make_prompts, params
from holding import held
from interpreting import HELPERS, run_interpreted
from random_models import make_model
from test_speculate import CHOICES, REQUESTS
from v1 import runner_of

from vllm_rast import RastConfig
from vllm_rast.engine.v2_verifier import keep_agreeing
from vllm_rast.reference import ReferenceLLM

pytest.importorskip("triton", reason="Triton's interpreter is what runs the V2 runner's kernels on a CPU")

K = 3
ALPHAS: list[Any] = [0, 0.5, "positive", "base", None, SCHEDULES[0], SCHEDULES[2], GATES[4]]
FORCED: list[Any] = [1, 0.5, {"alpha": 8, "warmup": 5}, "positive"]
SAMPLED: list[dict[str, Any]] = [
    {},
    {"temperature": 2.0, "top_p": 0.8},
    {"top_k": 5},
    {"extra_args": {"alpha": "positive"}},
    {"extra_args": {"alpha": {"alpha": 2, "warmup": 3}}},
    {"extra_args": {"alpha": "base"}, "seed": 2**62},
]
# A draw of Triton's interpreter takes some 20 ms for each row.
FEW = 8
KINDS = [options for options in REQUESTS if not options.keys() & {"prompt_logprobs", "top_p", "top_k", "max_tokens"}]


TRACE = 2  # likeliest ids


def said(alpha: Any = None, trace: int | None = None, **options: Any) -> dict[str, Any]:
    """What `greedy.params` takes, as JSON."""
    asked = {name: value for name, value in (("alpha", alpha), ("trace", trace)) if value is not None}
    extra = {"extra_args": asked} if asked else {}
    return {"temperature": 0, "max_tokens": MAX_TOKENS, **extra, **options}


def as_json(options: dict[str, Any]) -> dict[str, Any]:
    """A request of `test_speculate.REQUESTS`."""
    others = {name: value for name, value in options.items() if name != "structured_outputs"}
    return {**others, "choice": CHOICES} if "structured_outputs" in options else others


def run_v2(folder: Path, engine: dict[str, Any], batches: list[dict[str, Any]], asynchronous: bool) -> dict[str, Any]:
    job = {"engine": engine, "batches": batches, "asynchronous": asynchronous}
    return run_interpreted(HELPERS / "v2_drafting.py", folder, job)


def assert_traces(
    reference: ReferenceLLM, prompts: list[list[int]], alphas: Sequence[Any], result: dict[str, Any]
) -> None:
    """Of every other request, as `said` was given it."""
    for i, (prompt, answer, trace) in enumerate(zip(prompts, result["answers"], result["traces"], strict=True)):
        if i % 2:
            assert trace is None
        else:
            assert_decode_trace(reference, prompt, answer, trace, alphas[i], TRACE)


def asking(alphas: Sequence[Any]) -> list[dict[str, Any]]:
    """Greedy requests, of which every other one asks for a trace."""
    return [said(alpha, None if i % 2 else TRACE) for i, alpha in enumerate(alphas)]


def test_drafts(
    tmp_path: Path, models: dict[str, Any], reference: ReferenceLLM, start_engine: Callable[..., Any]
) -> None:
    """One engine, since it is slow to start: greedy answers, forced rejections, samples, keys and values, memory."""
    forced = make_prompts(len(FORCED), seed=71, shortest=20)
    answers = expected(reference, forced, FORCED)
    mixed = make_prompts(len(ALPHAS), seed=50, shortest=10, longest=60)
    sampled = make_prompts(len(SAMPLED), seed=52)
    kinds = make_prompts(len(KINDS), seed=77, shortest=10)
    (long,) = make_prompts(1, seed=74, shortest=50, longest=50)
    (whole,) = make_prompts(1, seed=76, shortest=251, longest=251)
    random = [said(0.5, **{"temperature": 1.0, "seed": 5, "max_tokens": FEW, **options}) for options in SAMPLED]
    batches: list[dict[str, Any]] = [
        {"prompts": mixed, "params": [said(alpha) for alpha in ALPHAS]},
        *({"prompts": forced, "answers": answers, "params": asking(FORCED), "right": right} for right in (0, 1, K)),
        {"prompts": sampled, "params": random, "redraw": True},
        {"prompts": forced[3:], "params": [said("positive", temperature=1.0, seed=5, max_tokens=FEW + 1)]},
        {"prompts": kinds, "params": [said(1, **as_json(options)) for options in KINDS]},
        {"prompts": [whole], "params": [said(1, max_tokens=None, ignore_eos=True)]},
        {"prompts": [long], "params": [said(1, max_tokens=40, ignore_eos=True)], "keys": True},
    ]
    memory = {"kv_cache_memory_bytes": 1 << 26}
    small = {"max_num_seqs": 8, "max_num_batched_tokens": 256, **memory}
    result = run_v2(tmp_path, {**models, **small, "speculate": K}, batches, asynchronous=False)
    first, none, one, every, redrawn, own, several, last, keys = result["batches"]

    assert first["answers"] == expected(reference, mixed, ALPHAS, first["answers"])
    assert 0 < sum(first["accepted"]) < first["drafted"]
    assert none["answers"] == one["answers"] == every["answers"] == answers
    assert none["accepted"] == [0, 0, 0] and one["accepted"][0] and one["accepted"][1:] == [0, 0]
    for forced_so in (none, one, every):
        assert_traces(reference, forced, FORCED, forced_so)
    assert all(every["accepted"]) and sum(every["accepted"]) > 0.8 * every["drafted"], "all but those beyond the ends"
    assert redrawn["answers"] == redrawn["redrawn"] and sum(redrawn["accepted"]) > 0
    assert own["accepted"] == [2, 2, 2] and own["drafted"] == 6, "the prompt gives one token, two steps four each"

    plain = start_engine(**models, **memory)
    requests = [{"prompt_token_ids": prompt} for prompt in kinds]
    outputs = plain.generate(requests, [params(1, **options) for options in KINDS], use_tqdm=False)
    assert several["answers"] == [list(output.outputs[0].token_ids) for output in outputs]
    assert several["texts"] == [output.outputs[0].text for output in outputs]
    assert len(last["answers"][0]) == 256 - len(whole)
    layers = {"model.layers", "rast1.model", "rast2.model"}
    assert {".".join(name.split(".")[:2]) for name in keys["layers"]} == layers, "no layer of a second model"
    assert result["held"] == held(runner_of(plain)), "weights and cache of an engine without drafts"


def test_chunks_and_preemption(tmp_path: Path, models: dict[str, Any], reference: ReferenceLLM) -> None:
    """With steps that overlap, as on CUDA: no step knows which drafts of the one before were kept."""
    alphas = [0, 0.5, 1, "positive", *SCHEDULES[:2], None, "base"]
    prompts = make_prompts(len(alphas), seed=50, shortest=20, longest=100)
    small = {"max_num_batched_tokens": 48, "max_num_seqs": 6, "num_gpu_blocks_override": 9}
    few = [said(alpha, temperature=1.0, seed=5, max_tokens=FEW) for alpha in alphas[:4]]
    batches: list[dict[str, Any]] = [
        {"prompts": prompts, "params": asking(alphas)},
        {"prompts": prompts[:4], "params": few, "redraw": True},
    ]
    result = run_v2(tmp_path, {**models, **small, "speculate": 2}, batches, asynchronous=True)
    greedy, sampled = result["batches"]
    assert greedy["answers"] == expected(reference, prompts, alphas, greedy["answers"])
    assert_traces(reference, prompts, alphas, greedy)
    assert sampled["answers"] == sampled["redrawn"]
    assert sum(greedy["accepted"]) > 0 and result["preempted"] > 0


def test_two_ranks(tmp_path: Path, models: dict[str, Any], reference: ReferenceLLM) -> None:
    """Every rank drafts and verifies; the small models' heads are cut again as the base's is, and gathered once."""
    alphas = [0, 0.5, SCHEDULES[0], "positive"]
    prompts = make_prompts(len(alphas), seed=50, shortest=10, longest=60)
    few = [said(alpha, temperature=1.0, seed=5, max_tokens=FEW + 1) for alpha in alphas]
    batches: list[dict[str, Any]] = [
        {"prompts": prompts, "params": asking(alphas)},
        {"prompts": prompts, "params": few, "redraw": True},
        {"prompts": prompts[3:], "params": few[3:]},
    ]
    small = {"max_num_batched_tokens": 256, "max_num_seqs": 8, "kv_cache_memory_bytes": 1 << 26}
    job = {"engine": {**models, **small, "speculate": K}, "batches": batches, "asynchronous": True}
    result = run_interpreted(HELPERS / "v2_ranks.py", tmp_path, job)
    assert result["kinds"] == [["V2Drafter", "V2Verifier"]] * 2
    greedy, sampled, own = result["batches"]
    assert greedy["answers"] == expected(reference, prompts, alphas, greedy["answers"])
    assert_traces(reference, prompts, alphas, greedy)
    assert 0 < sum(greedy["accepted"]) < greedy["drafted"]
    assert sampled["answers"] == sampled["redrawn"]
    assert own["accepted"] == [2, 2, 2] and own["drafted"] == 6, "all that the positive drafts for itself is kept"


def test_windows(tmp_path: Path) -> None:
    """A drafter with sliding windows beside full layers: several groups of the cache, in the draft's metadata too."""
    names = ("qwen3", "gemma3", "qwen3-tied")
    folders = [
        make_model(tmp_path / name, seed, **test_architectures.MODELS[name]) for seed, name in enumerate(names, 60)
    ]
    alphas = test_architectures.ALPHAS
    prompts = make_prompts(len(alphas), seed=70, shortest=30, longest=120)
    engine = dict(zip(("model", "positive", "negative"), folders, strict=True)) | {"max_num_seqs": 8, "speculate": 2}
    batches = [{"prompts": prompts, "params": [said(alpha) for alpha in alphas]}]
    result = run_v2(tmp_path, engine, batches, asynchronous=True)
    (batch,) = result["batches"]
    assert batch["answers"] == expected(ReferenceLLM(RastConfig.build(*folders)), prompts, alphas, batch["answers"])
    assert sum(batch["accepted"]) > 0 and result["groups"] > 1


def test_samples_follow_the_mix(tmp_path: Path) -> None:
    """With V2's noise a sample is one of the mix, and the draft as often as both distributions overlap."""
    generator = torch.Generator().manual_seed(1)
    p, q = torch.randn(12, generator=generator) * 1.5, torch.randn(10, generator=generator) * 1.5
    job = {"p": p.tolist(), "q": q.tolist(), "seed": 5, "number": 1000}
    result = run_interpreted(HELPERS / "v2_draws.py", tmp_path, job)
    assert_coupled(p, q, result["tokens"], result["drafts"], tolerance=0.05)  # three standard deviations


def test_drafts_are_kept_up_to_the_first_that_is_wrong() -> None:
    tokens = torch.tensor([5, 6, 7, 8, 5, 6, 9, 4])
    drafts = torch.tensor([1, 5, 6, 7, 1, 4, 6, 2], dtype=torch.int32)  # three right, the first of two wrong, none
    starts, offsets = torch.tensor([0, 4, 7, 8], dtype=torch.int32), torch.tensor([0, 1, 2, 3, 0, 1, 2, 0])
    sampled, counts = keep_agreeing(tokens, drafts, starts, offsets, (3, 5))
    assert counts.tolist() == [4, 1, 1] and counts.dtype == torch.int32
    assert sampled[0].tolist() == [5, 6, 7, 8, 0] and sampled[1:, 0].tolist() == [5, 4]
    drafts[2] = -1
    assert keep_agreeing(tokens, drafts, starts, offsets, (3, 5))[1].tolist() == [2, 1, 1]
