"""How a run scales, by simulation: the real `Pool` in front of simulated replicas, from 1 to 256.

    python scripts/bench/scaling.py --plot docs/scaling.png --json scripts/results/scaling.json [--lengths RUN]

A simulated replica decodes MAX_RUNNING answers at a time; a step takes a constant and a little for each answer, and
makes one token of each. Nothing is measured on it: it has the shape of an engine's decoding. Efficiency is the time of
one replica over N times that of N. What is lost is the tail, in which the last long answers finish.

Lengths: of the answers in a run folder (--lengths), scaled to MEAN tokens, with each problem's own mean; and a
log-normal distribution with the spread of long reasoning. "Longest first" sends the jobs in the order of the mean
length of their problem, as an earlier row or a small sample would tell it; "in order" as `generate` does. "In blocks"
is how ray.data.llm hands out rows: whole batches, the next when the longest answer of one is finished.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import random
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from common.machine import describe, describe_line, say, table, write_json

from vllm_rast.evaluation.runs.decode import Completion, Job
from vllm_rast.evaluation.runs.folder import Key
from vllm_rast.evaluation.runs.pool import Event, Finished, Joined, Pool

MAX_RUNNING = 128
STEP_S = 0.012  # of a step with one answer
ANSWER_S = 0.00008  # more for each answer in it
MEAN = 1200  # tokens of an answer
LONGEST = 16_384  # where answers are cut
PROBLEMS, SAMPLES, ROWS = 1600, 32, 1  # the paper's seven benchmarks, one row
BETWEEN, WITHIN = 0.7, 0.5  # of the logarithm of a length: of problems' means, and of a problem's samples
REPLICAS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
ENOUGH = 0.9
BLOCK, BLOCKS = 32, 8  # rows of a batch and batches of a replica at a time: the defaults of ray.data.llm in Ray 2.60
MARKERS = ("o-", "s--", "^:")


class Replica:
    """Continuous batching. `clock` counts tokens of each running answer, so that an answer ends at a place on it."""

    def __init__(self, crew: SimulatedCrew, lengths: dict[Key, int]):
        self.name, self.window, self.crew, self.lengths = "replica", 2 * MAX_RUNNING, crew, lengths
        self.queue: list[Key] = []
        self.ends: list[tuple[float, Key]] = []
        self.clock = self.time = 0.0  # tokens; seconds

    def send(self, jobs: Sequence[Job]) -> None:
        self.advance(self.crew.now)
        self.queue.extend(job.key for job in reversed(jobs))
        self.fill()

    def fill(self) -> None:
        while self.queue and len(self.ends) < MAX_RUNNING:
            key = self.queue.pop()
            heapq.heappush(self.ends, (self.clock + self.lengths[key], key))
        self.crew.expect(self)

    @property
    def step_s(self) -> float:
        return STEP_S + ANSWER_S * len(self.ends)

    def advance(self, now: float) -> None:
        if self.ends:
            self.clock += (now - self.time) / self.step_s
        self.time = now

    @property
    def next_end(self) -> float:
        return self.time + (self.ends[0][0] - self.clock) * self.step_s if self.ends else math.inf


class SimulatedCrew:
    """Replicas on one simulated clock."""

    coming = 0

    def __init__(self, number: int, lengths: dict[Key, int]):
        self.now = 0.0
        self.replicas = [Replica(self, lengths) for _ in range(number)]
        self.heap: list[tuple[float, int]] = []
        self.places = {id(replica): place for place, replica in enumerate(self.replicas)}
        self.began = False

    def expect(self, replica: Replica) -> None:
        if replica.ends:
            heapq.heappush(self.heap, (replica.next_end, self.places[id(replica)]))

    def events(self) -> Iterable[Event]:
        if not self.began:
            self.began = True
            return [Joined(replica) for replica in self.replicas]
        while True:
            when, place = heapq.heappop(self.heap)
            replica = self.replicas[place]
            if abs(when - replica.next_end) < 1e-6:  # else this was expected before something changed
                break
        self.now = max(self.now, when)
        replica.advance(self.now)
        _, key = heapq.heappop(replica.ends)
        replica.fill()
        return [Finished(replica, key, Completion("", "stop", 0, 0))]

    def close(self) -> None:
        pass


def makespan(number: int, order: Sequence[Key], lengths: dict[Key, int]) -> float:
    """Seconds that so many replicas take."""
    crew = SimulatedCrew(number, lengths)
    jobs = (Job(key, "", 1.0, 0, 1.0, 1.0, LONGEST, ()) for key in order)
    assert sum(1 for _ in Pool(crew).stream(jobs)) == len(order)
    return crew.now


def makespan_in_blocks(number: int, order: Sequence[Key], lengths: dict[Key, int]) -> float:
    """The same, if a replica takes BLOCK jobs together, BLOCKS blocks at a time, the next when all of one are done."""
    crew = SimulatedCrew(number, lengths)
    crew.began = True
    blocks = (order[start : start + BLOCK] for start in range(0, len(order), BLOCK))
    block_of: dict[Key, int] = {}
    left: dict[int, int] = {}

    def give(replica: Replica) -> None:
        block = next(blocks, None)
        if block is not None:
            ident = len(block_of)
            left[ident] = len(block)
            block_of.update(dict.fromkeys(block, ident))
            replica.send([Job(key, "", 1.0, 0, 1.0, 1.0, LONGEST, ()) for key in block])

    for _ in range(BLOCKS):
        for replica in crew.replicas:
            give(replica)
    while left:
        for event in crew.events():
            ident = block_of[event.key]
            left[ident] -= 1
            if not left[ident]:
                del left[ident]
                give(event.worker)
    return crew.now


def log_normal(chance: random.Random) -> dict[Key, int]:
    """Lengths whose problems differ, and whose samples do too; some are cut at LONGEST."""
    lengths = {}
    for problem in range(PROBLEMS):
        own = chance.gauss(math.log(MEAN) - (BETWEEN**2 + WITHIN**2) / 2, BETWEEN)
        for sample in range(SAMPLES * ROWS):
            length = round(math.exp(chance.gauss(own, WITHIN)))
            lengths[Key("b", "r", str(problem), sample)] = min(max(length, 1), LONGEST)
    return lengths


def of_a_run(folder: Path, chance: random.Random) -> dict[Key, int]:
    """As many lengths as `log_normal` has, each drawn from a problem of a run, scaled to the same mean."""
    by_problem: dict[tuple[str, str], list[int]] = {}
    for line in (folder / "samples.jsonl").open():
        record = json.loads(line)
        by_problem.setdefault((record["row"], record["problem"]), []).append(record["tokens"])
    problems = list(by_problem.values())
    scale = MEAN / statistics.mean(length for some in problems for length in some)
    lengths = {}
    for problem in range(PROBLEMS):
        some = chance.choice(problems)
        for sample in range(SAMPLES * ROWS):
            # A little noise: scaled token counts would end in lockstep.
            length = round(chance.choice(some) * scale * chance.uniform(0.95, 1.05))
            lengths[Key("b", "r", str(problem), sample)] = min(max(length, 1), LONGEST)
    return lengths


def longest_first(lengths: dict[Key, int]) -> list[Key]:
    """By the mean length of a problem, which is what can be known before; no sample's own length is used."""
    of_problem: dict[str, list[int]] = {}
    for key, length in lengths.items():
        of_problem.setdefault(key.problem, []).append(length)
    means = {problem: statistics.mean(some) for problem, some in of_problem.items()}
    return sorted(lengths, key=lambda key: -means[key.problem])


