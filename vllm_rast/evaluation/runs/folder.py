"""A run folder: what was asked, and one line for every sample that is finished.

    runs/NAME/config.json      what was asked and with what; replaced whole, never half a file
    runs/NAME/problems.jsonl   the problems with their golds, so that grading needs no data set and no network
    runs/NAME/samples.jsonl    one line per finished sample, written as soon as it is finished
    runs/NAME/failed.jsonl     one line per sample that was given up, if there are any: its key and why

A sample is named by its key (benchmark, row, problem, sample). A run may be stopped at any moment, by
Ctrl-C, kill -9 or a full disk; the same command then makes what is missing. When a folder is opened again,
three kinds of change are distinguished:

* what may grow: samples per problem (n), rows, benchmarks and their limit. Only what is missing is made;
* what may differ, since it changes the speed and not the sample: the engine options in `SPEED_OPTIONS`, the
  number of drafts, and for rows that do not sample whether there are any;
* all else is fixed, and a change is refused with the option's name. `config_hash`, in config.json and in
  every sample, is a SHA-256 of the settings that all samples share (`SHARED`). A model's weights, a row's
  formula, a benchmark's data and sampling, and what drafts a row that samples, are compared one by one, if both the
  old and the new have them.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, Field, asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

from vllm_rast.errors import UserError
from vllm_rast.evaluation.runs.drafters import DRAFTERS, all_drafters, changed_drafters, drafter, temperature
from vllm_rast.evaluation.runs.jsonl import LineFile, RunError, read_lines, write_atomically
from vllm_rast.evaluation.tasks.benchmark import Problem
from vllm_rast.evaluation.tasks.text import short_hash

__all__ = ["Key", "RunError", "RunFolder", "Sample", "config_hash"]

CONFIG = "config.json"
PROBLEMS = "problems.jsonl"
SAMPLES = "samples.jsonl"
FAILED = "failed.jsonl"
UNFINISHED = re.compile(rf"\.(?:{re.escape(CONFIG)}|{re.escape(PROBLEMS)})\.\d+")  # of write_atomically

SHARED = ("backend", "seed", "template", "template_hash", "engine")
SPEED_OPTIONS = frozenset(
    {
        "async_scheduling",
        "block_size",
        "data_parallel_size",
        "device_ids",
        "distributed_executor_backend",
        "download_dir",
        "enable_chunked_prefill",
        "enable_prefix_caching",
        "enforce_eager",
        "gpu_memory_utilization",
        "kv_cache_memory_bytes",
        "max_num_batched_tokens",
        "max_num_seqs",
        "tensor_parallel_size",
        "use_tqdm_on_load",
    }
)


class Key(NamedTuple):
    """Names one sample of a run."""

    benchmark: str
    row: str
    problem: str
    sample: int


@dataclass(frozen=True, slots=True)
class Sample:
    """One decoded text. `prompt_tokens` and `tokens` are counts; `finish_reason` is "stop" or "length"."""

    benchmark: str
    row: str
    problem: str
    sample: int
    seed: int
    text: str
    finish_reason: str
    prompt_tokens: int
    tokens: int
    config_hash: str
    settings: str = ""  # see RunFolder.settings; samples of earlier versions have none

    @property
    def key(self) -> Key:
        return Key(self.benchmark, self.row, self.problem, self.sample)


class RunFolder:
    """A run on disk.

    `RunFolder(path)` reads an existing run and takes no lock: a run can be looked at while it is written.
    `RunFolder.open(path, config)` begins or resumes one for writing and holds the writer's lock; use it as a
    context manager.
    """

    def __init__(self, path: str | os.PathLike[str]):
        config = read_config(Path(path))
        if config is None:
            raise UserError(f"{path} is not a run folder (no {CONFIG}); name one that `generate --run` has written")
        self.path = Path(path)
        self.config: dict[str, Any] = config
        self._samples: LineFile | None = None
        self._failed: LineFile | None = None
        self._settings: dict[tuple[str, str], str] = {}

    @classmethod
    def open(cls, path: str | os.PathLike[str], config: dict[str, Any], *, resume: bool = True) -> RunFolder:
        """Begin a run, or resume it if `config` asks for the same samples or for more.

        Raises:
            UserError: another process writes this folder; an option or the data changed; the folder holds
                samples and `resume` is False.
            RunError: the folder cannot be written.
        """
        try:
            Path(path).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--run {path}: {error.strerror}; name a folder that can be written") from error
        samples = LineFile(Path(path) / SAMPLES)
        remove_unfinished(Path(path))
        try:
            old = read_config(Path(path))
            if old is None and samples.size:
                raise UserError(f"--run {path}: there is {SAMPLES} but no {CONFIG}; name another folder")
            if samples.size and not resume:
                raise UserError(f"--run {path} already holds samples; name another folder")
            if old is None or not samples.size:  # nothing yet that a changed option could contradict
                config = dict(config, config_hash=config_hash(config))
            else:
                config = merge(old, config, path)
            if config != old:
                write_atomically(Path(path) / CONFIG, to_json(config))
        except BaseException:
            samples.close()
            raise
        folder = cls(path)
        folder._samples = samples
        return folder

    def add_sitting(self, sitting: dict[str, Any]) -> None:
        """Record when, with what versions and on what device decoding begins or goes on."""
        self.config["sittings"] = [*self.config.get("sittings", []), sitting]
        for name in ("versions", "device"):
            if name in sitting:
                self.config.setdefault(name, sitting[name])
        write_atomically(self.path / CONFIG, to_json(self.config))

    def note_hosts(self, hosts: dict[str, str]) -> None:
        """Record on which hosts, and with which device each, this sitting decodes."""
        self.config["sittings"][-1]["hosts"] = dict(hosts)
        write_atomically(self.path / CONFIG, to_json(self.config))

    def samples(self) -> Iterator[Sample]:
        """Every finished sample once, in the file's order; if a key occurs twice the first counts.

        Raises UserError, naming the line, for a sample that was made with other settings than config.json's.
        """
        path = self.path / SAMPLES
        seen: set[Key] = set()
        for number, record in read_lines(path):
            sample = parse(Sample, record, path, number)
            if sample.config_hash != self.config["config_hash"]:
                raise UserError(
                    f"{path}: line {number} was made with other settings than {CONFIG} says (config_hash "
                    f"{sample.config_hash}, not {self.config['config_hash']}); keep different settings in "
                    "different folders"
                )
            if sample.row not in self.config["rows"] or sample.benchmark not in self.config["benchmarks"]:
                raise UserError(
                    f"{path}: line {number} is of row {sample.row!r} of {sample.benchmark!r}, which {CONFIG} does not "
                    "have; delete the lines that were copied in"
                )
            if sample.settings and sample.settings != self.settings(sample.benchmark, sample.row):
                raise UserError(
                    f"{path}: line {number} was made with another formula, drafter, sampling, data or model than "
                    f"{CONFIG} says of row {sample.row!r} of {sample.benchmark!r}; delete the lines that were copied in"
                )
            if sample.key not in seen:
                seen.add(sample.key)
                yield sample

    def settings(self, benchmark: str, row: str) -> str:
        """A hash of what makes a row's samples of a benchmark what they are; each sample carries it."""
        if (benchmark, row) not in self._settings:
            self._settings[benchmark, row] = settings_hash(self.config, benchmark, row)
        return self._settings[benchmark, row]

    def skip(self, problems: dict[str, dict[str, int]]) -> None:
        """Record problems that are left out because their prompts, of so many tokens, are too long."""
        skipped = self.config.setdefault("skipped", {})
        for benchmark, some in problems.items():
            skipped.setdefault(benchmark, {}).update(some)
        write_atomically(self.path / CONFIG, to_json(self.config))

    @property
    def skipped(self) -> dict[str, dict[str, int]]:
        """{benchmark: {problem: tokens of its prompt}} of the problems that are left out."""
        return self.config.get("skipped", {})

    def is_skipped(self, benchmark: str, problem: str) -> bool:
        return problem in self.skipped.get(benchmark, {})

    def done(self) -> set[Key]:
        """The keys of all finished samples."""
        return {sample.key for sample in self.samples()}

    def append(self, sample: Sample) -> None:
        """Add one finished sample; raises RunError if it cannot be written."""
        if self._samples is None:
            raise RuntimeError("this run folder is open for reading; use RunFolder.open(path, config)")
        self._samples.append(asdict(sample))

    def give_up(self, key: Key, reason: str, tries: int) -> None:
        """Record a sample that cannot be made; raises RunError if it cannot be written."""
        if self._samples is None:
            raise RuntimeError("this run folder is open for reading; use RunFolder.open(path, config)")
        self._failed = self._failed or LineFile(self.path / FAILED)
        self._failed.append({**key._asdict(), "reason": reason, "tries": tries})

    def failures(self) -> dict[Key, str]:
        """{key: reason} of the samples that were given up; one that was made later may still be among them."""
        path = self.path / FAILED
        return {
            Key(*(record[name] for name in Key._fields)): record["reason"]
            for _, record in read_lines(path)
            if all(name in record for name in (*Key._fields, "reason"))
        }

    def add_problems(self, problems: Iterable[Problem]) -> None:
        """Keep problems for whoever grades this run; those that are there already stay as they are."""
        kept = {(problem.benchmark, problem.id): problem for problem in self.problems()}
        known = len(kept)
        for problem in problems:
            kept.setdefault((problem.benchmark, problem.id), problem)
        if len(kept) > known:
            lines = (json.dumps(asdict(problem), ensure_ascii=False) + "\n" for problem in kept.values())
            write_atomically(self.path / PROBLEMS, "".join(lines))

    def problems(self) -> Iterator[Problem]:
        """Every problem of the run's benchmarks, as they were when it was decoded."""
        for number, record in read_lines(self.path / PROBLEMS):
            record["gold"] = tuple(record["gold"]) if isinstance(record["gold"], list) else record["gold"]
            yield parse(Problem, record, self.path / PROBLEMS, number)

    def close(self) -> None:
        for file in (self._samples, self._failed):
            if file is not None:
                file.close()
        self._samples = self._failed = None

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def config_hash(config: dict[str, Any]) -> str:
    """Hash of the settings that all samples of a run share; speed options do not enter."""
    shared = {name: config.get(name) for name in SHARED}
    shared["engine"] = without_speed(config.get("engine"))
    return hash_of(shared)


