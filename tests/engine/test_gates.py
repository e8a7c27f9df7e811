"""Gates in the engine, token for token against the reference. V2, two ranks, drafts and traces: in those files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from greedy import GATES, decode, expected, make_prompts, params

from vllm_rast import ModelPair, RastConfig
from vllm_rast.mix.alpha import parse_alpha
from vllm_rast.reference import ReferenceLLM, gated, weighted

DEFAULT: dict[str, Any] = {"alpha": [0.5, 1], "gate": {"js": 0.5}}


@pytest.fixture(scope="module")
def config(random_models: dict[str, str]) -> RastConfig:
    pairs = [ModelPair(random_models["other"], random_models["negative"])]
    return RastConfig.build(random_models["base"], random_models["positive"], random_models["negative"], DEFAULT, pairs)


@pytest.fixture(scope="module")
def reference(config: RastConfig) -> ReferenceLLM:
    return ReferenceLLM(config)


@pytest.fixture(scope="module")
def engine(start_engine: Callable[..., Any], config: RastConfig) -> Any:
    """Two pairs, a default with a gate, prompts in chunks of at most 48 tokens over all requests."""
    options = {"pairs": list(config.pairs), "trace": True, "max_num_batched_tokens": 48, "max_num_seqs": 16}
    return start_engine(config.base, alpha=DEFAULT, **options)


def test_every_gate_in_one_batch(engine: Any, reference: ReferenceLLM) -> None:
    """Beside requests without one, in chunks; each gate's answer is neither the base's nor the mix's."""
    alphas = [alpha for pair in zip(GATES, [0, 1, "base", "positive", None, 2], strict=True) for alpha in pair]
    ungated = [{key: value for key, value in alpha.items() if key != "gate"} for alpha in GATES]
    alphas += [alpha.get("alpha") if alpha.keys() <= {"alpha"} else alpha for alpha in ungated]
    same: list[tuple[bool, bool]] = []
    for prompt in make_prompts(3, seed=210, shortest=60, longest=60):
        prompts = [prompt] * len(alphas)
        answers = decode(engine, prompts, alphas)
        assert answers == expected(reference, prompts, alphas, answers)
        gates, mixes = answers[: 2 * len(GATES) : 2], answers[2 * len(GATES) :]
        same += [(gate == answers[1], gate == mix) for gate, mix in zip(gates, mixes, strict=True)]
    for number, gate in enumerate(GATES):
        as_base, as_mix = zip(*same[number :: len(GATES)], strict=True)
        assert not all(as_base) and not all(as_mix), gate


def test_prompts_of_all_lengths(engine: Any, reference: ReferenceLLM) -> None:
    prompts = make_prompts(18, seed=211, shortest=1, longest=150)
    alphas = [*GATES, None, 0.5, "base"] * 2
    found = decode(engine, prompts, alphas)
    assert found == expected(reference, prompts, alphas, found)


def test_a_random_gate_follows_the_seed(engine: Any, reference: ReferenceLLM) -> None:
    prompts = make_prompts(1, seed=212) * 3
    alpha = {"alpha": 2, "gate": {"random": 0.5}}
    requests = [params(alpha, seed=seed) for seed in (1, 2, 1)]
    outputs = engine.generate([{"prompt_token_ids": prompt} for prompt in prompts], requests, use_tqdm=False)
    answers = [list(output.outputs[0].token_ids) for output in outputs]
    want = [reference.generate(prompts[0], alpha, max_tokens=24, seed=seed) for seed in (1, 2, 1)]
    assert answers == want and want[0] != want[1]


def test_logprobs_of_prompt_and_answer(engine: Any, reference: ReferenceLLM) -> None:
    prompts = make_prompts(len(GATES), seed=213, shortest=20)
    for prompt, alpha in zip(prompts, GATES, strict=True):
        sampling = params(alpha, prompt_logprobs=0, logprobs=0, seed=4, temperature=1.0)
        (output,) = engine.generate([{"prompt_token_ids": prompt}], [sampling], use_tqdm=False)
        sample = output.outputs[0]
        text = [*prompt, *sample.token_ids]
        logprobs = reference.logits(text, alpha, len(prompt), seed=4).log_softmax(-1)
        entries = [*output.prompt_logprobs[1:], *sample.logprobs]
        for place, (entry, token) in enumerate(zip(entries, text[1:], strict=True)):
            assert entry[token].logprob == pytest.approx(float(logprobs[place, token]), abs=2e-4)


def test_the_engine_counts_the_rows_that_are_let_through(engine: Any, reference: ReferenceLLM) -> None:
    """KL(mix || base) of what is decoded; a closed row is the base's and is left out, as rows of alpha 0 are."""
    (prompt,) = make_prompts(1, seed=214)
    for alpha in (*GATES, 1):
        engine.collective_rpc("rast_trace", args=(True,))
        (answer,) = decode(engine, [prompt], [alpha])
        (sums,) = engine.collective_rpc("rast_trace", args=(True,))
        text, schedule = [*prompt, *answer], parse_alpha(reference.config, alpha)
        mixed = reference.logits(text, alpha, len(prompt))[len(prompt) - 1 : -1]
        base = reference.logits(text, "base", len(prompt))[len(prompt) - 1 : -1]
        opened = [i for i in range(len(answer)) if not torch.equal(mixed[i], base[i])]
        p, q = mixed[opened].double().log_softmax(1), base[opened].double().log_softmax(1)
        kl = torch.where(p > -torch.inf, p.exp() * (p - q), 0).sum()
        assert sums["kl_nats"] == pytest.approx(float(kl), rel=1e-3)
        if schedule.gate is not None and schedule.gate.top is not None:
            assert sums["rows"] >= len(opened), "a row whose only plausible id is the likeliest mixes and moves nothing"
        else:
            assert sums["rows"] == len(opened)
        if schedule.gate is not None and schedule.gate.js is not None:
            assert 0 < len(opened) < len(answer)


def test_a_closed_gate_is_the_base_and_an_open_one_the_mix(engine: Any, reference: ReferenceLLM) -> None:
    prompts = make_prompts(2, seed=215) * 2
    closed = {"alpha": 1, "gate": {"random": 0}}
    opened = {"alpha": 1, "gate": {"js": 0, "random": 1}}
    assert decode(engine, prompts, [closed, closed, opened, opened]) == decode(engine, prompts, ["base", "base", 1, 1])
    every = [torch.randn(20) for _ in range(4)]
    mix = weighted(every, [1, 1, -2, 1])
    assert torch.equal(gated(mix, every[0], parse_alpha(reference.config, opened).gate or pytest.fail()), mix)
