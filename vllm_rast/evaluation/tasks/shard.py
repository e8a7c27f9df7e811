"""A part of a run: every n-th problem, for as many machines."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vllm_rast.errors import UserError


@dataclass(frozen=True)
class Shard:
    """The part `index`, from 1, of `count`."""

    index: int
    count: int

    def of(self, items: Sequence[Any]) -> list[Any]:
        """This part of all items. An item stays in its part if more items follow the last."""
        return list(items[self.index - 1 :: self.count])

    def share(self, number: int) -> int:
        """How many of `number` items are in this part."""
        return len(range(self.index - 1, number, self.count))

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def parse_shard(text: str) -> Shard:
    """`2/8` as the second of eight parts. Raises UserError for anything else."""
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise UserError(f"--shard {text}: expected INDEX/COUNT with INDEX from 1 to COUNT, such as 1/8")
    return Shard(int(found[1]), int(found[2]))
