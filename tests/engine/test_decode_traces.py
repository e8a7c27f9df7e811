"""Traces of what is decoded: every number against the reference's logits, under drafts, chunks, gates and samples."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from greedy import GATES, make_prompts, params

from vllm_rast import RastConfig, UserError
from vllm_rast.engine.decode_traces import DecodeTraces, check_decode_trace, names_of
from vllm_rast.kernels.token_trace import likeliest_columns
from vllm_rast.reference import ReferenceLLM

MODELS = ("base", "positive", "negative")
REQUESTS: list[tuple[Any, int | None, dict[str, Any]]] = [
    (1, 3, {}),
    ("base", 2, {}),
    (GATES[0], 5, {}),
    (None, 0, {"max_tokens": 2}),
    (2, None, {}),
    ({"alpha": 2, "warmup": 4}, 3, {"temperature": 1.0, "seed": 3}),
    (0, 2, {"extra": {"speculate": 0}}),
    ("positive", 3, {"temperature": 0.8, "seed": 4, "top_p": 0.8}),
    (0.5, 1, {"n": 3, "temperature": 1.0, "seed": 9}),
]


@pytest.fixture(scope="module")
def reference(random_models: dict[str, str]) -> ReferenceLLM:
    return ReferenceLLM(RastConfig.build(*(random_models[name] for name in MODELS)))


@pytest.fixture(scope="module")
def engine(start_engine: Callable[..., Any], random_models: dict[str, str]) -> Any:
    small = {name: random_models[name] for name in MODELS[1:]}
    return start_engine(random_models["base"], **small, speculate=3, max_num_batched_tokens=48)


def asked(alpha: Any, number: int | None, options: dict[str, Any]) -> Any:
    options = dict(options)
    extra = {"trace": number} if number is not None else {}
    extra |= options.pop("extra", {})
    sampling = params(alpha, **options)
    sampling.extra_args = {**(sampling.extra_args or {}), **extra}
    return sampling


def assert_right(reference: ReferenceLLM, prompt: list[int], sample: Any, alpha: Any, number: int) -> None:
    columns = likeliest_columns(reference.config, number)
    assert list(sample.token_trace) == columns
    assert all(len(values) == len(sample.token_ids) for values in sample.token_trace.values())
    text = [*prompt, *sample.token_ids]
    for label, one in {**{name: name for name in MODELS}, "mix": alpha}.items():
        rows = reference.logits(text, one, len(prompt)).log_softmax(-1)[len(prompt) - 1 : -1].numpy()
        own = rows[np.arange(len(rows)), sample.token_ids]
        np.testing.assert_allclose(sample.token_trace[f"{label}_logprob"], own, atol=2e-4)
        order = np.argsort(-rows, axis=1)
        for place in range(number):
            ids = sample.token_trace[f"{label}_top{place + 1}"]
            assert (ids == order[:, place]).all()
            likely = rows[np.arange(len(rows)), order[:, place]]
            np.testing.assert_allclose(sample.token_trace[f"{label}_top{place + 1}_logprob"], likely, atol=2e-4)


def test_every_kind_of_request_in_one_batch(engine: Any, reference: ReferenceLLM) -> None:
    prompts = make_prompts(len(REQUESTS), seed=300, longest=60)
    for _ in range(2):  # the second time the prompts are cached
        outputs = engine.generate(
            [{"prompt_token_ids": prompt} for prompt in prompts], [asked(*one) for one in REQUESTS], use_tqdm=False
        )
        for prompt, output, (alpha, number, _options) in zip(prompts, outputs, REQUESTS, strict=True):
            for sample in output.outputs:
                if number is None:
                    assert not hasattr(sample, "token_trace")
                else:
                    assert_right(reference, prompt, sample, alpha, number)
    (left,) = engine.collective_rpc(lambda worker: len(worker.get_model().decode_traces.kept))
    assert left == 0


def test_stream(engine: Any, reference: ReferenceLLM) -> None:
    prompts = make_prompts(5, seed=301)
    streamed = engine.stream(({"prompt_token_ids": prompt} for prompt in prompts), asked(1, 2, {}), max_queued=2)
    for place, output in streamed:
        assert_right(reference, prompts[place], output.outputs[0], 1, 2)


def test_models_that_a_request_does_not_use_run_for_its_trace(engine: Any, reference: ReferenceLLM) -> None:
    """Beside a request for the base alone, whose cached blocks lack the small models' keys and values."""
    (prompt,) = make_prompts(1, seed=302, shortest=100, longest=100)
    engine.generate([{"prompt_token_ids": prompt}], params("base"), use_tqdm=False)
    (output,) = engine.generate([{"prompt_token_ids": prompt}], asked("base", 2, {}), use_tqdm=False)
    assert_right(reference, prompt, output.outputs[0], "base", 2)


def test_what_is_refused(engine: Any) -> None:
    for value in (True, -1, 21, 1.5, "5"):
        sampling = params(1)
        sampling.extra_args["trace"] = value
        with pytest.raises(UserError, match="^trace: expected an integer from 0 to 20, got"):
            engine.generate([{"prompt_token_ids": [5, 6]}], sampling, use_tqdm=False)
    wanted = SimpleNamespace(extra_args={"trace": 3})
    scheduler = SimpleNamespace(async_scheduling=True)
    with pytest.raises(UserError, match="^trace: vLLM's V2 runner keeps none; set VLLM_USE_V2_MODEL_RUNNER=0"):
        check_decode_trace(wanted, SimpleNamespace(use_v2_model_runner=True, scheduler_config=scheduler))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="^trace: .* start the engine with async_scheduling=False"):
        check_decode_trace(wanted, SimpleNamespace(use_v2_model_runner=False, scheduler_config=scheduler))  # type: ignore[arg-type]


def test_names() -> None:
    assert names_of("7-1a2b3c4d") == [("7", 0)]
    assert names_of("2_7-1a2b3c4d") == [("2_7", 0), ("7", 2)]
    assert names_of("a_b-1a2b3c4d") == [("a_b", 0)]


def test_what_nobody_takes_is_forgotten() -> None:
    traces = DecodeTraces(most=2)
    traces.kept = {f"{number}-12345678": [np.zeros((1, 1), np.float32)] for number in range(5)}
    traces.forget(list(traces.kept)[:4])
    assert list(traces.kept) == ["2-12345678", "3-12345678", "4-12345678"]
    assert [name for name, *_ in traces.take(["2", "4"])] == ["2", "4"] and len(traces.kept) == 1
