"""The positive drafts, all models verify: token for token as without drafts, and nothing beside the ensemble."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from greedy import GATES, MAX_TOKENS, SCHEDULES, decode, expected, make_prompts, params
from holding import held
from random_models import NUM_TOKENS, make_model, needs_int8, quantise
from v1 import counters, drafts, runner_of
from vllm import SamplingParams
from vllm.sampling_params import StructuredOutputsParams

from vllm_rast import ModelPair, RastConfig
from vllm_rast.engine.shared_drafter import SharedDrafter
from vllm_rast.engine.verifier import Verifier
from vllm_rast.reference import ReferenceLLM

K = 3
ALPHAS: list[Any] = [0, 0.5, 1, 2, -0.3, "base", "positive", "negative", None, *SCHEDULES, *GATES]
SEEDED = {"temperature": 1.0, "seed": 5}


@pytest.fixture(scope="module")
def engine(start_engine: Callable[..., Any], models: dict[str, str]) -> Any:
    return start_engine(**models, speculate=K, disable_log_stats=False)


@pytest.fixture(scope="module")
def without(start_engine: Callable[..., Any], models: dict[str, str]) -> Any:
    return start_engine(**models, disable_log_stats=False)


def test_mixed_batch(engine: Any, reference: ReferenceLLM) -> None:
    prompts = make_prompts(2 * len(ALPHAS), seed=70, longest=100)
    before = drafts(engine)
    found = decode(engine, prompts, ALPHAS * 2)
    assert found == expected(reference, prompts, ALPHAS * 2, found)
    drafted, accepted = drafts(engine) - before
    assert 0 < accepted.sum() < drafted.sum() and len(accepted) == K
    assert counters(engine)["vllm:spec_decode_num_accepted_tokens_per_pos"] == drafts(engine)[1].tolist()


@pytest.mark.parametrize("right", range(K + 1))
def test_rejection_at_every_position(
    engine: Any, reference: ReferenceLLM, monkeypatch: pytest.MonkeyPatch, right: int
) -> None:
    """Drafts of which the first `right` are what will come, the next is not, and the ones after it would be."""
    prompts = make_prompts(4, seed=71, shortest=20)
    alphas = [1, 0.5, {"alpha": 8, "warmup": 5}, "positive"]
    answers = expected(reference, prompts, alphas)
    draft = SharedDrafter.draft

    def wrong(self: Any, requests: Any, block_table: torch.Tensor) -> None:
        draft(self, requests, block_table)
        for one in requests:
            state = runner_of(engine).requests[runner_of(engine).input_batch.req_ids[one.row]]
            prompt, answer = next(
                (p, a) for p, a in zip(prompts, answers, strict=True) if p == list(state.prompt_token_ids)
            )
            place = one.position + 1 - len(prompt)
            one.tokens[:] = answer[place : place + one.count]
            if len(one.tokens) > right:
                one.tokens[right] = 3 + (one.tokens[right] + 1) % 80

    monkeypatch.setattr(SharedDrafter, "draft", wrong)
    before = drafts(engine)
    assert decode(engine, prompts, alphas) == answers
    drafted, accepted = drafts(engine) - before
    assert (accepted[:right] == drafted[:right]).all() and not accepted[right:].any() and drafted.all()


def test_the_positive_accepts_all_of_its_own_drafts(engine: Any, reference: ReferenceLLM) -> None:
    prompts = make_prompts(4, seed=72)
    for options in ({}, SEEDED, {**SEEDED, "temperature": 2.0}):
        before = drafts(engine)
        answers = decode(engine, prompts, ["positive"] * 4, **options)
        drafted, accepted = drafts(engine) - before
        assert (drafted == accepted).all() and drafted.all()
        assert options or answers == expected(reference, prompts, ["positive"] * 4)


def test_models_without_the_positive_draft_nothing(engine: Any, reference: ReferenceLLM) -> None:
    """On a CPU the positive did not run for them. What they sample is what they would sample without drafts."""
    prompts = make_prompts(3, seed=73)
    before = drafts(engine)
    found = decode(engine, prompts, ["base", 0, "negative"])
    assert found == expected(reference, prompts, ["base", 0, "negative"], found)
    assert (drafts(engine) == before).all()


def test_nothing_is_loaded_or_allocated_beside(engine: Any, without: Any) -> None:
    assert held(runner_of(engine)) == held(runner_of(without))
    assert not list(runner_of(engine).drafter.__dict__.get("_modules", ()))


def test_keys_and_values_are_those_of_a_plain_run(engine: Any, without: Any, reference: ReferenceLLM) -> None:
    """Whole blocks of every model's layers after a run of many rejections, slot for slot."""
    (prompt,) = make_prompts(1, seed=74, shortest=50, longest=50)
    (answer,) = (reference.generate(prompt, 1, max_tokens=100),)
    contents = []
    for one in (engine, without):
        one.reset_prefix_cache()
        assert decode(one, [prompt], [1], max_tokens=100) == [answer]
        runner = runner_of(one)
        whole = (len(prompt) + len(answer) - 1) // 32
        blocks = runner.input_batch.block_table[0].block_table.cpu[0, :whole].tolist()
        layers = runner.compilation_config.static_forward_context
        contents.append({name: layer.kv_cache[blocks].clone() for name, layer in layers.items()})
    assert contents[0].keys() == contents[1].keys() and any(name.startswith("rast1.") for name in contents[0])
    for name, mine in contents[0].items():
        assert mine.abs().sum() > 0
        torch.testing.assert_close(mine, contents[1][name], atol=2e-4, rtol=1e-4)


