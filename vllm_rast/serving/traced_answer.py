"""A trace as JSON, and an answer of vLLM's that gets one in each choice.

    "token_trace": {
      "token_ids": [T], "tokens": [T],
      "mix": {"logprobs": [T], "top_token_ids": [T][K], "top_tokens": [T][K], "top_logprobs": [T][K]},
      "base": {...}, "positive": {...}, "negative": {...}
    }

T tokens were generated; with K = 0 the three of the likeliest ids are left out. Log-probabilities are in nats, before
temperature and top-p, written so that float32 comes back to the bit; null stands for minus infinity, of an id that the
model does not have, and for nan.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import Message, Send
from vllm.tokenizers.detokenizer_utils import convert_ids_list_to_tokens

from vllm_rast.mix.trace import ANSWER_FIELD

if TYPE_CHECKING:
    from vllm_rast.serving.traces import Traces

LOGPROB = "_logprob"
EVENT_END = b"\n\n"


class TokenTexts:
    """The text of each id, as vLLM's own log-probabilities have it; found once. None without a tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.known: dict[int, str | None] = {-1: None}  # a model has fewer ids than were asked for

    def learn(self, ids: Iterable[int]) -> None:
        """Find texts that are not known yet."""
        if new := [token for token in set(ids) if token not in self.known]:
            none: list[str | None] = [None] * len(new)
            texts = none if self.tokenizer is None else convert_ids_list_to_tokens(self.tokenizer, new)
            self.known.update(zip(new, texts, strict=True))


class TracedChoice(NamedTuple):
    """One sample. ids: its tokens, [num_tokens]. columns: as `likeliest_columns` names them, each [num_tokens]."""

    ids: list[int]
    columns: dict[str, np.ndarray]

    def models(self) -> list[str]:
        """What the columns call the models, the mix first."""
        labels = [name.removesuffix(LOGPROB) for name in self.columns if is_of_tokens(name)]
        return ["mix", *(label for label in labels if label != "mix")]

    def likeliest(self, model: str) -> tuple[np.ndarray, np.ndarray]:
        """The likeliest ids of a model and their log-probabilities, [num_tokens, K] each."""
        places = [name.removesuffix(LOGPROB) for name in self.columns if name.startswith(f"{model}_top")]
        places = list(dict.fromkeys(places))
        if not places:
            empty = np.empty((len(self.ids), 0))
            return empty.astype(np.int64), empty
        ids = np.stack([self.columns[name] for name in places], axis=1).astype(np.int64)
        return ids, np.stack([self.columns[name + LOGPROB] for name in places], axis=1)

    def all_ids(self) -> set[int]:
        """Every id that is named in it."""
        found = set(self.ids)
        for model in self.models():
            found.update(np.unique(self.likeliest(model)[0]).tolist())
        return found

    def json(self, texts: Mapping[int, str | None]) -> str:
        """The trace, see the top of this file. Made of many short pieces: while one is written, every stream waits."""
        return joined(
            [
                ("token_ids", dumps(self.ids)),
                ("tokens", dumps([texts[token] for token in self.ids])),
                *((model, self.json_of(model, texts)) for model in self.models()),
            ]
        )

    def json_of(self, model: str, texts: Mapping[int, str | None]) -> str:
        fields = [("logprobs", dumps(numbers(self.columns[model + LOGPROB])))]
        ids, logprobs = self.likeliest(model)
        if ids.shape[1]:
            fields += [
                ("top_token_ids", dumps(ids.tolist())),
                ("top_tokens", dumps([[texts[token] for token in row] for row in ids.tolist()])),
                ("top_logprobs", dumps(numbers(logprobs))),
            ]
        return joined(fields)


def is_of_tokens(column: str) -> bool:
    """Whether a column is the log-probability of the tokens themselves."""
    return column.endswith(LOGPROB) and "_top" not in column


def numbers(values: np.ndarray) -> list[Any]:
    """Nested lists; None for what JSON does not know."""
    finite = np.isfinite(values)
    if finite.all():
        return values.tolist()
    known = values.astype(object)
    known[~finite] = None
    return known.tolist()


def dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def joined(fields: Iterable[tuple[str, str]]) -> str:
    """An object of fields that are JSON already."""
    return "{" + ",".join(f'"{name}":{value}' for name, value in fields) + "}"


class AnswerWriter:
    """An ASGI `send` that writes traces into an answer: a whole one, or the last event of each choice of a stream."""

    def __init__(self, send: Send, traces: Traces, texts: TokenTexts) -> None:
        self.send, self.traces, self.texts = send, traces, texts
        self.start: Message | None = None  # of a whole answer, whose length is not known yet
        self.streams = False
        self.waiting = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and self.traces.prompts and message["status"] == 200:
            self.streams = Headers(raw=message["headers"]).get("content-type", "").startswith("text/event-stream")
            if not self.streams:
                self.start = message
                return
        elif message["type"] == "http.response.body" and self.start is not None:
            return await self.whole(message)
        elif message["type"] == "http.response.body" and self.streams:
            return await self.events(message)
        await self.send(message)

    async def whole(self, message: Message) -> None:
        """Keep the answer until it is complete, and pass it on with its traces."""
        self.waiting += message.get("body", b"")
        if message.get("more_body", False):
            return
        start, self.start = self.start, None
        assert start is not None
        body = await self.traced(self.waiting)
        MutableHeaders(raw=start["headers"])["content-length"] = str(len(body))
        await self.send(start)
        await self.send({**message, "body": body})

    async def events(self, message: Message) -> None:
        """Pass on complete events, and whatever is left at the end."""
        *events, self.waiting = (self.waiting + message.get("body", b"")).split(EVENT_END)
        found = [await self.event(event) + EVENT_END for event in events]
        if not message.get("more_body", False):
            found.append(self.waiting)
        if body := b"".join(found):
            await self.send({**message, "body": body})
        elif not message.get("more_body", False):
            await self.send(message)

    async def event(self, event: bytes) -> bytes:
        """An event that ends a choice, with its trace; any other as it is."""
        if not (self.traces.choices and event.startswith(b"data: {")):
            return event
        return b"data: " + await self.traced(event.removeprefix(b"data: "))

    async def traced(self, body: bytes) -> bytes:
        """A JSON answer with the traces of its finished choices."""
        values = json.loads(body)
        choices = values.get("choices") or []
        traces = [self.trace_of(choice) for choice in choices]
        if not any(traces):
            return body
        for trace in filter(None, traces):
            self.texts.learn(trace.all_ids())
        return await asyncio.to_thread(written, values, traces, self.texts.known)

    def trace_of(self, choice: dict[str, Any]) -> TracedChoice | None:
        return self.traces.choices.pop(choice.get("index", -1), None) if choice.get("finish_reason") else None


def written(values: dict[str, Any], traces: list[TracedChoice | None], texts: Mapping[int, str | None]) -> bytes:
    """An answer's JSON with a trace in each choice that has one."""
    choices = [
        dumps(choice) if trace is None else f'{dumps(choice)[:-1]},"{ANSWER_FIELD}":{trace.json(texts)}}}'
        for choice, trace in zip(values["choices"], traces, strict=True)
    ]
    others = ((name, dumps(value)) for name, value in values.items() if name != "choices")
    return joined([*others, ("choices", f"[{','.join(choices)}]")]).encode()
