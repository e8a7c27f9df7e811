"""`speculate="auto"` on machines made up here, whose times are numbers and not measured."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from vllm_rast.mix.draft_schedule import DraftSchedule, Seconds, bucket
from vllm_rast.mix.speculation import AUTO_DRAFTS

Cost = Callable[[int], float]

# Seconds of all models and of the drafter by the number of rows.
MACHINES: dict[str, tuple[Cost, Cost]] = {
    "rows are free": (lambda rows: 1.0, lambda rows: 0.1),
    "free up to 8 rows": (lambda rows: max(1.0, rows / 8), lambda rows: max(0.15, rows / 50)),
    "each row costs a third": (lambda rows: 0.67 + 0.33 * rows, lambda rows: 0.1 + 0.05 * rows),
    "rows cost what they cost": (lambda rows: 0.1 + rows, lambda rows: 0.02 + 0.2 * rows),
    "the drafter is as slow as the mix": (lambda rows: 1 + 0.05 * rows, lambda rows: 1 + 0.05 * rows),
}


def speed(
    machine: tuple[Cost, Cost], requests: int, share: float, choose: DraftSchedule | int, steps: int, noise: float = 0.0
) -> float:
    """Tokens per second of `steps` steps in which each draft is accepted with the same chance."""
    chance = random.Random(1)
    seconds, tokens, drafts = 0.0, 0, 0

    def timed(cost: float) -> float:
        return cost * (1 + noise * chance.random() + (5 if noise and chance.random() < 0.01 else 0))

    for _ in range(steps):
        took = timed(machine[0](requests * (1 + drafts)))
        for _ in range(requests):
            kept = 0
            while kept < drafts and chance.random() < share:
                kept += 1
            tokens += 1 + kept
            if isinstance(choose, DraftSchedule):
                choose.note_accepted(drafts, kept)
        if isinstance(choose, DraftSchedule):
            choose.passes.note(requests * (1 + drafts), took)
            drafts = choose.choose(requests, requests)
        else:
            drafts = choose
        drafting = timed(drafts * machine[1](requests))
        if isinstance(choose, DraftSchedule) and drafts:
            choose.drafts.note(requests, drafting / drafts)
        seconds += took + drafting
    return tokens / seconds


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("share", [0.05, 0.4, 0.6, 0.8, 0.95])
@pytest.mark.parametrize("requests", [1, 2, 4, 8, 32])
def test_never_slower_than_the_better_of_on_and_off(machine: str, share: float, requests: int) -> None:
    best = max(speed(MACHINES[machine], requests, share, k, 1000) for k in range(AUTO_DRAFTS + 1))
    auto = speed(MACHINES[machine], requests, share, DraftSchedule(AUTO_DRAFTS), 1000)
    off = speed(MACHINES[machine], requests, share, 0, 1000)
    assert auto > 0.98 * off
    assert auto > 0.93 * best


@pytest.mark.parametrize("machine", MACHINES)
def test_accidents_do_not_rule_a_number_out(machine: str) -> None:
    """Times that vary by a half and are six times as long once in a hundred."""
    for share in (0.1, 0.8):
        fixed = [speed(MACHINES[machine], 2, share, k, 3000, noise=0.5) for k in range(AUTO_DRAFTS + 1)]
        assert speed(MACHINES[machine], 2, share, DraftSchedule(AUTO_DRAFTS), 3000, noise=0.5) > 0.93 * max(fixed)


def test_a_batch_that_grows_and_shrinks() -> None:
    """The same schedule for every size: drafts alone, none where rows cost what they cost."""
    machine = MACHINES["free up to 8 rows"]
    schedule = DraftSchedule(AUTO_DRAFTS)
    for _ in range(3):
        for requests in (1, 32, 4, 16, 2):
            speed(machine, requests, 0.8, schedule, 300)
    assert schedule.choose(1, 1) >= 3
    schedule.steps = 0
    assert schedule.choose(32, 32) == 0


def test_models_that_stop_agreeing() -> None:
    machine = MACHINES["free up to 8 rows"]
    schedule = DraftSchedule(AUTO_DRAFTS)
    assert speed(machine, 1, 0.9, schedule, 1000) > 1.8 * speed(machine, 1, 0.9, 0, 1000)
    assert speed(machine, 1, 0.0, schedule, 3000) > 0.94
    assert speed(machine, 1, 0.9, schedule, 6000) > 1.5


def test_nothing_to_draft() -> None:
    schedule = DraftSchedule(4)
    assert schedule.choose(3, 3) == 0, "the first step is measured without"
    schedule.passes.note(3, 1.0)
    assert schedule.choose(3, 3) > 0 and schedule.choose(3, 0) == 0


def test_seconds() -> None:
    seconds = Seconds()
    assert seconds.guess(5) == 0
    seconds.note(4, 2.0)
    assert seconds.guess(1) == seconds.guess(99) == 2
    seconds.note(8, 4.0)
    assert [seconds.guess(rows) for rows in (1, 4, 6, 8, 10)] == [0.5, 2, 3, 4, 5]
    for _ in range(5):
        seconds.note(4, 3.0)
    assert seconds.guess(4) == 3 and seconds.times(4) == 5
    seconds.note(16, 2.0)
    assert seconds.guess(64) == 2, "fewer rows never cost more"
    assert bucket(64) == bucket(66) != bucket(72) and len({bucket(rows) for rows in range(1, 11)}) == 10
