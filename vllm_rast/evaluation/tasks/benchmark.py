"""Benchmarks: one YAML file each, rows from the hub, from a local file or folder, or generated.

    name: mine                     # what --benchmark says
    title: My problems             # optional
    hub: user/name                 # optional; with config, split and revision (a commit: a moving one is no benchmark)
    file: problems.jsonl           # instead of hub: JSON lines or Parquet, relative to the YAML file
    id: [id]                       # columns to try in turn; without one, the row's number
    question: [question]
    gold: {answer: text}           # column: rule; the first column that a row has
    kind: math                     # how answers are compared: see KINDS
    family: subject                # optional: the column that names a subset
    rows: 100                      # optional: how many there must be
    choices: [a, b, c]             # for the kind choice: columns of the choices, or one that holds a list of them
    shuffle: 1                     # optional: the seed that orders each problem's choices; else as the columns are
    sampling: {temperature: 0.6}   # optional, also top_p and max_tokens: the paper's otherwise
    template: qwen-boxed           # optional: a name, or a file relative to the YAML file; paper otherwise

Rules for golds: `text` as it stands, `last box` of a worked solution, `after hashes` (what follows ####), `list` of
several answers, `letter` of a choice (as `text` the right choice itself).
"""

from __future__ import annotations

import difflib
import hashlib
import json
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from vllm_rast.errors import UserError
from vllm_rast.evaluation.tasks.choices import order, with_choices
from vllm_rast.evaluation.tasks.golds import CANONICAL, GOLD_RULES
from vllm_rast.evaluation.tasks.sampling import PAPER, Sampling, sampling_from
from vllm_rast.evaluation.tasks.text import lines_of, load_yaml, parse_json

FOLDER = Path(__file__).with_name("benchmarks")
DATASETS = Path(__file__).parents[3] / "datasets"  # beside the package in a checkout

KINDS = {
    "integer": "an integer, however it is written",
    "number": "a number; units, currency and thousands separators are ignored",
    "math": "anything mathematical: exact numbers, expressions, sets, intervals, matrices, names",
    "rounded": "like math, but a decimal is right within half a unit of the gold's last digit",
    "choice": "the letter of one of several choices, whose order a seed may give",
}


class DataWarning(UserWarning):
    """The rows are not those the benchmark was pinned to."""


@dataclass(frozen=True)
class Problem:
    """One question with its gold answer and what grading needs to know about it. All fields are JSON-able."""

    benchmark: str
    id: str
    question: str
    gold: str | tuple[str, ...]
    kind: str = "math"
    family: str | None = None
    ordered: bool = False  # whether the order of a bare list of answers matters
    unit: str | None = None  # of the gold, if it does not say so itself
    error: str | None = None  # absolute error allowed, as a decimal
    boxed_only: bool = False


