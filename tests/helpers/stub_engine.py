"""An engine for replicas that needs no model: the texts of `fake_decoding`, a few at a time.

    python tests/helpers/stub_engine.py generate --ray ADDRESS --run FOLDER ...

VLLM_STUB_DELAY_S is slept for each sample, VLLM_STUB_HOLD is each engine's FAKE_HOLD. A prompt with KILL in it kills
the process that decodes it, one with RAISE raises, and VLLM_STUB_OPEN says what goes wrong when an engine opens:
"error", "user" or "killed".
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from fake_decoding import FakeBackend

from vllm_rast.errors import UserError
from vllm_rast.evaluation.cluster.backend import RayBackend
from vllm_rast.evaluation.runs.decode import Completion, Job

RUNNING = 4  # jobs that it decodes at a time


class StubEngine(FakeBackend):
    """Asks for further jobs while it has some, as vLLM's does."""

    max_running = RUNNING

    def stream(self, jobs: Iterable[Job | None]) -> Iterator[tuple[Job, Completion]]:
        running: list[Job] = []
        source, more = iter(jobs), True
        while more or running:
            while more and len(running) < RUNNING:
                job = next(source, "end")
                if isinstance(job, str):
                    more = False
                elif job is None:
                    break
                else:
                    running.append(job)
            if running:
                job = running.pop(0)
                if "KILL" in job.prompt:
                    os.kill(os.getpid(), signal.SIGKILL)
                if "RAISE" in job.prompt:
                    raise RuntimeError("the engine met RAISE")
                yield self.finish(job)


def open_stub(plan: Any) -> StubEngine:
    fault = os.environ.get("VLLM_STUB_OPEN")
    if fault == "error":
        print("ERROR 11-28 12:00:00 [core.py:1] ValueError: no such kernel", file=sys.stderr)
        raise RuntimeError("Engine core initialization failed. See root cause above.")
    if fault == "user":
        raise UserError("max_model_len: does not fit; lower it")
    if fault == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    return StubEngine(float(os.environ.get("VLLM_STUB_DELAY_S", "0")), os.environ.get("VLLM_STUB_HOLD", ""))


def opener(args: argparse.Namespace) -> Callable[[Any], Any]:
    """What `machines.opener` is, with stub engines on the cluster, and in this process without --ray."""
    if not args.ray:
        return lambda plan: FakeBackend()
    return partial(
        RayBackend, address=args.ray, replicas=args.replicas, replica_cpus=args.replica_cpus, open_engine=open_stub
    )


if __name__ == "__main__":
    from stub_engine import opener as importable  # not of __main__, which another process does not have

    from vllm_rast.cli import machines
    from vllm_rast.cli.main import program

    machines.opener = importable
    sys.exit(program())
