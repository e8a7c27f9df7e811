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
    for field, kind, grammar in grammars(body):
        text = grammar if isinstance(grammar, str) else json.dumps(grammar)
        if len(text) > limit:
            raise GrammarError(field, f"more than {limit:,} bytes; send less, or raise --max-schema-bytes")
        if kind in ("regex", "grammar"):
            check_repeats(field, text)
        elif kind == "json":
            check_schema(field, schema_of(grammar))


def grammars(body: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """(field, kind, grammar) of everything in a body that is compiled."""
    response = body.get("response_format")
    if isinstance(response, dict):
        schema = response.get("json_schema")
        yield "response_format", "json", schema.get("schema") if isinstance(schema, dict) else None
        yield "response_format", "other", response
    structured = body.get("structured_outputs")
    if isinstance(structured, dict):
        for kind, grammar in structured.items():
            yield f"structured_outputs.{kind}", kind, grammar
    tools = body.get("tools")
    for number, tool in enumerate(tools if isinstance(tools, list) else []):
        function = tool.get("function", tool) if isinstance(tool, dict) else {}
        if isinstance(function, dict) and function.get("parameters") is not None:
            yield f"tools.{number}", "json", function["parameters"]
    text = body.get("text")
    if isinstance(text, dict) and isinstance(text.get("format"), dict):
        yield "text.format", "json", text["format"].get("schema")


def schema_of(grammar: Any) -> Any:
    if not isinstance(grammar, str):
        return grammar
    try:
        return json.loads(grammar)
    except (ValueError, RecursionError):
        return None  # vLLM says so in its own words


def check_repeats(field: str, text: str) -> None:
    for least, most in QUANTIFIER.findall(text):
        if max(int(least), int(most or 0)) > MAX_REPEATS:
            raise GrammarError(field, f"more than {MAX_REPEATS:,} repetitions; leave the bound out or make it smaller")


def check_schema(field: str, schema: Any) -> None:
    """Sizes and depths of a JSON schema, and references that lead to themselves."""
    properties = branches = 0
    waiting: list[tuple[Any, int]] = [(schema, 0)]
    while waiting:
        node, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise GrammarError(field, f"a schema nested more than {MAX_DEPTH} deep; make it flatter")
        if isinstance(node, list):
            waiting += [(one, depth) for one in node]
        if not isinstance(node, dict):
            continue
        properties += len(node["properties"]) if isinstance(node.get("properties"), dict) else 0
        branches += sum(len(node[key]) for key in BRANCHES if isinstance(node.get(key), list))
        if properties > MAX_PROPERTIES or branches > MAX_BRANCHES:
            raise GrammarError(
                field, f"more than {MAX_PROPERTIES:,} properties or {MAX_BRANCHES} alternatives; split the request"
            )
        for key in BOUNDS:
            if isinstance(node.get(key), int | float) and node[key] > MAX_REPEATS:
                raise GrammarError(field, f"{key} is more than {MAX_REPEATS:,}; leave it out or make it smaller")
        if isinstance(node.get("pattern"), str):
            check_repeats(field, node["pattern"])
        waiting += [(one, depth + 1) for one in node.values()]
    check_references(field, schema)


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
        if isinstance(node, list) and part.isdigit() and int(part) < len(node):
            node = node[int(part)]
        elif isinstance(node, dict):
            node = node.get(part)
        else:
            return None
    return node
