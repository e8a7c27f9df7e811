"""What the row of a gold says about comparing with it, and what a comparison says."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

Verdict = bool | None  # None: not decided


@dataclass(frozen=True)
class Rules:
    """What the gold's row says: whether bare lists have an order, the absolute error its number allows, its unit."""

    ordered: bool = False
    tolerance: Fraction | None = None
    unit: str | None = None


PLAIN = Rules()
