"""Schedules in the engine, token for token against the reference."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from greedy import MAX_TOKENS, decode, expected, make_prompts, params
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vllm_rast import RastConfig, UserError
from vllm_rast.mix.alpha import MAX_POSITION, parse_alpha
from vllm_rast.reference import ReferenceLLM

# In the engine: positions up to MAX_TOKENS = 24.

IN_ENGINE: list[Any] = [
    {"alpha": 1, "warmup": 6},
    {"alpha": [2], "until": 5},
    {"alpha": 2, "warmup": 3, "until": 15},
    {"until": 7},
    [[0, 1], [4, 0], [9, 2.5], [10, -0.3]],
    {"steps": [[5, 1.5]]},
    {"ramp": [[0, 0], [12, 2]]},
    {"ramp": [[3, 2], [4, 0], [20, [1]]]},
    '{"alpha": 0.5, "warmup": 1}',
    {"alpha": 1, "warmup": MAX_TOKENS - 1},
]


@pytest.fixture(scope="module")
def reference(random_models: dict[str, str]) -> ReferenceLLM:
    names = ("base", "positive", "negative")
    return ReferenceLLM(RastConfig.build(*(random_models[name] for name in names)))


@pytest.fixture(scope="module")
def engine(start_engine: Callable[..., Any], random_models: dict[str, str]) -> Any:
    pair = {side: random_models[side] for side in ("positive", "negative")}
    return start_engine(random_models["base"], **pair)


def test_every_form_in_one_batch_with_constants(engine: Any, reference: ReferenceLLM) -> None:
    alphas = [alpha for pair in zip(IN_ENGINE, [0, 1, 2, "base", "positive", None] * 2, strict=False) for alpha in pair]
    (prompt,) = make_prompts(1, seed=60)
    prompts = [prompt] * len(alphas)
    answers = decode(engine, prompts, alphas)
    assert answers == expected(reference, prompts, alphas, answers)
    # Each schedule matters: its answer starts as its first alpha's does and is nobody else's.
    late, base, mix = (answers[alphas.index(alpha)] for alpha in (IN_ENGINE[0], "base", 1))
    assert late[:6] == base[:6] and late[6:] != base[6:] and late != mix
    assert len({tuple(answer) for answer in answers}) >= len(IN_ENGINE) + 3


def test_prompts_of_all_lengths(engine: Any, reference: ReferenceLLM) -> None:
    prompts = make_prompts(20, seed=61, shortest=1, longest=200)
    alphas = [IN_ENGINE[i % len(IN_ENGINE)] for i in range(20)]
    found = decode(engine, prompts, alphas)
    assert found == expected(reference, prompts, alphas, found)


def test_the_prefix_cache_keeps_apart_what_differs(engine: Any, reference: ReferenceLLM) -> None:
    """Three blocks of prompt. A schedule's blocks are those of the models that it uses anywhere, warm or cold."""
    prompts = make_prompts(1, seed=62, shortest=100, longest=100) * 6
    alphas = ["base", {"alpha": 1, "warmup": 20}, 1, {"ramp": [[0, 0], [9, 2]]}, [[0, 0], [5, 0]], "positive"]
    want = expected(reference, prompts, alphas)
    engine.reset_prefix_cache()
    for cached in ([0, 0, 96, 96, 96, 0], [96] * 6):
        for prompt, alpha, tokens, answer in zip(prompts, alphas, cached, want, strict=True):
            (output,) = engine.generate([{"prompt_token_ids": prompt}], [params(alpha)], use_tqdm=False)
            assert output.num_cached_tokens == tokens
            assert list(output.outputs[0].token_ids) == answer
    assert decode(engine, prompts, alphas) == want
    # A second turn: the first one's answer is prompt now, its blocks are found, and positions start again.
    late = IN_ENGINE[0]
    turns = [[*prompts[0], *decode(engine, prompts[:1], [late], max_tokens=40)[0], 5, 6, 7]] * 2
    for turn, alpha in zip(turns, [late, 2], strict=True):
        (output,) = engine.generate([{"prompt_token_ids": turn}], [params(alpha)], use_tqdm=False)
        assert output.num_cached_tokens == 128
        assert [list(output.outputs[0].token_ids)] == expected(reference, [turn], [alpha])