def test_the_prefix_cache_has_the_same_hits(engine: Any, without: Any, reference: ReferenceLLM) -> None:
    (prompt,) = make_prompts(1, seed=75, shortest=40, longest=40)
    follow_up = [*prompt, *reference.generate(prompt, 1, max_tokens=60), 7, 8, 9]
    for alpha in (1, "positive", 0):
        hits = []
        for one in (engine, without):
            one.reset_prefix_cache()
            decode(one, [prompt], [alpha], max_tokens=60)
            (output,) = one.generate([{"prompt_token_ids": follow_up}], params(alpha), use_tqdm=False)
            hits.append((output.num_cached_tokens, list(output.outputs[0].token_ids)))
        assert hits[0] == hits[1]
        assert alpha != 1 or hits[0] == (96, reference.generate(follow_up, 1, max_tokens=MAX_TOKENS))


def test_up_to_the_last_place(engine: Any, without: Any) -> None:
    """Answers that end at max_model_len, beside one that goes on: each request drafts as far as it can."""
    prompts = [make_prompts(1, seed=76, shortest=length, longest=length)[0] for length in (251, 247, 255, 60)]
    before = drafts(engine)
    for options in ({}, SEEDED):
        answers = decode(engine, prompts, [1] * 4, max_tokens=None, ignore_eos=True, **options)
        assert [len(answer) for answer in answers] == [256 - len(prompt) for prompt in prompts]
        assert options or answers == decode(without, prompts, [1] * 4, max_tokens=None, ignore_eos=True)
    assert (drafts(engine) - before).sum() > 100


# The test's tokens have no space between them.
CHOICES = ["w1w2w3w4w5w6w7", "w1w2w9w4w4", "w3w1w1w2"]
REQUESTS: list[dict[str, Any]] = [
    {"logprobs": 3},
    {"prompt_logprobs": 2},
    {"stop": ["w7", "w11", "w23"]},
    {"repetition_penalty": 1.3},
    {"presence_penalty": 1.5, "frequency_penalty": 0.5},
    {"bad_words": ["w5 w6", "w12"]},
    {"min_tokens": 20, "stop_token_ids": list(range(3, 60))},
    {"allowed_token_ids": list(range(3, 20))},
    {"structured_outputs": StructuredOutputsParams(choice=CHOICES)},
    {"top_p": 0.3},
    {"top_k": 2},
    {"min_p": 0.2},
    {"min_p": 0.05, "top_p": 0.7, "top_k": 30},
    {"logit_bias": {5: 3.0, 12: -4.0, 30: 2.5}},
    {"logit_bias": {7: 4.0}, "repetition_penalty": 1.3, "min_p": 0.1},
    {"max_tokens": 1},
    {"max_tokens": 2},
]
CHOSEN = next(i for i, options in enumerate(REQUESTS) if "structured_outputs" in options)


def test_every_kind_of_request_beside_every_other(engine: Any, without: Any) -> None:
    prompts = make_prompts(len(REQUESTS), seed=77, shortest=10)
    requests = [{"prompt_token_ids": prompt} for prompt in prompts]
    both = []
    for one in (engine, without):
        outputs = one.generate(requests, [params(1, **options) for options in REQUESTS], use_tqdm=False)
        both.append(outputs)
        assert outputs[CHOSEN].outputs[0].text in CHOICES
    for mine, theirs in zip(*both, strict=True):
        assert mine.outputs[0].token_ids == theirs.outputs[0].token_ids
        assert mine.outputs[0].stop_reason == theirs.outputs[0].stop_reason
    for mine, theirs in (
        (both[0][0].outputs[0].logprobs, both[1][0].outputs[0].logprobs),
        (both[0][1].prompt_logprobs[1:], both[1][1].prompt_logprobs[1:]),
    ):
        for a, b in zip(mine, theirs, strict=True):
            assert {k: v.logprob for k, v in a.items()} == pytest.approx({k: v.logprob for k, v in b.items()}, abs=2e-4)


