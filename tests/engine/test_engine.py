"""Token for token against the plain transformers loop, in float32: every way vLLM can batch, cache and speculate."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from greedy import SCHEDULES, confirmed, decode, expected, make_prompts, params
from random_models import NUM_TOKENS
from v1 import runner_of

from vllm_rast import ModelPair, RastConfig
from vllm_rast.reference import ReferenceLLM

ALPHAS: list[Any] = [0, 0.5, 1, 2, -0.3, "base", "positive", "negative", None]


@pytest.fixture(scope="module")
def config(random_models: dict[str, str]) -> RastConfig:
    return RastConfig.build(random_models["base"], random_models["positive"], random_models["negative"])


@pytest.fixture(scope="module")
def reference(config: RastConfig) -> ReferenceLLM:
    return ReferenceLLM(config)


@pytest.fixture(scope="module")
def pair(random_models: dict[str, str]) -> dict[str, str]:
    return {"positive": random_models["positive"], "negative": random_models["negative"]}


@pytest.fixture(scope="module")
def engine(start_engine: Callable[..., Any], random_models: dict[str, str], pair: dict[str, str]) -> Any:
    return start_engine(random_models["base"], **pair)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_one_alpha(engine: Any, reference: ReferenceLLM, alpha: Any) -> None:
    prompts = make_prompts(3, seed=1)
    found = decode(engine, prompts, [alpha] * 3)
    assert found == expected(reference, prompts, [alpha] * 3)
    for prompt, answer in zip(prompts, found, strict=True):
        assert confirmed(reference, prompt, alpha, answer)
        for place in (0, 10, len(answer) - 1):
            wrong = [*answer[:place], 3 + answer[place] % 80, *answer[place + 1 :]]
            assert not confirmed(reference, prompt, alpha, wrong)
        assert not confirmed(reference, prompt, alpha, answer[:-1])


def test_alphas_mixed_in_one_batch(engine: Any, reference: ReferenceLLM) -> None:
    alphas = ALPHAS * 3
    prompts = make_prompts(1, seed=2) * len(alphas)
    answers = decode(engine, prompts, alphas)
    assert answers == expected(reference, prompts[: len(ALPHAS)], ALPHAS) * 3
    assert len({tuple(answer) for answer in answers}) >= 6, "the weights made no difference"


def test_mixed_lengths_and_alphas(engine: Any, reference: ReferenceLLM) -> None:
    prompts = make_prompts(20, seed=3, longest=200)
    alphas = [ALPHAS[i % len(ALPHAS)] for i in range(20)]
    found = decode(engine, prompts, alphas)
    assert found == expected(reference, prompts, alphas, found)


def test_list_form_of_alpha(engine: Any, reference: ReferenceLLM) -> None:
    prompts = make_prompts(2, seed=4)
    found = decode(engine, prompts, [[0.5], [2]])
    assert found == expected(reference, prompts, [0.5, 2], found)


def test_prompt_logprobs(engine: Any, reference: ReferenceLLM) -> None:
    prompts = make_prompts(4, seed=5, shortest=20)
    alphas = [0.5, "positive", 0, 1]
    requests = [{"prompt_token_ids": prompt} for prompt in prompts]
    outputs = engine.generate(requests, [params(a, prompt_logprobs=0, max_tokens=1) for a in alphas], use_tqdm=False)
    for output, prompt, alpha in zip(outputs, prompts, alphas, strict=True):
        logprobs = reference.logits(prompt, alpha).log_softmax(-1)
        for place in range(1, len(prompt)):
            got = output.prompt_logprobs[place][prompt[place]].logprob
            assert got == pytest.approx(float(logprobs[place - 1, prompt[place]]), abs=2e-4)


def test_samples_follow_the_mix(engine: Any, reference: ReferenceLLM) -> None:
    """n = 4 with a seed: four different answers, the same again, each with the mix's own logprobs."""
    (prompt,) = make_prompts(1, seed=6)
    sampling = params(0.5, n=4, seed=11, temperature=1.0, logprobs=3, max_tokens=16)
    first, again = (
        engine.generate([{"prompt_token_ids": prompt}], [sampling.clone()], use_tqdm=False)[0] for _ in range(2)
    )
    answers = [list(sample.token_ids) for sample in first.outputs]
    assert answers == [list(sample.token_ids) for sample in again.outputs]
    assert len({tuple(answer) for answer in answers}) == 4
    for sample in first.outputs:
        logprobs = reference.logits([*prompt, *sample.token_ids], 0.5).log_softmax(-1)
        for place, token in enumerate(sample.token_ids):
            best = logprobs[len(prompt) - 1 + place]
            assert sample.logprobs[place][token].logprob == pytest.approx(float(best[token]), abs=2e-4)
            top = max(entry.logprob for entry in sample.logprobs[place].values())
            assert top == pytest.approx(float(best.max()), abs=2e-4)