@dataclass(frozen=True)
class Benchmark:
    """What a benchmark's YAML file says (see the module), and where its rows come from."""

    name: str
    question: tuple[str, ...]
    gold: Mapping[str, str]
    kind: str
    title: str = ""
    aliases: tuple[str, ...] = ()
    hub: str | None = None
    config: str | None = None
    split: str = "test"
    revision: str | None = None
    file: str | None = None
    generated: bool = False
    licence: str = "unknown"
    rows: tuple[int, ...] = ()  # numbers of rows that are complete sets
    sha256: tuple[str, ...] = ()  # content_hash of known complete sets
    id: tuple[str, ...] = ()
    family: str | None = None
    multiple: str | None = None  # column: true if the answers' order does not matter
    unit: str | None = None  # column
    error: str | None = None  # column
    boxed_only: bool = False
    choices: tuple[str, ...] = ()  # columns
    shuffle: int | None = None
    sampling: Sampling = PAPER
    template: str | None = None  # a name or a file; the command line overrides it

    @property
    def source(self) -> str:
        """Where the rows come from, for people and for a run's config.json."""
        if self.file:
            return self.file
        if self.generated:
            return "generated"
        config = f"/{self.config}" if self.config else ""
        return f"{self.hub}{config}:{self.split}@{self.revision or 'main'}"

    @property
    def n_rows(self) -> int | None:
        return self.rows[0] if self.rows else None

    def problems(self, limit: int | None = None) -> list[Problem]:
        """The first `limit` problems, or all of them. Raises UserError if rows are missing or malformed."""
        return self._problems[:limit]

    @cached_property
    def _problems(self) -> list[Problem]:
        problems = [self._problem(number, row) for number, row in enumerate(_rows(self))]
        if not problems:
            raise UserError(f"{self.name}: no rows in {self.source}; give --data a file that has some")
        seen: dict[str, int] = {}
        for number, problem in enumerate(problems, start=1):
            if problem.id in seen:
                raise UserError(
                    f"{self.name}: rows {seen[problem.id]} and {number} of {self.source} have the same id"
                    f" {problem.id!r}; ids must differ"
                )
            seen[problem.id] = number
        self._check_pin(problems)
        return problems

    def _check_pin(self, problems: list[Problem]) -> None:
        found = None
        if self.rows and len(problems) not in self.rows:
            found = f"{len(problems)} rows instead of {self.rows[0]}"
        elif self.sha256 and content_hash(problems) not in self.sha256:
            found = "other questions or golds than the pinned ones"
        if found:
            warnings.warn(
                f"{self.name}: {self.source} has {found}; results are not comparable with published ones",
                DataWarning,
                stacklevel=2,
            )

    @cached_property
    def data_hash(self) -> str:
        """SHA-256 of the canonical rows (id, question, gold), in order."""
        return _hash([p.id, p.question, p.gold] for p in self._problems)

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of the canonical rows without their ids: the same for copies that number rows otherwise."""
        return content_hash(self._problems)

    def _problem(self, number: int, row: Mapping[str, Any]) -> Problem:
        where = f"row {number + 1} of {self.source}"
        question = _first(row, self.question, self.name, where)
        column, rule = next(((c, r) for c, r in self.gold.items() if row.get(c) is not None), (None, ""))
        if column is None:
            raise _missing(self.name, list(self.gold), row, where)
        try:
            gold = GOLD_RULES[rule](row[column])
            if self.kind in CANONICAL:
                gold = CANONICAL[self.kind](gold)
        except (ValueError, TypeError) as error:
            raise UserError(
                f"{self.name}: no {self.kind} answer by the rule {rule!r} in column {column!r}, {where}: {error}"
            ) from error
        if not str(question).strip():
            raise UserError(f"{self.name}: an empty question in {where}; a model needs something to go on from")
        ident = str(next((row[c] for c in self.id if row.get(c) is not None), number))
        question = str(question).strip()
        if self.choices:
            try:
                question, gold = with_choices(
                    question, self._choices(row, where), gold, rule, order(self.shuffle, ident)
                )
            except ValueError as error:
                raise UserError(f"{self.name}: {error}, {where}") from error
        return Problem(
            benchmark=self.name,
            id=ident,
            question=question,
            gold=gold,
            kind=self.kind,
            family=_optional(row, self.family),
            ordered=self.multiple is not None and not _true(row.get(self.multiple), self.multiple, where),
            unit=_optional(row, self.unit),
            error=_optional(row, self.error),
            boxed_only=self.boxed_only,
        )

    def _choices(self, row: Mapping[str, Any], where: str) -> list[str]:
        """The texts of a row's choices."""
        columns = [_first(row, (column,), self.name, where) for column in self.choices]
        return [str(one).strip() for value in columns for one in (value if isinstance(value, list) else [value])]


def list_benchmarks() -> list[Benchmark]:
    """Every benchmark that ships with the package, by name."""
    return [_parse(path) for path in sorted(FOLDER.glob("*.yaml"))]


def load_benchmark(name: str, data: str | Path | None = None) -> Benchmark:
    """The benchmark of that name, or of a YAML file of one's own; rows come from `data` if it is given.

    `data` is a JSON-lines or Parquet file, or a folder that holds one named after the benchmark. Nothing is read or
    fetched before `problems` is called, but a path that does not exist is refused here.
    """
    benchmark = _parse(Path(name)) if Path(name).suffix in {".yaml", ".yml"} else _shipped(name)
    if data is None:
        return benchmark
    path = _data_file(benchmark, Path(data))
    return Benchmark(**{**_values(benchmark), "file": str(path)})


def content_hash(problems: Iterable[Problem]) -> str:
    """SHA-256 of (question, gold) of each problem, in order."""
    return _hash([p.question, p.gold] for p in problems)


def _hash(rows: Iterable[list[Any]]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()


def _values(benchmark: Benchmark) -> dict[str, Any]:
    return {field.name: getattr(benchmark, field.name) for field in fields(benchmark)}


def _shipped(name: str) -> Benchmark:
    known = {alias: b for b in list_benchmarks() for alias in (b.name, *b.aliases)}
    if name in known:
        return known[name]
    close = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(sorted(b.name for b in known.values()))}"
    raise UserError(f"--benchmark {name}: no such benchmark; {hint} A benchmark of your own is a .yaml file")


