"""What the dispatcher costs: 100,000 jobs through `Pool` with engines replaced by stubs.

    python scripts/bench/dispatcher.py                 the pool alone: jobs per second and memory by number of workers
    python scripts/bench/dispatcher.py --ray local     through Ray's actors: jobs per second, and how long replicas wait
    python scripts/bench/dispatcher.py --processes     through processes of this machine: the same

A stub replica decodes RUNNING jobs at a time and sleeps STEP_S for each step, as an engine would compute; an answer
takes as many steps as --steps says (of a real answer there are hundreds). Its share of waiting is the time in which it
had no job at all, over the time from its first job to its last.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from common.machine import describe, describe_line, positive, say, table, write_json

from vllm_rast.evaluation.runs.decode import Completion, Job
from vllm_rast.evaluation.runs.folder import Key
from vllm_rast.evaluation.runs.pool import Finished, Joined, Pool

RUNNING = 128
STEP_S = 0.025
STEPS = (2, 18)  # shortest and longest answer
WORKERS = (1, 8, 64, 256)
PROMPT = "Question:\n" + "What is the sum of the two numbers? " * 20


def jobs(number: int) -> Iterator[Job]:
    for index in range(number):
        yield Job(Key("bench", "rast", str(index // 32), index % 32), PROMPT, 1.0, index, 1.0, 0.95, 16384, ())


class Instant:
    """A worker that has done at once what it is given."""

    def __init__(self, window: int):
        self.name, self.window = "instant", window
        self.given: list[Job] = []

    def send(self, given: Any) -> None:
        self.given.extend(given)


class InstantCrew:
    """Workers that finish half of what they have, in turns."""

    coming = 0

    def __init__(self, number: int):
        self.workers = [Instant(2 * RUNNING) for _ in range(number)]
        self.turn = -1

    def events(self) -> Iterable[Any]:
        self.turn += 1
        if self.turn == 0:
            return [Joined(worker) for worker in self.workers]
        worker = self.workers[self.turn % len(self.workers)]
        half = (len(worker.given) + 1) // 2
        done, worker.given = worker.given[:half], worker.given[half:]
        return [Finished(worker, one.key, Completion("text", "stop", 1, 1)) for one in done]

    def close(self) -> None:
        pass


class StubEngine:
    """An engine whose steps are sleeps. Each text carries the seconds it has waited and lived so far."""

    device, max_running = "a stub", RUNNING

    def __init__(self, steps: tuple[int, int]):
        self.steps = steps

    def stream(self, source: Iterable[Job | None]) -> Iterator[tuple[Job, Completion]]:
        running: list[tuple[int, Job]] = []
        waited, first, step, more = 0.0, 0.0, 0, True
        pending = iter(source)
        while more or running:
            while more and len(running) < RUNNING:
                began = time.monotonic()
                job = next(pending, "end")
                if not running and first:
                    waited += time.monotonic() - began
                first = first or time.monotonic()
                if isinstance(job, str):
                    more = False
                elif job is None:
                    break
                else:
                    running.append((step + random.Random(job.seed).randint(*self.steps), job))
            if not running:
                continue
            time.sleep(STEP_S)
            step += 1
            for _, job in [one for one in running if one[0] <= step]:
                yield job, Completion(f"{os.getpid()} {waited} {time.monotonic() - first}", "stop", 1, 1)
            running = [one for one in running if one[0] > step]


def open_stub(steps: tuple[int, int], plan: Any) -> StubEngine:
    return StubEngine(steps)


def pool_alone(number: int, workers: int) -> dict[str, float]:
    """Jobs per second, and how many MB the process grew by."""
    before, began = resident(), time.perf_counter()
    done = sum(1 for _ in Pool(InstantCrew(workers)).stream(jobs(number)))
    assert done == number
    return {"workers": workers, "jobs_per_s": number / (time.perf_counter() - began), "grew_mb": resident() - before}


def open_backend(address: str | None, replicas: int, steps: tuple[int, int]) -> Any:
    """Stubs as replicas: on a Ray cluster, or as processes of this machine."""
    import dispatcher  # as a module that replicas can import, which __main__ is not

    from vllm_rast.evaluation.runs.plan import Plan
    from vllm_rast.mix.config import RastConfig

    open_engine = partial(dispatcher.open_stub, steps)
    plan = Plan(RastConfig("tiny:base"), rows=[], tasks=[], n=1, engine={"data_parallel_size": replicas})
    if address is None:
        from vllm_rast.evaluation.runs.processes import ProcessesBackend

        return ProcessesBackend(plan, open_engine)
    from vllm_rast.evaluation.cluster.backend import RayBackend

    return RayBackend(plan.for_one_engine(), address, replicas, open_engine=open_engine)


def through_replicas(number: int, backend: Any, replicas: int, steps: tuple[int, int]) -> dict[str, Any]:
    """Jobs per second of all replicas, and the share of its time that each waited."""
    last: dict[str, tuple[float, float]] = {}
    began = time.perf_counter()
    for done, (_, completion) in enumerate(backend.stream(jobs(number)), 1):
        process, waited, lived = completion.text.split()
        last[process] = max(last.get(process, (0.0, 0.0)), (float(waited), float(lived)))
        if done % 10_000 == 0:
            say(f"{done:,} jobs, {resident():.0f} MB")
    seconds = time.perf_counter() - began
    waits = [waited / lived for waited, lived in last.values()]
    ideal = replicas * RUNNING / (STEP_S * (sum(steps) / 2))
    return {
        "replicas": replicas,
        "jobs_per_s": number / seconds,
        "of_the_stubs_own": number / seconds / ideal,
        "waits": waits,
    }


def resident() -> float:
    """The most MB that this process has had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=positive, default=100_000)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--ray", metavar="auto|local|ADDRESS")
    where.add_argument("--processes", action="store_true")
    parser.add_argument("--replicas", type=positive, default=2)
    parser.add_argument("--steps", type=positive, nargs=2, default=STEPS, metavar=("LEAST", "MOST"))
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    machine = describe("cpu")
    print(describe_line(machine))
    if options.ray or options.processes:
        here = str(Path(__file__).parent)
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
        backend = open_backend(options.ray, options.replicas, tuple(options.steps))
        result = through_replicas(options.jobs, backend, options.replicas, tuple(options.steps))
        waits = ", ".join(f"{share:.2%}" for share in result["waits"])
        share = result["of_the_stubs_own"]
        print(f"{result['jobs_per_s']:,.0f} jobs/s, {share:.1%} of what the stubs do; waiting: {waits}")
        kind = "dispatcher-ray" if options.ray else "dispatcher-processes"
        return write_json(options.json, kind, machine, jobs=options.jobs, steps=options.steps, result=result)
    pool_alone(options.jobs // 10, WORKERS[-1])  # what grows once has grown
    results = [pool_alone(options.jobs, workers) for workers in WORKERS]
    rows = [[f"{one['workers']:.0f}", f"{one['jobs_per_s']:,.0f}", f"{one['grew_mb']:.1f}"] for one in results]
    print(table(["workers", "jobs/s", "MB grown"], rows))
    write_json(options.json, "dispatcher", machine, jobs=options.jobs, results=results)


if __name__ == "__main__":
    main()
