"""`vllm-rast` with a backend that needs no model: texts follow from the seed, the row and the prompt.

    python tests/helpers/fake_decoding.py generate --run FOLDER ...

FAKE_HOLD=N:FILE makes N samples and goes on once the file is there, so that what a test does in the middle of a run
is in its middle. FAKE_MAX_BYTES limits the size of any file (as a full disk does).
"""

from __future__ import annotations

import hashlib
import os
import random
import resource
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from vllm_rast.evaluation.runs import backends
from vllm_rast.evaluation.runs.decode import Completion, Job

WINDOW = 16  # jobs that are under way at a time


def fake_text(job: Job) -> str:
    words = repr((job.prompt, job.alpha, job.seed, job.temperature, job.top_p, job.max_tokens))
    digest = hashlib.sha256(words.encode()).hexdigest()
    return f"step\n\u2028 {digest} \\boxed{{{int(digest, 16) % 10}}}"


class FakeBackend:
    device = "none"
    rows_apart = False
    tokenizer = None

    def __init__(self, delay_s: float = 0.0, hold: str = ""):
        self.delay_s = delay_s
        after, _, until = hold.partition(":")
        self.hold_after, self.hold_until = float(after or "inf"), Path(until)
        self.made: list[Job] = []
        self.hosts = {"here": self.device}

    def stream(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Completion]]:
        running: list[Job] = []
        order = random.Random(os.getpid())  # another order every time, as in an engine
        for job in jobs:
            running.append(job)
            if len(running) == WINDOW:
                yield self.finish(running.pop(order.randrange(WINDOW)))
        order.shuffle(running)
        yield from map(self.finish, running)

    def finish(self, job: Job) -> tuple[Job, Completion]:
        time.sleep(self.delay_s)
        while len(self.made) >= self.hold_after and not self.hold_until.exists():
            time.sleep(0.01)
        self.made.append(job)
        return job, Completion(fake_text(job), "stop", len(job.prompt), 7)


if __name__ == "__main__":
    from vllm_rast.cli.main import main

    if limit := int(os.environ.get("FAKE_MAX_BYTES", "0")):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    backends.open_backend = lambda plan: FakeBackend(hold=os.environ.get("FAKE_HOLD", ""))
    sys.exit(main())