def efficiencies(lengths: dict[Key, int], order: Sequence[Key], span: Any = makespan) -> list[float]:
    """Over one replica of the pool's, for each number of REPLICAS."""
    alone = makespan(1, order, lengths)
    times = [span(number, order, lengths) for number in REPLICAS]
    say(", ".join(f"{number}: {time / 60:,.1f} min" for number, time in zip(REPLICAS, times, strict=True)))
    return [alone / (number * time) for number, time in zip(REPLICAS, times, strict=True)]


def first_below(efficiency: Sequence[float]) -> str:
    return next((f"{number}" for number, one in zip(REPLICAS, efficiency, strict=True) if one < ENOUGH), "none")


def plot(results: dict[str, list[float]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4))
    for number, (name, efficiency) in enumerate(results.items()):
        axes.plot(REPLICAS, efficiency, MARKERS[number % len(MARKERS)], label=name, color=f"C{number // len(MARKERS)}")
    axes.axhline(ENOUGH, color="grey", linewidth=0.8)
    axes.set(xscale="log", xticks=REPLICAS, xticklabels=REPLICAS, ylim=(0, 1.05))
    axes.set(xlabel="replicas", ylabel="efficiency", title=f"{PROBLEMS * SAMPLES * ROWS:,} samples (simulated)")
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=Path, metavar="RUN", help="a run folder whose answers' lengths are used, too")
    parser.add_argument("--plot", type=Path, metavar="FILE")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    machine = describe("cpu")
    print(describe_line(machine))
    kinds: dict[str, Any] = {"log-normal": log_normal(random.Random(1))}
    if options.lengths:
        kinds["measured"] = of_a_run(options.lengths, random.Random(1))
    results = {}
    for kind, lengths in kinds.items():
        say(f"{kind}: mean {statistics.mean(lengths.values()):,.0f} tokens, longest {max(lengths.values()):,}")
        results[f"{kind}, in order"] = efficiencies(lengths, list(lengths))
        results[f"{kind}, longest first"] = efficiencies(lengths, longest_first(lengths))
        results[f"{kind}, in blocks"] = efficiencies(lengths, list(lengths), makespan_in_blocks)
    header = ["lengths, order", *map(str, REPLICAS), f"first below {ENOUGH:.0%}"]
    print(table(header, [[name, *(f"{one:.3f}" for one in some), first_below(some)] for name, some in results.items()]))
    if options.plot:
        plot(results, options.plot)
    write_json(options.json, "scaling", machine, replicas=REPLICAS, samples=PROBLEMS * SAMPLES * ROWS, results=results)


if __name__ == "__main__":
    main()
