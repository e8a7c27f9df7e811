"""Errors that are the user's to mend."""

from __future__ import annotations

from reprlib import Repr
from typing import Any


class UserError(ValueError):
    """A mistake in what the user asked for.

    The message is one line that names the option and the remedy; the command line prints it without a traceback and
    exits with 2.
    """


class ShortRepr(Repr):
    """Python's `repr` on one short line, whatever the size of the value."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 60
        self.maxlevel = 3

    def repr_int(self, x: int, level: int) -> str:
        # Python writes no integer of more than 4300 digits, and raises instead.
        return repr(x) if x.bit_length() <= 64 else f"an integer of {x.bit_length()} bits"

    def repr_dict(self, x: dict[Any, Any], level: int) -> str:
        # Python's own sorts the keys first, however many there are.
        return super().repr_dict(x, level) if len(x) <= 10 else f"a dictionary of {len(x):,} keys"


def shown(value: Any) -> str:
    """A value as an error message shows it: one line of at most a few hundred characters."""
    return " ".join(SHORT.repr(value).split())[:300]


SHORT = ShortRepr()
