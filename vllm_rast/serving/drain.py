"""Graceful shutdown: finish in-flight requests, reject new ones, and tell a dead engine from a stopped one."""

from __future__ import annotations

import time
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from vllm_rast.serving.error_responses import unavailable

POLL_S = 0.05
# Time for the engine's processes to give back what they hold, after the requests' own.
TEARDOWN_S = 5.0
HEALTH = ("/health", "/health/decode", "/ping")


class Drain:
    """What the server does at its end, shared by the middleware and the engine's `shutdown`.

    running: requests that are being answered, streams included. stopping: no new ones are taken. engine_died: the
    engine ended before anybody asked it to.
    """

    def __init__(self) -> None:
        self.running = 0
        self.stopping = False
        self.engine_died = False

    def shutting_down(self, engine_client: Any) -> Any:
        """The engine's `shutdown(timeout)` that first lets the requests finish, for at most `timeout` seconds.

        vLLM's own tells the engine to stop at once: it finishes what it has, but answers requests that are still being
        read or rendered, and all that come while it drains, with status 200 and no text.
        """
        shutdown = engine_client.shutdown

        def wrapped(timeout: float | None = None) -> None:
            deadline = time.monotonic() + (timeout or 0)
            if not self.stopping:
                self.engine_died = engine_client.errored
            self.stopping = True
            while self.running and time.monotonic() < deadline and not engine_client.errored:
                time.sleep(POLL_S)
            remaining = max(0.0, deadline - time.monotonic())
            shutdown(timeout=max(remaining, TEARDOWN_S) if timeout else timeout)

        return wrapped


class CountRequests:
    """ASGI middleware that counts the requests being answered, and refuses new ones once the server stops."""

    def __init__(self, app: ASGIApp, drain: Drain) -> None:
        self.app, self.drain = app, drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        counted = scope["method"] == "POST"
        path = scope["path"].removeprefix(scope.get("root_path") or "")
        if self.drain.stopping and (counted or path in HEALTH):
            return await unavailable("the server is shutting down")(scope, receive, send)
        self.drain.running += counted
        try:
            await self.app(scope, receive, send)
        finally:
            self.drain.running -= counted
