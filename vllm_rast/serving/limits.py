"""What one request may cost before it is a request: the size of its body, and of the grammar that it asks for.

A body is parsed on the event loop, where every stream waits for it, and a grammar is compiled in the engine, where
nothing can end it. So both are bounded from outside, before anything looks into them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vllm_rast.errors import UserError
from vllm_rast.serving.error_responses import not_served, too_large

MIB = 1 << 20
SPARE_BYTES = 4 * MIB  # of a body, beyond what a whole context needs
DISCARDED = 100  # times the limit of a body that is too large are read to their end; then the connection is cut
BYTES_PER_TOKEN = 8  # of a prompt as token ids, such as 151643 and a comma
# Routes of vLLM's server for what a mix does not have: elastic expert parallelism, scoring by several prompts at once.
NOT_SERVED = (
    "/scale_elastic_ep",
    "/is_scaling_elastic_ep",
    "/generative_scoring",
    "/kv_event_sources",
    "/v1/systemone",
)

MAX_SCHEMA_BYTES = 64 << 10  # default of --max-schema-bytes
MAX_DEPTH = 32
MAX_PROPERTIES = 1000
MAX_BRANCHES = 200  # of anyOf, oneOf and allOf together
MAX_REPEATS = 4096  # of maxItems, maxLength, {n,m}: the grammar has a state for each
BOUNDS = ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")
BRANCHES = ("anyOf", "oneOf", "allOf")
QUANTIFIER = re.compile(r"\{(\d{1,20})(?:,(\d{0,20}))?\}")


def body_limit(max_model_len: int) -> int:
    """The default of --max-body-bytes: a whole context as token ids, and 4 MiB."""
    return SPARE_BYTES + BYTES_PER_TOKEN * max_model_len


class BodyLimit:
    """ASGI middleware that answers a body of more than `limit` bytes with HTTP 413, before anybody parses it."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app, self.limit = app, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        if scope["path"].rstrip("/") in NOT_SERVED:
            return await not_served(scope["path"])(scope, receive, send)
        said = Headers(scope=scope).get("content-length", "")
        if said.isdigit() and int(said) > self.limit:
            return await self.refuse(scope, receive, send)
        if scope["method"] in ("GET", "HEAD", "OPTIONS"):
            return await self.app(scope, receive, send)
        messages, whole = await self.read(receive)
        if not whole:
            ended = not messages[-1].get("more_body", False)
            return await self.refuse(
                scope, replaying([{"type": "http.disconnect"}], receive) if ended else receive, send
            )
        await self.app(scope, replaying(messages, receive), send)

    async def read(self, receive: Receive) -> tuple[list[Message], bool]:
        """The messages of a body up to its end, and whether it stayed within the limit."""
        messages: list[Message] = []
        size = 0
        while True:
            message = await receive()
            messages.append(message)
            size += len(message.get("body", b""))
            if size > self.limit:
                return messages, False
            if message["type"] != "http.request" or not message.get("more_body", False):
                return messages, True  # the whole body, or a client that went away

    async def refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        """413, once what the client still sends is read and forgotten: most clients read no answer before that."""
        left = DISCARDED * self.limit
        while left > 0:
            message = await receive()
            if message["type"] != "http.request" or not message.get("more_body", False):
                break
            left -= len(message.get("body", b""))
        await too_large(f"body: more than {self.limit:,} bytes; send less, or raise --max-body-bytes")(
            scope, receive, send
        )


def replaying(messages: list[Message], receive: Receive) -> Receive:
    """A `receive` that hands out the messages once more and then waits for the client as before."""
    waiting = list(reversed(messages))

    async def replay() -> Message:
        return waiting.pop() if waiting else await receive()

    return replay


