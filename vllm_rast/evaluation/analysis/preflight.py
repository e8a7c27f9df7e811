"""A look before a long run: a few problems decoded and read, and what that says of the whole.

It warns of what is certain, such as answers that vanish, and otherwise shows numbers beside the paper's, without a
verdict: no threshold is known that tells a hopeless mix from a good one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from vllm_rast.evaluation.analysis.estimates import Estimate, mean, ratio_difference, ratios
from vllm_rast.evaluation.analysis.path_coverage import coverage
from vllm_rast.evaluation.analysis.sparsity import MOVED
from vllm_rast.evaluation.analysis.table import TraceTable
from vllm_rast.evaluation.reports.tables import Table
from vllm_rast.evaluation.runs.folder import Sample
from vllm_rast.evaluation.scores.graded import GradedSample

MANY = 0.2  # a share of answers that a warning is about, if the base has not as many
LONGEST_PERIOD = 50  # words that a loop repeats
TIMES = 4  # how often it has repeated them, at least
LEAST_WORDS = 12  # of a loop in all
PAPER_COSINES = "0.52 to 0.72"  # arXiv 2506.15710
PAPER_COVERAGE = "above 95 %"


@dataclass(frozen=True)
class AnswersOfRow:
    """A row's answers: shares of all. right: None without golds. gain: right minus the base's, paired by question."""

    answers: int
    ended: float
    empty: float
    looped: float
    boxed: float
    tokens: float
    right: Estimate | None
    gain: Estimate | None


@dataclass(frozen=True)
class TokensOfRow:
    """What the models say of a row's tokens, as `vllm_rast.kernels.token_trace` defines it.

    covered: by the base's likeliest id. changed: the mix's likeliest id is another. moved: JS of MOVED nats and more.
    implausible: of what the mix moves, the share outside the base's 20 likeliest ids. drafted: the positive's likeliest
    id is the mix's. numbers: whether every token has its numbers.
    """

    tokens: int
    covered: Estimate
    changed: Estimate
    moved: Estimate
    implausible: Estimate
    drafted: Estimate | None
    cosine: Estimate | None
    numbers: bool


@dataclass(frozen=True)
class Speed:
    """tokens_per_s of the look; samples and tokens that the whole run will have, by these answers; hours it takes."""

    tokens_per_s: float
    samples: int
    tokens: float

    @property
    def hours(self) -> float:
        return self.tokens / self.tokens_per_s / 3600


def loops(text: str) -> bool:
    """Whether a text ends in the same words again and again."""
    words = text.split()
    for period in range(1, min(LONGEST_PERIOD, len(words) // TIMES) + 1):
        length = max(TIMES * period, LEAST_WORDS)
        tail = words[-length:]
        if len(tail) == length and all(word == tail[i % period] for i, word in enumerate(tail)):
            return True
    return False


def answers_of_rows(
    samples: Sequence[GradedSample | Sample], graded: bool, order: Sequence[str] = ()
) -> dict[str, AnswersOfRow]:
    """Each row's answers, the rows in the given order, or by name."""
    there = {sample.row for sample in samples}
    rows = [row for row in order or sorted(there) if row in there]
    by_row = {row: [sample for sample in samples if sample.row == row] for row in rows}
    base = right_by_question(by_row.get("base", []))
    found = {}
    for row, some in by_row.items():
        right = right_by_question(some)
        shared = [question for question in right if question in base]
        sides = [np.array([side[question] for question in shared]).reshape(-1, 2).T for side in (right, base)]
        gain = (
            ratio_difference(*((side[0], side[1]) for side in sides)) if graded and row != "base" and shared else None
        )
        sums, counts = np.array(list(right.values())).T
        found[row] = AnswersOfRow(
            answers=len(some),
            ended=share(sample.finish_reason == "stop" for sample in some),
            empty=share(not sample.text.strip() for sample in some),
            looped=share(loops(sample.text) for sample in some),
            boxed=share("\\boxed" in sample.text for sample in some),
            tokens=float(np.mean([sample.tokens for sample in some])),
            right=ratios(sums[:, None], counts[:, None])[0] if graded else None,
            gain=gain,
        )
    return found


def share(values: Any) -> float:
    return float(np.mean(list(values)))


def right_by_question(samples: Sequence[GradedSample | Sample]) -> dict[tuple[str, str], tuple[float, float]]:
    """(right answers, answers) of every question."""
    found: dict[tuple[str, str], tuple[float, float]] = {}
    for sample in samples:
        right, number = found.get((sample.benchmark, sample.problem), (0.0, 0.0))
        found[sample.benchmark, sample.problem] = right + getattr(sample, "correct", False), number + 1
    return found


