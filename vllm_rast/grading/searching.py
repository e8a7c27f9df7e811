"""The last of many."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")


def last(found: Iterable[T]) -> T | None:
    """The last of what is found, or None."""
    kept = deque(found, maxlen=1)
    return kept[0] if kept else None
