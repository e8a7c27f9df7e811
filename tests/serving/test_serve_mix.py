"""`vllm-rast serve`, asked in every way a client has: the same weights give the same tokens as the Python API."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from paths import ROOT
from questions import PROMPTS, QUESTIONS
from serving import EXPOSED, Server
from transformers import AutoTokenizer

from vllm_rast.engine.launch import TINY_ENGINE
from vllm_rast.mix.model_names import resolve_model
from vllm_rast.serving.limits import SPARE_BYTES

MESSAGES: Any = [{"role": "user", "content": QUESTIONS[0]}]
BAD_ALPHAS = [
    "none",
    "positive:9",
    [1, 2],
    [],
    True,
    1e308,
    float("nan"),
    float("inf"),
    10**400,
    {},
    {"alpha": 1, "warmup": -1},
    {"alpha": 1, "warmup": 2, "whatever": 3},
    {"steps": [[i, 1] for i in range(65)]},
    {"ramp": "up"},
    "{" * 1000,
    [[[[[[1]]]]]],
]


@pytest.fixture(scope="module")
def client(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def llm(start_engine: Callable[..., Any]) -> Any:
    """The Python API."""
    options = {**TINY_ENGINE, "max_num_seqs": 16}
    return start_engine("tiny:base", positive="tiny:positive", negative="tiny:negative", **options)


@pytest.fixture(scope="module")
def expected(llm: Any) -> dict[str, list[list[int]]]:
    """{label: the Python API's greedy tokens for every prompt}, with the engine's own alpha under ""."""
    from vllm import SamplingParams

    labels = ["", *EXPOSED]
    params = [
        SamplingParams(temperature=0, max_tokens=24, extra_args={"alpha": EXPOSED[label]} if label else None)
        for label in labels
        for _ in PROMPTS
    ]
    outputs = llm.generate(PROMPTS * len(labels), params, use_tqdm=False)
    tokens = [list(output.outputs[0].token_ids) for output in outputs]
    answers = {label: tokens[i * len(PROMPTS) : (i + 1) * len(PROMPTS)] for i, label in enumerate(labels)}
    assert len({str(answer) for answer in answers.values()}) >= 5, "the weights made no difference"
    return answers


def alias(label: str) -> str:
    return f"tiny:base:{label}" if label else "tiny:base"


def refusal(answer: dict[str, Any]) -> dict[str, Any]:
    """The error of an answer, which must be one line that names its field."""
    error = answer["error"]
    assert "\n" not in error["message"]
    assert error["param"] and error["param"].split(".")[0] in error["message"]
    return error


def test_models_are_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny:base", *map(alias, EXPOSED)]


@pytest.mark.parametrize("label", ["", *EXPOSED])
def test_every_way_gives_the_tokens_of_the_python_api(
    server: Server, expected: dict[str, list[list[int]]], label: str
) -> None:
    alpha = EXPOSED.get(label)
    by_name = server.complete(PROMPTS, model=alias(label), return_token_ids=True)
    assert by_name["model"] == alias(label)
    assert [choice["token_ids"] for choice in by_name["choices"]] == expected[label]
    if not label:
        return
    ways = [{"vllm_xargs": {"alpha": alpha}}, {"alpha": alpha}]
    if not isinstance(alpha, str):
        ways.append({"vllm_xargs": {"alpha": json.dumps(alpha) if isinstance(alpha, dict | list) else alpha}})
    for way in ways:
        assert [server.tokens(prompt, **way) for prompt in PROMPTS] == expected[label]


def test_the_openai_package_streams_what_it_does_not_stream(client: openai.OpenAI) -> None:
    for label in EXPOSED:
        options: dict[str, Any] = {"model": alias(label), "messages": MESSAGES, "temperature": 0, "max_tokens": 24}
        whole = client.chat.completions.create(**options)
        chunks = list(client.chat.completions.create(**options, stream=True))
        assert whole.model == alias(label)
        assert {chunk.model for chunk in chunks} == {alias(label)}
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.choices[0].message.content
        text = client.completions.create(model=alias(label), prompt=PROMPTS[0], temperature=0, max_tokens=24)
        events = client.completions.create(
            model=alias(label), prompt=PROMPTS[0], temperature=0, max_tokens=24, stream=True
        )
        assert "".join(event.choices[0].text for event in events) == text.choices[0].text


def test_chat_responses_and_messages_use_the_weights(server: Server, client: openai.OpenAI) -> None:
    texts = []
    for label in ("base", "positive", "alpha=-1"):
        chat = client.chat.completions.create(
            model="tiny:base",
            messages=MESSAGES,
            temperature=0,
            max_tokens=24,
            extra_body={"vllm_xargs": {"alpha": EXPOSED[label]}},
        )
        texts.append(chat.choices[0].message.content)
        response = client.responses.create(
            model=alias(label), input=MESSAGES[0]["content"], temperature=0, max_output_tokens=24
        )
        assert (response.model, response.output_text) == (alias(label), texts[-1])
        events = client.responses.create(
            model=alias(label), input=MESSAGES[0]["content"], temperature=0, max_output_tokens=24, stream=True
        )
        deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
        assert "".join(deltas) == texts[-1]
        status, message = server.post(
            "/v1/messages", {"model": alias(label), "messages": MESSAGES, "temperature": 0, "max_tokens": 24}
        )
        assert (status, message["model"], message["content"][0]["text"]) == (200, alias(label), texts[-1])
    assert len(set(texts)) >= 2, "the weights made no difference"


def test_many_clients_at_once(server: Server, expected: dict[str, list[list[int]]]) -> None:
    async def ask(client: openai.AsyncOpenAI, label: str, number: int) -> tuple[str, list[int]]:
        answer: Any = await client.completions.create(
            model=alias(label),
            prompt=PROMPTS[number],
            temperature=0,
            max_tokens=24,
            extra_body={"return_token_ids": True},
        )
        return answer.model, answer.choices[0].token_ids

    async def ask_all(asked: list[tuple[str, int]]) -> list[tuple[str, list[int]]]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
            return await asyncio.gather(*(ask(client, label, number) for label, number in asked))

    asked = [(label, number) for number in range(len(PROMPTS)) for label in ["", *EXPOSED]] * 2
    assert asyncio.run(ask_all(asked)) == [(alias(label), expected[label][number]) for label, number in asked]


def test_n_and_logprobs(server: Server) -> None:
    options: dict[str, Any] = {"n": 3, "logprobs": 3, "seed": 1, "temperature": 1.0}
    by_name = server.complete(PROMPTS[0], model=alias("alpha=0.3"), **options)["choices"]
    by_field = server.complete(PROMPTS[0], vllm_xargs={"alpha": 0.3}, **options)["choices"]
    assert len({choice["text"] for choice in by_name}) > 1
    assert [choice["text"] for choice in by_name] == [choice["text"] for choice in by_field]
    for one, other in zip(by_name, by_field, strict=True):
        assert one["logprobs"]["token_logprobs"] == pytest.approx(other["logprobs"]["token_logprobs"], abs=1e-3)
    base = server.complete(PROMPTS[0], model=alias("base"), logprobs=3)["choices"][0]["logprobs"]
    assert base["top_logprobs"][0] != by_name[0]["logprobs"]["top_logprobs"][0]


def test_traces_are_those_of_the_python_api(server: Server, llm: Any) -> None:
    from vllm import SamplingParams

    params = SamplingParams(temperature=0, max_tokens=24, extra_args={"alpha": 0.3, "trace": 2})
    outputs = llm.generate(PROMPTS, params, use_tqdm=False)
    choices = server.complete(PROMPTS, alpha=0.3, trace=2)["choices"]
    for output, choice in zip(outputs, choices, strict=True):
        (sample,), trace = output.outputs, choice["token_trace"]
        assert trace["token_ids"] == list(sample.token_ids)
        for model in ("base", "positive", "negative", "mix"):
            own = sample.token_trace[f"{model}_logprob"]
            assert trace[model]["logprobs"] == pytest.approx(own.tolist(), abs=1e-4)
            for place in (0, 1):
                ids = [ids[place] for ids in trace[model]["top_token_ids"]]
                assert ids == sample.token_trace[f"{model}_top{place + 1}"].tolist()


def test_beam_search_uses_the_weights(server: Server) -> None:
    """vLLM itself drops a request's extra arguments there."""
    for label in ("base", "alpha=-1"):
        greedy, beam = (
            server.complete(PROMPTS[0], model=alias(label), max_tokens=8, **options)["choices"][0]["text"]
            for options in ({}, {"use_beam_search": True, "n": 1})
        )
        assert beam == greedy


def test_tools_and_structured_output(client: openai.OpenAI) -> None:
    parameters = {
        "type": "object",
        "properties": {"thing": {"enum": ["hammer", "lamp"]}, "price": {"enum": [3, 7]}},
        "required": ["thing", "price"],
        "additionalProperties": False,
    }
    # Left to themselves these models fill the gaps of JSON with blank lines until the limit.
    tokenizer = AutoTokenizer.from_pretrained(resolve_model("tiny:base"))
    no_blanks = {str(number): -100 for number in range(len(tokenizer)) if not tokenizer.decode([number]).strip()}
    tools: Any = [{"type": "function", "function": {"name": "buy", "parameters": parameters, "strict": True}}]
    choice: Any = {"type": "function", "function": {"name": "buy"}}
    for label in ("base", "positive", "alpha=0.3"):
        options: dict[str, Any] = {"model": alias(label), "messages": MESSAGES, "temperature": 0, "max_tokens": 200}
        options["logit_bias"] = no_blanks
        answer = client.chat.completions.create(**options, tools=tools, tool_choice=choice)
        (call,) = answer.choices[0].message.tool_calls or []
        assert answer.model == alias(label)
        assert call.type == "function" and call.function.name == "buy"
        bought = json.loads(call.function.arguments)
        assert bought["thing"] in ("hammer", "lamp") and bought["price"] in (3, 7)
        schema: Any = {"type": "json_schema", "json_schema": {"name": "purchase", "schema": parameters, "strict": True}}
        answer = client.chat.completions.create(**options, response_format=schema)
        assert json.loads(answer.choices[0].message.content or "").keys() == {"thing", "price"}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("alpha", BAD_ALPHAS, ids=lambda alpha: str(alpha)[:20])
def test_a_bad_alpha_is_a_bad_request(server: Server, alpha: Any, stream: bool) -> None:
    for body in ({"vllm_xargs": {"alpha": alpha}}, {"alpha": alpha}):
        status, answer = server.post(
            "/v1/completions", {"model": "tiny:base", "prompt": "Hi", "stream": stream, **body}
        )
        assert status == 400, answer
        assert refusal(answer)["param"] == "alpha"
        assert len(answer["error"]["message"]) < 500


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "path, body, field",
    [
        ("/v1/completions", {"prompt": "Hi", "max_tokens": "many"}, "max_tokens"),
        ("/v1/completions", {"prompt": "Hi", "temperature": -1}, "temperature"),
        ("/v1/completions", {"prompt": "Hi", "vllm_xargs": 3}, "vllm_xargs"),
        ("/v1/completions", {"prompt": "Hi", "vllm_xargs": {"beta": {}}}, "vllm_xargs.beta"),
        ("/v1/completions", {"prompt": "Hi", "structured_outputs": True}, "structured_outputs"),
        ("/v1/completions", {"prompt": "Hi", "stop": "\ud800"}, "stop"),
        ("/v1/chat/completions", {"messages": MESSAGES, "top_k": "9" * 50}, "top_k"),
        ("/v1/chat/completions", {"messages": "Hi"}, "messages"),
        ("/v1/chat/completions", {"messages": MESSAGES, "n": "x"}, "n"),
        ("/v1/responses", {"input": "Hi", "temperature": "warm"}, "temperature"),
    ],
)
def test_a_field_that_does_not_fit_is_named(
    server: Server, path: str, body: dict[str, Any], field: str, stream: bool
) -> None:
    status, answer = server.post(path, {"model": "tiny:base", "stream": stream, **body})
    assert status == 400
    assert refusal(answer)["param"] == field


