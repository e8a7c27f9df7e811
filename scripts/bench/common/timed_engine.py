"""A stub engine: answers that take their time, a given number of them at a time, and nothing that needs a CPU."""

from __future__ import annotations

import asyncio
import heapq
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vllm_rast.evaluation.runs.decode import Completion, Job

STEP_S = 0.02  # how often an engine looks for new jobs, as between two steps


@dataclass(frozen=True)
class Timed:
    """What an engine takes. token_s: seconds of a token; the length of an answer is its job's `max_tokens`.

    log: a file to which each engine, each start and each end of an answer adds a line. engines: how many there are; the
    first ones wait for each other, so that what is measured begins with all of them.
    """

    running: int
    token_s: float
    log: str
    engines: int

    def note(self, what: str, number: int) -> None:
        with open(self.log, "a") as file:  # a short line at the end of a file is written whole
            file.write(f"{what} {number}\n")

    def meet(self) -> None:
        """An engine is up."""
        self.note("up", os.getpid())
        while counted(Path(self.log), "up") < self.engines:
            time.sleep(STEP_S)

    def begin(self, number: int) -> float:
        """When an answer began, on this machine's one clock."""
        self.note("begun", number)
        return time.monotonic()

    def end(self, number: int, began: float) -> str:
        """The text of an answer: who made it, and from when to when."""
        self.note("ended", number)
        return f"{os.getpid()} {began} {time.monotonic()}"


class TimedEngine:
    """What a replica of ours opens: the engine's side of `VllmBackend.stream`."""

    device = "a stub"

    def __init__(self, timed: Timed):
        self.timed, self.max_running = timed, timed.running
        timed.meet()

    def stream(self, source: Iterable[Job | None]) -> Iterator[tuple[Job, Completion]]:
        timed, pending, more = self.timed, iter(source), True
        running: list[tuple[float, int, float, Job]] = []  # a heap: when it ends, its number, when it began
        while more or running:
            while more and len(running) < timed.running:
                job = next(pending, "end")
                if isinstance(job, str):
                    more = False
                elif job is None:
                    break
                else:
                    began = timed.begin(job.seed)
                    heapq.heappush(running, (began + timed.token_s * job.max_tokens, job.seed, began, job))
            if running:
                time.sleep(min(STEP_S, max(0.0, running[0][0] - time.monotonic())))
            while running and running[0][0] <= time.monotonic():
                _, number, began, job = heapq.heappop(running)
                yield job, Completion(timed.end(number, began), "stop", 1, job.max_tokens)


class TimedBatches:
    """What Ray Data maps batches with: as ray.data.llm's stage, which gives a batch back when all of it is done."""

    def __init__(self, timed: Timed):
        self.timed = timed
        self.places = asyncio.Semaphore(timed.running)
        timed.meet()

    async def __call__(self, batch: dict[str, Any]) -> Any:
        rows = zip(batch["number"], batch["tokens"], strict=True)
        texts = await asyncio.gather(*(self.answer(int(number), int(tokens)) for number, tokens in rows))
        yield {"number": batch["number"], "text": texts}

    async def answer(self, number: int, tokens: int) -> str:
        async with self.places:
            began = self.timed.begin(number)
            await asyncio.sleep(self.timed.token_s * tokens)
            return self.timed.end(number, began)


def open_timed(timed: Timed, plan: Any) -> TimedEngine:
    return TimedEngine(timed)


def counted(log: Path, what: str) -> int:
    """How often the engines have noted something: "up", "begun" or "ended"."""
    return sum(f"{line} ".startswith(f"{what} ") for line in log.read_text().splitlines())
