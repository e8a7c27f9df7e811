"""The V2 model runner, CUDA's default, run here on a CPU: Triton's interpreter executes its kernels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from adapters import make_adapter
from decode_trace import assert_decode_trace
from greedy import GATES, SCHEDULES, expected, make_prompts
from interpreting import run_interpreted

from vllm_rast import RastConfig
from vllm_rast.kernels.token_trace import trace_tokens
from vllm_rast.llm import Answer
from vllm_rast.mix.alpha import parse_alpha
from vllm_rast.reference import ReferenceLLM

pytest.importorskip("triton", reason="Triton's interpreter is what runs the V2 runner's kernels on a CPU")

LATE = {"alpha": 1, "warmup": 5}

SCRIPT = """
import json, sys
import interpreted
from vllm import SamplingParams
from vllm_rast import RastLLM
from vllm_rast.llm import Answer

job = json.load(open(sys.argv[1]))
engine = RastLLM(**job["engine"], dtype="float32", enforce_eager=True, max_model_len=256, disable_log_stats=False)
assert engine.llm_engine.vllm_config.use_v2_model_runner
outputs = engine.generate(
    [{"prompt_token_ids": prompt} for prompt in job["prompts"]],
    [
        SamplingParams(temperature=0, max_tokens=24, prompt_logprobs=0, extra_args={"alpha": alpha, "trace": number})
        for alpha, number in zip(job["alphas"], job["traces"])
    ],
    use_tqdm=False,
)
read = dict(engine.trace_answers(Answer(*answer) for answer in job["answers"])) if job["answers"] else {}
runner = engine.llm_engine.engine_core.engine_core.model_executor.driver_worker.worker.model_runner
json.dump(
    {
        "state": type(runner.model_state).__name__,
        "answers": [list(output.outputs[0].token_ids) for output in outputs],
        "prompt_logprobs": [
            [entry[token].logprob for entry, token in zip(output.prompt_logprobs[1:], output.prompt_token_ids[1:])]
            for output in outputs
        ],
        "traces": [
            {name: values.tolist() for name, values in getattr(output.outputs[0], "token_trace", {}).items()}
            for output in outputs
        ],
        "left": len(runner.model.decode_traces.kept),
        "read": [read[place].tolist() for place in range(len(read))],
        "metrics": {metric.name: getattr(metric, "value", 0) for metric in engine.get_metrics()},
    },
    open(sys.argv[2], "w"),
)
"""


def decode_with_v2(
    tmp_path: Path,
    prompts: list[list[int]],
    alphas: list[Any],
    traces: list[int | None],
    answers: Sequence[Answer] = (),
    **engine: Any,
) -> dict[str, Any]:
    """traces: how many likeliest ids each request asks for. answers: those that are read afterwards."""
    job = {"engine": engine, "prompts": prompts, "alphas": alphas, "traces": traces, "answers": answers}
    program = tmp_path / "decode.py"
    program.write_text(SCRIPT)
    result = run_interpreted(program, tmp_path, job)
    assert result["state"] == "RastModelState" and result["left"] == 0
    return result


def assert_traces(
    reference: ReferenceLLM, prompts: list[list[int]], alphas: list[Any], traces: list[int | None], result: Any
) -> None:
    """Of each request that asked, and of no other."""
    for prompt, alpha, number, ids, trace in zip(
        prompts, alphas, traces, result["answers"], result["traces"], strict=True
    ):
        if number is None:
            assert trace == {}
        else:
            assert_decode_trace(reference, prompt, ids, trace, alpha, number)


def read_by_reference(reference: ReferenceLLM, answer: Answer) -> np.ndarray:
    """The numbers of a given answer from the reference's logits, [num_answer_tokens, num_columns]."""
    text, start = [*answer.prompt_ids, *answer.answer_ids], len(answer.prompt_ids)
    names = ("base", "positive", "negative")
    logits = [reference.logits(text, name)[start - 1 : -1, : reference.vocab(i)] for i, name in enumerate(names)]
    weights = parse_alpha(reference.config, answer.alpha).rows_at(np.arange(len(answer.answer_ids)))
    tokens = torch.tensor(answer.answer_ids)
    return trace_tokens(logits, torch.tensor(weights, dtype=torch.float32), tokens, reference.config).numpy()