@pytest.mark.parametrize("mode", ["raw_logprobs", "processed_logprobs"])
def test_every_kind_of_request_samples_the_same_without_drafts(
    start_engine: Callable[..., Any], engine: Any, models: dict[str, str], mode: str
) -> None:
    """What comes after accepted drafts and what comes at drafted places has the same rules and logprobs."""
    if mode != "raw_logprobs":
        engine = start_engine(**models, speculate=K, logprobs_mode=mode)
    prompts = make_prompts(len(REQUESTS), seed=83, shortest=10)
    requests = [{"prompt_token_ids": prompt} for prompt in prompts]
    both = []
    for wanted in (None, 0):
        every = [params(1, **{"temperature": 0.8, "seed": 5, "logprobs": 2, **options}) for options in REQUESTS]
        for one in every:
            one.extra_args["speculate"] = wanted
        before = drafts(engine)
        both.append(engine.generate(requests, every, use_tqdm=False))
        assert (drafts(engine) - before)[1].any() == (wanted is None)
        assert both[-1][CHOSEN].outputs[0].text in CHOICES
    for mine, theirs in zip(*both, strict=True):
        assert mine.outputs[0].token_ids == theirs.outputs[0].token_ids
        for a, b in zip(mine.outputs[0].logprobs, theirs.outputs[0].logprobs, strict=True):
            # Of the ids that are ruled out, any may be among the likeliest.
            possible = [{k: v.logprob for k, v in some.items() if v.logprob > -math.inf} for some in (a, b)]
            assert possible[0] == pytest.approx(possible[1], abs=2e-4)


@needs_int8
def test_a_quantised_drafter(start_engine: Callable[..., Any], random_models: dict[str, str], tmp_path: Path) -> None:
    small = quantise(make_model(tmp_path / "small", 7, architecture="llama", vocab=98))
    prompts = make_prompts(4, seed=84)
    alphas = [1, 0.5, "positive", "base"]
    answers = []
    for options in ({"speculate": K}, {}):
        engine = start_engine(random_models["base"], positive=small, negative=random_models["negative"], **options)
        answers.append(decode(engine, prompts, alphas))
        if options:
            assert drafts(engine)[1].all()
    assert answers[0] == answers[1]


def test_drafts_that_vllm_measures_its_memory_with_do_not_count(engine: Any) -> None:
    runner, before = runner_of(engine), drafts(engine)
    model = runner.get_model()
    numbers = len(model.members) + model.token_gates.shape[1]
    runner._dummy_sampler_run(torch.zeros(4, sum(model.widths) + numbers))
    assert (drafts(engine) == before).all()


def test_fewer_drafts_for_one_request(engine: Any, reference: ReferenceLLM) -> None:
    prompts = make_prompts(4, seed=78)
    requests = [{"prompt_token_ids": prompt} for prompt in prompts]

    def answers(drafts_wanted: list[Any], **options: Any) -> list[list[int]]:
        every = [params(1, **options) for _ in prompts]
        for one, wanted in zip(every, drafts_wanted, strict=True):
            one.extra_args["speculate"] = wanted
        return [list(output.outputs[0].token_ids) for output in engine.generate(requests, every, use_tqdm=False)]

    before = drafts(engine)
    assert answers([0, 0, np.int64(0), 0]) == expected(reference, prompts, [1] * 4)
    assert (drafts(engine) == before).all()
    assert answers([0, 1, 2, None]) == expected(reference, prompts, [1] * 4)
    assert (drafts(engine) - before)[0].all()
    # Samples do not depend on the number of drafts either.
    assert answers([0] * 4, **SEEDED) == answers([3, 1, 2, None], **SEEDED)
    assert not engine.llm_engine.has_unfinished_requests()


@pytest.mark.parametrize("wanted", [4, -1, True, "2", 1.5, [1]])
def test_a_wrong_number_of_drafts_is_refused(engine: Any, wanted: Any) -> None:
    with pytest.raises(ValueError, match="^speculate: expected an integer from 0 to 3"):
        engine.generate("w1", SamplingParams(extra_args={"speculate": wanted}), use_tqdm=False)
    assert not engine.llm_engine.has_unfinished_requests()


