"""A plan decoded by several engines of this machine, each in a process of its own: data parallelism without Ray."""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import socket
import tempfile
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from vllm_rast.engine.children import watched_children
from vllm_rast.engine.launch import set_environment
from vllm_rast.evaluation.runs.backends import open_backend
from vllm_rast.evaluation.runs.decode import Completion, Failure, Job
from vllm_rast.evaluation.runs.engine_thread import EngineThread, Opened, last_error
from vllm_rast.evaluation.runs.jsonl import RunError
from vllm_rast.evaluation.runs.lives import Life, LivesCrew, Slot
from vllm_rast.evaluation.runs.places import Place, divided
from vllm_rast.evaluation.runs.plan import Plan
from vllm_rast.evaluation.runs.pool import Event, Pool, say
from vllm_rast.evaluation.runs.tokenizer import BaseTokenizer

ENDING_S = 10.0  # in which a process that has closed its connection ends
OpenEngine = Callable[[Plan], Any]


class ProcessesBackend:
    """All rows on every engine. Raises UserError if the machine is too small for so many, or none can start."""

    def __init__(self, plan: Plan, open_engine: OpenEngine = open_backend):
        set_environment(plan.models)  # what vLLM reads when it is imported
        from vllm_rast.engine.platform import gpus

        found = gpus()
        places = divided(plan.engines, int(plan.engine.get("tensor_parallel_size") or 1), found)
        self.crew = ProcessCrew(replace(plan.for_one_engine(), rows=[], tasks=[]), places, open_engine)
        try:
            say(f"{len(places)} engines in processes of this machine")
            self.crew.wait_for_first()
        except BaseException:
            self.crew.close()
            raise
        self.hosts = {socket.gethostname(): self.crew.device}
        self.device = f"{len(places)} engines: {self.crew.device}"
        self.rows_apart = found is None  # on a CPU a step leaves out the models that none of its rows uses
        self.tokenizer = BaseTokenizer(plan).loaded if plan.needs_tokenizer else None

    def stream(self, jobs: Iterable[Job]) -> Generator[tuple[Job, Completion | Failure]]:
        """See Backend. Ends the engines when it ends."""
        yield from Pool(self.crew).stream(jobs)


class EngineProcess(Life):
    """One process. What it and its children write goes into a file, where its last error is found."""

    def __init__(self, slot: Slot, number: int, place: Place, log: Path, what: tuple[OpenEngine, Plan]):
        super().__init__(slot)
        self.number, self.log = number, log
        spawn = multiprocessing.get_context("spawn")
        self.connection, theirs = spawn.Pipe()
        self.process = spawn.Process(target=run_engine, args=(theirs, log, *what), name=f"vllm-rast-engine-{number}")
        with place.taken(), watched_children():
            self.process.start()
        theirs.close()

    @property
    def name(self) -> str:
        return f"engine {self.number}"

    def send(self, jobs: Sequence[Job]) -> None:
        with contextlib.suppress(OSError):  # it has ended, which its crew sees
            self.connection.send(jobs)

    def receive(self) -> Any:
        """What it says next: Opened, then lists of finished jobs; an exception is the last."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            self.process.join(ENDING_S)
            if (code := self.process.exitcode or 0) > 0:
                return RunError(last_error(self.log) or f"its process ended with exit code {code}")
            return RunError("its process ended (killed, or out of memory)")

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


class ProcessCrew(LivesCrew):
    """Processes of this machine as workers of a pool, one for each place."""

    def __init__(self, plan: Plan, places: Sequence[Place], open_engine: OpenEngine):
        super().__init__()
        self.what = open_engine, plan
        self.device = ""
        self.logs = tempfile.TemporaryDirectory(prefix="vllm-rast-")
        self.slots = [Slot() for _ in places]
        self.places = dict(zip(self.slots, enumerate(places), strict=True))
        self.lives: dict[Any, EngineProcess] = {}  # by what is waited for
        atexit.register(self.close)  # before multiprocessing waits for what it has started
        for slot in self.slots:
            self._start(slot)

    @property
    def coming(self) -> int:
        """Engines that load their models."""
        return sum(not life.window for life in self.lives.values())

    def close(self) -> None:
        atexit.unregister(self.close)
        while self.lives:
            self.lives.popitem()[1].end()
        self.logs.cleanup()

    def _start(self, slot: Slot) -> None:
        number, place = self.places[slot]
        life = EngineProcess(slot, number, place, Path(self.logs.name) / f"{number}.log", self.what)
        self.lives[life.connection] = life

    def _look(self) -> list[Event]:
        ready = wait(list(self.lives))
        return [event for connection in ready for event in self._answer(self.lives[connection])]

    def _answer(self, life: EngineProcess) -> list[Event]:
        """What an engine says."""
        answer = life.receive()
        if isinstance(answer, Exception):
            del self.lives[life.connection]
            life.end()
            return self._lose(life, answer, str(answer))
        if isinstance(answer, Opened):
            self.device = answer.device
            return [self._join(life, answer)]
        return self._finish(life, answer)


def run_engine(connection: Connection, log: Path, open_engine: OpenEngine, plan: Plan) -> None:
    """What each process does, until it is killed: take jobs, and give what is finished."""
    with open(log, "wb") as file:
        for descriptor in (1, 2):  # stdout is for results, and several engines would say the same
            os.dup2(file.fileno(), descriptor)
    engine = EngineThread(open_engine)
    try:
        connection.send(engine.open(plan))
        threading.Thread(target=take_jobs, args=(connection, engine), daemon=True).start()
        while True:
            connection.send(engine.pull())
    except Exception as error:
        connection.send(error)


def take_jobs(connection: Connection, engine: EngineThread) -> None:
    with contextlib.suppress(EOFError, OSError):
        while True:
            engine.push(connection.recv())
