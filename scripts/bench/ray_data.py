"""The same answers through Ray Data and through our actors: the tail, and what a killed engine costs.

    python scripts/bench/ray_data.py --json scripts/results/ray-data-2-cores.json --lengths RUN
    python scripts/bench/ray_data.py --in-flight 128 --batches 8 32 --tail-only --lengths RUN

Engines are stubs that sleep: REPLICAS of RUNNING answers at a time, each of which takes TOKEN_S for each of its tokens,
with the lengths of scripts/bench/scaling.py: a long tail, and those of a run folder (--lengths). Ray Data gets an actor
pool and an asynchronous function, as ray.data.llm has them: batches of so many rows, and so many of them at a time that
an actor has IN_FLIGHT rows. Blocks are as large as batches, and come in any order. Ours have 2 * RUNNING.

  time      from the first answer's begin to when the driver has the last, over what all places busy would take
  idle      the share of all places' time without an answer
  tail      seconds from when the first replica has no answer left to the end
  held      mean seconds from when an answer is finished to when the driver has it, which a killed driver would lose
  again     answers that were begun more than once, and of them finished ones, after one process was killed half way
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from common.machine import describe, describe_line, positive, say, table, write_json
from common.timed_engine import Timed, TimedBatches, counted, open_timed
from scaling import log_normal, of_a_run

from vllm_rast.evaluation.cluster.connect import passed_on
from vllm_rast.evaluation.runs.decode import Completion, Job
from vllm_rast.evaluation.runs.folder import Key

REPLICAS, RUNNING, JOBS, TOKEN_S = 4, 64, 6400, 0.0025
IN_FLIGHT = 256  # rows in an actor: 8 batches of 32, the default of ray.data.llm
BATCHES = (1, 8, 32)
SEED = 1


class Answer(NamedTuple):
    """What the driver gets, and when."""

    number: int
    process: int
    began: float
    ended: float
    arrived: float


Way = Callable[[Timed, list[Job]], Iterator[Answer]]


def jobs(lengths: dict[Key, int], number: int) -> list[Job]:
    """Jobs in the order of `generate`, problem by problem: `max_tokens` is an answer's length, `seed` its number."""
    some = list(lengths.items())[:number]
    return [Job(key, "prompt", 1.0, place, 1.0, 1.0, length, ()) for place, (key, length) in enumerate(some)]


def through_actors(timed: Timed, some: list[Job]) -> Iterator[Answer]:
    from vllm_rast.evaluation.cluster.backend import RayBackend
    from vllm_rast.evaluation.runs.plan import Plan
    from vllm_rast.mix.config import RastConfig

    plan = Plan(RastConfig("tiny:base"), rows=[], tasks=[], n=1)
    backend = RayBackend(plan, "local", REPLICAS, open_engine=partial(open_timed, timed))
    for job, completion in backend.stream(iter(some)):
        assert isinstance(completion, Completion)
        yield arrived(job.seed, completion.text)


