"""How sure base and mix are: by what a token is, at the forks of an answer, and by how hard the question is.

Forking tokens are the 20 % of a row's tokens where the base's entropy is highest (arXiv 2506.01939): there a chain of
thought takes its turns. All entropies are of whole distributions, in nats.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vllm_rast.evaluation.analysis.estimates import Estimate, grouped_means
from vllm_rast.evaluation.analysis.finding import Finding, bars, label, legend
from vllm_rast.evaluation.analysis.table import TraceTable
from vllm_rast.evaluation.reports.plots import styles_of
from vllm_rast.evaluation.reports.tables import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORKING_SHARE = 0.2
CLASSES = ("word", "number", "mathematics", "punctuation", "space", "special")
FORKS = ("forking", "other")
# Groups of questions by the share of the base's samples that are right.
DIFFICULTIES = ("base never right", "right up to half", "right more than half", "base always right")
SYMBOLS = frozenset("+-*/=<>^_\\{}[]()|$%&~√π∑∫≤≥≠±×÷·∞")


def entropy(table: TraceTable, right: Mapping[tuple[str, str], float] | None = None) -> Finding:
    """Entropies, and how far the mix moves, by class of token, at forking tokens, and by difficulty.

    right: the share of the base's samples that are right, by (benchmark, problem); without it, no difficulty.
    """
    lines, short, drawn = [], [], {}
    for row, some in table.by_row().items():
        groupings = {"class": (CLASSES, classes_of(some)), "fork": (FORKS, np.where(forking(some), 0, 1))}
        if right:
            groupings["difficulty"] = (DIFFICULTIES, difficulties(some, right))
        for kind, (names, groups) in groupings.items():
            known = groups >= 0
            columns = {
                "base": some["base_entropy"],
                "mix": some["mix_entropy"],
                "js": some["js_mix_base"],
                "changed": some["base_argmax"] != some["mix_argmax"],
                "length": some.lengths[some.owner],
            }
            means = {
                name: grouped_means(values[known], groups[known], len(names), some.question[known])
                for name, values in columns.items()
            }
            mass = np.bincount(groups[known], weights=np.nan_to_num(columns["js"][known]), minlength=len(names))
            for group, (name, tokens) in enumerate(
                zip(names, np.bincount(groups[known], minlength=len(names)), strict=True)
            ):
                if not tokens:
                    continue
                base, mix, js, changed = (means[one][group] for one in ("base", "mix", "js", "changed"))
                share = mass[group] / mass.sum() if mass.sum() else np.nan
                length = answer_length(some, groups == group) if kind == "difficulty" else ""
                drawn[row, kind, name] = base, mix
                lines.append([row, kind, name, int(tokens), *base, *mix, js.value, share, *changed, length])
                numbers = [
                    f"{base.value:.3f}",
                    f"{mix.value:.3f}",
                    f"{100 * share:.1f} %",
                    f"{100 * changed.value:.1f} %",
                ]
                short.append([row, name, f"{100 * tokens / len(some):.1f} %", *numbers])
    ends = [f"{model}_entropy{end}" for model in ("base", "mix") for end in ("", "_low", "_high")]
    changes = ["argmax_changed", "argmax_changed_low", "argmax_changed_high"]
    return Finding(
        "entropy",
        ["row", "by", "group", "tokens", *ends, "js_mean", "js_share", *changes, "answer_length"],
        lines,
        Table(
            "entropy in nats, and where the mix moves",
            ["answers of", "tokens", "share", "base", "mix", "of all JS", "argmax changes"],
            short,
        ),
        panels_of(drawn, table.rows),
        {line[0]: {"JS at forks": line[5]} for line in short if line[1] == "forking"},
    )


def classes_of(table: TraceTable) -> NDArray[np.int64]:
    """The class of each token, as its place in CLASSES, [num_tokens]."""
    ids, where = np.unique(table["token"], return_inverse=True)
    return np.array([CLASSES.index(class_of(table.text(int(token)))) for token in ids])[where]


def class_of(text: str) -> str:
    """What a token's text is."""
    if text.startswith("<") and text.endswith(">") and len(text) > 2:
        return "special"
    inside = text.strip()
    if not inside:
        return "space"
    if any(character.isdigit() for character in inside):
        return "number"
    if inside.startswith("\\"):
        return "mathematics"
    if any(character.isalpha() for character in inside):
        return "word"
    return "mathematics" if any(character in SYMBOLS for character in inside) else "punctuation"


def forking(table: TraceTable) -> NDArray[np.bool_]:
    """The tokens with the highest entropies of the base, FORKING_SHARE of all; of equal ones the first."""
    order = np.argsort(-table["base_entropy"], kind="stable")
    chosen = np.zeros(len(table), dtype=bool)
    chosen[order[: round(FORKING_SHARE * len(table))]] = True
    return chosen


def difficulties(table: TraceTable, right: Mapping[tuple[str, str], float]) -> NDArray[np.int64]:
    """The group of each token's question, as its place in DIFFICULTIES; -1 for one without a grade, [num_tokens]."""

    def group(share: float | None) -> int:
        if share is None:
            return -1
        return 0 if share == 0 else 3 if share == 1 else 1 if share <= 0.5 else 2

    return np.array([group(right.get((key.benchmark, key.problem))) for key in table.answers])[table.owner]


def answer_length(table: TraceTable, inside: NDArray[np.bool_]) -> float:
    """The mean number of tokens of the answers that these tokens belong to."""
    return float(table.lengths[np.unique(table.owner[inside])].mean())


Drawn = Mapping[tuple[str, str, str], tuple[Estimate, Estimate]]


def panels_of(drawn: Drawn, rows: Sequence[str]) -> list[Callable[[Axes], None]]:
    """By class and fork for each row, and then by difficulty for each that has some."""
    harder = [row for row in rows if any(one == row and kind == "difficulty" for one, kind, _ in drawn)]
    by_token = [partial(draw, row=row, drawn=drawn, of=("class", "fork")) for row in rows]
    return [*by_token, *(partial(draw, row=row, drawn=drawn, of=("difficulty",)) for row in harder)]


def draw(axes: Axes, row: str, drawn: Drawn, of: Sequence[str]) -> None:
    names = [name for one, kind, name in drawn if one == row and kind in of]
    kinds = {name: kind for one, kind, name in drawn if one == row}
    base, mix = zip(*(drawn[row, kinds[name], name] for name in names), strict=True)
    styles = styles_of(["base", "rast"])
    colours = {"base": styles["base"][0], "mix": styles["rast"][0]}
    bars(axes, names, {"base": base, "mix": mix}, colours, rotation=30, ha="right")
    by = ", by difficulty" if "difficulty" in of else ""
    label(axes, f"entropy in the answers of {row}{by}", "", "nats")
    legend(axes)
