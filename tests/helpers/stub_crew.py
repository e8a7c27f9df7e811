"""A crew for the pool without processes and without a clock: what happens is drawn from a seed."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from vllm_rast.evaluation.runs.decode import Completion, Job
from vllm_rast.evaluation.runs.folder import Key
from vllm_rast.evaluation.runs.jsonl import RunError
from vllm_rast.evaluation.runs.pool import Event, Finished, Joined, Lost


def job(number: int) -> Job:
    return Job(Key("b", "row", str(number), 0), f"prompt {number}", 1.0, number, 1.0, 1.0, 8, ())


def completion(job: Job) -> Completion:
    return Completion(f"text of {job.prompt}", "stop", 2, 3)


class StubWorker:
    def __init__(self, name: str, window: int):
        self.name, self.window = name, window
        self.jobs: list[Job] = []
        self.most = 0  # jobs held at a time

    def send(self, jobs: Sequence[Job]) -> None:
        self.jobs += jobs
        self.most = max(self.most, len(self.jobs))
        assert len(self.jobs) <= self.window


class StubCrew:
    """Workers that finish a job of theirs at each step, in any order, and whatever else `fault` makes of a step.

    fault(crew, worker): called before a worker finishes something; may call `lose`.
    """

    coming = 0

    def __init__(
        self,
        windows: Sequence[int],
        seed: int = 0,
        fault: Callable[[StubCrew, StubWorker], None] | None = None,
        restarts: int = 1000,
    ):
        self.random = random.Random(seed)
        self.fault, self.restarts = fault, restarts
        self.workers: list[StubWorker] = []
        self.queue: list[Event] = []
        self.began: Counter[str] = Counter()  # how often each prompt was sent anywhere
        self.made = 0  # names of workers are never used twice
        self.late: list[Event] = []  # what a lost worker still says
        self.closed = False
        for window in windows:
            self.join(window)

    def join(self, window: int) -> StubWorker:
        self.made += 1
        worker = StubWorker(f"w{self.made}", window)
        self.workers.append(worker)
        self.queue.append(Joined(worker))
        return worker

    def lose(self, worker: StubWorker, blameless: bool = False) -> None:
        """Take a worker away and start another one; what it had begun may still arrive, late."""
        self.workers.remove(worker)
        self.queue.append(Lost(worker, "killed", blameless))
        if worker.jobs and self.random.random() < 0.5:
            late = self.random.choice(worker.jobs)
            self.late.append(Finished(worker, late.key, completion(late)))
        self.restarts -= 1
        if self.restarts >= 0:
            self.join(worker.window)

    def events(self) -> Iterable[Event]:
        if self.late and self.random.random() < 0.5:
            self.queue.append(self.late.pop())
        if not self.queue:
            busy = [worker for worker in self.workers if worker.jobs]
            if not busy:
                raise RunError("no worker is left")
            worker = self.random.choice(busy)
            if self.fault is not None:
                self.fault(self, worker)
            if worker in self.workers:
                done = worker.jobs.pop(self.random.randrange(len(worker.jobs)))
                self.queue.append(Finished(worker, done.key, completion(done)))
                if self.random.random() < 0.01:  # said twice
                    self.queue.append(self.queue[-1])
        events, self.queue = self.queue, []
        return events

    def close(self) -> None:
        self.closed = True
