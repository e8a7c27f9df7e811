"""Error answers, in the shape of vLLM's own: {"error": {"message", "type", "param", "code"}}."""

from __future__ import annotations

import traceback
from http import HTTPStatus
from types import FrameType
from typing import Any

from starlette.responses import JSONResponse
from vllm.entrypoints.serve.exception_handling.error_response import create_error_response
from vllm.entrypoints.serve.exception_handling.handlers.exception import exception_handler
from vllm.entrypoints.serve.exception_handling.handlers.validation import clean_loc_for_param

BODY_CHECK = "request_body_to_args"  # FastAPI's function that checks a body, before any of vLLM's routes sees it


def bad_request(message: str, field: str | None) -> JSONResponse:
    """HTTP 400 with one line, and the field that it is about."""
    return answer(create_error_response(message, param=field))


def too_large(message: str) -> JSONResponse:
    """HTTP 413; the connection ends, since the rest of the body is not read."""
    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    response = answer(create_error_response(message, err_type="BadRequestError", status_code=status, param="body"))
    response.headers["Connection"] = "close"
    return response


def not_served(path: str) -> JSONResponse:
    """HTTP 404 for a route of vLLM's that makes no sense for a mix."""
    message = f"{path}: not served by vllm-rast"
    return answer(create_error_response(message, err_type="NotFoundError", status_code=HTTPStatus.NOT_FOUND))


def unavailable(message: str) -> JSONResponse:
    """HTTP 503: try another server, or this one again after a restart."""
    response = answer(
        create_error_response(message, err_type="ServiceUnavailableError", status_code=HTTPStatus.SERVICE_UNAVAILABLE)
    )
    response.headers["Retry-After"] = "5"
    response.headers["Connection"] = "close"
    return response


def answer(error: Any) -> JSONResponse:
    """vLLM's ErrorResponse as an HTTP response."""
    return JSONResponse(error.model_dump(), status_code=error.error.code)


async def one_line_refusal(request: Any, error: Any) -> JSONResponse:
    """A body that does not fit vLLM's schema: pydantic's findings, the first in words, on one line.

    Takes the place of vLLM's handler, whose message has a line for every finding, with the type of each branch tried.
    """
    findings = error.errors() or ["the body does not fit"]
    first = findings[0]
    if not isinstance(first, dict):
        return bad_request(one_line(first), None)
    own = (first.get("ctx") or {}).get("error")  # vLLM's own exception, if one is behind it
    parts = first.get("loc") or ("body",)
    named = clean_loc_for_param(parts[1:] if len(parts) > 1 and parts[0] == "body" else parts)
    field = getattr(own, "parameter", None) or named
    more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
    text = one_line(own or first.get("msg"))
    return bad_request(f"{field}: {text}{more}", field)


async def validator_refusal(request: Any, error: Exception) -> JSONResponse:
    """A body that one of vLLM's own checks fails on, because it looks into a value before its type is known: HTTP 400.

    vLLM answers with 500. What fails anywhere else is left to vLLM's handler.
    """
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    if not any(frame.f_code.co_name == BODY_CHECK for frame in frames):
        return await exception_handler(request, error)
    field = field_looked_into(frames, error)
    return bad_request(f"{field}: of a type that does not fit: {one_line(error)}", field)


def field_looked_into(frames: list[FrameType], error: Exception) -> str:
    """The field whose value an AttributeError is about: one that the failing check names, if several have the value."""
    checks = [frame for frame in frames if isinstance(frame.f_locals.get("data"), dict)]
    if not (checks and isinstance(error, AttributeError)):
        return "body"
    fields = [key for key, value in checks[-1].f_locals["data"].items() if value is error.obj]
    return next((key for key in fields if key in checks[-1].f_code.co_consts), fields[0] if fields else "body")


def one_line(text: Any) -> str:
    """The text on one line, cut if it grows beyond what anybody reads."""
    words = " ".join(str(text).split())
    return words if len(words) <= 400 else words[:400] + " ..."
