"""One engine in a thread of its own, which takes jobs and gives completions while it decodes: a replica's body."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from vllm_rast.engine.launch import reason_of
from vllm_rast.errors import UserError
from vllm_rast.evaluation.runs.backends import open_backend
from vllm_rast.evaluation.runs.decode import Completion, Job
from vllm_rast.evaluation.runs.folder import Key
from vllm_rast.evaluation.runs.jsonl import RunError
from vllm_rast.evaluation.runs.plan import Plan

LOG_TAIL = 1 << 16  # bytes of its own log that a replica looks for an error in
# "ValueError: no such thing", whatever the logger put before it; but not what only points to an earlier line.
ERROR_LINE = re.compile(r"\b((?:\w+\.)*\w*(?:Error|Exception): (?!Engine core init).+)")


class Opened(NamedTuple):
    """An engine that is ready: on what device, and how many jobs it decodes at a time."""

    device: str
    max_running: int


class EngineThread:
    """One engine. The methods may be called from any threads, and only `open` and `pull` wait."""

    def __init__(self, open_engine: Callable[[Plan], Any] = open_backend):
        self.open_engine = open_engine
        self.jobs: SimpleQueue[Job] = SimpleQueue()
        self.done: SimpleQueue[tuple[Key, Completion] | BaseException] = SimpleQueue()
        self.opened: SimpleQueue[Opened | BaseException] = SimpleQueue()
        self.unfinished = 0  # jobs that the engine has; its own thread counts them

    def open(self, plan: Plan) -> Opened:
        """Load the models. Raises UserError for what the user can mend, RunError with one line for all else."""
        threading.Thread(target=self._run, args=(plan,), daemon=True).start()
        opened = self.opened.get()
        if isinstance(opened, BaseException):
            raise in_one_line(opened)
        return opened

    def push(self, jobs: Sequence[Job]) -> None:
        """Take jobs."""
        for job in jobs:
            self.jobs.put(job)

    def pull(self) -> list[tuple[Key, Completion]]:
        """What has been finished since the last call; waits until something is. Raises what ended the engine."""
        finished: list[tuple[Key, Completion]] = []
        while not finished or not self.done.empty():
            one = self.done.get()
            if isinstance(one, BaseException):
                if finished:  # those first
                    self.done.put(one)
                    break
                raise in_one_line(one)
            finished.append(one)
        return finished

    def _run(self, plan: Plan) -> None:
        try:
            backend = self.open_engine(plan)
            self.opened.put(Opened(backend.device, backend.max_running))
        except BaseException as error:  # whatever it is, the driver shall say it
            self.opened.put(error)
            return
        try:
            for job, completion in backend.stream(self._jobs_so_far()):
                self.unfinished -= 1
                self.done.put((job.key, completion))
        except BaseException as error:
            self.done.put(error)

    def _jobs_so_far(self) -> Iterator[Job | None]:
        """The jobs as they come; None while there is none but the engine has work, so that it goes on."""
        while True:
            try:
                job = self.jobs.get(block=self.unfinished == 0)
            except Empty:
                yield None
                continue
            self.unfinished += 1
            yield job


def in_one_line(error: BaseException) -> Exception:
    """An error as the driver can show it: what an engine's own process wrote last says more than what it raised.

    It is going to another process, which may not have the class of the error.
    """
    if isinstance(error, UserError):
        return UserError(str(error))
    said = reason_of(error) if isinstance(error, Exception) else type(error).__name__
    return RunError(last_error(Path("/proc/self/fd/2")) or said)


def last_error(log: Path) -> str | None:
    """The last line of a log that names an error, without what stands before it."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - LOG_TAIL))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return None
    found = (ERROR_LINE.search(line) for line in reversed(lines))
    return next((match[1].strip()[:400] for match in found if match), None)
