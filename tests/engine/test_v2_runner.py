"""The V2 model runner, CUDA's default, run here on a CPU: Triton's interpreter executes its kernels.

vLLM switches V2 off where Triton has no back end for the platform, so the test names one; no compiled kernel is needed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from greedy import GATES, SCHEDULES, expected, make_prompts

from vllm_rast import RastConfig
from vllm_rast.reference import ReferenceLLM

pytest.importorskip("triton", reason="Triton's interpreter is what runs the V2 runner's kernels on a CPU")

SCRIPT = """
import json, sys
from types import SimpleNamespace
from triton.backends import backends

backends["cpu"] = SimpleNamespace(driver=SimpleNamespace(is_active=lambda: True), compiler=None)

from vllm import SamplingParams
from vllm_rast import RastLLM

job = json.load(open(sys.argv[1]))
engine = RastLLM(**job["engine"], dtype="float32", enforce_eager=True, max_model_len=256, disable_log_stats=False)
assert engine.llm_engine.vllm_config.use_v2_model_runner
outputs = engine.generate(
    [{"prompt_token_ids": prompt} for prompt in job["prompts"]],
    [
        SamplingParams(temperature=0, max_tokens=24, prompt_logprobs=0, extra_args=None if a is None else {"alpha": a})
        for a in job["alphas"]
    ],
    use_tqdm=False,
)
runner = engine.llm_engine.engine_core.engine_core.model_executor.driver_worker.worker.model_runner
json.dump(
    {
        "state": type(runner.model_state).__name__,
        "answers": [list(output.outputs[0].token_ids) for output in outputs],
        "prompt_logprobs": [
            [entry[token].logprob for entry, token in zip(output.prompt_logprobs[1:], output.prompt_token_ids[1:])]
            for output in outputs
        ],
        "metrics": {metric.name: getattr(metric, "value", 0) for metric in engine.get_metrics()},
    },
    open(sys.argv[2], "w"),
)
"""


def decode_with_v2(tmp_path: Path, prompts: list[list[int]], alphas: list[Any], **engine: Any) -> dict[str, Any]:
    (tmp_path / "job.json").write_text(json.dumps({"engine": engine, "prompts": prompts, "alphas": alphas}))
    (tmp_path / "decode.py").write_text(SCRIPT)
    env = {**os.environ, "TRITON_INTERPRET": "1", "VLLM_USE_V2_MODEL_RUNNER": "1"}
    command = [sys.executable, tmp_path / "decode.py", tmp_path / "job.json", tmp_path / "result.json"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=1000)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-4000:]
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["state"] == "RastModelState"
    return result


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
    result = decode_with_v2(tmp_path, prompts, alphas, **models, **small)
    assert result["answers"] == expected(reference, prompts, alphas)
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
    result = decode_with_v2(tmp_path, prompts, alphas, **models, max_num_seqs=8, speculative_config=speculation)
    assert result["answers"] == expected(reference, prompts, alphas)
    assert result["metrics"]["vllm:spec_decode_num_accepted_tokens"] > 0