def through_ray_data(batch: int, in_flight: int, timed: Timed, some: list[Job]) -> Iterator[Answer]:
    import ray

    rows = [{"number": job.seed, "tokens": job.max_tokens} for job in some]
    answers = ray.data.from_items(rows, override_num_blocks=-(-len(rows) // batch)).map_batches(
        TimedBatches,
        fn_constructor_args=(timed,),
        batch_size=batch,
        compute=ray.data.ActorPoolStrategy(size=REPLICAS),
        max_concurrency=max(1, in_flight // batch),
        num_cpus=1,
    )
    for block in answers.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=0):
        for number, text in zip(block["number"], block["text"], strict=True):
            yield arrived(int(number), str(text))


def arrived(number: int, text: str) -> Answer:
    process, began, ended = text.split()
    return Answer(number, int(process), float(began), float(ended), time.monotonic())


def measure(way: Way, timed: Timed, some: list[Job]) -> dict[str, float]:
    """The tail of one way."""
    Path(timed.log).write_text("")
    answers = list(way(timed, some))
    check(answers, some)
    first, last = min(one.began for one in answers), max(one.arrived for one in answers)
    ideal = sum(job.max_tokens for job in some) * timed.token_s / (REPLICAS * RUNNING)
    ends: dict[int, float] = {}
    for one in answers:
        ends[one.process] = max(ends.get(one.process, 0.0), one.ended)
    return {
        "seconds": last - first,
        "over_ideal": (last - first) / ideal,
        "idle": 1 - ideal / (last - first),
        "tail_s": last - min(ends.values()),
        "held_s": statistics.mean(one.arrived - one.ended for one in answers),
    }


def killed(way: Way, timed: Timed, some: list[Job]) -> dict[str, float]:
    """One engine's process is killed when half of the answers are there."""
    Path(timed.log).write_text("")
    answers = []
    for answer in way(timed, some):
        answers.append(answer)
        if len(answers) == len(some) // 2:
            os.kill(answer.process, signal.SIGKILL)
    begun, ended = (counted(Path(timed.log), what) for what in ("begun", "ended"))
    numbers = Counter(one.number for one in answers)
    return {
        "seconds": max(one.arrived for one in answers) - min(one.began for one in answers),
        "begun_again": begun - len(some),
        "finished_again": ended - len(some),
        "lost": len(some) - len(numbers),
        "twice": sum(numbers.values()) - len(numbers),
    }


def check(answers: Iterable[Answer], some: list[Job]) -> None:
    assert sorted(one.number for one in answers) == [job.seed for job in some]


def start_ray() -> None:
    """A cluster of this machine with a core for each replica, whatever the machine has: they sleep."""
    import ray

    here = str(Path(__file__).parent)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(
        address="local",
        num_cpus=REPLICAS + 2,
        include_dashboard=False,
        object_store_memory=512 << 20,
        runtime_env={"env_vars": passed_on()},
        log_to_driver=False,
        logging_level="ERROR",
    )
    import ray.data

    ray.data.DataContext.get_current().enable_progress_bars = False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=positive, default=JOBS)
    parser.add_argument("--lengths", type=Path, metavar="RUN", help="a run folder whose answers' lengths are used, too")
    parser.add_argument("--batches", type=positive, nargs="+", default=BATCHES)
    parser.add_argument("--in-flight", type=positive, default=IN_FLIGHT, metavar="ROWS", help="default: %(default)s")
    parser.add_argument("--tail-only", action="store_true", help="kill nothing")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    machine = describe("cpu")
    print(describe_line(machine))
    start_ray()
    some = jobs(log_normal(random.Random(SEED)), options.jobs)
    other = jobs(of_a_run(options.lengths, random.Random(SEED)), options.jobs) if options.lengths else []
    ways: dict[str, Way] = {"our actors": through_actors}
    ways |= {
        f"Ray Data, batches of {size}": partial(through_ray_data, size, options.in_flight) for size in options.batches
    }
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        timed = Timed(RUNNING, TOKEN_S, str(Path(folder) / "log"), REPLICAS)
        for name, way in ways.items():
            results[name] = measure(way, timed, some)
            if not options.tail_only:
                results[name]["killed"] = killed(way, timed, some[: len(some) // 2])
            if other:
                results[name]["measured"] = measure(way, timed, other)
            say(f"{name}: {results[name]}")
    print(table(HEADER, [row(name, one) for name, one in results.items()]))
    size = {"replicas": REPLICAS, "running": RUNNING, "jobs": options.jobs, "token_s": TOKEN_S}
    size["in_flight"] = options.in_flight
    write_json(options.json, "ray-data", machine, **size, results=results)


HEADER = ["", "time", "idle", "tail s", "held s", "time, measured", "begun again", "finished again", "lost", "twice"]


def row(name: str, one: dict[str, Any]) -> list[str]:
    shown = [f"{one['over_ideal']:.3f}", f"{one['idle']:.1%}", f"{one['tail_s']:.1f}", f"{one['held_s']:.2f}"]
    shown += [f"{one['measured']['over_ideal']:.3f}" if "measured" in one else ""]
    if "killed" in one:
        shown += [f"{one['killed'][what]:.0f}" for what in ("begun_again", "finished_again", "lost", "twice")]
    return [name, *shown, *[""] * (len(HEADER) - 1 - len(shown))]


if __name__ == "__main__":
    main()
