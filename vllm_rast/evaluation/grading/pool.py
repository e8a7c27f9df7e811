"""Killable worker processes, started when the first pair needs one."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any, NamedTuple

WORKER = Path(__file__).with_name("worker.py")
START_S = 60.0  # for a worker to import math-verify, on a machine that is busy
PAIRS_PER_WORKER = 1000  # then it is replaced: sympy's caches only grow
MAX_LINE = 1 << 20  # bytes of an answer; a worker that says more has gone wrong


class Result(NamedTuple):
    """correct; status ok, timeout or error; what went wrong; milliseconds in the worker."""

    correct: bool
    status: str
    detail: str
    ms: float


class _Worker:
    """One process and the pair it has, if any."""

    def __init__(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"}
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(WORKER)],  # -P: its folder does not shadow the standard library
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,  # a Ctrl-C is for the parent, which ends its workers itself
        )
        self.ready = False
        self.ticket: int | None = None
        self.started = time.monotonic()
        self.done = 0
        self.buffer = b""

    def send(self, ticket: int, gold: str, answer: str, seconds: float) -> None:
        assert self.process.stdin
        line = json.dumps({"gold": gold, "answer": answer, "seconds": seconds}) + "\n"
        self.ticket, self.started = ticket, time.monotonic()
        self.process.stdin.write(line.encode())
        self.process.stdin.flush()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                if stream:
                    stream.close()


class Pool:
    """Compares pairs in worker processes. A pair that exceeds its time is given up and its worker replaced."""

    def __init__(self, workers: int, timeout_s: float):
        self.size, self.timeout_s = workers, timeout_s
        self.workers: list[_Worker] = []
        self.waiting: deque[tuple[int, str, str]] = deque()
        self.results: dict[int, Result] = {}
        self.tickets = 0
        self.failures = 0  # workers in a row that never got ready
        self.selector = selectors.DefaultSelector()

    def submit(self, gold: str, answer: str) -> int:
        """Queue a pair; returns the ticket of its result."""
        self.tickets += 1
        self.waiting.append((self.tickets, gold, answer))
        self._feed()
        return self.tickets

    def result(self, ticket: int, wait: bool) -> Result | None:
        """The result of a pair, None while there is none (never with `wait`)."""
        while ticket not in self.results:
            self._turn(0.05 if wait else 0)
            if not wait:
                break
        return self.results.pop(ticket, None)

    def close(self) -> None:
        """End all workers."""
        for worker in list(self.workers):
            self._drop(worker)
        self.waiting.clear()
        self.selector.close()

    def _feed(self) -> None:
        """Give waiting pairs to idle workers, and start workers while there are more pairs than workers."""
        for worker in [w for w in self.workers if w.ready and w.ticket is None]:
            if not self.waiting:
                return
            ticket, gold, answer = self.waiting.popleft()
            try:
                worker.send(ticket, gold, answer, self.timeout_s)
            except OSError:  # it died between pairs
                self.waiting.appendleft((ticket, gold, answer))
                self._drop(worker)
        starting = sum(not w.ready for w in self.workers)
        while len(self.workers) < self.size and starting < len(self.waiting):
            worker = _Worker()
            self.workers.append(worker)
            self.selector.register(worker.process.stdout, selectors.EVENT_READ, worker)  # type: ignore[arg-type]
            starting += 1

    def _turn(self, wait_s: float) -> None:
        """Take in what workers have said, give up what is late, feed."""
        for key, _ in self.selector.select(wait_s):
            self._read(key.data)
        now = time.monotonic()
        for worker in list(self.workers):
            if worker.ticket is not None and now - worker.started > self.timeout_s:
                self._finish(worker, Result(False, "timeout", f"{self.timeout_s:g} s", 1000 * (now - worker.started)))
                self._drop(worker)
            elif not worker.ready and now - worker.started > START_S:
                self._died(worker)
        self._feed()

    def _read(self, worker: _Worker) -> None:
        assert worker.process.stdout
        chunk = os.read(worker.process.stdout.fileno(), 1 << 16)
        worker.buffer += chunk
        if not chunk or len(worker.buffer) > MAX_LINE:
            self._died(worker)
            return
        while b"\n" in worker.buffer:
            line, _, worker.buffer = worker.buffer.partition(b"\n")
            self._said(worker, json.loads(line))

    def _said(self, worker: _Worker, message: dict[str, Any]) -> None:
        if message.get("ready"):
            worker.ready, self.failures = True, 0
            return
        ms = 1000 * (time.monotonic() - worker.started)
        if "error" in message:
            self._finish(worker, Result(False, "error", message["error"], ms))
        else:
            self._finish(worker, Result(message["correct"], "ok", "", ms))
        if worker.done >= PAIRS_PER_WORKER or message.get("error") == "out of memory":
            self._drop(worker)

    def _died(self, worker: _Worker) -> None:
        """A worker that ended by itself: over a limit, or unable to start."""
        if worker.ticket is not None:
            ms = 1000 * (time.monotonic() - worker.started)
            self._finish(worker, Result(False, "error", "worker died", ms))
        elif not worker.ready:
            self.failures += 1
        self._drop(worker)
        if self.failures > self.size:
            raise RuntimeError(f"no grading worker starts: run `{sys.executable} -c 'import math_verify'` to see why")

    def _finish(self, worker: _Worker, result: Result) -> None:
        assert worker.ticket is not None
        self.results[worker.ticket] = result
        worker.ticket = None
        worker.done += 1

    def _drop(self, worker: _Worker) -> None:
        self.selector.unregister(worker.process.stdout)  # type: ignore[arg-type]
        self.workers.remove(worker)
        worker.kill()