class GrammarError(UserError):
    """A schema, regular expression or grammar that is larger than the server compiles, and the field that it is in."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field


def check_grammars(body: dict[str, Any], limit: int) -> None:
    """Refuse what would take the engine long, or much memory, to compile. Raises GrammarError."""
    size = _Size()
    for field, kind, grammar in grammars(body):
        text = grammar if isinstance(grammar, str) else json.dumps(grammar)
        if len(text) > limit:
            raise GrammarError(field, f"more than {limit:,} bytes; send less, or raise --max-schema-bytes")
        if kind in ("regex", "grammar"):
            check_repeats(field, text)
        else:
            check_schema(field, schema_of(grammar), size)


def grammars(body: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """(field, kind, grammar) of everything in a body that is compiled."""
    response = body.get("response_format")
    if isinstance(response, dict):
        schema = response.get("json_schema")
        yield "response_format", "json", schema.get("schema") if isinstance(schema, dict) else response
    sampling = body.get("sampling_params")
    for place, holder in (("", body), ("sampling_params.", sampling if isinstance(sampling, dict) else {})):
        structured = holder.get("structured_outputs")
        for kind, grammar in structured.items() if isinstance(structured, dict) else ():
            yield f"{place}structured_outputs.{kind}", kind, grammar
    tools = body.get("tools")
    for number, tool in enumerate(tools if isinstance(tools, list) else []):
        function = tool.get("function", tool) if isinstance(tool, dict) else {}
        for key in ("parameters", "input_schema"):
            if isinstance(function, dict) and function.get(key) is not None:
                yield f"tools.{number}", "json", function[key]
    text = body.get("text")
    if isinstance(text, dict) and isinstance(text.get("format"), dict):
        yield "text.format", "json", text["format"].get("schema", text["format"])


def schema_of(grammar: Any) -> Any:
    if not isinstance(grammar, str):
        return grammar
    try:
        return json.loads(grammar)
    except (ValueError, RecursionError):
        return None  # vLLM says so in its own words


def check_repeats(field: str, text: str) -> None:
    """Repetitions in a regular expression or grammar, multiplied if one stands in another, and added up."""
    if repeats(text) > MAX_REPEATS:
        raise GrammarError(field, f"more than {MAX_REPEATS:,} repetitions; leave the bound out or make it smaller")


def repeats(text: str) -> int:
    """About how many states the bounded repetitions of an expression have: (a{2}b{3}){4} has 20."""
    sums, last, at = [0], 0, 0  # of each open group; of the last group or repetition
    while at < len(text):
        quantifier = QUANTIFIER.match(text, at)
        if quantifier:
            times = max(int(quantifier[1]), int(quantifier[2] or 0))
            sums[-1] += max(last, 1) * max(times, 1) - last
            last, at = max(last, 1) * max(times, 1), quantifier.end()
            continue
        if text[at] == "(":
            sums.append(0)
        elif text[at] == ")" and len(sums) > 1:
            last = sums.pop()
            sums[-1] += last
        else:
            last = 0
        at += 2 if text[at] == "\\" else 1
    return sum(sums)


class _Size:
    """What all schemas of one request have together."""

    def __init__(self) -> None:
        self.properties = self.branches = 0


def check_schema(field: str, schema: Any, size: _Size) -> None:
    """Sizes and depths of a JSON schema, bounds inside bounds, and references that lead to themselves."""
    waiting: list[tuple[Any, int, int]] = [(schema, 0, 1)]
    while waiting:
        node, depth, times = waiting.pop()
        if depth > MAX_DEPTH:
            raise GrammarError(field, f"a schema nested more than {MAX_DEPTH} deep; make it flatter")
        if isinstance(node, list):
            waiting += [(one, depth, times) for one in node]
        if not isinstance(node, dict):
            continue
        size.properties += len(node["properties"]) if isinstance(node.get("properties"), dict) else 0
        size.branches += sum(len(node[key]) for key in BRANCHES if isinstance(node.get(key), list))
        if size.properties > MAX_PROPERTIES or size.branches > MAX_BRANCHES:
            raise GrammarError(
                field, f"more than {MAX_PROPERTIES:,} properties or {MAX_BRANCHES} alternatives; split the request"
            )
        bounds = {key: number for key in BOUNDS if (number := number_of(node.get(key))) is not None}
        for key, number in bounds.items():
            if number * times > MAX_REPEATS:
                raise GrammarError(field, f"{key} is more than {MAX_REPEATS:,}; leave it out or make it smaller")
        if isinstance(node.get("pattern"), str):
            check_repeats(field, node["pattern"])
        inside = times * int(max([1, *bounds.values()]))
        waiting += [(one, depth + 1, inside) for one in node.values()]
    check_references(field, schema)


def number_of(value: Any) -> float | None:
    """A bound, also as text."""
    if isinstance(value, str) and value.isascii() and value.isdecimal():
        return float(value[:20])
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def check_references(field: str, schema: Any) -> None:
    """A reference that leads back to itself without a property or item between is a schema of nothing."""
    for start in references(schema):
        seen = {start}
        waiting = [start]
        while waiting:
            for following in references(resolve(schema, waiting.pop()), only_direct=True):
                if following == start:
                    raise GrammarError(field, f"the reference {start!r} leads to itself; say what it stands for")
                if following not in seen:
                    seen.add(following)
                    waiting.append(following)


def references(node: Any, only_direct: bool = False) -> set[str]:
    """The targets of the references in a schema; only_direct: those that stand for the schema itself."""
    found: set[str] = set()
    waiting = [node]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += node
        elif isinstance(node, dict):
            if isinstance(node.get("$ref"), str):
                found.add(node["$ref"])
            waiting += [node[key] for key in BRANCHES if key in node] if only_direct else list(node.values())
    return found


def resolve(schema: Any, reference: str) -> Any:
    """What "#/$defs/name" stands for in a schema; None if there is no such thing."""
    if not reference.startswith("#"):
        return None
    node = schema
    for part in reference.removeprefix("#").strip("/").split("/"):
        if not part:
            continue
        part = part.replace("~1", "/").replace("~0", "~")
        if isinstance(node, list) and part.isascii() and part.isdecimal() and int(part[:9]) < len(node):
            node = node[int(part)]
        elif isinstance(node, dict):
            node = node.get(part)
        else:
            return None
    return node
