"""The traces of the chosen answers as arrays, one number for each token, answer after answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vllm_rast.errors import UserError
from vllm_rast.evaluation.runs.folder import Key
from vllm_rast.evaluation.runs.traces import KEY_COLUMNS, read_parts, read_vocabulary

PARTS = 10  # an answer is cut into tenths


@dataclass
class TraceTable:
    """columns: name to numbers, [num_tokens]; `vllm_rast.kernels.token_trace` says what each means. `position` counts
    within the answer, `token` is the id.

    answers: whose tokens they are, in order. starts: where each begins, and the end, [num_answers + 1]. vocabulary:
    the text of every id.
    """

    columns: dict[str, NDArray]
    answers: list[Key]
    starts: NDArray[np.int64]
    vocabulary: list[str]

    @classmethod
    def read(cls, folder: Path, keys: Sequence[Key]) -> TraceTable:
        """The given answers, in their order; those without a trace are left out. Raises UserError if none has one."""
        table = read_parts(folder)
        begins = np.flatnonzero(table["position"].to_numpy() == 0)
        ends = np.append(begins[1:], table.num_rows)
        named = table.select(list(KEY_COLUMNS)).take(begins).to_pylist()
        places: dict[Key, tuple[int, int]] = {}
        for one, begin, end in zip(named, begins, ends, strict=True):
            places.setdefault(Key(**one), (begin, end))
        answers = [key for key in keys if key in places]
        if not answers:
            raise UserError(f"{folder}: no trace of these answers")
        order = np.concatenate([np.arange(*places[key]) for key in answers])
        lengths = [places[key][1] - places[key][0] for key in answers]
        columns = {
            name: table[name].to_numpy()[order]
            for name in table.column_names
            if name not in KEY_COLUMNS and name != "exact"
        }
        return cls(columns, answers, np.append(0, np.cumsum(lengths)), read_vocabulary(folder))

    def __getitem__(self, column: str) -> NDArray:
        return self.columns[column]

    def __contains__(self, column: str) -> bool:
        return column in self.columns

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def models(self) -> list[str]:
        """What the columns call the models, the mix among them."""
        return [name.removesuffix("_rank") for name in self.columns if name.endswith("_rank")]

    @property
    def rows(self) -> list[str]:
        return list(dict.fromkeys(key.row for key in self.answers))

    def by_row(self) -> dict[str, TraceTable]:
        """Each row's answers alone."""
        return {row: self.only([i for i, key in enumerate(self.answers) if key.row == row]) for row in self.rows}

    def only(self, places: Sequence[int]) -> TraceTable:
        """The answers at the given places alone."""
        order = np.concatenate([np.arange(self.starts[i], self.starts[i + 1]) for i in places])
        lengths = [self.starts[i + 1] - self.starts[i] for i in places]
        columns = {name: values[order] for name, values in self.columns.items()}
        return TraceTable(columns, [self.answers[i] for i in places], np.append(0, np.cumsum(lengths)), self.vocabulary)

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each answer, [num_answers]."""
        return np.diff(self.starts)

    @cached_property
    def owner(self) -> NDArray[np.int64]:
        """Each token's answer, as its place in `answers`, [num_tokens]."""
        return np.repeat(np.arange(len(self.answers)), self.lengths)

    @cached_property
    def question_of_answer(self) -> NDArray[np.int64]:
        """Each answer's question as a number from 0, [num_answers]."""
        numbers: dict[tuple[str, str], int] = {}
        return np.array([numbers.setdefault((key.benchmark, key.problem), len(numbers)) for key in self.answers])

    @cached_property
    def question(self) -> NDArray[np.int64]:
        """Each token's question, [num_tokens]."""
        return self.question_of_answer[self.owner]

    @cached_property
    def part(self) -> NDArray[np.int64]:
        """The tenth of its answer that each token lies in, [num_tokens] from 0 to 9."""
        return self["position"].astype(np.int64) * PARTS // self.lengths[self.owner]

    def text(self, token: int) -> str:
        """The text of an id; none for the padding ids of a head."""
        return self.vocabulary[token] if token < len(self.vocabulary) else ""

    def context(self, place: int, before: int = 12) -> str:
        """The text of up to `before` tokens that precede a token in its answer."""
        begin = max(int(self.starts[self.owner[place]]), place - before)
        return "".join(self.text(int(token)) for token in self["token"][begin:place])
