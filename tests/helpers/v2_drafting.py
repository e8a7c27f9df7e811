"""A program: batches through an engine of the V2 runner with drafts, whose kernels Triton's interpreter runs on a CPU.

python v2_drafting.py JOB.json RESULT.json, with TRITON_INTERPRET=1 and VLLM_USE_V2_MODEL_RUNNER=1. The job has the
`engine`'s options, `asynchronous`, and `batches` of {"prompts", "params"} with one of these beside them, maybe:
`right`, of the known `answers`' next tokens how many are drafted before a wrong one; `redraw`, to find the samples
again from the reference's logits; `keys`, to compare the keys and values that drafting left with those of a prompt.
"""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from typing import Any
from unittest.mock import patch

import interpreted  # noqa: F401
import torch
from holding import held
from vllm import SamplingParams
from vllm.platforms import current_platform
from vllm.sampling_params import StructuredOutputsParams
from vllm.v1.sample.ops import topk_topp_sampler
from vllm.v1.worker.gpu import structured_outputs

from vllm_rast import RastConfig, RastLLM
from vllm_rast.engine.coupling import draw_coupled
from vllm_rast.reference import ReferenceLLM


class GrammarKernel:
    """vLLM's `_apply_grammar_bitmask_kernel` in torch: rules out the ids whose bits are 0, row by row."""

    def __getitem__(self, grid: Any) -> Any:
        return self.apply

    @staticmethod
    def apply(logits: Any, _: int, places: Any, starts: Any, masks: Any, *rest: int, **constants: int) -> None:
        for place, mask in zip(places.tolist(), masks, strict=True):
            request, offset = divmod(place, constants["MASK_STRIDE"])
            row = int(starts[request]) + offset
            if row < starts[request + 1]:
                allowed = (mask.unsqueeze(1) >> torch.arange(32)) & 1
                logits[row].masked_fill_(allowed.flatten()[: logits.shape[1]] == 0, -torch.inf)


# Two kernels that are more than the interpreter knows.
topk_topp_sampler.HAS_TRITON = False
structured_outputs._apply_grammar_bitmask_kernel = GrammarKernel()


def start(options: dict[str, Any], asynchronous: bool) -> Any:
    """vLLM has no asynchronous scheduling on a CPU; on CUDA it is the default."""
    plain = current_platform.check_and_update_config

    def update(vllm_config: Any) -> None:
        plain(vllm_config)
        vllm_config.scheduler_config.async_scheduling = asynchronous

    with patch.object(type(current_platform), "check_and_update_config", staticmethod(update)):
        engine = RastLLM(
            **options, dtype="float32", enforce_eager=True, max_model_len=256, block_size=32, disable_log_stats=False
        )
    config = engine.llm_engine.vllm_config
    assert config.use_v2_model_runner and config.scheduler_config.async_scheduling == asynchronous
    assert (engine.llm_engine.engine_core.engine_core.batch_queue is not None) == asynchronous
    return engine


def sampling(said: dict[str, Any]) -> SamplingParams:
    if "logit_bias" in said:
        said = {**said, "logit_bias": {int(token): bias for token, bias in said["logit_bias"].items()}}  # JSON's keys
    if "choice" in said:
        choice = said.pop("choice")
        said = {**said, "structured_outputs": StructuredOutputsParams(choice=choice)}
    return SamplingParams(**said)