def test_what_vllm_finds_in_a_stream_has_its_status(server: Server) -> None:
    """vLLM answers with 200 and an event of an error."""
    for path, body in (
        ("/v1/completions", {"prompt": "Hi"}),
        ("/v1/chat/completions", {"messages": MESSAGES}),
    ):
        for wrong in ({"logit_bias": {"999999": 1}}, {"structured_outputs": {"regex": "("}}):
            answers = [
                server.post(path, {"model": "tiny:base", "stream": stream, **body, **wrong}) for stream in (False, True)
            ]
            assert [status for status, _ in answers] == [400, 400], answers
            assert answers[0][1]["error"]["message"].split() == answers[1][1]["error"]["message"].split()


def test_names_and_conflicts(server: Server) -> None:
    body = {"prompt": "Hi", "max_tokens": 2}
    status, answer = server.post("/v1/completions", {**body, "model": "tiny:base:alpha=0.4"})
    assert status == 404 and refusal(answer)["param"] == "model"
    status, answer = server.post("/v1/completions", {**body, "model": alias("base"), "vllm_xargs": {"alpha": 0.5}})
    assert status == 400 and refusal(answer)["param"] == "alpha"
    status, answer = server.post(
        "/v1/completions", {**body, "model": "tiny:base", "alpha": 1, "vllm_xargs": {"alpha": 2}}
    )
    assert status == 400 and refusal(answer)["param"] == "alpha"
    for agreeing in (0.3, [0.3], {"steps": [[0, 0.3]]}, None):
        server.complete("Hi", model=alias("alpha=0.3"), vllm_xargs={"alpha": agreeing})


