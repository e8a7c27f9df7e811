"""Problems of one's own in a JSON-lines file, decoded like a benchmark (`generate --input FILE`)."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Any

from vllm_rast.errors import UserError
from vllm_rast.evaluation.tasks.benchmark import Problem
from vllm_rast.evaluation.tasks.text import lines_of, parse_json


class InputFile:
    """A file with one problem a line: {"id", "question" or "prompt", "answer"}.

    A question is put into the template; a prompt goes to the model as it stands. Without an id a line's number, from
    0, names its problem. An answer is needed only for grading: without one the gold is empty.

    Raises UserError, naming the line, for anything else.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        if not self.path.is_file():
            raise UserError(f"--input {path}: no such file; name a JSON-lines file of questions or prompts")
        self.name = self.path.stem
        self.title = self.name
        self.source = str(self.path)
        self.n_rows: int | None = None

    def problems(self, limit: int | None = None) -> list[Problem]:
        return [problem for problem, _ in self._rows[:limit]]

    @cached_property
    def verbatim(self) -> frozenset[str]:
        """The ids of the problems whose text is the whole prompt."""
        return frozenset(problem.id for problem, verbatim in self._rows if verbatim)

    @cached_property
    def data_hash(self) -> str:
        """SHA-256 of the canonical rows (id, text, verbatim, gold), in order."""
        digest = hashlib.sha256()
        for problem, verbatim in self._rows:
            row = [problem.id, problem.question, verbatim, problem.gold]
            digest.update(json.dumps(row, ensure_ascii=False).encode() + b"\n")
        return digest.hexdigest()

    @cached_property
    def _rows(self) -> list[tuple[Problem, bool]]:
        numbered = [(number, *self._parse(number, line)) for number, line in lines_of(self.path, "--input")]
        seen: dict[str, int] = {}
        for number, problem, _ in numbered:
            if problem.id in seen:
                raise UserError(
                    f"--input {self.path}: lines {seen[problem.id]} and {number} have the id {problem.id!r} (a line "
                    "without one is called by its number, from 0); ids must differ"
                )
            seen[problem.id] = number
        if not numbered:
            raise UserError(f"--input {self.path} has no lines; give it at least one problem")
        return [(problem, verbatim) for _, problem, verbatim in numbered]

    def _parse(self, number: int, line: str) -> tuple[Problem, bool]:
        where = f"--input {self.path}, line {number}"
        row = parse_json(line, where)
        texts = [key for key in ("question", "prompt") if isinstance(row, dict) and isinstance(row.get(key), str)]
        if len(texts) != 1:
            raise UserError(f'{where}: expected either "question" or "prompt", and it must be a text')
        if not row[texts[0]].strip():
            raise UserError(f"{where}: the {texts[0]} is empty; a model needs something to go on from")
        ident = row.get("id")
        if isinstance(ident, bool) or not isinstance(ident, str | int | None):
            raise UserError(f'{where}: "id" must be a text or an integer, not {ident!r}')
        problem = Problem(
            benchmark=self.name,
            id=str(number - 1 if ident is None else ident),
            question=row[texts[0]],
            gold=gold_of(row.get("answer"), where),
        )
        return problem, texts[0] == "prompt"


def gold_of(answer: Any, where: str) -> str | tuple[str, ...]:
    """A gold from a text, a number, or a list of them (several answers); "" if there is none."""
    if answer is None:
        return ""
    if isinstance(answer, list) and answer and all(isinstance(one, str | int | float) for one in answer):
        return tuple(str(one) for one in answer)
    if isinstance(answer, str | int | float) and not isinstance(answer, bool):
        return str(answer)
    raise UserError(f'{where}: "answer" must be a text, a number or a list of them, not {answer!r}')
