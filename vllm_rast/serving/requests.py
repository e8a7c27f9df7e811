"""A request's weights, from its model name or its body, to the engine: one way for every route of vLLM's server.

With them go `speculate`, how many tokens may be drafted for the request, and `trace`, how many likeliest ids are
answered with each of its tokens.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from vllm_rast.engine.members import normalise_speculate
from vllm_rast.errors import UserError, shown
from vllm_rast.mix.alpha import Alpha, parse_alpha
from vllm_rast.mix.trace import FIELD as TRACE
from vllm_rast.mix.trace import MAX_LIKELIEST, check_likeliest
from vllm_rast.serving.aliases import requested_alias
from vllm_rast.serving.error_responses import bad_request, one_line
from vllm_rast.serving.limits import MAX_SCHEMA_BYTES, GrammarError, check_grammars, replaying
from vllm_rast.serving.traces import ONLY_HERE, answers_with_traces

if TYPE_CHECKING:
    from vllm_rast.mix.config import RastConfig

# What the request being answered says about alpha, speculate and trace; None if it says nothing.
requested_alpha: ContextVar[Alpha | None] = ContextVar("requested_alpha", default=None)
requested_drafts: ContextVar[int | None] = ContextVar("requested_drafts", default=None)
requested_trace: ContextVar[int | None] = ContextVar("requested_trace", default=None)


NOT_TRACED = {
    "use_beam_search": "beam search throws most of what it decodes away",
    "echo": "it is of generated tokens alone, and an echo is the prompt's",
}


class BodyError(UserError):
    """A body that is not JSON."""


class TraceError(UserError):
    """A `trace` that this server cannot answer with."""


class DraftsError(UserError):
    """A `speculate` that this engine cannot follow."""


class RequestWeights:
    """ASGI middleware that reads alpha, speculate and trace out of JSON bodies, refuses bad ones, and lets vLLM's
    schema see none of them.

    vLLM's schema of `vllm_xargs` takes no dictionaries and turns booleans into numbers, it checks values only when a
    stream has begun, and beam search drops them. So they leave the body here and reach the engine through
    `requested_alpha` and its kind, which `choosing_weights` reads. A body that is JSON and no object goes on
    untouched: vLLM refuses it in its own words.

    most_likeliest: the largest trace that may be asked for.
    """

    def __init__(
        self,
        app: ASGIApp,
        config: RastConfig,
        aliases: Mapping[str, Alpha],
        schema_bytes: int = MAX_SCHEMA_BYTES,
        most_likeliest: int = MAX_LIKELIEST,
    ) -> None:
        self.app, self.config, self.aliases, self.schema_bytes = app, config, aliases, schema_bytes
        self.most_likeliest = most_likeliest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        requested_alias.set(None)
        requested_alpha.set(None)
        requested_drafts.set(None)
        requested_trace.set(None)
        if scope["type"] != "http" or scope["method"] != "POST" or not is_json(scope):
            return await self.app(scope, receive, send)
        body = await read_body(receive)
        if body is None:
            return
        try:
            body = self.choose(body)
            if requested_trace.get() is not None and not answers_with_traces(scope):
                raise TraceError(ONLY_HERE)
        except GrammarError as error:
            return await bad_request(str(error), error.field)(scope, receive, send)
        except BodyError as error:
            return await bad_request(f"body: {one_line(error)}", "body")(scope, receive, send)
        except DraftsError as error:
            return await bad_request(str(error), "speculate")(scope, receive, send)
        except TraceError as error:
            return await bad_request(str(error), "trace")(scope, receive, send)
        except UserError as error:
            return await bad_request(str(error), "alpha")(scope, receive, send)
        message = {"type": "http.request", "body": body, "more_body": False}
        await self.app(scope, replaying([message], receive), send)

    def choose(self, body: bytes) -> bytes:
        """Note the request's alias, alpha, speculate and trace, and return the body without the latter three.

        Raises BodyError if the body cannot be read, GrammarError if it asks for too large a grammar, TraceError if
        trace is wrong, DraftsError if speculate is, UserError if alpha is.
        """
        try:
            values = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise BodyError(f"not JSON: {error}") from error
        if not isinstance(values, dict):
            return body
        check_grammars(values, self.schema_bytes)
        held = taken(values, "alpha")
        given = [(place, alpha) for place, alpha in held if alpha is not None]
        name = values.get("model")
        if isinstance(name, str) and name in self.aliases:
            requested_alias.set(name)
            given.append((f"the model name {name}", self.aliases[name]))
        if given:
            requested_alpha.set(agreed("alpha", given, lambda alpha: parse_alpha(self.config, alpha)))
        changed = [self.choose_drafts(values), self.choose_trace(values), bool(held)]
        return json.dumps(values).encode() if any(changed) else body

    def choose_drafts(self, values: dict[str, Any]) -> bool:
        """Take speculate out of a body and note it; whether it was there. Raises DraftsError if it is wrong."""
        try:
            held = taken(values, "speculate")
            given = [(place, count) for place, count in held if count is not None]
            if given:
                requested_drafts.set(agreed("speculate", given, lambda count: read_drafts(self.config, count)))
        except UserError as error:
            raise DraftsError(str(error)) from None
        return bool(held)

    def choose_trace(self, values: dict[str, Any]) -> bool:
        """Take trace out of a body and note it; whether it was there. Raises TraceError if there can be none."""
        try:
            held = taken(values, TRACE)
            given = [(place, number) for place, number in held if number is not None]
            if given:
                read = partial(check_likeliest, most=self.most_likeliest)
                requested_trace.set(agreed(TRACE, given, read))
        except UserError as error:
            raise TraceError(str(error)) from None
        for field, reason in NOT_TRACED.items() if given else ():
            if values.get(field):
                raise TraceError(f"{TRACE}: {reason}; leave {field} out, or {TRACE}")
        return bool(held)


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


def taken(values: dict[str, Any], name: str) -> list[tuple[str, Any]]:
    """(place, value) of a field of ours wherever a body holds it, which it no longer does afterwards."""
    return [(f"{place}{name}", holder.pop(name)) for place, holder in list(holders(values, name))]


def holders(values: dict[str, Any], name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, dictionary) of everything in a body that holds `name`: vLLM's clients put it into `vllm_xargs`."""
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
            if place and key != name and str(key).strip().lower() == name:
                raise UserError(f"{place}{key}: write {name} in lower case")
        if name in holder:
            yield place, holder


