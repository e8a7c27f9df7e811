"""A request's weights, from its model name or its body, to the engine: one way for every route of vLLM's server."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from vllm_rast.errors import UserError, shown
from vllm_rast.mix.alpha import Alpha, parse_alpha
from vllm_rast.serving.aliases import requested_alias
from vllm_rast.serving.error_responses import bad_request, one_line
from vllm_rast.serving.limits import MAX_SCHEMA_BYTES, GrammarError, check_grammars, replaying

if TYPE_CHECKING:
    from vllm_rast.mix.config import RastConfig

# What the request being answered says about alpha; None if it says nothing.
requested_alpha: ContextVar[Alpha | None] = ContextVar("requested_alpha", default=None)


class BodyError(UserError):
    """A body that is not JSON."""


class RequestWeights:
    """ASGI middleware that reads alpha out of JSON bodies, refuses a bad one, and lets vLLM's schema see none.

    vLLM's schema of `vllm_xargs` takes no dictionaries and turns booleans into numbers, it checks values only when a
    stream has begun, and beam search drops them. So alpha leaves the body here and reaches the engine through
    `requested_alpha`, which `choosing_weights` reads. A body that is JSON and no object goes on untouched: vLLM refuses
    it in its own words.
    """

    def __init__(
        self, app: ASGIApp, config: RastConfig, aliases: Mapping[str, Alpha], schema_bytes: int = MAX_SCHEMA_BYTES
    ) -> None:
        self.app, self.config, self.aliases, self.schema_bytes = app, config, aliases, schema_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        requested_alias.set(None)
        requested_alpha.set(None)
        if scope["type"] != "http" or scope["method"] != "POST" or not is_json(scope):
            return await self.app(scope, receive, send)
        body = await read_body(receive)
        if body is None:
            return
        try:
            body = self.choose(body)
        except GrammarError as error:
            return await bad_request(str(error), error.field)(scope, receive, send)
        except BodyError as error:
            return await bad_request(f"body: {one_line(error)}", "body")(scope, receive, send)
        except UserError as error:
            return await bad_request(str(error), "alpha")(scope, receive, send)
        message = {"type": "http.request", "body": body, "more_body": False}
        await self.app(scope, replaying([message], receive), send)

    def choose(self, body: bytes) -> bytes:
        """Note the request's alias and alpha, and return the body without alpha.

        Raises BodyError if the body cannot be read, GrammarError if it asks for too large a grammar, UserError if alpha
        is wrong.
        """
        try:
            values = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise BodyError(f"not JSON: {error}") from error
        if not isinstance(values, dict):
            return body
        check_grammars(values, self.schema_bytes)
        held = list(holders(values))
        given = [(f"{place}alpha", holder.pop("alpha")) for place, holder in held]
        given = [(place, alpha) for place, alpha in given if alpha is not None]
        name = values.get("model")
        if isinstance(name, str) and name in self.aliases:
            requested_alias.set(name)
            given.append((f"the model name {name}", self.aliases[name]))
        if given:
            requested_alpha.set(agreed(self.config, given))
        return json.dumps(values).encode() if held else body


def is_json(scope: Scope) -> bool:
    return Headers(scope=scope).get("content-type", "").partition(";")[0].strip().lower() == "application/json"


async def read_body(receive: Receive) -> bytes | None:
    """The whole body; None if the client went away."""
    chunks: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        chunks.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(chunks)


def holders(values: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, dictionary) of everything in a body that may hold an alpha: vLLM's clients put it into `vllm_xargs`."""
    sampling = values.get("sampling_params")
    places = {
        "vllm_xargs.": values.get("vllm_xargs"),
        "sampling_params.extra_args.": sampling.get("extra_args") if isinstance(sampling, dict) else None,
        "": values,
    }
    for place, holder in places.items():
        if not isinstance(holder, dict):
            continue
        for key in holder:
            if place and key != "alpha" and str(key).strip().lower() == "alpha":
                raise UserError(f"{place}{key}: write alpha in lower case")
        if "alpha" in holder:
            yield place, holder


def agreed(config: RastConfig, given: list[tuple[str, Any]]) -> Alpha:
    """The one alpha that all places of a request state. Raises UserError if one is wrong or two differ."""
    (place, alpha), *others = given
    weights = parse_alpha(config, alpha)
    for other_place, other in others:
        if parse_alpha(config, other) != weights:
            raise UserError(
                f"alpha: {place} says {shown(alpha)} and {other_place} says {shown(other)}; send one of the two"
            )
    return alpha


def choosing_weights(generate: Any) -> Any:
    """`AsyncLLM.generate` with the alpha of the request that is being answered.

    Every route of vLLM's server that decodes calls it: completions, chat, responses, messages, beam search.
    """

    def wrapped(prompt: Any, sampling_params: Any, *args: Any, **kwargs: Any) -> Any:
        alpha = requested_alpha.get()
        if alpha is not None:
            sampling_params.extra_args = {**(sampling_params.extra_args or {}), "alpha": alpha}
        return generate(prompt, sampling_params, *args, **kwargs)

    return wrapped
