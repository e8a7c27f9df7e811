"""The default benchmark: 500 test problems of each family about all things, the same on every machine."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

from vllm_rast.tiny.world import FAMILIES, THINGS, Question, draw_question

PER_FAMILY = 500
SEED = 20250617


def test_questions() -> list[Question]:
    """PER_FAMILY distinct questions of each family, families in the order of FAMILIES."""
    rng = random.Random(SEED)
    everything = tuple(range(len(THINGS)))
    chosen: dict[tuple, Question] = {}
    for count, family in enumerate(FAMILIES, start=1):
        while len(chosen) < count * PER_FAMILY:
            question = draw_question(rng, everything, family)
            chosen.setdefault(question.key, question)
    return list(chosen.values())


def test_keys() -> frozenset[tuple]:
    """The keys that no training question may have."""
    return frozenset(question.key for question in test_questions())


def rows() -> Iterator[dict[str, str]]:
    """The benchmark's rows: {"id", "family", "question", "answer"}, all strings."""
    for number, question in enumerate(test_questions()):
        yield {
            "id": f"{question.family}-{number % PER_FAMILY:03d}",
            "family": question.family,
            "question": question.text,
            "answer": str(question.answer),
        }


def jsonl() -> str:
    """The benchmark as the text of `datasets/tiny.jsonl`."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows())
