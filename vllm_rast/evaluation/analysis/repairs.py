"""What the mix repairs: which questions only one of base and mix gets right, and where their answers part.

Base and mix answered with the same seed, so an answer of the one is compared with the other's of the same number. Up to
their first difference both had the same tokens before them, so the numbers there say what made them part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from vllm_rast.evaluation.analysis.estimates import ratios
from vllm_rast.evaluation.analysis.finding import Finding, label, legend
from vllm_rast.evaluation.analysis.table import TraceTable
from vllm_rast.evaluation.reports.tables import Table
from vllm_rast.evaluation.runs.folder import Key

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# By (base right, mix right).
OUTCOMES = {
    (False, True): "repaired",
    (True, False): "broken",
    (True, True): "both right",
    (False, False): "both wrong",
}
COLOURS = {"repaired": "#009E73", "broken": "#D55E00", "both right": "#56B4E9", "both wrong": "#999999"}
AFTER = 12  # tokens shown of what followed


@dataclass(frozen=True)
class Parting:
    """Where two answers to one question part. place: the position, None if they are the same. surprise: -log p of the
    mix's token by the base, in nats."""

    key: Key
    outcome: str
    place: int | None
    share: float
    js: float
    surprise: float
    context: str
    base_went_on: str
    mix_went_on: str


def repairs(table: TraceTable, right: Mapping[Key, bool], base: str = "base", mix: str = "rast") -> Finding | None:
    """Every question's answers of the two rows, by who was right; None if no two answers can be compared.

    right: which samples are right.
    """
    places = {key: i for i, key in enumerate(table.answers)}
    found = []
    for key, i in places.items():
        other = key._replace(row=base)
        if key.row == mix and other in places and key in right and other in right:
            found.append(parting(table, i, places[other], OUTCOMES[right[other], right[key]]))
    if not found:
        return None
    lines = [
        [one.key.benchmark, one.key.problem, one.key.sample, one.outcome, "" if one.place is None else one.place]
        + [one.share, one.js, one.surprise, one.context, one.base_went_on, one.mix_went_on]
        for one in found
    ]
    columns = ["benchmark", "problem", "sample", "outcome", "position", "place_in_answer", "js_mix_base"]
    return Finding(
        "repairs",
        [*columns, "base_surprise", "context", "base_went_on", "mix_went_on"],
        lines,
        summary(found, base, mix),
        [partial(draw_outcomes, found=found), partial(draw_places, found=found)],
    )


def parting(table: TraceTable, mix: int, base: int, outcome: str) -> Parting:
    """Compare two answers, given by their places among the table's."""
    ours, theirs = (slice(table.starts[i], table.starts[i + 1]) for i in (mix, base))
    first, second = table["token"][ours], table["token"][theirs]
    common = min(len(first), len(second))
    differs = np.flatnonzero(first[:common] != second[:common])
    place = int(differs[0]) if len(differs) else None if len(first) == len(second) else common
    key = table.answers[mix]
    if place is None or place == len(first):  # the same, or the base's goes on where the mix's ends
        return Parting(key, outcome, place, np.nan if place is None else 1.0, np.nan, np.nan, "", "", "")
    at = ours.start + place

    def went_on(tokens: np.ndarray) -> str:
        return "".join(table.text(int(token)) for token in tokens[place : place + AFTER])

    js, surprise = float(table["js_mix_base"][at]), -float(table["base_logprob"][at])
    share = place / len(first)
    return Parting(key, outcome, place, share, js, surprise, table.context(at), went_on(second), went_on(first))


def summary(found: list[Parting], base: str, mix: str) -> Table:
    """How many answers of each outcome, and where they parted in the middle."""
    questions: dict[tuple[str, str], int] = {}
    numbers = [questions.setdefault((one.key.benchmark, one.key.problem), len(questions)) for one in found]
    lines = []
    for outcome in OUTCOMES.values():
        some = [one for one in found if one.outcome == outcome]
        hits = np.bincount(numbers, weights=[one.outcome == outcome for one in found])
        (share,) = ratios(hits[:, None], np.bincount(numbers)[:, None])
        places = median([np.nan if one.place is None else one.place for one in some], ".0f")
        middle = [median([getattr(one, name) for one in some], ".2f") for name in ("share", "js", "surprise")]
        lines.append([outcome, str(len(some)), share.percent, places, *middle])
    return Table(
        f"what {mix} repairs of {base}, and the median of where their answers part",
        ["outcome", "answers", "share", "token", "of the answer", "JS, nats", "base's surprise, nats"],
        lines,
    )


def median(values: list[float], form: str) -> str:
    """The median of those that are numbers, as text."""
    known = [value for value in values if value == value]
    return format(np.median(known), form) if known else ""


def draw_outcomes(axes: Axes, found: list[Parting]) -> None:
    outcomes = list(OUTCOMES.values())
    numbers = [sum(one.outcome == outcome for one in found) for outcome in outcomes]
    axes.bar(range(len(outcomes)), numbers, color=[COLOURS[outcome] for outcome in outcomes])
    axes.set_xticks(range(len(outcomes)), outcomes)
    label(axes, "by who was right", "", "answers")


def draw_places(axes: Axes, found: list[Parting]) -> None:
    groups = {
        outcome: [one.share for one in found if one.outcome == outcome and one.place is not None] for outcome in COLOURS
    }
    groups = {outcome: places for outcome, places in groups.items() if places}
    axes.hist(
        list(groups.values()),
        bins=[tenth / 10 for tenth in range(11)],
        stacked=True,
        color=[COLOURS[outcome] for outcome in groups],
        label=list(groups),
    )
    label(axes, "where the answers part", "place in the mix's answer", "answers")
    legend(axes)
