"""One run folder from parts of a run that were decoded apart (`--shard`)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from vllm_rast.errors import UserError
from vllm_rast.evaluation.runs.folder import Key, RunFolder, Sample, changes, merge
from vllm_rast.evaluation.tasks.benchmark import Problem
from vllm_rast.evaluation.tasks.text import short_hash

SHARD = "shard"


@dataclass
class Merged:
    """Numbers of samples: written, in the folder before, met a second time in the parts."""

    written: int = 0
    there: int = 0
    twice: int = 0


def merge_runs(parts: Sequence[str | os.PathLike[str]], into: str | os.PathLike[str]) -> Merged:
    """Join run folders in a new one, or in one that a merge was broken off in. The parts are only read.

    Raises:
        UserError: a part is no run, the parts differ in a setting, a problem or a sample, or `into` is a part.
        RunError: the folder cannot be written.
    """
    if any(os.path.realpath(part) == os.path.realpath(into) for part in parts):
        raise UserError(f"--run {into}: this is one of the parts; name another folder")
    runs = [RunFolder(part) for part in parts]
    config = joined_config(runs)
    problems = joined_problems(runs)
    merged = Merged()
    with RunFolder.open(into, config) as folder:
        folder.add_problems(problems)
        for run in runs:
            if run.skipped:
                folder.skip(run.skipped)
        have = {sample.key: digest(sample) for sample in folder.samples()}
        merged.there = len(have)
        met: set[Key] = set()
        for run in runs:
            for sample in run.samples():
                merged.twice += sample.key in met
                met.add(sample.key)
                decoded = digest(sample)
                if sample.key not in have:
                    have[sample.key] = decoded
                    folder.append(sample)
                    merged.written += 1
                elif have[sample.key] != decoded:
                    raise another(sample.key, run)
    return merged


def joined_config(runs: Sequence[RunFolder]) -> dict[str, Any]:
    """The configuration of the whole run: what every part asked for, together."""
    first = runs[0]
    config = whole(first.config)
    for run in runs[1:]:
        for what, one, other, _ in changes(config, whole(run.config)):
            raise UserError(
                f"{run.path}: {what} is {other!r}, and {one!r} in {first.path}; merge only the parts of one run"
            )
        config = merge(config, whole(run.config), run.path)
        config["sittings"] = [*config.get("sittings", []), *run.config.get("sittings", [])]
    return {name: value for name, value in config.items() if name != "skipped"}


def whole(config: dict[str, Any]) -> dict[str, Any]:
    """A part's configuration as the whole run would have it."""
    benchmarks = {
        name: {key: value for key, value in entry.items() if key != SHARD}
        for name, entry in config["benchmarks"].items()
    }
    return config | {"benchmarks": benchmarks}


def joined_problems(runs: Sequence[RunFolder]) -> list[Problem]:
    """Every problem of the parts once. Raises UserError if two parts have another text or gold for one."""
    found: dict[tuple[str, str], tuple[Problem, RunFolder]] = {}
    for run in runs:
        for problem in run.problems():
            known, where = found.setdefault((problem.benchmark, problem.id), (problem, run))
            if known != problem:
                raise UserError(
                    f"{run.path}: problem {problem.id!r} of {problem.benchmark!r} is another than in {where.path}; "
                    "merge only parts that were decoded from the same data"
                )
    return [problem for problem, _ in found.values()]


def digest(sample: Sample) -> str:
    """A hash of what was decoded."""
    return short_hash(repr(sorted(asdict(sample).items())))


def another(key: Key, run: RunFolder) -> UserError:
    return UserError(
        f"{run.path}: sample {key.sample} of problem {key.problem!r}, row {key.row!r} of {key.benchmark!r}, is another "
        "than the one before; delete one of the two"
    )