@pytest.fixture(scope="module")
def mix(random_models: dict[str, str]) -> tuple[dict[str, str], ReferenceLLM]:
    names = ("base", "positive", "negative")
    config = RastConfig.build(*(random_models[name] for name in names))
    return {"model" if name == "base" else name: random_models[name] for name in names}, ReferenceLLM(config)


def test_mixed_batch_chunks_and_preemption(tmp_path: Path, mix: tuple[dict[str, str], ReferenceLLM]) -> None:
    models, reference = mix
    alphas = [0, 0.5, 1, "positive", *SCHEDULES, *GATES, None, "base"]
    prompts = make_prompts(len(alphas), seed=50, shortest=20, longest=100)
    small = {"max_num_batched_tokens": 48, "max_num_seqs": 6, "num_gpu_blocks_override": 9, "block_size": 32}
    traces = [2, None, 0, 3, *[1, 2] * len(alphas)][: len(alphas)]
    texts = make_prompts(5, seed=52, longest=90)
    answers = [Answer(*some) for some in zip(prompts, [[7], *texts[1:]], [1, "base", 0.5, LATE, None], strict=False)]
    result = decode_with_v2(tmp_path, prompts, alphas, traces, answers, **models, **small, token_traces=True)
    assert result["answers"] == expected(reference, prompts, alphas, result["answers"])
    assert_traces(reference, prompts, alphas, traces, result)
    for answer, got in zip(answers, result["read"], strict=True):
        np.testing.assert_allclose(got, read_by_reference(reference, answer), rtol=2e-4, atol=2e-4)
    assert result["metrics"]["vllm:num_preemptions"] > 0
    for prompt, alpha, got in zip(prompts, alphas, result["prompt_logprobs"], strict=True):
        logprobs = reference.logits(prompt, alpha).log_softmax(-1)
        wanted = [float(logprobs[place, token]) for place, token in enumerate(prompt[1:])]
        assert got == pytest.approx(wanted, abs=2e-4)


def test_draft_model(tmp_path: Path, mix: tuple[dict[str, str], ReferenceLLM], random_models: dict[str, str]) -> None:
    """Drafting with another model of the base's vocabulary: V2 has no heterogeneous vocabularies."""
    models, reference = mix
    alphas = [0, 0.5, "positive", "base", 1, *SCHEDULES[:3], *GATES[:3]]
    prompts = make_prompts(len(alphas), seed=51)
    speculation = {"method": "draft_model", "model": random_models["base"], "num_speculative_tokens": 2}
    traces = [2, None, *[1, 2] * len(alphas)][: len(alphas)]
    result = decode_with_v2(tmp_path, prompts, alphas, traces, **models, max_num_seqs=8, speculative_config=speculation)
    assert result["answers"] == expected(reference, prompts, alphas, result["answers"])
    assert_traces(reference, prompts, alphas, traces, result)
    assert result["metrics"]["vllm:spec_decode_num_accepted_tokens"] > 0


def test_a_pair_in_one_forward(tmp_path: Path, random_models: dict[str, str]) -> None:
    adapter = make_adapter(tmp_path / "adapter", random_models["negative"], 4)
    alphas = [0, 0.5, "positive", "negative", None, *SCHEDULES[:2]]
    prompts = make_prompts(len(alphas), seed=53)
    models = {"model": random_models["base"], "positive": adapter, "pair_forward": "one"}
    result = decode_with_v2(tmp_path, prompts, alphas, [None] * len(alphas), **models, max_num_seqs=8)
    assert result["answers"] == expected(
        ReferenceLLM(RastConfig.build(models["model"], adapter)), prompts, alphas, result["answers"]
    )
