"""Errors of a stream's first event as HTTP errors."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from vllm.entrypoints.serve.exception_handling.error_response import create_error_response

from vllm_rast.serving.error_responses import answer, one_line


class EarlyErrors:
    """ASGI middleware that keeps a stream's status back until its first event.

    vLLM answers a streaming request with 200 before it has checked all of it, and what is wrong comes as an event:
    clients that look at the status take the stream for an empty answer. The first event is the first token, so nobody
    waits longer for anything but headers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        start: Message | None = None
        refused = False

        async def send_or_refuse(message: Message) -> None:
            nonlocal start, refused
            if refused:
                return
            if message["type"] == "http.response.start" and is_stream(message):
                start = message
                return
            if start is not None:
                held, start = start, None
                error = error_in(message.get("body", b""))
                if error is not None:
                    refused = True
                    return await answer(error)(scope, receive, send)
                await send(held)
            await send(message)

        try:
            await self.app(scope, receive, send_or_refuse)
        except Exception as error:
            if start is None:
                raise
            # Starlette wraps what a stream raises after its start, which no client has seen yet.
            cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
            await answer(create_error_response(cause))(scope, receive, send)


def is_stream(message: Message) -> bool:
    kind = Headers(raw=message.get("headers", [])).get("content-type", "")
    return message["status"] == 200 and kind.startswith("text/event-stream")


def error_in(event: bytes) -> Any:
    """vLLM's ErrorResponse in an event of a stream; None if the event is none of an error with a status."""
    data = next((line[6:] for line in event.splitlines() if line.startswith(b"data: {")), None)
    if data is None or b'"error"' not in data:
        return None
    try:
        error = json.loads(data).get("error")
    except ValueError:
        return None
    if not isinstance(error, dict) or not 400 <= (error.get("code") or 0) < 600:
        return None
    return create_error_response(
        one_line(error.get("message")),
        error.get("type") or "BadRequestError",
        HTTPStatus(error["code"]),
        error.get("param"),
    )
