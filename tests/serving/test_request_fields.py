"""What leaves a request's body before vLLM reads it, without a server."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from vllm_rast import RastConfig, UserError
from vllm_rast.serving.requests import (
    RequestWeights,
    TraceError,
    choosing_weights,
    requested_alpha,
    requested_trace,
)

CONFIG = RastConfig.build("o/base", "o/rl", "o/small")


def choose(body: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    weights = RequestWeights(None, CONFIG, {})  # type: ignore[arg-type]
    requested_alpha.set(None)
    return json.loads(weights.choose(json.dumps(body).encode())), requested_alpha.get()


def test_a_gate_reaches_the_engine() -> None:
    gated = {"alpha": 1, "warmup": 3, "gate": {"js": 0.1, "top": 20}}
    for place in ({"alpha": gated}, {"vllm_xargs": {"alpha": gated}}, {"alpha": json.dumps(gated)}):
        body, alpha = choose({"prompt": "a", **place})
        assert "alpha" not in json.dumps(body) and alpha in (gated, json.dumps(gated))
    with pytest.raises(UserError, match=r"^alpha.gate.js: expected nats from 0 to log 2"):
        choose({"alpha": {"alpha": 1, "gate": {"js": 7}}})


@pytest.mark.parametrize("place", ["", "vllm_xargs"])
def test_a_trace_reaches_the_engine(place: str) -> None:
    def asked(number: Any) -> dict[str, Any]:
        return {place: {"trace": number}} if place else {"trace": number}

    for number in (0, 3, 20, None):
        requested_trace.set(None)
        body, _ = choose({"prompt": "a", "use_beam_search": False, **asked(number)})
        assert "trace" not in json.dumps(body) and requested_trace.get() == number
    for number in (21, -1, True, 2.0, "3", [3]):
        with pytest.raises(TraceError, match="^trace: expected an integer from 0 to 20, got "):
            choose({"prompt": "a", **asked(number)})
    for field in ("echo", "use_beam_search"):
        with pytest.raises(TraceError, match=f"^trace: .*; leave {field} out, or trace$"):
            choose({"prompt": "a", field: True, **asked(3)})
        choose({"prompt": "a", field: True, **asked(None)})


def test_what_is_added_to_a_request() -> None:
    requested_alpha.set(0.5)
    requested_trace.set(4)
    params = SimpleNamespace(extra_args={"other": 1})
    assert choosing_weights(lambda prompt, params, request_id: params)("a", params, "7") is params
    assert params.extra_args == {"other": 1, "alpha": 0.5, "trace": 4}
    requested_alpha.set(None)
    requested_trace.set(None)
