"""Token traces in answers: written into them without a server, and against the reference's numbers with one."""

from __future__ import annotations

import asyncio
import json
import math
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import openai
import pytest
from questions import PROMPTS, QUESTIONS
from serving import Server

from vllm_rast import RastConfig
from vllm_rast.engine.patches import RequestError
from vllm_rast.engine.taken_traces import Taken
from vllm_rast.kernels.token_trace import likeliest_columns
from vllm_rast.reference import ReferenceLLM
from vllm_rast.serving.traced_answer import AnswerWriter, TokenTexts, TracedChoice
from vllm_rast.serving.traces import ONLY_HERE, TracedEngine, Traces, answering

MODELS = ("mix", "base", "positive", "negative")
CONFIG = RastConfig.build("o/base", "o/rl", "o/small")
MESSAGES: Any = [{"role": "user", "content": QUESTIONS[0]}]


# The writer: a start, pieces of a body, and what comes out


def choice_of(ids: list[int], number: int = 2) -> TracedChoice:
    """A trace with numbers of its own in every column; some are minus infinity and no id."""
    names = likeliest_columns(CONFIG, number)
    numbers = np.arange(len(ids) * len(names), dtype=np.float32).reshape(len(ids), -1) / 8
    for place, name in enumerate(names):
        if "_top" in name and not name.endswith("_logprob"):
            numbers[:, place] = place % 5
    numbers[0, names.index("negative_top2")] = -1
    numbers[0, names.index("negative_top2_logprob")] = -math.inf
    data = Taken("7", 0, number, np.concatenate([numbers, numbers]).tobytes())
    return TracedChoice(ids, data.columns(CONFIG, len(ids)))


def texts() -> TokenTexts:
    found = TokenTexts(SimpleNamespace())
    found.known |= {token: f"<{token}>" for token in range(10)}
    return found


def written(choices: dict[int, TracedChoice], messages: list[dict[str, Any]], prompts: int = 1) -> list[dict[str, Any]]:
    traces, sent = Traces(), []
    traces.prompts, traces.choices = prompts, choices

    async def send(message: Any) -> None:
        sent.append(message)

    async def run() -> None:
        writer = AnswerWriter(send, traces, texts())
        for message in messages:
            await writer(message)

    asyncio.run(run())
    return sent


def start(kind: bytes, length: int, status: int = 200) -> dict[str, Any]:
    headers = [(b"content-type", kind), (b"content-length", str(length).encode())]
    return {"type": "http.response.start", "status": status, "headers": headers}