def test_sampled_frequencies(engine: Any, reference: ReferenceLLM) -> None:
    """512 first tokens against the mix's probabilities: chi-square over the likely ids, far from its tail."""
    (prompt,) = make_prompts(1, seed=7)
    sampling = params(0.25, n=512, seed=5, temperature=2.0, max_tokens=1)
    (output,) = engine.generate([{"prompt_token_ids": prompt}], [sampling], use_tqdm=False)
    counts = torch.bincount(torch.tensor([sample.token_ids[0] for sample in output.outputs]), minlength=128)
    wanted = 512 * torch.softmax(reference.logits(prompt, 0.25)[-1] / 2.0, dim=-1)
    likely = wanted > 8
    assert likely.sum() >= 3
    statistic = ((counts - wanted) ** 2 / wanted)[likely].sum()
    assert statistic < 4 * likely.sum(), f"{counts[likely]} against {wanted[likely]}"


def test_padding_ids_are_never_sampled_by_a_mix(engine: Any, reference: ReferenceLLM) -> None:
    """Ids beyond the tokenizer have finite logits in the plain base and minus infinity wherever a small model helps."""
    (prompt,) = make_prompts(1, seed=8)
    assert torch.isfinite(reference.logits(prompt, "base")).all()
    prompts = [prompt] * 4
    alphas = [0.5, "positive", 0, "base"]
    for alpha in alphas[:2]:
        assert torch.isneginf(reference.logits(prompt, alpha)[:, NUM_TOKENS:]).all()
    pushed = decode(engine, prompts, alphas, logit_bias={110: 100.0, 97: 100.0}, max_tokens=8)
    # A push cannot lift them where a small model takes part; the plain base samples them and goes on from there.
    assert max(pushed[0] + pushed[1]) < NUM_TOKENS
    assert {110, 97} >= set(pushed[2]) == set(pushed[3])
    found = decode(engine, [[*prompt, 110, 97, 5]], ["base"])
    assert found == expected(reference, [[*prompt, 110, 97, 5]], ["base"], found)


def test_prefix_cache_cold_and_warm(engine: Any, reference: ReferenceLLM) -> None:
    """On a CPU a request leaves no keys and values of models that it does not use: only like finds like."""
    prompts = make_prompts(1, seed=9, shortest=100, longest=100) * 4
    engine.reset_prefix_cache()
    alphas = ["base", 1, 0.5, 0]
    requests = [{"prompt_token_ids": prompt} for prompt in prompts]
    for cached in ([0, 0, 96, 96], [96, 96, 96, 96]):
        answers = []
        for request, alpha, tokens in zip(requests, alphas, cached, strict=True):
            (output,) = engine.generate([request], [params(alpha)], use_tqdm=False)
            assert output.num_cached_tokens == tokens
            answers.append(list(output.outputs[0].token_ids))
        assert answers == expected(reference, prompts, alphas, answers)
    assert decode(engine, prompts, alphas) == answers


def test_models_that_no_request_uses_do_not_run(engine: Any, reference: ReferenceLLM) -> None:
    (model,) = engine.apply_model(lambda model: model)
    calls: list[int] = []
    hooks = [
        member.register_forward_hook(lambda *_, column=column: calls.append(column))
        for column, member in enumerate(model.members)
    ]
    (prompt,) = make_prompts(1, seed=16)
    for alpha, used in [("base", {0}), ("positive", {1}), (0, {0}), (1, {0, 1, 2}), ("negative", {2})]:
        calls.clear()
        found = decode(engine, [prompt], [alpha])
        assert found == expected(reference, [prompt], [alpha], found)
        assert set(calls) == used
    for hook in hooks:
        hook.remove()


def test_ids_that_a_model_lacks_are_cut_at_a_fixed_address(engine: Any) -> None:
    """A CUDA graph of a part of a model reads its inputs where they were when it was made."""
    model = runner_of(engine).get_model()
    some, more = torch.tensor([3, 127], dtype=torch.int32), torch.tensor([97, 98, 5], dtype=torch.int32)
    assert model.known_ids(some, 0) is some
    for column in (1, 2):
        known = model.known_ids(some, column)
        assert known.tolist() == [3, 97]
        again = model.known_ids(more, column)
        assert again.tolist() == [97, 97, 5] and again.data_ptr() == known.data_ptr()
    assert model.known_ids(some, 1).data_ptr() != again.data_ptr()