def test_a_number_that_changes_at_every_step(
    start_engine: Callable[..., Any],
    engine: Any,
    models: dict[str, str],
    reference: ReferenceLLM,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As "auto" chooses it from measured times, and any other numbers. No step without drafts copies its logits."""
    whole = engine
    engine = start_engine(**models, speculate="auto", disable_log_stats=False)
    prompts = make_prompts(len(ALPHAS), seed=82)
    samples = decode(whole, prompts, ALPHAS, **SEEDED)
    found = decode(engine, prompts, ALPHAS)
    assert found == expected(reference, prompts, ALPHAS, found)
    assert decode(engine, prompts, ALPHAS, **SEEDED) == samples
    schedule = runner_of(engine).rejection_sampler.schedule
    assert drafts(engine)[0].any(), "what was never measured is tried"
    assert schedule.passes.points and schedule.drafts.points and any(schedule.drafted)
    numbers = np.random.default_rng(1)
    monkeypatch.setattr(schedule, "choose", lambda *_: int(numbers.integers(0, 4)))
    before = drafts(engine)
    found = decode(engine, prompts, ALPHAS)
    assert found == expected(reference, prompts, ALPHAS, found)
    assert decode(engine, prompts, ALPHAS, **SEEDED) == samples
    assert (drafts(engine) - before)[1, :3].all()

    def not_called(*_: Any, **__: Any) -> None:
        raise AssertionError("a step without drafts")

    monkeypatch.setattr(schedule, "choose", lambda *_: 0)
    monkeypatch.setattr(SharedDrafter, "draft", not_called)
    monkeypatch.setattr(Verifier, "forward", not_called)
    found = decode(engine, prompts, ALPHAS)
    assert found == expected(reference, prompts, ALPHAS, found)
    assert decode(engine, prompts, ALPHAS, **SEEDED) == samples


def test_chunks_and_preemption(
    start_engine: Callable[..., Any], engine: Any, models: dict[str, str], reference: ReferenceLLM
) -> None:
    """Prompts in pieces of 40 tokens, 9 blocks of 32 tokens for 8 requests, fewer tokens a step than drafts need."""
    whole = engine
    small = {"max_num_batched_tokens": 40, "max_num_seqs": 16, "num_gpu_blocks_override": 9}
    engine = start_engine(**models, **small, speculate=K, disable_log_stats=False)
    prompts = make_prompts(14, seed=20, shortest=20, longest=120)
    alphas = [0, 0.5, 1, 2, "positive", "negative", None, 1, "base", 1, *SCHEDULES]
    found = decode(engine, prompts, alphas)
    assert found == expected(reference, prompts, alphas, found)
    assert counters(engine)["vllm:num_preemptions"] > 0
    for options in (SEEDED, {**SEEDED, "n": 3, "top_p": 0.9}):
        assert decode(engine, prompts, alphas, **options) == decode(whole, prompts, alphas, **options)
    assert counters(engine)["vllm:spec_decode_num_accepted_tokens"] > 0


def test_n_and_abort(engine: Any) -> None:
    (prompt,) = make_prompts(1, seed=79)
    first, again = (
        engine.generate([{"prompt_token_ids": prompt}], params(1, n=4, **SEEDED), use_tqdm=False)[0] for _ in range(2)
    )
    answers = [tuple(sample.token_ids) for sample in first.outputs]
    assert answers == [tuple(sample.token_ids) for sample in again.outputs] and len(set(answers)) == 4
    stream = engine.stream([{"prompt_token_ids": prompt}] * 6, params(1, max_tokens=64, ignore_eos=True))
    next(stream)
    stream.close()
    assert not engine.llm_engine.has_unfinished_requests()
    assert decode(engine, [prompt], [1], n=4, **SEEDED) == [list(answers[0])]


def test_unseeded_samples_differ(engine: Any) -> None:
    (prompt,) = make_prompts(1, seed=80)
    answers = decode(engine, [prompt] * 8, [1] * 8, temperature=1.0)
    assert len({tuple(answer) for answer in answers}) == 8


def test_two_pairs_and_another_drafter(start_engine: Callable[..., Any], random_models: dict[str, str]) -> None:
    """Other architectures and sizes; the drafter is a model of the base's 128 rows, and stands in the second pair."""
    some = random_models
    pairs = [
        ModelPair(None, some["negative"], alpha=0.1),
        ModelPair(some["positive"], some["negative"], alpha=0.7),
        ModelPair(some["other"], some["base"], alpha=0.4),
    ]
    engine = start_engine(some["base"], pairs=pairs, speculate=2, drafter="positive:3", disable_log_stats=False)
    assert runner_of(engine).get_model().draft_column == 3
    reference = ReferenceLLM(RastConfig.build(some["base"], pairs=pairs))
    alphas = [None, 0.5, [1, 0, 0], [0.3, -0.2, 0.9], [0, 0, 0.5], "positive:2", "negative:3", "positive:3", 1]
    prompts = make_prompts(len(alphas), seed=81)
    found = decode(engine, prompts, alphas)
    assert found == expected(reference, prompts, alphas, found)
    assert drafts(engine)[1].all()
    sampled = decode(engine, prompts, alphas, **SEEDED)
    del sampled[alphas.index("negative:3")]  # which is the base, whose padding ids are its own
    assert max(token for answer in sampled for token in answer) < NUM_TOKENS
