"""Replicas of a run, wherever they are: one that is lost is started again, until it is plain that it is of no use."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

from vllm_rast.errors import UserError
from vllm_rast.evaluation.runs.decode import Completion, Job
from vllm_rast.evaluation.runs.engine_thread import Opened
from vllm_rast.evaluation.runs.folder import Key
from vllm_rast.evaluation.runs.jsonl import RunError
from vllm_rast.evaluation.runs.pool import Event, Finished, Joined, Lost, say

MAX_RESTARTS = 3  # of a replica, in a row, without one finished sample in between
QUEUED = 2  # jobs that a replica has, for each that its engine decodes: the next one is there when one ends


class Slot:
    """A place for a replica. failures: lives in a row that ended without one finished sample."""

    def __init__(self) -> None:
        self.failures = 0


class Life(ABC):
    """One replica from its start to its end: the pool's worker. If it is lost, its slot gets another one."""

    def __init__(self, slot: Slot):
        self.slot = slot
        self.host = ""
        self.window = 0  # until its engine is open

    @property
    @abstractmethod
    def name(self) -> str: ...

    @abstractmethod
    def send(self, jobs: Sequence[Job]) -> None: ...


class LivesCrew(ABC):
    """Replicas as workers of a pool."""

    def __init__(self) -> None:
        self.slots: list[Slot] = []
        self.joined = 0  # lives that have, ever
        self.early: list[Event] = []

    @abstractmethod
    def _start(self, slot: Slot) -> None:
        """Begin a life."""

    @abstractmethod
    def _look(self) -> list[Event]:
        """What has happened since the last look, perhaps nothing."""

    def wait_for_first(self) -> None:
        """Wait until a replica is up. Raises UserError or RunError if none can start."""
        while not self.joined:
            self.early.extend(self._look())

    def events(self) -> Iterable[Event]:
        early, self.early = self.early, []
        while not early:
            early = self._look()
        return early

    def _join(self, life: Life, opened: Opened) -> Event:
        life.window = QUEUED * opened.max_running
        self.joined += 1
        return Joined(life)

    def _finish(self, life: Life, finished: Iterable[tuple[Key, Completion]]) -> list[Event]:
        """A life has made samples, so that its slot is of use."""
        life.slot.failures = 0
        return [Finished(life, key, completion) for key, completion in finished]

    def _lose(self, life: Life, error: Exception, reason: str, blameless: bool = False) -> list[Event]:
        """After the end of a life, or of its engine: begin another one, unless its slot has had too many."""
        opened = life.window > 0
        if isinstance(error, UserError) and (opened or not self.joined):
            where = f"{life.host}: " if life.host and not opened else ""  # else it is about a job, wherever it was
            raise UserError(f"{where}{reason}") from error
        life.slot.failures += 1
        if not opened:
            say(f"{life.name} did not start: {reason}")
        if life.slot.failures > MAX_RESTARTS:
            self.slots.remove(life.slot)
            say(f"{life.name} is given up: it ended {MAX_RESTARTS + 1} times without a finished sample")
        if not self.slots or (not self.joined and all(slot.failures for slot in self.slots)):
            raise RunError(f"{life.name}: {reason}" if opened else f"{life.name} did not start: {reason}") from error
        if life.slot in self.slots:
            self._start(life.slot)
        return [Lost(life, reason, blameless)] if opened else []
