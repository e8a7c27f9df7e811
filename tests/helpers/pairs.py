"""Pairs of a gold and a prediction, with the verdict that a person gave."""

from __future__ import annotations

import json
from typing import Any

from paths import ROOT

PAIRS: list[dict[str, Any]] = [
    json.loads(line) for line in (ROOT / "tests" / "grading" / "pairs.jsonl").read_text(encoding="utf-8").splitlines()
]
TOPICS: dict[str, list[dict[str, Any]]] = {}
for _pair in PAIRS:
    TOPICS.setdefault(_pair["topic"], []).append(_pair)
