"""Random requests that are wrong in some way, the same for the same seed."""

from __future__ import annotations

import json
import random
from typing import Any

MODELS = ["tiny:base", "tiny:base:positive", "tiny:base:alpha=0.3", "tiny:base:nothing", "", None]
PATHS = {
    "/v1/completions": {"prompt": "What is 1 + 1?", "max_tokens": 2},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2},
    "/v1/responses": {"input": "Hi", "max_output_tokens": 2},
    "/v1/messages": {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2},
    "/tokenize": {"prompt": "Hi"},
}
NAMES = """
add_special_tokens allowed_token_ids alpha bad_words cache_salt chat_template chat_template_kwargs documents echo
frequency_penalty ignore_eos include_stop_str_in_output input instructions kv_transfer_params length_penalty logit_bias
logprobs max_completion_tokens max_output_tokens max_tokens messages min_p min_tokens model n parallel_tool_calls
presence_penalty previous_response_id priority prompt prompt_logprobs reasoning reasoning_effort repetition_detection
repetition_penalty request_id response_format return_token_ids seed stop stop_token_ids stream stream_interval
stream_options structured_outputs suffix system temperature text thinking thinking_token_budget tool_choice tools top_k
top_logprobs top_p truncate_prompt_tokens truncation use_beam_search user vllm_xargs
"""
FIELDS = NAMES.split()
CONTENT_TYPES = ["", "text/plain", "application/xml", "multipart/form-data", "application/json; charset=utf-16", "json"]


class Malformed:
    """An endless source of (path, body, content type)."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def request(self) -> tuple[str, bytes, str]:
        rng = self.rng
        path = rng.choice(list(PATHS))
        body: dict[str, Any] = {"model": rng.choice(MODELS[:3]), "stream": rng.random() < 0.3, **PATHS[path]}
        content_type = "application/json"
        kind = rng.random()
        if kind < 0.45:
            for _ in range(rng.randint(1, 3)):
                body[rng.choice(FIELDS)] = self.value()
        elif kind < 0.7:
            body["vllm_xargs"] = {"alpha": self.alpha()}
        elif kind < 0.75:
            body["model"] = rng.choice([*MODELS, self.value()])
        elif kind < 0.8:
            content_type = rng.choice(CONTENT_TYPES)
        elif kind < 0.9:
            return path, self.garbled(json.dumps(body).encode()), content_type
        elif kind < 0.95:
            return path, json.dumps(self.value()).encode(), content_type
        else:
            body.pop(rng.choice(list(body)))
        return path, json.dumps(body).encode(), content_type

    def value(self, depth: int = 0) -> Any:
        """Anything that JSON can say, and what Python's JSON says beyond it."""
        rng = self.rng
        plain: list[Any] = [
            None,
            True,
            False,
            -1,
            0,
            1,
            0.5,
            -0.0,
            1e308,
            float("nan"),
            float("inf"),
            10**30,
            -(10**400),
        ]
        plain += ["", "x", "\x00", "\ud800", "9" * 50, "é" * rng.randint(1, 2000), "{", "null", "../..", "\n"]
        if depth > 3 or rng.random() < 0.6:
            return rng.choice(plain)
        if rng.random() < 0.1:
            nested: Any = []
            for _ in range(rng.randint(1, 60)):
                nested = [nested] if rng.random() < 0.5 else {"a": nested}
            return nested
        if rng.random() < 0.5:
            return [self.value(depth + 1) for _ in range(rng.randint(0, 5))]
        keys = ["type", "role", "content", "name", "function", "json", "regex", "choice", "schema", "", "alpha", "5"]
        return {rng.choice(keys): self.value(depth + 1) for _ in range(rng.randint(0, 4))}

    def alpha(self) -> Any:
        """A wrong alpha, or rarely a right one."""
        rng = self.rng
        schedules: list[Any] = [
            {"alpha": self.value(), "warmup": self.value()},
            {"until": self.value()},
            {rng.choice(["steps", "ramp", "step", "Ramp"]): self.value()},
            {"steps": [[i, 1] for i in range(rng.choice([0, 1, 64, 65, 3000]))]},
            {"ramp": [[rng.choice([0, 5, -1, 10**9]), self.value()], [3, 1]]},
            [[0, 1], [self.value(), 1]],
            json.dumps({"alpha": 1, "warmup": 2})[: rng.randint(1, 30)],
            "[" * rng.randint(1, 100_000),
            [1.0] * rng.choice([0, 2, 5000]),
            rng.choice(["positive:2", "base:1", "ceiling", "alpha=0.3"]),
            self.value(),
        ]
        return rng.choice(schedules)

    def garbled(self, body: bytes) -> bytes:
        """A body cut off, with bytes changed, or with bytes put in."""
        rng = self.rng
        data = bytearray(body)
        how = rng.random()
        if how < 0.4:
            return bytes(data[: rng.randrange(len(data))])
        for _ in range(rng.randint(1, 8)):
            place = rng.randrange(len(data))
            data[place : place + (how < 0.8)] = bytes([rng.randrange(256)])
        return bytes(data)
