"""A server that answers as `vllm-rast serve` does, without an engine: texts follow from the request alone."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from vllm_rast.engine.launch import TINY_ENGINE
from vllm_rast.evaluation.runs.served_mix import served_mix
from vllm_rast.mix.config import ModelPair, RastConfig

TINY = RastConfig("tiny:base", (ModelPair("tiny:positive", "tiny:negative"),))


class StubServer:
    """What a test may change, and what was asked. `url` stays the same after `stop` and `start`."""

    def __init__(self) -> None:
        self.identity: dict[str, Any] = served_mix(TINY, TINY_ENGINE, list(TINY_ENGINE)) | {
            "name": "tiny:base",
            "device": "stub: cpu",
            "max_num_seqs": 4,
            "max_model_len": 512,
        }
        self.bodies: list[dict[str, Any]] = []
        self.errors: list[int] = []  # HTTP codes of the next answers
        self.broken: set[int] = set()  # seeds that always get 500
        self.delay_s = 0.0
        self.key: str | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        config = uvicorn.Config(self.app(), port=self.port, log_level="critical", timeout_graceful_shutdown=0)
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        while not self.server.started:
            assert self.thread.is_alive()
            time.sleep(0.01)

    def stop(self) -> None:
        """End at once, as a killed one does: what is being answered is not."""
        self.server.force_exit = self.server.should_exit = True
        self.thread.join()

    def app(self) -> FastAPI:
        app = FastAPI()

        def refused(request: Request) -> JSONResponse | None:
            if self.key is not None and request.headers.get("authorization") != f"Bearer {self.key}":
                return JSONResponse({"error": "Unauthorized"}, status_code=401)
            return None

        @app.get("/health")
        async def health() -> None:
            return None

        @app.get("/v1/rast")
        async def rast(request: Request) -> Any:
            return refused(request) or self.identity

        @app.post("/v1/completions")
        async def completions(request: Request) -> Any:
            body = await request.json()
            self.bodies.append(body)
            if self.errors:
                code = self.errors.pop(0)
                return JSONResponse({"error": {"message": f"so says\nerror {code}"}}, status_code=code)
            if body["seed"] in self.broken:
                return JSONResponse({"error": {"message": "broken"}}, status_code=500)
            await asyncio.sleep(self.delay_s)
            digest = hashlib.sha256(repr(sorted(body.items())).encode()).hexdigest()
            usage = {"prompt_tokens": len(body["prompt"]), "completion_tokens": 7, "total_tokens": 9}
            choice = {"index": 0, "text": digest, "finish_reason": "stop", "logprobs": None}
            if (number := body["vllm_xargs"].get("trace")) is not None:
                choice["token_trace"] = stub_trace(7, number)
            return {
                "id": "1",
                "object": "text_completion",
                "created": 0,
                "model": "m",
                "choices": [choice],
                "usage": usage,
            }

        return app


def stub_trace(tokens: int, number: int) -> dict[str, Any]:
    """A trace as a server has it, whose numbers say where they come from."""
    models = {
        model: {
            "logprobs": [-place - i / 4 for i in range(tokens)],
            "top_token_ids": [[100 * place + i + k for k in range(number)] for i in range(tokens)],
            "top_logprobs": [[None if k else -place for k in range(number)] for _ in range(tokens)],
        }
        for place, model in enumerate(("mix", "base", "positive", "negative"))
    }
    return {"token_ids": list(range(tokens)), "tokens": ["a"] * tokens, **models}


@contextmanager
def stub_servers(number: int) -> Iterator[list[StubServer]]:
    servers = [StubServer() for _ in range(number)]
    for server in servers:
        server.start()
    try:
        yield servers
    finally:
        for server in servers:
            server.stop()
