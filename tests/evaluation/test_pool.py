"""The dispatcher: nothing is lost, nothing counts twice, and no worker holds more than it should."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice

import pytest
from stub_crew import StubCrew, StubWorker, completion, job

from vllm_rast.evaluation.runs.decode import Failure, Job
from vllm_rast.evaluation.runs.jsonl import RunError
from vllm_rast.evaluation.runs.pool import Joined, Pool, Refused


def run(crew: StubCrew, number: int) -> dict[str, object]:
    """{problem: what came of it}; no job comes twice."""
    results = list(Pool(crew).stream(map(job, range(number))))
    assert Counter(one.key.problem for one, _ in results).most_common(1)[0][1] == 1
    assert crew.closed
    return {one.key.problem: result for one, result in results}


def expected(number: int) -> dict[str, object]:
    return {str(index): completion(job(index)) for index in range(number)}


@pytest.mark.parametrize("windows", [[1], [4], [3, 1, 7], [8] * 20])
@pytest.mark.parametrize("number", [0, 1, 5, 300])
def test_every_job_once(windows: list[int], number: int) -> None:
    if number:
        assert run(StubCrew(windows), number) == expected(number)
    else:
        assert list(Pool(StubCrew(windows)).stream([])) == []


@pytest.mark.parametrize("seed", range(20))
def test_lost_workers(seed: int) -> None:
    """Killed at random, some with their whole machine; what they say late, and what is said twice, is dropped."""

    def fault(crew: StubCrew, worker: StubWorker) -> None:
        if crew.random.random() < 0.03 and crew.made < 30:
            crew.lose(worker, blameless=crew.random.random() < 0.5)

    results = run(StubCrew([4, 6, 3], seed, fault), 400)
    failed = {name for name, result in results.items() if isinstance(result, Failure)}
    # A job may be alone on two workers that are killed for other reasons; that is recorded, and never silent.
    assert len(failed) <= 4
    assert {name: result for name, result in results.items() if name not in failed} == {
        name: result for name, result in expected(400).items() if name not in failed
    }


@pytest.mark.parametrize("windows", [[4], [64], [512, 512], [16] * 5])
def test_a_job_that_kills_is_given_up_and_no_other(windows: list[int]) -> None:
    bad = {"17", "150", "151"}

    def fault(crew: StubCrew, worker: StubWorker) -> None:
        if any(one.key.problem in bad for one in worker.jobs):
            crew.lose(worker)

    crew = StubCrew(windows, fault=fault)
    results = run(crew, 1200)
    failed = {name: result for name, result in results.items() if isinstance(result, Failure)}
    assert failed.keys() == bad
    assert all(result.tries >= 2 and result.reason == "killed" for result in failed.values())
    assert {name: result for name, result in results.items() if name not in bad} == {
        name: result for name, result in expected(1200).items() if name not in bad
    }
    assert crew.made - len(windows) <= 5 * len(bad), "the windows shrink eightfold each time"


def test_a_refused_job_is_tried_once_more() -> None:
    class Refusing(StubCrew):
        refused = 0

        def events(self) -> list[object]:
            events = list(super().events())
            for place, event in enumerate(events):
                if not isinstance(event, Joined) and event.key.problem in ("3", "5"):
                    if event.key.problem == "3" or not self.refused:
                        events[place] = Refused(event.worker, event.key, "HTTP 500")
                    self.refused += event.key.problem == "5"
            return events

    crew = Refusing([4, 4])
    results = run(crew, 40)
    assert results.pop("3") == Failure("HTTP 500", 2)
    assert results == {name: result for name, result in expected(40).items() if name != "3"}


def test_without_workers_it_ends() -> None:
    def fault(crew: StubCrew, worker: StubWorker) -> None:
        crew.lose(worker, blameless=True)

    crew = StubCrew([4, 4], fault=fault, restarts=3)
    with pytest.raises(RunError, match="no worker is left"):
        list(Pool(crew).stream(map(job, range(50))))
    assert crew.closed


def test_a_worker_that_joins_late_gets_jobs() -> None:
    def fault(crew: StubCrew, worker: StubWorker) -> None:
        if crew.made == 1 and worker.most:
            crew.join(4)

    crew = StubCrew([4], fault=fault)
    assert run(crew, 100) == expected(100)
    assert crew.workers[1].most == 4


def test_jobs_are_taken_as_needed() -> None:
    """Never more than the windows, twice: what is held, and what is looked ahead."""
    taken = 0

    def source() -> Iterator[Job]:
        nonlocal taken
        for index in range(10_000):
            taken += 1
            yield job(index)

    results = Pool(StubCrew([8, 8])).stream(source())
    for done, _ in enumerate(islice(results, 2000)):
        assert taken <= done + 2 * 16 + 2
    results.close()


def test_at_the_end_all_hold_as_many() -> None:
    """No worker keeps a queue while another has nothing to do, and one that is about to come is counted in."""
    crew = StubCrew([100, 100, 100, 100])
    pool = Pool(crew)
    spread = []
    for done, _ in enumerate(pool.stream(map(job, range(200))), 1):
        if done <= 100:
            spread.append([len(held) for held in pool.held.values()])
    assert all(most <= 50 for most in map(max, spread))
    assert min(spread[0]) >= 49
    crew = StubCrew([100])
    crew.coming = 3
    results = Pool(crew).stream(map(job, range(200)))
    next(results)
    assert crew.workers[0].most == 50
    results.close()
    assert crew.closed


def test_memory_does_not_grow_with_the_number_of_jobs() -> None:
    def most(number: int) -> int:
        pool, largest = Pool(StubCrew([16] * 8)), 0
        for _ in pool.stream(map(job, range(number))):
            kept = len(pool.ahead) + len(pool.suspects) + len(pool.losses) + sum(map(len, pool.held.values()))
            largest = max(largest, kept)
        return largest

    assert most(20_000) <= most(2_000) + 16
