"""Tables of text, for the terminal and in Markdown, and how numbers are written in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from vllm_rast.evaluation.scores.intervals import Interval
from vllm_rast.evaluation.scores.summary import Score

if TYPE_CHECKING:
    from rich.table import Table as RichTable


class Table(NamedTuple):
    """Text cells; the first column is the row's name, the others are numbers."""

    title: str
    columns: list[str]
    rows: list[list[str]]


def to_rich(table: Table) -> RichTable:
    """The table for a terminal; no cell is read as markup."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    result = RichTable(title=Text(table.title), title_justify="left", box=box.SIMPLE_HEAD)
    for index, column in enumerate(table.columns):
        result.add_column(column, justify="right" if index else "left", no_wrap=True)
    for row in table.rows:
        result.add_row(*(Text(cell) for cell in row))
    return result


def markdown(table: Table) -> str:
    """The table in Markdown, cells aligned."""
    cells = [table.columns, *table.rows]
    cells = [[cell.replace("|", "\\|") for cell in row] for row in cells]
    widths = [max(len(row[i]) for row in cells) for i in range(len(table.columns))]
    lines = [_markdown_line(row, widths) for row in cells]
    rule = "|" + "|".join("-" * (width + 1) + (":" if i else "-") for i, width in enumerate(widths)) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def _markdown_line(row: list[str], widths: list[int]) -> str:
    padded = [
        cell.rjust(width) if i else cell.ljust(width) for i, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "| " + " | ".join(padded) + " |"


def percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def points(value: float) -> str:
    return f"{100 * value:+.1f}".replace("-", "−")


def half_width(value: float, interval: Interval | None) -> str:
    """An interval's half-width, on the longer side: at 0 and at 100 % it has only one."""
    return "" if interval is None else f"± {100 * max(value - interval.low, interval.high - value):.1f}"


def with_interval(score: Score) -> str:
    """A score in percent with its interval over questions."""
    return f"{100 * score.value:.1f} {half_width(score.value, score.ci)}".rstrip()
