"""A server that speaks vLLM's API with answers fixed beforehand, in a thread: the page's tests need no engine."""

from __future__ import annotations

import asyncio
import json
import math
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse

from vllm_rast import RastConfig
from vllm_rast.serving.ui import mount

PROMPT_IDS = [11, 12, 13]
END = "<|endoftext|>"
# The mix's tokens: text, probability under the mix, probability under the base. The last ends the answer.
TOKENS = [
    ("Two", 0.9, 0.9),
    (" and", 0.5, 0.35),
    (" two", 0.8, 0.2),
    (" make", 0.6, 0.003),
    ("\n", 0.3, 0.4),
    (" four", 0.1, 0.3),
    ("<b>", 0.02, 0.9),
    (END, 0.95, 0.5),
]
BASE_TOKENS = ["Two", " and", " two", " are", " five"]


class FakeApi:
    """What a test may change, and what the page sent."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.tokens = TOKENS
        self.max_model_len = 64
        self.key: str | None = None
        self.refusal: str | None = None  # answered with 400
        self.break_off = False  # the streams end without [DONE]
        self.pause_s = 0.0  # between chunks
        self.chunk = 1  # tokens in one chunk
        self.steps = 0  # of the mix's streams that came to their end, ten each
        self.disconnects: list[dict[str, Any]] = []  # the requests that were hung up on


def chat_chunk(tokens: list[tuple[str, float, float]], ids: list[int], asked: dict[str, Any], last: bool) -> dict:
    text = "".join(text for text, _, _ in tokens).removesuffix(END)
    choice: dict[str, Any] = {"index": 0, "delta": {"content": text}, "finish_reason": "stop" if last else None}
    if asked.get("logprobs"):
        choice["token_ids"] = ids
        choice["logprobs"] = {
            "content": [
                {
                    "token": name,
                    "logprob": math.log(p),
                    "top_logprobs": [
                        {"token": name, "logprob": math.log(p)},
                        {"token": " other", "logprob": math.log(1 - p)},
                    ],
                }
                for name, p, _ in tokens
            ]
        }
    return {"choices": [choice]}


def text_chunk(tokens: list[tuple[str, float, float]], ids: list[int], asked: dict[str, Any], last: bool) -> dict:
    chunk = chat_chunk(tokens, ids, asked, last)
    (choice,) = chunk["choices"]
    choice["text"] = choice.pop("delta")["content"]
    if asked.get("logprobs"):
        entries = choice["logprobs"]["content"]
        choice["logprobs"] = {
            "tokens": [entry["token"] for entry in entries],
            "token_logprobs": [entry["logprob"] for entry in entries],
            "top_logprobs": [{top["token"]: top["logprob"] for top in entry["top_logprobs"]} for entry in entries],
        }
    return chunk


def prompt_logprobs(fake: FakeApi, ids: list[int]) -> list[Any]:
    """The base's view: None for the first token, then {id: ...} with one more alternative."""
    rows: list[Any] = [None] + [{str(token): {"logprob": -1.0, "rank": 1, "decoded_token": "?"}} for token in ids[1:]]
    for place, token in enumerate(ids[len(PROMPT_IDS) :], start=len(PROMPT_IDS)):
        name, _, p = fake.tokens[token - 100]
        rows[place] = {
            "7": {"logprob": -9999.0, "rank": 3, "decoded_token": " masked"},
            str(token): {"logprob": math.log(p), "rank": 1, "decoded_token": name},
        }
    return rows


def make_app(fake: FakeApi, config: RastConfig) -> FastAPI:
    app = FastAPI()
    mount(app, None, config)

    async def stream(request: Request, asked: dict[str, Any], chat: bool) -> AsyncIterator[str]:
        disconnects = fake.disconnects  # this test's
        base = asked["vllm_xargs"]["alpha"] == "base"
        tokens = [(text, 1.0, 1.0) for text in BASE_TOKENS] if base else fake.tokens
        try:
            if chat:
                first = {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}
                yield "data: " + json.dumps({**first, "prompt_token_ids": PROMPT_IDS}) + "\n\n"
            for start in range(0, len(tokens), fake.chunk):
                part = tokens[start : start + fake.chunk]
                ids = [100 + place for place in range(start, start + len(part))]
                last = start + fake.chunk >= len(tokens)
                chunk = (chat_chunk if chat else text_chunk)(part, ids, asked, last)
                if not chat and start == 0:
                    chunk["choices"][0]["prompt_token_ids"] = PROMPT_IDS
                yield "data: " + json.dumps(chunk) + "\n\n"
                await asyncio.sleep(fake.pause_s)
            fake.steps += 0 if base else 10
            if not fake.break_off:
                usage = {"prompt_tokens": len(PROMPT_IDS), "completion_tokens": len(tokens)}
                yield "data: " + json.dumps({"choices": [], "usage": usage}) + "\n\ndata: [DONE]\n\n"
        except asyncio.CancelledError:
            disconnects.append(asked)
            raise

    def refused(request: Request) -> JSONResponse | None:
        if fake.key is not None and request.headers.get("authorization") != f"Bearer {fake.key}":
            return JSONResponse({"error": "Unauthorized"}, status_code=401)
        if fake.refusal is not None and request.method == "POST":
            return JSONResponse({"error": {"message": fake.refusal, "code": 400}}, status_code=400)
        return None

    @app.get("/metrics")
    async def metrics() -> Any:
        """As vLLM's: each step keeps 1.5 drafts."""
        counts = {"drafts": fake.steps, "draft_tokens": 3 * fake.steps, "accepted_tokens": 1.5 * fake.steps}
        lines = [
            f'vllm:spec_decode_num_{name}_total{{engine="0",model_name="m"}} {float(count)}'
            for name, count in counts.items()
        ]
        lines.append(f'vllm:spec_decode_num_accepted_tokens_per_pos_total{{engine="0",position="0"}} {fake.steps}')
        return PlainTextResponse("\n".join(["# TYPE vllm:spec_decode_num_drafts_total counter", *lines, ""]))

    @app.get("/v1/models")
    async def models(request: Request) -> Any:
        return refused(request) or {"data": [{"id": "mix-model", "max_model_len": fake.max_model_len}]}

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Any:
        asked = {"path": "chat", **await request.json()}
        fake.requests.append(asked)
        return refused(request) or StreamingResponse(stream(request, asked, True), media_type="text/event-stream")

    @app.post("/v1/completions")
    async def text(request: Request) -> Any:
        asked = {"path": "text", **await request.json()}
        fake.requests.append(asked)
        if answer := refused(request):
            return answer
        if "prompt_logprobs" in asked:
            return {"choices": [{"prompt_logprobs": prompt_logprobs(fake, asked["prompt"])}]}
        return StreamingResponse(stream(request, asked, False), media_type="text/event-stream")

    return app


@contextmanager
def serve(fake: FakeApi, config: RastConfig) -> Iterator[str]:
    """The fake at a free port of this machine."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(make_app(fake, config), log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        deadline = time.monotonic() + 30
        while not server.started:
            assert thread.is_alive() and time.monotonic() < deadline
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=30)
        listener.close()