def tokens_of_rows(table: TraceTable) -> dict[str, TokensOfRow]:
    """What the models say of each row's tokens."""
    return {row: tokens_of(some) for row, some in table.by_row().items()}


def tokens_of(table: TraceTable) -> TokensOfRow:
    questions, cosine = table.question, "delta_cosine_ceiling"
    drafted = table["positive_argmax"] == table["mix_argmax"] if "positive_argmax" in table else None
    weights = table["tv_mix_base"].astype(float)
    moved = np.where(weights > 0, np.nan_to_num(table["implausible"]) * weights, 0)
    sums, counts = (np.bincount(questions, weights=some)[:, None] for some in (moved, weights))
    logprobs = [table[f"{model}_logprob"] for model in table.models]
    return TokensOfRow(
        tokens=len(table),
        covered=coverage(table, "base")[0],
        changed=mean(table["base_argmax"] != table["mix_argmax"], questions),
        moved=mean(table["js_mix_base"] > MOVED, questions),
        implausible=ratios(sums, counts)[0],
        drafted=None if drafted is None else mean(drafted, questions),
        cosine=mean(table[cosine], questions) if cosine in table else None,
        numbers=not any(np.isnan(some).any() for some in logprobs),
    )


def warnings(answers: Mapping[str, AnswersOfRow], tokens: Mapping[str, TokensOfRow]) -> list[str]:
    """What is certainly wrong, one line each."""
    base, said = answers.get("base"), []
    for row, one in answers.items():
        faults = {
            "are empty": (one.empty, base.empty if base else 0),
            "end in a loop": (one.looped, base.looped if base else 0),
            "were cut off at --max-tokens": (1 - one.ended, 1 - base.ended if base else 0),
        }
        for fault, (value, before) in faults.items():
            if value >= MANY and (row == "base" or value > before):
                of_base = "" if row == "base" or base is None else f" (of the base's: {before:.0%})"
                said.append(f"{row}: {value:.0%} of {one.answers} answers {fault}{of_base}")
        if base and row != "base" and base.boxed >= MANY and one.boxed < base.boxed / 2:
            said.append(f"{row}: {one.boxed:.0%} of the answers are boxed, of the base's {base.boxed:.0%}")
    said += [f"{row}: a model gives nan for some tokens" for row, one in tokens.items() if not one.numbers]
    return said


def answer_table(answers: Mapping[str, AnswersOfRow]) -> Table:
    columns = ["row", "answers", "ended", "empty", "looped", "boxed", "tokens", "right", "minus base, paired"]
    lines = []
    for row, one in answers.items():
        shares = [f"{value:.0%}" for value in (one.ended, one.empty, one.looped, one.boxed)]
        graded = ["" if some is None else some.percent for some in (one.right, one.gain)]
        lines.append([row, str(one.answers), *shares, f"{one.tokens:,.0f}", *graded])
    return Table("answers", columns, lines)


def token_table(tokens: Mapping[str, TokensOfRow]) -> Table:
    columns = ["answers of", "tokens", "base's top 1", "argmax changes", f"JS > {MOVED:g}", "implausible"]
    columns += ["positive's draft kept", "cosine with ceiling"]
    lines = []
    for row, one in tokens.items():
        cells = [some.percent for some in (one.covered, one.changed, one.moved, one.implausible)]
        drafted = "" if one.drafted is None else one.drafted.percent
        lines.append([row, f"{one.tokens:,}", *cells, drafted, "" if one.cosine is None else str(one.cosine)])
    paper = ["the paper's", "", PAPER_COVERAGE, "", "", "", "", PAPER_COSINES]
    return Table("what the mix does to their tokens", columns, [*lines, paper])


@dataclass(frozen=True)
class Look:
    """All that was found. models: their vocabularies. memory: the plan, one line for each model."""

    vocabularies: Mapping[str, int]
    memory: str
    answers: Mapping[str, AnswersOfRow]
    tokens: Mapping[str, TokensOfRow]
    speed: Speed | None

    @property
    def warnings(self) -> list[str]:
        return warnings(self.answers, self.tokens)

    def to_dict(self) -> dict[str, Any]:
        """For --json; an interval is [value, low, high], and what is no number is null."""
        speed = None if self.speed is None else asdict(self.speed) | {"hours": self.speed.hours}
        said = {
            "vocabularies": dict(self.vocabularies),
            "memory": self.memory,
            "answers": {row: asdict(one) for row, one in self.answers.items()},
            "tokens": {row: asdict(one) for row, one in self.tokens.items()},
            "speed": speed,
            "warnings": self.warnings,
        }
        return finite(said)


def finite(value: Any) -> Any:
    """The same with null for what is no number, which JSON cannot hold."""
    if isinstance(value, dict):
        return {name: finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