def test_stop_strings_and_chat(engine: Any) -> None:
    (prompt,) = make_prompts(1, seed=10)
    (free,) = engine.generate([{"prompt_token_ids": prompt}], params(1), use_tqdm=False)
    words = engine.get_tokenizer().convert_ids_to_tokens(free.outputs[0].token_ids)
    stopped = engine.generate([{"prompt_token_ids": prompt}], params(1, stop=[words[5]]), use_tqdm=False)[0].outputs[0]
    assert stopped.finish_reason == "stop" and stopped.stop_reason == words[5]
    assert len(stopped.token_ids) == words.index(words[5]) + 1
    (answer,) = engine.chat([{"role": "user", "content": "w1 w2 w3"}], params(1), use_tqdm=False)
    ids = engine.get_tokenizer().encode("w1 w2 w3 ")
    assert list(answer.outputs[0].token_ids) == decode(engine, [ids], [1])[0]


def test_stream_yields_each_request_once(engine: Any) -> None:
    prompts = make_prompts(40, seed=13)
    alphas = [ALPHAS[i % len(ALPHAS)] for i in range(40)]
    requests = ({"prompt_token_ids": prompt} for prompt in prompts)
    streamed = dict(engine.stream(requests, (params(alpha) for alpha in alphas), max_queued=5))
    assert sorted(streamed) == list(range(40))
    answers = [list(streamed[i].outputs[0].token_ids) for i in range(40)]
    assert answers == decode(engine, prompts, alphas)


def test_a_source_may_have_none_just_now(engine: Any) -> None:
    """What runs goes on meanwhile, and the answers are the same; a None takes a place of its own."""
    prompts = make_prompts(12, seed=16)
    unfinished = 0

    def source() -> Iterator[Any]:
        nonlocal unfinished
        for place, prompt in enumerate(prompts):
            for _ in range(place % 3 if unfinished else 0):
                yield None
            unfinished += 1
            yield {"prompt_token_ids": prompt}

    found = []
    for place, output in engine.stream(source(), params(1)):
        unfinished -= 1
        found.append((place, list(output.outputs[0].token_ids)))
    assert len(found) == 12
    assert [answer for _, answer in sorted(found)] == decode(engine, prompts, [1] * 12)


def test_an_abandoned_stream_leaves_nothing_behind(engine: Any) -> None:
    prompts = make_prompts(12, seed=14)
    stream = engine.stream([{"prompt_token_ids": prompt} for prompt in prompts], params(1))
    next(stream)
    stream.close()
    assert not engine.llm_engine.has_unfinished_requests()


@pytest.mark.parametrize("alpha", [True, float("nan"), float("inf"), 1e308, "0.5x", [1, 2], [], {"a": 1}, "positive:2"])
def test_a_bad_alpha_is_refused_and_harms_nobody(engine: Any, reference: ReferenceLLM, alpha: Any) -> None:
    prompts = make_prompts(2, seed=15)
    requests = [{"prompt_token_ids": prompt} for prompt in prompts]
    with pytest.raises(ValueError, match="^alpha"):
        engine.generate(requests, [params(1), params(alpha)], use_tqdm=False)
    assert not engine.llm_engine.has_unfinished_requests()
    found = decode(engine, prompts[:1], [1])
    assert found == expected(reference, prompts[:1], [1], found)


def test_chunked_prefill_and_preemption(
    start_engine: Callable[..., Any],
    engine: Any,
    random_models: dict[str, str],
    pair: dict[str, str],
    reference: ReferenceLLM,
) -> None:
    """40 tokens a step cut prompts of up to 120 into pieces; 9 blocks of 32 tokens for 8 requests force preemption."""
    whole = engine
    engine = start_engine(
        random_models["base"],
        **pair,
        max_num_batched_tokens=40,
        max_num_seqs=8,
        num_gpu_blocks_override=9,
        disable_log_stats=False,
    )
    prompts = make_prompts(12, seed=20, shortest=20, longest=120)
    alphas = [0, 0.5, 1, 2, "positive", "negative", None, 1, *SCHEDULES]
    found = decode(engine, prompts, alphas)
    assert found == expected(reference, prompts, alphas, found)
    counters = {metric.name: getattr(metric, "value", 0) for metric in engine.get_metrics()}
    assert counters["vllm:num_preemptions"] > 0
    # Seeded samples do not notice either.
    seeded = {"temperature": 1.0, "seed": 5}
    assert decode(engine, prompts, alphas, **seeded) == decode(whole, prompts, alphas, **seeded)