def agreed(name: str, given: list[tuple[str, Any]], read: Callable[[Any], Any]) -> Any:
    """The one value that all places of a request state. Raises UserError if `read` refuses one, or two differ."""
    (place, value), *others = given
    meaning = read(value)
    for other_place, other in others:
        if read(other) != meaning:
            raise UserError(
                f"{name}: {place} says {shown(value)} and {other_place} says {shown(other)}; send one of the two"
            )
    return value


def read_drafts(config: RastConfig, count: Any) -> int:
    """How many drafts a request wants. Raises UserError if the engine does not make as many."""
    return normalise_speculate(SimpleNamespace(extra_args={"speculate": count}), config.most_drafts)


def choosing_weights(generate: Any) -> Any:
    """`AsyncLLM.generate` with the alpha, speculate and trace of the request that is being answered.

    Every route of vLLM's server that decodes calls it: completions, chat, responses, messages, beam search.
    """

    def wrapped(prompt: Any, sampling_params: Any, *args: Any, **kwargs: Any) -> Any:
        said = {"alpha": requested_alpha.get(), "speculate": requested_drafts.get(), TRACE: requested_trace.get()}
        said = {name: value for name, value in said.items() if value is not None}
        if said:
            sampling_params.extra_args = {**(sampling_params.extra_args or {}), **said}
        return generate(prompt, sampling_params, *args, **kwargs)

    return wrapped
