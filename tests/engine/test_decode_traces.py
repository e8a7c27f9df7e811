"""Traces of what is decoded: every number against the reference's logits, under drafts, chunks, gates and samples."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from decode_trace import MODELS, assert_decode_trace
from greedy import GATES, make_prompts, params

from vllm_rast import RastConfig, UserError
from vllm_rast.engine.decode_traces import Asked, DecodeTraces, Step, check_decode_trace, names_of
from vllm_rast.engine.taken_traces import note_request
from vllm_rast.reference import ReferenceLLM

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
    assert_decode_trace(reference, prompt, sample.token_ids, sample.token_trace, alpha, number)


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
    wanted, model = SimpleNamespace(extra_args={"trace": 3}), SimpleNamespace(max_logprobs=2)
    plain: Any = SimpleNamespace(speculative_config=None, model_config=model)
    with pytest.raises(UserError, match="^trace: expected an integer from 0 to 2, got 3"):
        check_decode_trace(wanted, plain)
    model.max_logprobs = -1
    assert check_decode_trace(wanted, plain)
    moving = SimpleNamespace(enable_adaptive_verification=True)
    adaptive: Any = SimpleNamespace(speculative_config=moving, model_config=model)
    with pytest.raises(UserError, match="^trace: adaptive verification .*; turn it off"):
        check_decode_trace(wanted, adaptive)


def test_who_answers_with_it() -> None:
    processor = SimpleNamespace()
    with pytest.raises(UserError, match="^trace: nothing here answers with it; .* --middleware vllm_rast.serving"):
        note_request(processor, "7", resumable=False)
    processor.rast_traced = set()
    with pytest.raises(UserError, match="^trace: a session"):
        note_request(processor, "7", resumable=True)
    note_request(processor, "8", resumable=False)
    assert processor.rast_traced == {"8"}


def test_more_requests_than_may_wait(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is taken when it ends, whatever the others do; what is left of a stream that is closed is forgotten."""
    (traces,) = engine.collective_rpc(lambda worker: worker.get_model().decode_traces)
    monkeypatch.setattr(traces, "most_bytes", 0)
    prompts = make_prompts(40, seed=303, longest=8)
    lengths = [1 + place % 7 for place in range(40)]
    sampling = [asked(1, 1, {"max_tokens": length, "ignore_eos": True}) for length in lengths]
    outputs = engine.generate([{"prompt_token_ids": prompt} for prompt in prompts], sampling, use_tqdm=False)
    assert [len(output.outputs[0].token_trace["mix_logprob"]) for output in outputs] == lengths
    for _ in engine.stream(({"prompt_token_ids": prompt} for prompt in prompts), asked(1, 2, {})):
        break
    assert not traces.kept and not engine.traced


def test_names() -> None:
    assert names_of("7-1a2b3c4d") == [("7", 0)]
    assert names_of("2_7-1a2b3c4d") == [("2_7", 0), ("7", 2)]
    assert names_of("a_b-1a2b3c4d") == [("a_b", 0)]


def filled(most_bytes: int = 1 << 20) -> DecodeTraces:
    traces = DecodeTraces(torch.device("cpu"), most_bytes)
    for number in range(5):
        traces.kept[f"{number}-12345678"] = [torch.tensor([[0.5, 0.0]])]
        traces.numbers[f"{number}-12345678"] = 0
    return traces


def test_what_nobody_takes_is_forgotten() -> None:
    traces = filled(most_bytes=2 * 8)
    traces.forget({"4-12345678": None})
    assert list(traces.kept) == ["2-12345678", "3-12345678", "4-12345678"]
    assert [name for name, *_ in traces.take(["2", "4"])] == ["2", "4"]
    assert len(traces.kept) == len(traces.numbers) == 1


def test_tokens_that_are_chosen_again() -> None:
    """After a preemption under asynchronous scheduling a token may come twice; what does not count is left out."""
    traces = filled()
    places = [[0, 1], [-1, 2], [2, 1]]
    traces.kept["4-12345678"] = [
        torch.tensor([[10.0 * step + k, place] for k, place in enumerate(some)]) for step, some in enumerate(places)
    ]
    ((_, _, _, data),) = traces.take(["4"])
    assert np.frombuffer(data, np.float32).tolist() == [0, 21, 20]


def test_which_rows_are_whose() -> None:
    """Requests that ask for other numbers, or nothing, with drafts of which some do not count."""
    seen = []

    class Fake:
        rast_config = RastConfig.build("o/base", "o/rl", "o/small")

        def every_logits(self, rows: torch.Tensor) -> Any:
            seen.append(rows[:, 0].tolist())
            return [torch.zeros(len(rows), 4)] * 3, torch.ones(len(rows), 3), None

    step = Step(
        ["a-12345678", "b-12345678", "c-12345678", "d-12345678"],
        np.array([2, 1, 3, 1]),
        torch.tensor([[1, -1, -1], [2, -1, -1], [3, 3, 0], [1, -1, -1]]),
        torch.tensor([[True, False, False], [True] * 3, [True] * 3, [False] * 3]),
        torch.tensor([5, 6, 9, 20, 21, 22, 3]),
    )
    traces = DecodeTraces(torch.device("cpu"))
    asked = {"a-12345678": Asked(1, 6), "c-12345678": Asked(0, 20), "d-12345678": Asked(1, 9)}
    traces.note(Fake(), torch.arange(7.0).unsqueeze(1), step, asked)  # type: ignore[arg-type]
    assert seen == [[3, 4, 5], [0, 1, 6]]
    taken = {name: (number, np.frombuffer(data, np.float32)) for name, _, number, data in traces.take("abcd")}
    assert {name: (number, len(numbers)) for name, (number, numbers) in taken.items()} == {
        "a": (1, 4 * 3),
        "c": (0, 4 * 4),
        "d": (1, 0),
    }
    assert np.isnan(taken["c"][1][:4]).all(), "the first token's row has not come yet"
