"""Whose rows are whose in a forward of several models at once."""

from __future__ import annotations

from collections.abc import Iterator


class SharedRows:
    """The models of one forward, by their places; each has as many rows as the others, one model after the other."""

    def __init__(self, count: int) -> None:
        self.running = tuple(range(count))

    def parts(self, rows: int) -> Iterator[tuple[int, slice]]:
        """Each running model's place and its part of all rows."""
        each = rows // len(self.running)
        for index, place in enumerate(self.running):
            yield place, slice(index * each, (index + 1) * each)
