"""What the grader's rules decide on many pairs, recorded with the version of the rules."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection

from pairs import TOPICS
from paths import ROOT

from vllm_rast.grading import GradeItem, Grader

FILE = ROOT / "tests" / "grading" / "verdicts.jsonl"
NEIGHBOURS = 2  # each prediction is also held against the golds of so many pairs after it
Verdicts = dict[str, dict[str, int]]  # topic: {hash of gold, prediction and kind: right}


def verdicts_now(topics: Collection[str] = TOPICS.keys()) -> Verdicts:
    """Every pair of the tests, and each prediction against neighbouring golds, whose verdicts nobody has given.

    What takes a worker is left out: its time limit is not a rule.
    """
    with Grader() as grader:
        return {topic: _verdicts(grader, TOPICS[topic]) for topic in topics}


def _verdicts(grader: Grader, pairs: list[dict]) -> dict[str, int]:
    items = {}
    for number, pair in enumerate(pairs):
        for other in (pairs[(number + step) % len(pairs)] for step in range(NEIGHBOURS + 1)):
            item = GradeItem(pair["prediction"], other["gold"], pair.get("kind", "math"))
            name = json.dumps([item.gold, item.prediction, item.kind]).encode()
            items[hashlib.sha256(name).hexdigest()[:12]] = item
    grades = zip(items, grader.grade_many(items.values()), strict=True)
    return {name: int(grade.correct) for name, grade in grades if "math-verify" not in grade.how}


def read_verdicts() -> tuple[int, Verdicts]:
    """The version and the verdicts on record; version 0 without a file."""
    if not FILE.exists():
        return 0, {}
    first, *lines = (json.loads(line) for line in FILE.read_text().splitlines())
    return first["version"], {line["topic"]: line["verdicts"] for line in lines}


def write_verdicts(version: int, verdicts: Verdicts) -> None:
    lines = [{"version": version}, *({"topic": topic, "verdicts": some} for topic, some in verdicts.items())]
    FILE.write_text("".join(json.dumps(line) + "\n" for line in lines))


def changed(before: Verdicts, now: Verdicts) -> list[tuple[str, str]]:
    """(topic, pair) of every verdict that both have and that differs."""
    recorded = {name: right for some in before.values() for name, right in some.items()}
    return [
        (topic, name)
        for topic, some in now.items()
        for name, right in some.items()
        if recorded.get(name, right) != right
    ]
