"""What leaves a request's body before vLLM reads it, without a server."""

from __future__ import annotations

import json
from typing import Any

import pytest

from vllm_rast import RastConfig, UserError
from vllm_rast.serving.requests import RequestWeights, TraceError, requested_alpha

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
def test_a_trace_is_refused(place: str) -> None:
    body: dict[str, Any] = {place: {"trace": 3}} if place else {"trace": 3}
    with pytest.raises(TraceError, match="^trace: responses have no room for it; send logprobs"):
        choose({"prompt": "a", **body})
