"""Which model drafts a row's samples.

Where a row samples, a token follows from its seed, its position and the distributions of the mix and of the drafter. So
another drafter, or none, draws other samples, and how many tokens it drafts changes the speed alone. Greedy rows do not
depend on it at all, and are not listed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

DRAFTERS = "drafters"

Drafters = dict[str, dict[str, str | None]]


def drafters(config: dict[str, Any]) -> Drafters:
    """{benchmark: {row: the model that drafts, None for none}} of what was asked of a run and samples.

    A run of an earlier version, whose configuration has no such entry, drafted nothing.
    """
    if DRAFTERS in config:
        return config[DRAFTERS]
    return {
        benchmark: {row: None for row in config["rows"] if temperature(config, benchmark, row) != 0}
        for benchmark in config["benchmarks"]
    }


def temperature(config: dict[str, Any], benchmark: str, row: str) -> float | None:
    """A row's own temperature, or its benchmark's."""
    own = config["rows"][row].get("temperature")
    return config["benchmarks"][benchmark].get("temperature") if own is None else own


def drafter(config: dict[str, Any], benchmark: str, row: str) -> str | None:
    return drafters(config).get(benchmark, {}).get(row)


def changed_drafters(old: dict[str, Any], new: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(what, before, now) for each row that was asked before and would now be drafted by another model."""
    asked = drafters(old)
    for benchmark, rows in drafters(new).items():
        for row, now in rows.items():
            before = asked.get(benchmark, {}).get(row, now)
            if before != now:
                option = "--drafter" if before and now else "--speculate"
                yield f"{option} (row {row!r} of {benchmark!r})", before or "no drafts", now or "no drafts"


def all_drafters(old: dict[str, Any], new: dict[str, Any]) -> Drafters:
    """What was asked before and what is asked now, together."""
    before, now = drafters(old), drafters(new)
    return {name: before.get(name, {}) | now.get(name, {}) for name in before | now}
