"""What a body and a grammar may cost, decided before anything looks into them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient

from vllm_rast.serving.limits import NOT_SERVED, BodyLimit, GrammarError, body_limit, check_grammars

LIMIT = 1000


@pytest.fixture(scope="module")
def client() -> TestClient:
    app = FastAPI()

    @app.post("/length")
    async def length(request: Request) -> int:
        return len(await request.body())

    @app.get("/health")
    async def health() -> str:
        return "ok"

    app.add_middleware(BodyLimit, limit=LIMIT)
    return TestClient(app)


@pytest.mark.parametrize("size", [0, 1, LIMIT])
def test_bodies_within_the_limit_pass(client: TestClient, size: int) -> None:
    assert client.post("/length", content=b"x" * size).json() == size


def chunks(size: int) -> Any:
    return (b"x" * 100 for _ in range(size // 100))


@pytest.mark.parametrize("content", [b"x" * (LIMIT + 1), chunks(5 * LIMIT)])
def test_larger_bodies_are_413_with_one_line(client: TestClient, content: Any) -> None:
    """With their length in the head, or in chunks that nobody has announced."""
    answer = client.post("/length", content=content)
    assert answer.status_code == 413
    message = answer.json()["error"]["message"]
    assert "more than 1,000 bytes" in message and "--max-body-bytes" in message and "\n" not in message


def test_a_chunked_body_within_the_limit_passes_whole(client: TestClient) -> None:
    assert client.post("/length", content=chunks(LIMIT)).json() == LIMIT


def test_requests_without_a_body_pass(client: TestClient) -> None:
    assert client.get("/health").json() == "ok"


@pytest.mark.parametrize("path", [*NOT_SERVED, NOT_SERVED[0] + "/"])
def test_routes_that_make_no_sense_for_a_mix_are_404(client: TestClient, path: str) -> None:
    answer = client.post(path, json={})
    assert answer.status_code == 404 and "not served by vllm-rast" in answer.json()["error"]["message"]


def test_the_default_leaves_room_for_a_whole_context() -> None:
    ids = json.dumps({"prompt": [151643] * 131072}, separators=(",", ":"))
    assert len(ids) < body_limit(131072) < len(ids) + (8 << 20)


def nested(depth: int, key: str) -> Any:
    schema: Any = {"type": "string"}
    for _ in range(depth):
        schema = {key: [schema]} if key != "properties" else {"type": "object", "properties": {"a": schema}}
    return schema


BAD_SCHEMAS = [
    ({"type": "object", "properties": {f"p{i}": {} for i in range(5000)}}, "properties"),
    (nested(100, "anyOf"), "nested"),
    (nested(100, "properties"), "nested"),
    ({"anyOf": [{"const": i} for i in range(1000)]}, "alternatives"),
    ({"type": "array", "maxItems": 10**9}, "maxItems"),
    ({"type": "string", "maxLength": 10**9}, "maxLength"),
    ({"type": "array", "items": {"type": "string", "minLength": 10**7}}, "minLength"),
    ({"type": "string", "pattern": "a{1,1000000}"}, "repetitions"),
    ({"$ref": "#"}, "leads to itself"),
    (
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"anyOf": [{"$ref": "#/$defs/a"}]}}},
        "leads to itself",
    ),
    ({"type": "string", "description": "x" * 100_000}, "--max-schema-bytes"),
    ({"type": "array", "maxItems": 1000, "items": {"type": "string", "maxLength": 1000}}, "maxLength"),
    ({"type": "array", "maxItems": "1000000"}, "maxItems"),
    ({"type": "string", "pattern": "(a{1000}){1000}"}, "repetitions"),
]


@pytest.mark.parametrize(("schema", "message"), BAD_SCHEMAS)
@pytest.mark.parametrize("place", ["structured_outputs", "text", "response_format", "tools"])
def test_grammars_that_cost_too_much_are_refused(schema: Any, message: str, place: str) -> None:
    body = {
        "structured_outputs": {"structured_outputs": {"json": schema}},
        "text": {"structured_outputs": {"json": json.dumps(schema)}},
        "response_format": {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}},
        "tools": {"tools": [{"type": "function", "function": {"name": "a", "parameters": schema}}]},
    }[place]
    with pytest.raises(GrammarError, match=message) as error:
        check_grammars(body, 65536)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "regex", ["a{5000}", "(ab){2,99999}", "x{1000000000}", "(a{1000}){1000}", "a{4000}b{4000}", "((a{9}){9}){99}"]
)
def test_regular_expressions_that_repeat_too_often_are_refused(regex: str) -> None:
    with pytest.raises(GrammarError, match="repetitions"):
        check_grammars({"structured_outputs": {"regex": regex}}, 65536)


@pytest.mark.parametrize(
    "place", ["structural_tag", "response_format", "sampling_params", "input_schema", "many tools"]
)
def test_what_else_is_compiled_is_bounded(place: str) -> None:
    schema = {"type": "array", "maxItems": 10**9}
    body: dict[str, Any] = {
        "structural_tag": {"structured_outputs": {"structural_tag": json.dumps({"structures": [{"schema": schema}]})}},
        "response_format": {"response_format": {"type": "structural_tag", "structures": [{"schema": schema}]}},
        "sampling_params": {"sampling_params": {"structured_outputs": {"json": schema}}},
        "input_schema": {"tools": [{"name": "a", "input_schema": schema}]},
        "many tools": {"tools": [{"name": "a", "parameters": {"properties": {str(i): {} for i in range(99)}}}] * 50},
    }[place]
    with pytest.raises(GrammarError):
        check_grammars(body, 65536)


def test_odd_references_are_no_error() -> None:
    check_grammars({"structured_outputs": {"json": {"$ref": "#/a/\u00b2", "a": [1, 2]}}}, 65536)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"structured_outputs": None, "response_format": None, "tools": None},
        {"structured_outputs": {"regex": "\\d{3}-\\d{4}", "choice": ["a", "b"]}},
        {"response_format": {"type": "json_object"}},
        {"structured_outputs": {"json": {"type": "object", "properties": {"a": {"type": "array", "maxItems": 10}}}}},
        # A tree: its reference leads to itself through items, which is what references are for.
        {"structured_outputs": {"json": {"type": "object", "properties": {"children": {"items": {"$ref": "#"}}}}}},
        {"structured_outputs": {"json": "not JSON"}},
        {"tools": ["not a tool"], "text": "not a format"},
    ],
)
def test_usual_requests_pass(body: dict[str, Any]) -> None:
    check_grammars(body, 65536)
