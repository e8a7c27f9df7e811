"""Token traces in an engine: the rows of a request's given answer, reduced in blocks while its prompt is computed.

A request whose `extra_args` hold `token_trace` carries a prompt and an answer, all but the answer's last token, as its
prompt. Nothing of it is decoded but one token that nobody looks at.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from vllm_rast.engine.token_rows import to_device
from vllm_rast.errors import UserError, shown
from vllm_rast.kernels.token_trace import trace_columns, trace_tokens

if TYPE_CHECKING:
    from vllm_rast.engine.ensemble import Ensemble
    from vllm_rast.mix.config import RastConfig

FIELD = "token_trace"
# One model's logits of a block, in float32: 55 rows of Qwen2.5's 152,064 ids. On a GPU about 17 matrices of this size
# are alive at once for three models, whatever the length of an answer.
BLOCK_BYTES = 32 << 20
# On a CPU a block's logits are reduced in pieces that stay in its cache: with 151,936 ids, 1 or 2 rows at a time took
# half as long as 24 (the median of turns).
PIECE_BYTES = 1 << 20


class TraceRequest(NamedTuple):
    """What a request asks for. key: the caller's number for it. start: how many of its prompt's tokens are the prompt
    proper, from which a schedule counts too. last: the answer's last token, which is not among its prompt's."""

    key: int
    start: int
    last: int


def trace_request(params: Any) -> TraceRequest | None:
    """What a request's sampling parameters ask for; None if they ask for no trace."""
    extra = params.extra_args if params is not None else None
    return TraceRequest(**extra[FIELD]) if isinstance(extra, dict) and FIELD in extra else None


def check_trace(config: RastConfig, params: Any, num_tokens: int, vocab: int) -> None:
    """Refuse what a worker could not make sense of. Raises UserError. num_tokens: of the request's prompt."""
    extra = params.extra_args
    if not isinstance(extra, dict) or FIELD not in extra:
        return
    if not config.token_traces:
        raise UserError(
            f'{FIELD}: this engine keeps none; start it with additional_config {{"rast": {{"token_traces": true}}}}'
        )
    asked = extra[FIELD]
    if not isinstance(asked, dict) or set(asked) != set(TraceRequest._fields):
        raise UserError(f'{FIELD}: expected {{"key": ..., "start": ..., "last": ...}}, got {shown(asked)}')
    limits = {"key": (0, 1 << 53), "start": (1, num_tokens), "last": (0, vocab - 1)}
    for name, (low, high) in limits.items():
        value = asked[name]
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise UserError(f"{FIELD}.{name}: expected an integer from {low} to {high}, got {shown(value)}")


class Given(NamedTuple):
    """A request of a step that brings an answer to read. tokens: of its prompt, which the answer but for its last token
    is part of. begin: how many of them earlier steps computed. new: how many this one does. row: the first of those
    among the step's rows."""

    req_id: str
    asked: TraceRequest
    tokens: Sequence[int]
    begin: int
    new: int
    row: int

    @property
    def length(self) -> int:
        """The answer's."""
        return len(self.tokens) - self.asked.start + 1

    @property
    def computed(self) -> range:
        """Whose rows this step has, by their places in the prompt: the row before an answer's first token says what
        it is."""
        first = max(self.begin, self.asked.start - 1)
        return range(first, min(self.begin + self.new, len(self.tokens)))


class TokenTraces:
    """Keeps each request's numbers, [num_answer_tokens, num_columns], until somebody takes them.

    Rows are told by their position, so chunks of a prompt may come in any step, and a preempted request begins again.
    """

    def __init__(self, config: RastConfig) -> None:
        self.num_columns = len(trace_columns(config))
        self.running: dict[str, np.ndarray] = {}
        self.finished: list[tuple[int, np.ndarray]] = []

    def read(self, ensemble: Ensemble, hidden: torch.Tensor, given: Sequence[Given], running: Container[str]) -> None:
        """Reduce this step's rows of answers.

        hidden: the ensemble's rows, [num_tokens, ...]. given: the step's requests that ask. running: all requests.
        """
        self.running = {req_id: kept for req_id, kept in self.running.items() if req_id in running}
        given = [one for one in given if one.computed]
        if not given:
            return
        rows = np.concatenate([np.array(one.computed) - one.begin + one.row for one in given])
        tokens = [token for one in given for token in following(one)]
        device = hidden.device
        numbers = self.reduce(ensemble, hidden, to_device(rows, device), to_device(np.array(tokens), device))
        if numbers is None:  # a rank that does not sample
            return
        ends = np.cumsum([len(one.computed) for one in given])
        for one, some in zip(given, np.split(numbers, ends[:-1]), strict=True):
            kept = self.running.setdefault(one.req_id, np.full((one.length, self.num_columns), np.nan, np.float32))
            first = one.computed.start - (one.asked.start - 1)
            kept[first : first + len(some)] = some
            if first + len(some) == one.length:
                self.finished.append((one.asked.key, self.running.pop(one.req_id)))

    def reduce(
        self, ensemble: Ensemble, hidden: torch.Tensor, rows: torch.Tensor, tokens: torch.Tensor
    ) -> np.ndarray | None:
        """The numbers of the given rows, block by block, [num_rows, num_columns]."""
        row_bytes = 4 * ensemble.vocab_sizes[0]
        block = max(1, BLOCK_BYTES // row_bytes)
        piece = max(1, PIECE_BYTES // row_bytes) if hidden.device.type == "cpu" else block
        numbers = []
        for some, following in zip(rows.split(block), tokens.split(block), strict=True):
            every = ensemble.every_logits(hidden[some])
            if every is not None:
                logits, weights, gates = every
                for at in range(0, len(weights), piece):
                    part = slice(at, at + piece)
                    found = trace_tokens(
                        [one[part] for one in logits],
                        weights[part],
                        following[part],
                        ensemble.rast_config,
                        None if gates is None else gates[part],
                    )
                    numbers.append(found.cpu().numpy())
        return np.concatenate(numbers) if numbers else None

    def take(self) -> list[tuple[int, bytes]]:
        """(key, numbers as float32 bytes) of every answer that is finished; they are forgotten here."""
        finished, self.finished = self.finished, []
        return [(key, numbers.tobytes()) for key, numbers in finished]


def following(given: Given) -> list[int]:
    """The token after each row that a step computes of an answer."""
    places = given.computed
    return [*given.tokens[places.start + 1 : places.stop + 1], given.asked.last][: len(places)]