def _data_file(benchmark: Benchmark, path: Path) -> Path:
    if not path.exists():
        raise UserError(f"--data {path}: no such file or folder")
    if path.is_file():
        return path
    names = (benchmark.name, *benchmark.aliases)
    for candidate in (path / f"{name}{end}" for name in names for end in (".jsonl", ".parquet")):
        if candidate.is_file():
            return candidate
    raise UserError(f"--data {path}: no {names[0]}.jsonl in this folder; name the file or rename it")


def _parse(path: Path) -> Benchmark:
    """A benchmark from its YAML file. Raises UserError naming the key that is wrong."""
    said = load_yaml(path, "--benchmark")
    if not isinstance(said, dict):
        raise UserError(f"--benchmark {path}: expected a mapping with name, question, gold and kind")
    known = {field.name for field in fields(Benchmark)}
    for key in said:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            raise UserError(f"{path}: unknown key {key!r}" + (f"; did you mean {close[0]!r}?" if close else ""))
    for key in ("name", "question", "gold", "kind"):
        if not said.get(key):
            raise UserError(f"{path}: the key {key!r} is missing")
    if said["kind"] not in KINDS:
        raise UserError(f"{path}: kind {said['kind']!r} is not one of {', '.join(KINDS)}")
    if not isinstance(said["gold"], dict) or any(rule not in GOLD_RULES for rule in said["gold"].values()):
        raise UserError(f"{path}: gold must map columns to one of the rules {', '.join(GOLD_RULES)}")
    if sum(bool(said.get(key)) for key in ("hub", "file", "generated")) != 1:
        raise UserError(f"{path}: say where the rows are, with either hub or file")
    if said.get("file"):
        said["file"] = str(path.parent / said["file"])
    if "sampling" in said:
        said["sampling"] = sampling_from(said["sampling"], str(path))
    if said.get("template") is not None and (path.parent / str(said["template"])).is_file():
        said["template"] = str(path.parent / said["template"])
    if not isinstance(said.get("boxed_only", False), bool):
        raise UserError(f"{path}: boxed_only must be true or false, not {said['boxed_only']!r}")
    if (said["kind"] == "choice") != bool(said.get("choices")):
        raise UserError(f"{path}: the kind choice and the key choices go together")
    for key in ("aliases", "rows", "sha256", "id", "question", "choices"):
        value = said.get(key, ())
        said[key] = tuple(value) if isinstance(value, list | tuple) else (value,)
    said.setdefault("title", said["name"])
    return Benchmark(**said)


def _rows(benchmark: Benchmark) -> Iterator[dict[str, Any]]:
    if benchmark.file:
        yield from _file_rows(Path(benchmark.file))
    elif benchmark.generated:
        yield from _generated_rows(benchmark.name)
    else:
        yield from _hub_rows(benchmark)


def _file_rows(path: Path) -> Iterator[dict[str, Any]]:
    if path.suffix == ".parquet":
        from datasets import Dataset

        yield from Dataset.from_parquet(str(path))
        return
    for number, line in lines_of(path, "--data"):
        where = f"{path}, line {number}"
        row = parse_json(line, where)
        if not isinstance(row, dict):
            raise UserError(f"{where}: expected a JSON object with the benchmark's columns")
        yield row


def _generated_rows(name: str) -> Iterator[dict[str, Any]]:
    path = DATASETS / f"{name}.jsonl"
    if path.is_file():
        yield from _file_rows(path)
    else:  # an installed package has no datasets folder beside it
        from vllm_rast.tiny.benchmark import rows

        yield from rows()


def _hub_rows(benchmark: Benchmark) -> Iterator[dict[str, Any]]:
    from datasets import load_dataset

    try:
        data = load_dataset(benchmark.hub, benchmark.config, split=benchmark.split, revision=benchmark.revision)
    except Exception as error:  # whatever the hub client raises: all mean that there are no rows
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            f"--benchmark {benchmark.name}: cannot load {benchmark.source} from the hub ({reason});"
            " without a network give --data FILE with the same columns"
        ) from error
    yield from data


def _true(value: Any, column: str, where: str) -> bool:
    if value not in (None, True, False):
        raise UserError(f"{where}: {column!r} must be true or false, not {value!r}")
    return bool(value)


def _first(row: Mapping[str, Any], columns: Iterable[str], name: str, where: str) -> Any:
    for column in columns:
        if row.get(column) is not None:
            return row[column]
    raise _missing(name, list(columns), row, where)


def _missing(name: str, columns: list[str], row: Mapping[str, Any], where: str) -> UserError:
    wanted = " or ".join(repr(column) for column in columns)
    return UserError(f"{name}: no column {wanted} in {where}; it has {', '.join(map(repr, row))}")


def _optional(row: Mapping[str, Any], column: str | None) -> str | None:
    value = row.get(column) if column else None
    return None if value is None else str(value)
