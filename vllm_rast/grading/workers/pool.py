"""Killable workers, started when the first pair needs one."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any, NamedTuple

WORKER = Path(__file__).with_name("worker.py")
START_S = 60.0  # for a worker to import math-verify, on a machine that is busy
MAX_LINE = 1 << 16  # bytes; a worker that says more has gone wrong


class Result(NamedTuple):
    """correct; status ok, timeout or error; what went wrong; milliseconds in the worker."""

    correct: bool
    status: str
    detail: str
    ms: float


def _last_message(line: bytes) -> dict[str, Any] | None:
    """What a line says. A child that was killed as it spoke leaves the beginning of another message before it."""
    for start in (0, line.rfind(b'{"')):
        try:
            message = json.loads(line[max(start, 0) :])
        except ValueError:
            continue
        return message if isinstance(message, dict) else None
    return None


class _Worker:
    """One worker (see worker.py), the child that does its work, and the pair it has, if any."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(WORKER)],  # -P: its folder does not shadow the standard library
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"},
            start_new_session=True,  # a Ctrl-C is for the parent, which ends its workers itself
        )
        self.child: int | None = None  # None: not ready
        self.ticket: int | None = None
        self.started = time.monotonic()
        self.buffer = b""

    def send(self, ticket: int, gold: str, answer: str, seconds: float) -> None:
        assert self.process.stdin
        line = json.dumps({"gold": gold, "answer": answer, "seconds": seconds}) + "\n"
        self.ticket, self.started = ticket, time.monotonic()
        self.process.stdin.write(line.encode())
        self.process.stdin.flush()

    def kill_child(self) -> None:
        if self.child is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.child, signal.SIGKILL)
        self.child, self.started = None, time.monotonic()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                if stream:
                    stream.close()


class Pool:
    """Compares pairs in workers. A pair that exceeds its time is given up and its worker's child replaced."""

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

    def poll(self) -> None:
        """Take in results that are there, without waiting."""
        if self.workers:
            self._turn(0)

    def result(self, ticket: int) -> Result:
        """The result of a pair; waits for it."""
        while ticket not in self.results:
            self._turn(0.05)
        return self.results.pop(ticket)

    def close(self) -> None:
        """End all workers."""
        for worker in list(self.workers):
            self._drop(worker)
        self.waiting.clear()
        self.selector.close()

    def _feed(self) -> None:
        """Give waiting pairs to idle workers, and start workers while there are more pairs than workers."""
        for worker in [w for w in self.workers if w.child is not None and w.ticket is None]:
            if not self.waiting:
                return
            ticket, gold, answer = self.waiting.popleft()
            try:
                worker.send(ticket, gold, answer, self.timeout_s)
            except OSError:  # it died between pairs
                self.waiting.appendleft((ticket, gold, answer))
                self._drop(worker)
        starting = sum(w.child is None for w in self.workers)
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
                self._finish(worker, False, "timeout", f"{self.timeout_s:g} s")
                worker.kill_child()
            elif worker.child is None and now - worker.started > START_S:
                self._died(worker)
        self._feed()

    def _read(self, worker: _Worker) -> None:
        assert worker.process.stdout
        chunk = os.read(worker.process.stdout.fileno(), MAX_LINE)
        worker.buffer += chunk
        if not chunk or len(worker.buffer) > MAX_LINE:
            self._died(worker)
            return
        while b"\n" in worker.buffer:
            line, _, worker.buffer = worker.buffer.partition(b"\n")
            message = _last_message(line)
            if message is not None:
                self._said(worker, message)

    def _said(self, worker: _Worker, message: dict[str, Any]) -> None:
        if "ready" in message:
            if worker.ticket is not None:  # the child before died on its pair
                self._finish(worker, False, "error", "worker died")
            worker.child, self.failures = message["ready"], 0
        elif worker.child is None or worker.ticket is None:
            pass  # the last word of a child that was killed as it spoke
        elif "error" in message:
            self._finish(worker, False, "error", message["error"])
        else:
            self._finish(worker, message["correct"], "ok", "")

    def _died(self, worker: _Worker) -> None:
        """A worker that ended by itself, with its child, or does not start."""
        if worker.ticket is not None:
            self._finish(worker, False, "error", "worker died")
        elif worker.child is None:
            self.failures += 1
        self._drop(worker)
        if self.failures > self.size:
            raise RuntimeError(f"no grading worker starts: run `{sys.executable} -c 'import math_verify'` to see why")

    def _finish(self, worker: _Worker, correct: bool, status: str, detail: str) -> None:
        assert worker.ticket is not None
        ms = 1000 * (time.monotonic() - worker.started)
        self.results[worker.ticket] = Result(correct, status, detail, ms)
        worker.ticket = None

    def _drop(self, worker: _Worker) -> None:
        self.selector.unregister(worker.process.stdout)  # type: ignore[arg-type]
        self.workers.remove(worker)
        worker.kill()