def body(content: bytes, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": content, "more_body": more}


def test_a_whole_answer() -> None:
    answer = {"id": "é", "choices": [{"index": 0, "text": "a", "finish_reason": "stop"}, {"index": 1, "text": "b"}]}
    content = json.dumps(answer).encode()
    messages = [start(b"application/json", len(content)), body(content[:20], more=True), body(content[20:])]
    begin, rest = written({0: choice_of([4, 5, 6])}, messages)
    got = json.loads(rest["body"])
    assert dict(begin["headers"])[b"content-length"] == str(len(rest["body"])).encode()
    trace = got["choices"][0].pop("token_trace")
    assert got == answer
    assert list(trace) == ["token_ids", "tokens", *MODELS]
    assert trace["token_ids"] == [4, 5, 6] and trace["tokens"] == ["<4>", "<5>", "<6>"]
    columns = choice_of([4, 5, 6]).columns
    for model in MODELS:
        assert trace[model]["logprobs"] == columns[f"{model}_logprob"].tolist()
        assert np.shape(trace[model]["top_token_ids"]) == np.shape(trace[model]["top_tokens"]) == (3, 2)
    negative = trace["negative"]
    assert (negative["top_token_ids"][0][1], negative["top_tokens"][0][1], negative["top_logprobs"][0][1]) == (
        -1,
        None,
        None,
    )
    assert negative["top_tokens"][1] == [f"<{token}>" for token in negative["top_token_ids"][1]]


def test_no_likeliest_ids() -> None:
    content = json.dumps({"choices": [{"index": 0, "finish_reason": "length"}]}).encode()
    _, rest = written({0: choice_of_none()}, [start(b"application/json", len(content)), body(content)])
    assert json.loads(rest["body"])["choices"][0]["token_trace"]["base"].keys() == {"logprobs"}


def choice_of_none() -> TracedChoice:
    return TracedChoice([3], {name: np.zeros(1, np.float32) for name in likeliest_columns(CONFIG, 0)})


def test_a_stream_whose_events_come_in_pieces() -> None:
    events = [{"choices": [{"index": i, "delta": {"content": "ü"}, "finish_reason": None}]} for i in (0, 1)]
    events += [{"choices": [{"index": i, "delta": {}, "finish_reason": "stop"}]} for i in (1, 0)]
    content = b"".join(b"data: " + json.dumps(one).encode() + b"\n\n" for one in events) + b"data: [DONE]\n\n"
    for size in (1, 7, 1000):
        pieces = [body(content[at : at + size], more=True) for at in range(0, len(content), size)]
        messages = [start(b"text/event-stream; charset=utf-8", 0), *pieces, body(b"")]
        sent = written({0: choice_of([1]), 1: choice_of([2])}, messages)
        assert sent[-1]["more_body"] is False
        got = b"".join(one["body"] for one in sent[1:]).split(b"\n\n")
        assert got[-2:] == [b"data: [DONE]", b""]
        found = [json.loads(one.removeprefix(b"data: ")) for one in got[:-2]]
        traces = [one["choices"][0].pop("token_trace", None) for one in found]
        assert found == events
        assert [trace and trace["token_ids"] for trace in traces] == [None, None, [2], [1]]


def test_what_passes_untouched() -> None:
    content = b'{"choices": [ {"index":0,"finish_reason":"stop"}]}'
    whole = [start(b"application/json", len(content)), body(content)]
    assert written({}, whole, prompts=0) == whole
    assert written({}, whole) == whole
    refused = [start(b"application/json", 2, status=400), body(b"{}")]
    assert written({}, refused) == refused


# What is taken from the engine


class StubEngine:
    """An AsyncLLM whose samples end one after the other, in two pieces each."""

    def __init__(self, engines: int = 1) -> None:
        self.vllm_config = SimpleNamespace(
            parallel_config=SimpleNamespace(data_parallel_size=engines), model_config=SimpleNamespace(max_logprobs=5)
        )
        self.input_processor = SimpleNamespace()
        self.taken: list[str] = []
        self.names: list[str] = []

    async def generate(self, prompt: Any, params: Any, request_id: str, **options: Any) -> Any:
        self.names.append(request_id)
        for index in range(params.n):
            for number, reason in ((0, None), (1, "stop")):
                sample = SimpleNamespace(index=index, token_ids=[10 * index + number], finish_reason=reason)
                yield SimpleNamespace(outputs=[sample])

    async def collective_rpc(self, method: str, args: Any) -> Any:
        self.taken += args[0]
        numbers = np.zeros((2, len(likeliest_columns(CONFIG, 1))), dtype=np.float32)
        return [[(name, 0, 1, numbers.tobytes()) for name in args[0]]]


def params(n: int = 2, trace: Any = 1, max_tokens: int = 8) -> Any:
    from vllm.sampling_params import RequestOutputKind

    return SimpleNamespace(n=n, max_tokens=max_tokens, output_kind=RequestOutputKind.DELTA, extra_args={"trace": trace})


def test_samples_are_taken_as_they_end() -> None:
    async def run() -> tuple[StubEngine, Traces]:
        stub, traces = StubEngine(), Traces()
        TracedEngine(stub, CONFIG)
        answering.set(traces)
        for _ in range(2):
            async for _ in stub.generate("a", params(), "cmpl-1"):
                pass
        return stub, traces

    stub, traces = asyncio.run(run())
    assert len(set(stub.names)) == 2 and all(name.startswith("cmpl-1-") for name in stub.names)
    assert stub.taken == [f"{index}_{name}" for name in stub.names for index in (0, 1)]
    assert {index: choice.ids for index, choice in traces.choices.items()} == {
        0: [0, 1],
        1: [10, 11],
        2: [0, 1],
        3: [10, 11],
    }


def test_what_a_client_leaves_is_forgotten() -> None:
    async def run() -> StubEngine:
        stub = StubEngine()
        TracedEngine(stub, CONFIG)
        answering.set(Traces())
        outputs = stub.generate("a", params(), "cmpl-1")
        for _ in range(3):
            await anext(outputs)
        await outputs.aclose()
        await asyncio.sleep(0.01)
        return stub

    stub = asyncio.run(run())
    assert stub.taken == [f"0_{stub.names[0]}", f"1_{stub.names[0]}"]


def test_what_the_engine_refuses() -> None:
    for engines, asked, message in (
        (1, params(trace=6), "expected an integer from 0 to 5, got 6"),
        (1, params(trace=True), "expected an integer"),
        (1, params(n=4000, max_tokens=1000), "more than 4,194,304 numbers; send a smaller trace, max_tokens or n"),
        (2, params(), "data_parallel_size"),
    ):
        engine = TracedEngine(StubEngine(engines), CONFIG)
        answering.set(Traces())
        with pytest.raises(RequestError, match=f"^trace: .*{message}"):
            engine.generate("a", asked, "cmpl-1")
    answering.set(None)
    with pytest.raises(RequestError, match=ONLY_HERE):
        engine.generate("a", params(), "cmpl-1")


# The server


@pytest.fixture(scope="module")
def reference() -> ReferenceLLM:
    return ReferenceLLM(RastConfig.build("tiny:base", "tiny:positive", "tiny:negative"))


@pytest.fixture(scope="module")
def client(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def assert_right(reference: ReferenceLLM, prompt: list[int], trace: dict[str, Any], alpha: Any, number: int) -> None:
    """Every number from the reference's logits, and every text from the tokenizer."""
    ids = trace["token_ids"]
    assert trace["tokens"] == [reference.tokenizer.decode([token]) for token in ids]
    for model, one in {"mix": alpha, **{name: name for name in MODELS[1:]}}.items():
        rows = reference.logits([*prompt, *ids], one, len(prompt)).log_softmax(-1)[len(prompt) - 1 : -1].numpy()
        got = trace[model]
        assert got["logprobs"] == pytest.approx(rows[np.arange(len(ids)), ids].tolist(), abs=2e-4)
        values = -np.sort(-rows, axis=1)[:, :number]
        np.testing.assert_allclose(got["top_logprobs"], values, atol=2e-4)
        np.testing.assert_allclose(np.take_along_axis(rows, np.array(got["top_token_ids"]), 1), values, atol=2e-4)
        assert got["top_tokens"] == [[reference.tokenizer.decode([i]) for i in row] for row in got["top_token_ids"]]


def prompt_ids(reference: ReferenceLLM, text: str) -> list[int]:
    return reference.tokenizer(text)["input_ids"]


@pytest.mark.parametrize("alpha", [1, "base", {"alpha": 1, "gate": {"js": 0.1}}, {"alpha": 2, "warmup": 4}])
def test_completions(server: Server, reference: ReferenceLLM, alpha: Any) -> None:
    answer = server.complete(PROMPTS, alpha=alpha, trace=3, n=2, temperature=2.0, seed=7, return_token_ids=True)
    assert [choice["index"] for choice in answer["choices"]] == list(range(2 * len(PROMPTS)))
    assert len({choice["text"] for choice in answer["choices"]}) > len(PROMPTS)
    for number, choice in enumerate(answer["choices"]):
        assert choice["token_trace"]["token_ids"] == choice["token_ids"]
        assert_right(reference, prompt_ids(reference, PROMPTS[number // 2]), choice["token_trace"], alpha, 3)


def test_streams_have_it_in_the_last_event_of_each_choice(client: openai.OpenAI, server: Server) -> None:
    options: dict[str, Any] = {"model": "tiny:base", "n": 2, "seed": 3, "temperature": 1.0, "max_tokens": 16}
    options["extra_body"] = {"vllm_xargs": {"alpha": 0.5, "trace": 2}}
    whole = client.completions.create(prompt=PROMPTS[:2], **options)
    found: dict[int, Any] = {}
    for event in client.completions.create(prompt=PROMPTS[:2], stream=True, **options):
        for choice in event.choices:
            extra = choice.model_extra or {}
            assert ("token_trace" in extra) == (choice.finish_reason is not None)
            found |= {choice.index: extra["token_trace"]} if choice.finish_reason else {}
    for choice in whole.choices:
        trace, other = (choice.model_extra or {})["token_trace"], found.pop(choice.index)
        assert trace["token_ids"] == other["token_ids"]
        for model in MODELS:
            assert trace[model]["logprobs"] == pytest.approx(other[model]["logprobs"], abs=1e-3)
    assert not found


def test_chat(client: openai.OpenAI, reference: ReferenceLLM) -> None:
    options: dict[str, Any] = {"model": "tiny:base", "messages": MESSAGES, "temperature": 0, "max_tokens": 16}
    options["extra_body"] = {"trace": 2, "return_token_ids": True}
    whole = client.chat.completions.create(**options)
    prompt = (whole.model_extra or {})["prompt_token_ids"]
    trace = (whole.choices[0].model_extra or {})["token_trace"]
    assert_right(reference, prompt, trace, 1, 2)
    assert "".join(trace["tokens"]).startswith(whole.choices[0].message.content or "?")
    *_, last = (one for one in client.chat.completions.create(stream=True, **options) if one.choices)
    assert (last.choices[0].model_extra or {})["token_trace"]["token_ids"] == trace["token_ids"]


def test_a_stop_string_and_other_requests(server: Server, reference: ReferenceLLM) -> None:
    """A sample that the front end ends; beside it requests without a trace, and with other numbers."""
    whole = server.complete(PROMPTS[0], max_tokens=24)["choices"][0]["text"]
    stop = whole[len(whole) // 2 :][:4]

    def ask(number: int) -> dict[str, Any]:
        return server.complete(PROMPTS[0], stop=stop, **({"trace": number} if number else {}), return_token_ids=True)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, [0, 1, 2, 3] * 4))
    for number, answer in zip([0, 1, 2, 3] * 4, answers, strict=True):
        (choice,) = answer["choices"]
        assert choice["finish_reason"] == "stop" and choice["text"] == answers[0]["choices"][0]["text"]
        assert ("token_trace" in choice) == (number > 0)
        if number:
            assert choice["token_trace"]["token_ids"] == choice["token_ids"]
            assert_right(reference, prompt_ids(reference, PROMPTS[0]), choice["token_trace"], 1, number)


def test_two_requests_of_one_name(server: Server) -> None:
    def ask(prompt: str) -> list[int]:
        body = {"model": "tiny:base", "prompt": prompt, "trace": 1, "temperature": 0, "return_token_ids": True}
        status, answer = server.post("/v1/completions", body, **{"X-Request-Id": "same"})
        assert status == 200
        (choice,) = answer["choices"]
        assert choice["token_trace"]["token_ids"] == choice["token_ids"]
        return choice["token_ids"]

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(ask, PROMPTS * 4))
    assert answers == answers[: len(PROMPTS)] * 4


@pytest.mark.parametrize("stream", [False, True])
def test_a_bad_request(server: Server, stream: bool) -> None:
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("/v1/completions", {"prompt": "Hi", "trace": 21}, "trace: expected an integer from 0 to 20, got 21"),
        ("/v1/chat/completions", {"messages": MESSAGES, "trace": "5"}, "trace: expected an integer"),
        ("/v1/completions", {"prompt": "Hi", "trace": 1, "echo": True}, "trace: it is of generated tokens alone"),
        ("/v1/completions", {"prompt": "Hi", "trace": 1, "use_beam_search": True}, "trace: beam search"),
        ("/v1/responses", {"input": "Hi", "trace": 1}, ONLY_HERE),
        ("/v1/completions", {"prompt": "Hi", "trace": 20, "n": 1000, "max_tokens": 300}, "trace: 1000 samples of up"),
    ]
    for path, body, message in cases:
        status, answer = server.post(path, {"model": "tiny:base", "stream": stream, **body})
        assert status == 400, answer
        assert answer["error"]["message"].startswith(message) and "\n" not in answer["error"]["message"]
    assert "token_trace" not in server.complete("Hi", trace=None)["choices"][0]


def test_a_client_that_leaves(server: Server, client: openai.OpenAI) -> None:
    """Others go on, and their traces are whole."""
    options: dict[str, Any] = {"model": "tiny:base", "prompt": PROMPTS[0], "max_tokens": 200, "stream": True}
    for _ in range(3):
        stream = client.completions.create(**options, extra_body={"trace": 2, "ignore_eos": True})
        next(iter(stream))
        stream.close()
    choice = server.complete(PROMPTS[1], trace=1, return_token_ids=True)["choices"][0]
    assert choice["token_trace"]["token_ids"] == choice["token_ids"]