def test_two_pairs_and_one_sided_pairs(start_engine: Callable[..., Any], random_models: dict[str, str]) -> None:
    """Another architecture, other sizes, a pair without a negative, and a model that stands in two pairs."""
    models = random_models
    pairs = [
        ModelPair(models["positive"], models["negative"], alpha=0.7),
        ModelPair(models["llama"], None, alpha=-0.2),
        ModelPair(None, models["negative"], alpha=0.1),
        ModelPair(models["other"], models["base"], alpha=0.0),
    ]
    engine = start_engine(models["base"], pairs=pairs)
    reference = ReferenceLLM(RastConfig.build(models["base"], pairs=pairs))
    alphas = [None, 0.5, [1, 0, 0, 0], [0.3, -0.2, 0, 0.9], [0, 0, 0, 0.5], "positive:2", "negative:3", "positive:4", 1]
    prompts = make_prompts(len(alphas), seed=21)
    found = decode(engine, prompts, alphas)
    assert found == expected(reference, prompts, alphas, found)
    assert len(engine.rast_config.sources) == 5


@pytest.mark.parametrize("method", ["ngram", "draft_model"])
def test_speculative_decoding(
    start_engine: Callable[..., Any],
    random_models: dict[str, str],
    pair: dict[str, str],
    reference: ReferenceLLM,
    method: str,
) -> None:
    speculation: dict[str, Any] = {"method": method, "num_speculative_tokens": 3}
    if method == "ngram":
        speculation |= {"prompt_lookup_max": 3, "prompt_lookup_min": 1}
    else:
        speculation |= {"model": random_models["positive"], "use_heterogeneous_vocab": True, "max_model_len": 256}
    engine = start_engine(random_models["base"], **pair, speculative_config=speculation, disable_log_stats=False)
    alphas = [0, 0.5, 1, 2, "positive", "positive", "base", 8]
    prompts = make_prompts(len(alphas), seed=22)
    accepted = 0
    for some in (alphas, SCHEDULES * 2):
        found = decode(engine, prompts, some)
        assert found == expected(reference, prompts, some, found)
        counters = {metric.name: getattr(metric, "value", 0) for metric in engine.get_metrics()}
        assert counters["vllm:spec_decode_num_accepted_tokens"] > accepted
        accepted = counters["vllm:spec_decode_num_accepted_tokens"]
    # Samples of the one best token: each draft is verified at its request's own temperature and top-k.
    found = decode(engine, prompts, alphas, temperature=1, top_k=1, seed=1)
    assert found == expected(reference, prompts, alphas, found)


def test_alpha_zero_is_stock_vllm_on_the_base(
    start_engine: Callable[..., Any], engine: Any, random_models: dict[str, str]
) -> None:
    stock = start_engine(random_models["base"], plain=True)
    prompts = make_prompts(6, seed=23)
    requests = [{"prompt_token_ids": prompt} for prompt in prompts]
    sampling = {"temperature": 1.0, "seed": 3, "logprobs": 2}
    want = stock.generate(requests, params(None, **sampling), use_tqdm=False)
    got = engine.generate(requests, params(0, **sampling), use_tqdm=False)
    for mine, theirs in zip(got, want, strict=True):
        assert mine.outputs[0].token_ids == theirs.outputs[0].token_ids
        for a, b in zip(mine.outputs[0].logprobs, theirs.outputs[0].logprobs, strict=True):
            assert {k: v.logprob for k, v in a.items()} == pytest.approx({k: v.logprob for k, v in b.items()}, abs=1e-5)


def test_equal_models_cancel(
    start_engine: Callable[..., Any], engine: Any, random_models: dict[str, str], tmp_path: Any
) -> None:
    """The same model on both sides, from two folders, so that it really is loaded and run twice."""
    twin = shutil.copytree(random_models["positive"], tmp_path / "twin")
    twins = start_engine(random_models["base"], positive=random_models["positive"], negative=str(twin), alpha=3.0)
    prompts = make_prompts(4, seed=24)
    # Ids beyond the tokenizer are the plain base's only.
    real_ids = {"allowed_token_ids": list(range(NUM_TOKENS))}
    assert decode(twins, prompts, [None] * 4) == decode(engine, prompts, ["base"] * 4, **real_ids)
