"""Grades of older rules must not count as current: whoever changes a verdict raises the version."""

from __future__ import annotations

from verdicts import changed, read_verdicts, verdicts_now

from vllm_rast.grading import VERSION


def test_verdicts_are_those_of_this_version() -> None:
    version, recorded = read_verdicts()
    now = verdicts_now()
    differing = changed(recorded, now)
    topics = ", ".join(sorted({topic for topic, _ in differing}))
    assert not differing, (
        f"{len(differing)} verdicts changed ({topics}): raise VERSION in vllm_rast/grading/__init__.py, so that grades "
        "in run folders are made again, and run python scripts/record_verdicts.py"
    )
    assert version == VERSION and now.keys() == recorded.keys(), "run python scripts/record_verdicts.py"
