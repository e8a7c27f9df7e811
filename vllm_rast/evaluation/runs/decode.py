"""Decode what a plan asks for and a run folder does not have yet."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import product
from typing import Any, NamedTuple, Protocol

import numpy as np

from vllm_rast.evaluation.runs.folder import Key, RunFolder, Sample
from vllm_rast.evaluation.runs.lengths import too_long
from vllm_rast.evaluation.runs.order import ExpectedLengths
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


class TokenTrace(NamedTuple):
    """What was kept of an answer's tokens: their ids, and by column a number of each, [num_tokens]."""

    token_ids: Sequence[int]
    columns: Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Completion:
    """One sample made; `tokens` counts the answer's tokens, the end of text included."""

    text: str
    finish_reason: str
    prompt_tokens: int
    tokens: int
    trace: TokenTrace | None = None

    def entry(self) -> dict[str, Any]:
        """What samples.jsonl says of it."""
        return {name: getattr(self, name) for name in ("text", "finish_reason", "prompt_tokens", "tokens")}


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a sample was given up, after how many tries."""

    reason: str
    tries: int


class Backend(Protocol):
    """What decodes. `device` says on what, for the record; `rows_apart`, that one row after the other is cheaper than
    all rows of a problem together. `hosts` is {host: device} of all machines that take part, which may grow."""

    device: str
    rows_apart: bool
    tokenizer: Any
    hosts: dict[str, str]

    def stream(self, jobs: Iterable[Job]) -> Generator[tuple[Job, Completion | Failure]]:
        """Every job with its completion, as soon as it is finished, in any order; jobs are taken as needed."""
        ...


def seed_of(run_seed: int, key: Key) -> int:
    """The seed of one sample: the same on every machine, in any order, and for every row of the table."""
    name = "\0".join((str(run_seed), key.benchmark, key.problem, str(key.sample)))
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[: SEED_BITS // 8], "big")


def missing_samples(plan: Plan, folder: RunFolder, done: set[Key], retry_failed: bool = False) -> set[Key]:
    given_up = set() if retry_failed else set(folder.failures())
    return {
        key
        for key in plan.samples()
        if key not in done and key not in given_up and not folder.is_skipped(key.benchmark, key.problem)
    }


def jobs_of(
    plan: Plan, missing: set[Key], lengths: ExpectedLengths, tokenizer: Any = None, rows_apart: bool = False
) -> Iterator[Job]:
    """The missing samples of a plan, problem by problem, or row by row and then problem by problem; of problems, those
    with the longest answers first, as far as `lengths` knows them by then."""
    groups = [(plan.tasks, plan.rows)]
    if rows_apart:
        groups = [([task], [row]) for task, row in product(plan.tasks, plan.rows)]
    for tasks, rows in groups:
        for task, problem in lengths.longest_first((one, problem) for one in tasks for problem in one.problems()):
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


def decode(plan: Plan, folder: RunFolder, open_backend: Callable[[Plan], Backend], retry_failed: bool = False) -> int:
    """Make every sample of `plan` that `folder` lacks and return their number. The backend is opened only if needed.

    Samples that are given up are in the folder's `failures`; they are left alone unless `retry_failed`. Raises RunError
    if a sample cannot be written; all samples finished before are in the folder.
    """
    done, lengths = set[Key](), ExpectedLengths()
    for sample in folder.samples():
        done.add(sample.key)
        lengths.add(sample.key, sample.tokens)
    missing = missing_samples(plan, folder, done, retry_failed)
    if missing and (left_out := too_long(plan, done)):
        folder.skip(left_out)
        missing = missing_samples(plan, folder, done, retry_failed)
        number = sum(map(len, left_out.values()))
        print(f"vllm-rast: {number} problems left out, whose prompts are too long", file=sys.stderr, flush=True)
    if not missing:
        return 0
    print(f"vllm-rast: {len(missing):,} samples to make; loading the models", file=sys.stderr, flush=True)
    backend = open_backend(plan)
    sitting = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "device": backend.device,
    }
    folder.add_sitting(sitting | {"hosts": dict(backend.hosts)})
    jobs = jobs_of(plan, missing, lengths, backend.tokenizer, backend.rows_apart)
    already = sum(key in done for key in plan.samples())
    return write_samples(plan, folder, backend, jobs, lengths, len(missing), already)


def write_samples(
    plan: Plan,
    folder: RunFolder,
    backend: Backend,
    jobs: Iterator[Job],
    lengths: ExpectedLengths,
    missing: int,
    already: int,
) -> int:
    """Decode jobs into the folder and return the number of samples. `lengths` learns; for the display: so many are
    `missing`, and so many `already` there."""
    config_hash = folder.config["config_hash"]
    made, hosts = 0, len(backend.hosts)
    # closing: an error here ends the backend's processes before it is reported.
    with (
        keeping(plan, folder, backend.tokenizer) as keep,
        Progress("decoding", already) as progress,
        closing(backend.stream(jobs)) as results,
    ):
        for one, result in results:
            if len(backend.hosts) > hosts:
                hosts = len(backend.hosts)
                folder.note_hosts(backend.hosts)
            if isinstance(result, Failure):
                folder.give_up(one.key, result.reason, result.tries)
                continue
            bound = {"config_hash": config_hash, "settings": folder.settings(one.key.benchmark, one.key.row)}
            keep(Sample(**one.key._asdict(), seed=one.seed, **bound, **result.entry()), result.trace)
            lengths.add(one.key, result.tokens)
            made += 1
            progress(already + made, already + missing, result.tokens)
    return made


@contextmanager
def keeping(plan: Plan, folder: RunFolder, tokenizer: Any) -> Iterator[Callable[[Sample, TokenTrace | None], None]]:
    """What keeps a finished sample. With traces a sample is written once its trace is on the disk, so that none is ever
    without: `kill -9` loses the samples of at most five seconds, which are then made again."""
    if plan.trace is None:
        yield lambda sample, trace: folder.append(sample)
        return
    from vllm_rast.evaluation.runs.tokenizer import BaseTokenizer
    from vllm_rast.evaluation.runs.traces import TraceFolder, texts_of_ids

    waiting: list[Sample] = []

    def append_waiting() -> None:
        while waiting:
            folder.append(waiting.pop(0))

    with TraceFolder(folder.path, trace_config(plan, folder), (), after_flush=append_waiting) as traces:
        if (known := tokenizer or BaseTokenizer(plan).loaded) is not None:  # engines elsewhere keep theirs
            traces.add_vocabulary(texts_of_ids(known))
        done = traces.done()

        def keep(sample: Sample, trace: TokenTrace | None) -> None:
            assert trace is not None
            waiting.append(sample)
            if sample.key not in done:  # a killed writer may have left the trace of a sample that is made again
                traces.columns = list(trace.columns)
                numbers = np.stack(list(trace.columns.values()), axis=1)
                traces.append(sample.key, trace.token_ids, True, numbers)

        yield keep


def trace_config(plan: Plan, folder: RunFolder) -> dict[str, Any]:
    """What makes these traces what they are, for their folder's hash."""
    config = plan.config()
    return {"decoding": plan.trace, "run": folder.config["config_hash"], "models": config["models"]}
