"""Decode what a plan asks for and a run folder does not have yet."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import product
from typing import Any, Protocol

from vllm_rast.evaluation.runs.folder import Key, RunFolder, Sample
from vllm_rast.evaluation.runs.lengths import too_long
from vllm_rast.evaluation.runs.plan import Plan, Task, temperature_of, versions
from vllm_rast.evaluation.runs.progress import Progress
from vllm_rast.mix.alpha import Alpha

SEED_BITS = 48  # a seed survives any JSON reader that keeps numbers as doubles


@dataclass(frozen=True, slots=True)
class Job:
    """One sample to be made."""

    key: Key
    prompt: str
    alpha: Alpha
    seed: int
    temperature: float
    top_p: float
    max_tokens: int
    stop: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Completion:
    """One sample made; `tokens` counts the answer's tokens, the end of text included."""

    text: str
    finish_reason: str
    prompt_tokens: int
    tokens: int


class Backend(Protocol):
    """What decodes. `device` says on what, for the record; `rows_apart`, that one row after the other is cheaper than
    all rows of a problem together."""

    device: str
    rows_apart: bool
    tokenizer: Any

    def stream(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Completion]]:
        """Every job with its completion, as soon as it is finished, in any order; jobs are taken as needed."""
        ...


def seed_of(run_seed: int, key: Key) -> int:
    """The seed of one sample: the same on every machine, in any order, and for every row of the table."""
    name = "\0".join((str(run_seed), key.benchmark, key.problem, str(key.sample)))
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[: SEED_BITS // 8], "big")


def missing_samples(plan: Plan, folder: RunFolder, done: set[Key]) -> set[Key]:
    return {key for key in plan.samples() if key not in done and not folder.is_skipped(key.benchmark, key.problem)}


def jobs_of(plan: Plan, missing: set[Key], tokenizer: Any = None, rows_apart: bool = False) -> Iterator[Job]:
    """The missing samples of a plan, problem by problem, or row by row and then problem by problem."""
    groups = [[row] for row in plan.rows] if rows_apart else [plan.rows]
    for task, rows in product(plan.tasks, groups):
        for problem in task.problems():
            keys = [key for key in plan.keys_of(problem, rows) if key in missing]
            if not keys:
                continue
            prompt, stop = plan.prompt_of(task, problem, tokenizer)
            for key in keys:
                yield job(plan, task, key, prompt, stop)


def job(plan: Plan, task: Task, key: Key, prompt: str, stop: tuple[str, ...]) -> Job:
    row = plan.row(key.row)
    sampling, seed = task.sampling, seed_of(plan.seed, key)
    return Job(key, prompt, row.alpha, seed, temperature_of(row, task), sampling.top_p, sampling.max_tokens, stop)


def decode(plan: Plan, folder: RunFolder, open_backend: Callable[[Plan], Backend]) -> int:
    """Make every sample of `plan` that `folder` lacks and return their number. The backend is opened only if needed.

    Raises RunError if a sample cannot be written; all samples finished before are in the folder.
    """
    done = folder.done()
    missing = missing_samples(plan, folder, done)
    if missing and (left_out := too_long(plan, done)):
        folder.skip(left_out)
        missing = missing_samples(plan, folder, done)
        number = sum(map(len, left_out.values()))
        print(f"vllm-rast: {number} problems left out, whose prompts are too long", file=sys.stderr, flush=True)
    if not missing:
        return 0
    print(f"vllm-rast: {len(missing):,} samples to make; loading the models", file=sys.stderr, flush=True)
    backend = open_backend(plan)
    folder.add_sitting(
        {
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": versions(),
            "device": backend.device,
        }
    )
    config_hash = folder.config["config_hash"]
    settings = {name: folder.settings(*name) for name in {(key.benchmark, key.row) for key in missing}}
    jobs = jobs_of(plan, missing, backend.tokenizer, backend.rows_apart)
    already = sum(key in done for key in plan.samples())
    with Progress("decoding", already) as progress:
        for made, (one, completion) in enumerate(backend.stream(jobs), 1):
            bound = {"config_hash": config_hash, "settings": settings[one.key.benchmark, one.key.row]}
            folder.append(Sample(**one.key._asdict(), seed=one.seed, **bound, **asdict(completion)))
            progress(already + made, already + len(missing), completion.tokens)
    return len(missing)