def settings_hash(config: dict[str, Any], benchmark: str, row: str) -> str:
    """Hash of a row's formula and drafter, the weights of its models, and a benchmark's data, template and sampling."""
    said, asked = config["rows"][row], config["benchmarks"][benchmark]
    formula = str(said.get("formula", said.get("alpha")))
    drafted_by = drafter(config, benchmark, row)
    weights = sorted(config["weights"].items())
    parts = {
        "formula": formula,
        "weights": {name: value for name, value in weights if name in formula or name == drafted_by},
        "temperature": temperature(config, benchmark, row),
        **{name: asked.get(name) for name in ("top_p", "max_tokens", "data_hash", "template_hash")},
    }
    if drafted_by is not None:  # samples of earlier versions have a hash without it
        parts["drafter"] = drafted_by
    return hash_of(parts)


def hash_of(settings: dict[str, Any]) -> str:
    return short_hash(json.dumps(settings, sort_keys=True, separators=(",", ":")))


def remove_unfinished(folder: Path) -> None:
    """Delete what a killed writer left of files that are replaced whole. Only the writer, who has the lock, may."""
    for path in folder.glob(".*"):
        if UNFINISHED.fullmatch(path.name):
            path.unlink(missing_ok=True)


def without_speed(engine: dict[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (engine or {}).items() if name not in SPEED_OPTIONS}


def merge(old: dict[str, Any], new: dict[str, Any], path: str | os.PathLike[str]) -> dict[str, Any]:
    """The configuration of a resumed run: what was asked before and what is asked now, together.

    Raises UserError, naming the first option that changed, if the two do not belong in one folder.
    """
    for what, before, now, remedy in changes(old, new):
        raise UserError(f"--run {path}: {what} changed, {before!r} → {now!r}; {remedy} with --run")
    benchmarks = dict(old["benchmarks"])
    for name, entry in new["benchmarks"].items():
        before = benchmarks.get(name, entry)
        limits = (before.get("limit"), entry.get("limit"))
        benchmarks[name] = dict(before, limit=None if None in limits else max(limits))
    return old | {
        "engine": (old.get("engine") or {}) | longer(old, new),
        "weights": old["weights"] | new["weights"],
        "rows": old["rows"] | new["rows"],
        "benchmarks": benchmarks,
        "sampling": dict(old["sampling"], n=max(old["sampling"]["n"], new["sampling"]["n"])),
        "speculate": new.get("speculate", 0),
        "drafter": new.get("drafter"),
        DRAFTERS: all_drafters(old, new),
    }


def longer(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    before, now = ((config.get("engine") or {}).get("max_model_len") for config in (old, new))
    return {"max_model_len": now} if is_longer("max_model_len", before, now) else {}


def changes(old: dict[str, Any], new: dict[str, Any]) -> Iterator[tuple[str, object, object, str]]:
    """(what, before, now, remedy) for everything fixed that differs between two configurations."""
    remedy = "give the old value or name another folder"
    for name in SHARED:
        before, now = old.get(name), new.get(name)
        if name == "engine":
            before, now = without_speed(before), without_speed(now)
            for option in sorted(before.keys() | now.keys()):
                if before.get(option) != now.get(option) and not is_longer(option, before.get(option), now.get(option)):
                    yield f"--{option.replace('_', '-')}", before.get(option), now.get(option), remedy
        elif before != now:
            yield ("the text of --template" if name == "template_hash" else f"--{name}"), before, now, remedy
    for name in old["weights"].keys() & new["weights"].keys():
        before, now = old["weights"][name], new["weights"][name]
        if before != now:
            yield f"the weights of {name}", before, now, "name another folder"
    for name in old["rows"].keys() & new["rows"].keys():
        before, now = old["rows"][name], new["rows"][name]
        remedy_row = f"give the row another name (--rows NAME={now.get('alpha')}) or name another folder"
        for field in ("alpha", "temperature", "formula"):
            if before.get(field) != now.get(field):
                yield f"{field} of row {name!r}", before.get(field), now.get(field), remedy_row
    for name in old["benchmarks"].keys() & new["benchmarks"].keys():
        before, now = old["benchmarks"][name], new["benchmarks"][name]
        if before.get("data_hash") != now.get("data_hash"):
            what = f"the data of benchmark {name!r}" + (f" ({now['data']})" if now.get("data") else "")
            yield (
                what,
                before.get("data_hash"),
                now.get("data_hash"),
                "restore the data or name another folder",
            )
        for field in ("temperature", "top_p", "max_tokens", "template", "template_hash", "shard"):
            if before.get(field) != now.get(field):
                yield f"--{field.replace('_', '-')} ({name})", before.get(field), now.get(field), remedy
    for what, was, drafts in changed_drafters(old, new):
        yield what, was, drafts, f"another drafter, or none, draws other samples; {remedy}"


def is_longer(option: str, before: object, now: object) -> bool:
    """Whether an option only makes room for more: prompts that did not fit before."""
    return option == "max_model_len" and isinstance(before, int) and isinstance(now, int) and now > before


def read_config(folder: Path) -> dict[str, Any] | None:
    """config.json of a folder, or None if there is none."""
    try:
        return json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise UserError(f"{folder / CONFIG} is not JSON ({error}); name another folder with --run") from error


def to_json(config: dict[str, Any]) -> str:
    return json.dumps(config, indent=2, ensure_ascii=False) + "\n"


def is_needed(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def parse(kind: type, record: dict[str, Any], path: Path, number: int) -> Any:
    """A record as its dataclass; fields that a later version may have added are left aside."""
    try:
        given = {field.name: record[field.name] for field in fields(kind) if field.name in record or is_needed(field)}
        return kind(**given)
    except KeyError as error:
        raise UserError(f"{path}: line {number} has no field {error}; was it written by vllm-rast?") from error
