"""Traces of decoded tokens on the front end's side: who asks, and from an engine's bytes to a sample's `token_trace`.

An engine keeps a trace until somebody takes it. So a front end that takes them says so, and others refuse a request
that asks: its answer would lack what was asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from vllm_rast.errors import UserError
from vllm_rast.kernels.token_trace import likeliest_columns
from vllm_rast.mix.config import RastConfig
from vllm_rast.mix.trace import FIELD

TAKE = "rast_decode_traces"  # the worker's method, for `collective_rpc`


class Taken(NamedTuple):
    """A finished trace. request: the name that vLLM's outputs have for it. sample: which of its samples. number: of
    likeliest ids. data: the numbers, [num_tokens, num_columns] as float32 bytes."""

    request: str
    sample: int
    number: int
    data: bytes

    def columns(self, config: RastConfig, num_tokens: int) -> dict[str, np.ndarray]:
        """{column: [num_tokens]}; see `likeliest_columns`. An engine may decode a few tokens more than count."""
        names = likeliest_columns(config, self.number)
        numbers = np.frombuffer(self.data, dtype=np.float32).reshape(-1, len(names))
        if len(numbers) < num_tokens:
            raise RuntimeError(f"{FIELD}: the engine has {len(numbers)} of {num_tokens} tokens of {self.request}")
        return dict(zip(names, numbers[:num_tokens].T, strict=True))


def will_take(input_processor: Any) -> set[str]:
    """Say that traces are taken here, and return the names of the requests that ask, which grows as they come."""
    input_processor.rast_traced = set()
    return input_processor.rast_traced


def note_request(input_processor: Any, request_id: str, resumable: bool) -> None:
    """A request asks. Raises UserError if nobody would take its trace."""
    traced = getattr(input_processor, "rast_traced", None)
    if traced is None:
        raise UserError(
            f"{FIELD}: nothing here answers with it; use RastLLM or `vllm-rast serve`, or start this server with "
            "--middleware vllm_rast.serving.traces.AnswerTraces"
        )
    if resumable:
        raise UserError(f"{FIELD}: a session of streamed inputs has none; leave it out")
    traced.add(request_id)


def taken(answers: Sequence[Iterable[Any]]) -> list[Taken]:
    """What every rank answered to TAKE, from which the first one's counts: all have the same."""
    return [Taken(*one) for one in answers[0]]