def test_logprobs_of_prompt_and_answer(engine: Any, reference: ReferenceLLM) -> None:
    """Prompt rows have the weights of position 0; the last one chooses the first token."""
    prompts = make_prompts(3, seed=63, shortest=20)
    for prompt, alpha in zip(prompts, [[[0, 0.5], [1, 2]], {"alpha": 1, "warmup": 8}, IN_ENGINE[6]], strict=True):
        sampling = params(alpha, prompt_logprobs=0, logprobs=0, seed=4, temperature=1.0)
        (output,) = engine.generate([{"prompt_token_ids": prompt}], [sampling], use_tqdm=False)
        sample = output.outputs[0]
        text = [*prompt, *sample.token_ids]
        logprobs = reference.logits(text, alpha, len(prompt)).log_softmax(-1)
        entries = [*output.prompt_logprobs[1:], *sample.logprobs]
        for place, (entry, token) in enumerate(zip(entries, text[1:], strict=True)):
            assert entry[token].logprob == pytest.approx(float(logprobs[place, token]), abs=2e-4)


def test_samples_of_one_request(engine: Any) -> None:
    """n > 1: every sample follows the schedule, and a seed gives the same again."""
    (prompt,) = make_prompts(1, seed=64)
    sampling = params({"alpha": 2, "warmup": 4}, n=4, seed=11, temperature=1.0)
    first, again = (
        engine.generate([{"prompt_token_ids": prompt}], [sampling.clone()], use_tqdm=False)[0] for _ in range(2)
    )
    answers = [list(sample.token_ids) for sample in first.outputs]
    assert answers == [list(sample.token_ids) for sample in again.outputs]
    assert len({tuple(answer) for answer in answers}) == 4


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 70)
    | st.integers()
    | st.floats()
    | st.sampled_from([10**4000, -(10**4000), 1e308, MAX_POSITION, "base", "negative", "positive:9"])
    | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(st.lists(inner, min_size=2, max_size=2), max_size=4)
        | st.dictionaries(
            st.sampled_from(["alpha", "warmup", "until", "steps", "ramp", "gate", "js", "top"]), inner, max_size=3
        )
        | st.dictionaries(st.text(max_size=5), inner, max_size=2)
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(alpha=JSON_VALUES, as_text=st.booleans())
def test_whatever_a_client_sends(engine: Any, alpha: Any, as_text: bool) -> None:
    """Decoded, or refused with one line that names alpha; never anything else, and never harm to the engine."""
    from vllm_rast.engine.patches import RequestError

    if as_text:
        alpha = json.dumps(alpha)
    sampling = params(None, max_tokens=1)
    sampling.extra_args = {"alpha": alpha}  # here, because vLLM's own check refuses integers of more than 64 bits
    try:
        (output,) = engine.generate([{"prompt_token_ids": [5, 6]}], [sampling], use_tqdm=False)
    except RequestError as error:
        assert str(error).startswith("alpha") and "\n" not in str(error) and len(str(error)) < 600
        with pytest.raises(UserError):
            parse_alpha(engine.rast_config, alpha)
    else:
        assert len(output.outputs[0].token_ids) == 1
        parse_alpha(engine.rast_config, alpha)
    assert not engine.llm_engine.has_unfinished_requests()


def test_extra_args_that_are_no_dictionary(engine: Any) -> None:
    sampling = params(None)
    sampling.extra_args = [("alpha", 1)]  # type: ignore[assignment]
    with pytest.raises(ValueError, match="^extra_args: alpha comes in a dictionary"):
        engine.generate([{"prompt_token_ids": [5]}], [sampling], use_tqdm=False)


def test_a_session_uses_every_model(engine: Any) -> None:
    """Its later inputs find the keys and values of the earlier ones, whatever their alpha was."""
    process = engine.llm_engine.input_processor.process_inputs
    prompt = {"type": "token", "prompt_token_ids": [5, 6]}
    for alpha in (1, IN_ENGINE[0]):
        assert process("a", prompt, params(alpha), ("generate",), resumable=True).cache_salt.endswith("models 111")
    for alpha in ("base", 0):
        assert process("a", prompt, params(alpha), ("generate",)).cache_salt.endswith("models 100")
        with pytest.raises(ValueError, match="^alpha: a session of streamed inputs"):
            process("a", prompt, params(alpha), ("generate",), resumable=True)


def test_the_engine_lives_on(engine: Any, reference: ReferenceLLM) -> None:
    """After everything above."""
    prompts = make_prompts(2, seed=65)
    found = decode(engine, prompts, [IN_ENGINE[0], 1])
    assert found == expected(reference, prompts, [IN_ENGINE[0], 1], found)