def test_bodies_that_are_no_requests(server: Server) -> None:
    for data in (
        b"",
        b"{",
        b"nonsense",
        b"[1, 2]",
        b"\xff\xfe",
        b"null",
        b"[" * 5000,
        b'{"model": ' + b"9" * 5000 + b"}",
    ):
        status, answer = server.post("/v1/completions", data)
        assert status == 400, (data[:20], answer)
        assert "\n" not in answer["error"]["message"]
    status, answer = server.post("/v1/completions", {"prompt": "Hi"}, **{"Content-Type": "text/plain"})
    assert status == 400
    status, answer = server.post("/v1/completions", b'{"prompt": "' + b"x" * (2 * SPARE_BYTES) + b'"}')
    assert status == 413 and answer["error"]["param"] == "body" and "--max-body-bytes" in answer["error"]["message"]


def test_the_health_check_decodes(server: Server) -> None:
    before = server.metric("vllm:generation_tokens_total")
    assert json.loads(server.get("/health/decode"))["status"] == "ok"
    assert server.metric("vllm:generation_tokens_total") == before + 1
    status = []
    threads = [threading.Thread(target=lambda: status.append(server.get("/health/decode"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(status) == 8


def test_vllms_metrics_of_http_still_count(server: Server) -> None:
    """The middleware that counts is built twice, by vLLM and with ours in it."""
    before = server.metric("http_requests_total")
    server.complete("Hi", max_tokens=1)
    assert server.metric("http_requests_total") > before > 0


def test_a_client_that_leaves_frees_its_blocks(server: Server, client: openai.OpenAI) -> None:
    prompt = [5] * 300
    streams = [
        client.completions.create(
            model=alias(label), prompt=prompt, max_tokens=200, stream=True, extra_body={"ignore_eos": True}
        )
        for label in EXPOSED
    ]
    for stream in streams:
        next(iter(stream))
    for stream in streams:
        stream.close()
    deadline = time.monotonic() + 60
    while server.metric("vllm:num_requests_running") + server.metric("vllm:kv_cache_usage_perc") > 0:
        assert time.monotonic() < deadline, "requests of clients that left still hold blocks"
        time.sleep(0.2)


def test_lm_eval_scores_the_models_by_their_names(server: Server, tmp_path: Path) -> None:
    """EleutherAI's harness knows nothing of us: it sends a model's name, and the name chooses the weights."""
    scores = {}
    for label in ("base", ""):
        folder = tmp_path / f"out-{label}"
        address = f"model={alias(label)},base_url={server.url}/v1/completions,num_concurrent=16,tokenizer_backend=none"
        command = [sys.executable, "-m", "lm_eval", "run", "--model", "local-completions", "--model_args", address]
        command += ["--include_path", "tests/serving/lm_eval", "--tasks", "rast_tiny"]
        command += ["--limit", "50", "--output_path", str(folder)]
        env = os.environ | {"HF_HOME": str(tmp_path / "hub"), "HF_DATASETS_OFFLINE": "1"}
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env)
        assert done.returncode == 0, done.stderr[-3000:]
        (results,) = folder.rglob("results_*.json")
        scores[label] = json.loads(results.read_text())["results"]["rast_tiny"]["exact_match,boxed"]
    assert scores[""] > scores["base"] + 0.2, scores
