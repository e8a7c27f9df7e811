"""Grades of older rules must not count as current: whoever changes a verdict raises the version."""

from __future__ import annotations

import random

import pytest
from pairs import TOPICS
from verdicts import Verdicts, changed, read_verdicts, verdicts_now

from vllm_rast.grading import VERSION


def assert_recorded(recorded: Verdicts, now: Verdicts) -> None:
    differing = changed(recorded, now)
    topics = ", ".join(sorted({topic for topic, _ in differing}))
    assert not differing, (
        f"{len(differing)} verdicts changed ({topics}): raise VERSION in vllm_rast/grading/__init__.py, so that grades "
        "in run folders are made again, and run python scripts/record_verdicts.py"
    )


def test_verdicts_of_some_topics() -> None:
    """The same one in ten of them every time, for those who wait for the answer."""
    version, recorded = read_verdicts()
    assert_recorded(recorded, verdicts_now(random.Random(0).sample(sorted(TOPICS), len(TOPICS) // 10)))
    assert version == VERSION and TOPICS.keys() == recorded.keys(), "run python scripts/record_verdicts.py"


@pytest.mark.slow
def test_verdicts_are_those_of_this_version() -> None:
    version, recorded = read_verdicts()
    now = verdicts_now()
    assert_recorded(recorded, now)
    assert version == VERSION and now.keys() == recorded.keys(), "run python scripts/record_verdicts.py"