class Forced:
    """In place of the drafter's own drafts: known tokens, of which the one at place `right` is wrong."""

    def __init__(self, runner: Any, batch: dict[str, Any]) -> None:
        self.runner, self.right = runner, batch["right"]
        self.known = [p + a for p, a in zip(batch["prompts"], batch["answers"], strict=True)]
        self.propose = runner.speculator.propose

    def __call__(self, input_batch: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        drafts = self.propose(input_batch, *args, **kwargs)
        states = self.runner.req_states
        for row, slot in enumerate(input_batch.idx_mapping.tolist()):
            length = int(states.total_len.gpu[slot])
            begun = states.all_token_ids.gpu[slot, :length].tolist()
            # V2 samples beyond an answer's end, which the scheduler then cuts.
            coming = next(some[length:] for some in self.known if some[:length] == begun[: len(some)])
            coming = (coming + [3] * drafts.shape[1])[: drafts.shape[1]]
            if self.right < len(coming):
                coming[self.right] = 3 + (coming[self.right] + 1) % 80
            drafts[row] = torch.tensor(coming)
        return drafts


def redrawn(reference: ReferenceLLM, prompt: list[int], answer: list[int], params: SamplingParams) -> list[int]:
    """The answer's tokens from the logits of mix and positive, the seed and the positions alone."""
    start, rows = len(prompt), slice(len(prompt) - 1, -1)
    alpha = (params.extra_args or {}).get("alpha")
    p, q = (reference.logits([*prompt, *answer], a, num_prompt_tokens=start)[rows] for a in (alpha, "positive"))
    count = len(answer)
    p = topk_topp_sampler.apply_top_k_top_p(
        p / params.temperature,
        torch.full((count,), params.top_k) if params.top_k > 0 else None,
        torch.full((count,), params.top_p) if params.top_p < 1 else None,
    )
    seeds, positions = torch.full((count,), params.seed), torch.arange(start, start + count)
    return draw_coupled(p, q / params.temperature, seeds, positions).tolist()


def keys_after(engine: Any, runner: Any, prompt: list[int], params: SamplingParams) -> tuple[list[int], Any]:
    """The tokens of prompt and answer, and every layer's cache of the whole blocks before the last token."""
    slots: list[int] = []
    propose = runner.speculator.propose

    def noting(input_batch: Any, *args: Any, **kwargs: Any) -> Any:
        slots[:] = input_batch.idx_mapping.tolist()
        return propose(input_batch, *args, **kwargs)

    engine.reset_prefix_cache()
    with patch.object(runner.speculator, "propose", noting):
        (output,) = engine.generate([{"prompt_token_ids": prompt}], [params], use_tqdm=False)
    tokens = [*prompt, *output.outputs[0].token_ids]
    blocks = runner.block_tables.block_tables[0].gpu[slots[0], : (len(tokens) - 1) // 32].tolist()
    layers = runner.compilation_config.static_forward_context
    return tokens, {name: layer.kv_cache[blocks].clone() for name, layer in layers.items()}


def compare_keys(engine: Any, runner: Any, batch: dict[str, Any]) -> dict[str, Any]:
    (prompt,), (said,) = batch["prompts"], batch["params"]
    tokens, drafted = keys_after(engine, runner, prompt, sampling(said))
    _, read = keys_after(engine, runner, tokens, sampling({**said, "max_tokens": 1}))
    for name, mine in drafted.items():
        assert mine.abs().sum() > 0
        torch.testing.assert_close(mine, read[name][: len(mine)], atol=2e-4, rtol=1e-4)
    return {"layers": sorted(drafted), "tokens": len(tokens)}


def accepted(engine: Any) -> torch.Tensor:
    found = {metric.name: metric for metric in engine.get_metrics()}
    places = found["vllm:spec_decode_num_accepted_tokens_per_pos"].values
    return torch.tensor([found["vllm:spec_decode_num_draft_tokens"].value, *places])


def run(engine: Any, runner: Any, reference: ReferenceLLM, batch: dict[str, Any]) -> dict[str, Any]:
    """runner: None if it is in other processes, for a batch without `keys` or `right`."""
    if "keys" in batch:
        return compare_keys(engine, runner, batch)
    before, params = accepted(engine), [sampling(said) for said in batch["params"]]
    prompts = [{"prompt_token_ids": prompt} for prompt in batch["prompts"]]
    forced = patch.object(runner.speculator, "propose", Forced(runner, batch)) if "right" in batch else nullcontext()
    with forced:
        outputs = engine.generate(prompts, params, use_tqdm=False)
    drafted, *places = (accepted(engine) - before).tolist()
    answers = [list(output.outputs[0].token_ids) for output in outputs]
    result = {"answers": answers, "texts": [output.outputs[0].text for output in outputs]}
    result |= {"drafted": drafted, "accepted": places}
    traces = [getattr(output.outputs[0], "token_trace", None) for output in outputs]
    result["traces"] = [trace and {name: column.tolist() for name, column in trace.items()} for trace in traces]
    if "redraw" in batch:
        result["redrawn"] = [redrawn(reference, *some) for some in zip(batch["prompts"], answers, params, strict=True)]
    return result


def main() -> None:
    with open(sys.argv[1]) as file:
        job = json.load(file)
    options = job["engine"]
    engine = start(options, job["asynchronous"])
    runner = engine.llm_engine.engine_core.engine_core.model_executor.driver_worker.worker.model_runner
    assert type(runner.speculator).__name__ == "V2Drafter" and type(runner.rejection_sampler).__name__ == "V2Verifier"
    names = [options["model"], options.get("positive"), options.get("negative")]
    reference = ReferenceLLM(RastConfig.build(*names))
    results = [run(engine, runner, reference, batch) for batch in job["batches"]]
    preempted = next(m.value for m in engine.get_metrics() if m.name == "vllm:num_preemptions")
    with open(sys.argv[2], "w") as file:
        groups = len(runner.kv_cache_config.kv_cache_groups)
        json.dump({"batches": results, "preempted": preempted, "held": held(runner), "groups": groups}, file)


if __name__ == "__main__":
    main()
