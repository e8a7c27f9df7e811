"""One queue of jobs for many workers: each holds as many as it can use, and what a lost one held goes back.

A job is held by at most one worker, and only the one that holds it can finish it: what a worker says about any other
job, because it was taken for lost or says it twice, is dropped. So nothing is lost and nothing counts twice, and
nothing has to be remembered about jobs that are done.
"""

from __future__ import annotations

import math
import sys
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from typing import NamedTuple, Protocol

from vllm_rast.evaluation.runs.decode import Completion, Failure, Job
from vllm_rast.evaluation.runs.folder import Key

MAX_LOSSES = 2  # a job that so many workers were lost with, the last one alone, is given up
# By how many bits a window shrinks for each loss of a job in it: of 512 suspects 64 are tried together, then 8, then
# one alone. Without it, a job that kills engines would be given up together with hundreds that do not.
SUSPECT_SHIFT = 3


class Worker(Protocol):
    """What decodes. `name` is its address or host; `window` the number of jobs that keep it busy."""

    @property
    def name(self) -> str: ...

    @property
    def window(self) -> int: ...

    def send(self, jobs: Sequence[Job]) -> None:
        """Take jobs; returns at once. A worker that cannot take them is lost, which its crew says."""
        ...


class Joined(NamedTuple):
    """A worker that wants jobs from now on."""

    worker: Worker


class Finished(NamedTuple):
    """A job that a worker has done."""

    worker: Worker
    key: Key
    completion: Completion


class Refused(NamedTuple):
    """A job that a worker could not do, which lives on."""

    worker: Worker
    key: Key
    reason: str


class Lost(NamedTuple):
    """A worker that is gone for good. blameless: no job can have caused it, since its whole machine is gone."""

    worker: Worker
    reason: str
    blameless: bool = False


Event = Joined | Finished | Refused | Lost


class Crew(Protocol):
    """Where workers come from, and what they say. `coming`: how many are about to join."""

    @property
    def coming(self) -> int: ...

    def events(self) -> Iterable[Event]:
        """What has happened, once something has. Raises RunError if no worker is left and none will come."""
        ...

    def close(self) -> None:
        """End all workers."""
        ...


class Pool:
    """Decodes jobs with the workers of a crew."""

    def __init__(self, crew: Crew):
        self.crew = crew
        self.held: dict[Worker, dict[Key, Job]] = {}
        self.hungry: dict[Worker, None] = {}  # may hold fewer jobs than they could; a dictionary keeps their order
        self.ahead: deque[Job] = deque()  # taken from the source, so that its end is seen before it comes
        self.suspects: deque[Job] = deque()  # of workers that were lost; tried last, and few at a time
        self.losses: Counter[Key] = Counter()
        self.window = self.running = 0  # of all workers together
        self.share = 0.0  # see _share
        self.source_ended = False

    def stream(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Completion | Failure]]:
        """Every job once, with its completion or with why there is none, as soon as it is known; in any order.

        Raises RunError if no worker is left. The crew is closed at the end, whatever ends it.
        """
        source = iter(jobs)
        with closing(self.crew):
            self._look_ahead(source)
            while not self.source_ended or self.ahead or self.suspects or self.running:
                for event in self.crew.events():
                    yield from self._take(event)
                self._look_ahead(source)
                self._feed()

    def _look_ahead(self, source: Iterator[Job]) -> None:
        """Have enough jobs to fill every window, also of workers that are about to come, or know that there are no
        more."""
        workers = max(1, len(self.held))
        enough = max(1, self.window * (workers + self.crew.coming) // workers)
        while not self.source_ended and len(self.ahead) < enough:
            job = next(source, None)
            if job is not None:
                self.ahead.append(job)
            else:
                self.source_ended = True
                self.hungry |= dict.fromkeys(self.held)

    def _take(self, event: Event) -> Iterator[tuple[Job, Completion | Failure]]:
        """What an event means for a job, if it ends one."""
        worker = event.worker
        if isinstance(event, Joined):
            self.held[worker] = {}
            self.window += worker.window
            self.hungry[worker] = None
        elif isinstance(event, Lost):
            yield from self._lose(event)
        elif (job := self.held.get(worker, {}).pop(event.key, None)) is not None:
            self.running -= 1
            self.hungry[worker] = None
            if isinstance(event, Finished):
                self.losses.pop(job.key, None)
                yield job, event.completion
            else:
                yield from self._suspect([job], event.reason)

    def _lose(self, event: Lost) -> Iterator[tuple[Job, Failure]]:
        """Put back what a worker held."""
        jobs = list(self.held.pop(event.worker, {}).values())
        self.hungry.pop(event.worker, None)
        self.hungry |= dict.fromkeys(self.held)
        self.window -= event.worker.window
        self.running -= len(jobs)
        say(f"{event.worker.name} is lost: {event.reason}; {len(jobs):,} samples that it had begun go to others")
        if event.blameless:
            self.ahead.extendleft(reversed(jobs))
        else:
            yield from self._suspect(jobs, event.reason)

    def _suspect(self, jobs: list[Job], reason: str) -> Iterator[tuple[Job, Failure]]:
        """Jobs one of which may be what went wrong; if it is certain which, and not the first time, it is given up."""
        for job in jobs:
            self.losses[job.key] += 1
            if len(jobs) == 1 and self.losses[job.key] >= MAX_LOSSES:
                yield job, Failure(reason, self.losses.pop(job.key))
            else:
                self.suspects.append(job)

    def _feed(self) -> None:
        """Give jobs to the workers that may take some."""
        before, self.share = self.share, self._share()
        if self.share > before:
            self.hungry |= dict.fromkeys(self.held)
        hungry, self.hungry = self.hungry, {}
        given: dict[Worker, list[Job]] = {worker: [] for worker in hungry}
        # Dealt out in turns: the samples of a problem are often all long, and had better not be one worker's.
        while hungry:
            for worker in list(hungry):
                job = self._next_job(worker)
                if job is None:
                    del hungry[worker]
                else:
                    self.held[worker][job.key] = job
                    given[worker].append(job)
        for worker, jobs in given.items():
            if jobs:
                self.running += len(jobs)
                worker.send(jobs)

    def _share(self) -> float:
        """The most jobs that a worker may hold: towards the end as many as every other, so that none sits idle while
        another still has some in its queue."""
        if not self.source_ended:
            return math.inf
        left = len(self.ahead) + len(self.suspects) + self.running
        return math.ceil(left / max(1, len(self.held) + self.crew.coming))

    def _next_job(self, worker: Worker) -> Job | None:
        """A job that may join those that a worker holds; suspects come after all others."""
        held, waiting = self.held[worker], self.ahead or self.suspects
        if not waiting or len(held) >= min(worker.window, self.share):
            return None
        # `losses` is empty as long as nothing has gone wrong.
        worst = max((self.losses[key] for key in (*held, waiting[0].key)), default=0) if self.losses else 0
        limit = max(1, worker.window >> SUSPECT_SHIFT * worst)
        return waiting.popleft() if len(held) < limit else None


def say(text: str) -> None:
    print(f"vllm-rast: {text}", file=sys.stderr, flush=True)
