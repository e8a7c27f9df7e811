"""The table of the RAST paper (arXiv 2506.15710), its recovery rates recomputed, and our rows beside it.

Accuracies are in percent as printed. The recovery rates here are computed from them and none is copied. The three
averages the paper states (84.8, 63.4 and 83.9 %) come out to the decimal, as plain means of the six rates, rates
above 100 % included; that confirms the cells they are made of. `oddities` lists the cells that arithmetic alone shows
to need care.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

BENCHMARKS = ("math500", "aime24", "amc23", "minerva", "olympiadbench", "gsm8k")
TITLES = ("MATH500", "AIME24", "AMC23", "Minerva", "Olympiad", "GSM8K")
QUESTIONS = (500, 30, 40, 272, 675, 1319)
ALONE, CEILING = "alone", "RL"


@dataclass(frozen=True)
class PaperRow:
    """One row: the size of the base, and "alone", "RL" (the ceiling), or the size of the pair added to it."""

    base: str
    pair: str
    scores: tuple[float, ...]

    @property
    def name(self) -> str:
        return f"{self.base} {self.pair}" if self.pair in (ALONE, CEILING) else f"{self.base} + {self.pair}"

    @property
    def is_mix(self) -> bool:
        return self.pair not in (ALONE, CEILING)


TABLE = (
    PaperRow("32B", ALONE, (68.6, 3.3, 52.5, 21.0, 33.1, 93.1)),
    PaperRow("32B", "1.5B", (73.7, 12.5, 54.7, 25.1, 36.7, 93.3)),
    PaperRow("32B", "7B", (79.0, 16.4, 58.4, 32.0, 41.7, 94.4)),
    PaperRow("32B", "14B", (80.7, 18.3, 65.2, 34.2, 43.5, 95.3)),
    PaperRow("32B", CEILING, (81.3, 27.6, 69.6, 33.6, 44.9, 95.7)),
    PaperRow("14B", ALONE, (63.8, 6.7, 47.5, 19.1, 31.1, 91.4)),
    PaperRow("14B", "1.5B", (70.3, 10.9, 50.3, 22.9, 35.5, 92.4)),
    PaperRow("14B", "7B", (77.4, 16.2, 56.1, 28.8, 40.0, 93.3)),
    PaperRow("14B", CEILING, (78.2, 14.4, 58.7, 32.2, 42.9, 94.6)),
    PaperRow("7B", ALONE, (62.9, 6.7, 32.5, 19.9, 28.0, 87.7)),
    PaperRow("7B", "1.5B", (68.4, 9.5, 41.5, 23.0, 34.6, 89.8)),
    PaperRow("7B", CEILING, (76.3, 15.6, 55.9, 25.9, 39.5, 91.9)),
)
STATED_AVERAGES = {"32B + 14B": 84.8, "32B + 7B": 63.4, "14B + 7B": 83.9}


def find(base: str, pair: str) -> PaperRow | None:
    return next((row for row in TABLE if (row.base, row.pair) == (base, pair)), None)


def recovery_rates(row: PaperRow) -> tuple[float, ...] | None:
    """Recovery rate in percent on each benchmark; None for a base or a ceiling."""
    alone, ceiling = find(row.base, ALONE), find(row.base, CEILING)
    if not row.is_mix or alone is None or ceiling is None:
        return None
    return tuple(
        100 * (ours - low) / (high - low)
        for ours, low, high in zip(row.scores, alone.scores, ceiling.scores, strict=True)
    )


def averaged_recovery_rate(row: PaperRow) -> float | None:
    """Mean of the recovery rates over the benchmarks, as the paper averages them."""
    rates = recovery_rates(row)
    return None if rates is None else sum(rates) / len(rates)


def on_grid(score: float, questions: int) -> bool:
    """Whether one run over that many questions can score this percentage, printed to one decimal."""
    right = round(score * questions / 100)
    return any(abs(100 * count / questions - score) <= 0.05 + 1e-9 for count in (right - 1, right, right + 1))


def oddities() -> dict[tuple[str, str], str]:
    """Cells to take with care, by (row name, benchmark), and how each was recognised.

    The base rows are single runs: all their AIME24 and AMC23 cells are whole numbers of questions, which means of
    many runs hardly ever are. A base cell that no single run can give is then a misprint, or comes from another run
    or another data set.
    """
    found = {}
    for row in TABLE:
        rates = recovery_rates(row) or (None,) * len(BENCHMARKS)
        for benchmark, score, questions, rate in zip(BENCHMARKS, row.scores, QUESTIONS, rates, strict=True):
            if row.pair == ALONE and not on_grid(score, questions):
                found[row.name, benchmark] = (
                    f"{score} is not a whole number of {questions} questions, unlike the other cells of"
                    " this single run: "
                    "a misprint, or not from that run"
                )
            elif rate is not None and rate > 100:
                found[row.name, benchmark] = f"{score} lies above the ceiling: recovery rate {rate:.1f} %"
    return found


SIZE = r"(1\.5|7|14|32)B"
BASE_MODEL = re.compile(rf"(?:.*/)?Qwen2\.5-{SIZE}$", re.IGNORECASE)
RL_MODEL = re.compile(rf"(?:.*/)?Qwen-2\.5-{SIZE}-SimpleRL-Zoo$", re.IGNORECASE)


def match(formula: str) -> PaperRow | None:
    """The paper's row for a row of ours, by its formula: "base + 1.0 * (positive - negative)", or one model's name."""
    formula = re.sub(r"@[0-9a-zA-Z._-]+", "", formula)  # revisions
    if alone := BASE_MODEL.match(formula):
        return find(f"{alone[1]}B", ALONE)
    if ceiling := RL_MODEL.match(formula):
        return find(f"{ceiling[1]}B", CEILING)
    parts = re.fullmatch(r"(\S+) \+ \S+ \* \((\S+) - (\S+)\)", formula)
    if not parts:
        return None
    base, positive, negative = BASE_MODEL.match(parts[1]), RL_MODEL.match(parts[2]), BASE_MODEL.match(parts[3])
    if not (base and positive and negative and positive[1] == negative[1]):
        return None
    return find(f"{base[1]}B", f"{positive[1]}B")
