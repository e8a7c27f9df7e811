"""Words of branching, backtracking and self-verification, counted in the answers' texts.

As the paper (RAST, arXiv 2506.15710) does, with three differences: the words are a file of your own if you like, their
forms follow a rule of a few lines instead of a language model, and counts are for 1,000 tokens, because longer answers
have more of everything.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import yaml

from vllm_rast.errors import UserError, shown
from vllm_rast.evaluation.analysis.estimates import Estimate, ratio_difference, ratios
from vllm_rast.evaluation.analysis.finding import Finding, bars, label, legend
from vllm_rast.evaluation.reports.plots import styles_of
from vllm_rast.evaluation.reports.tables import Table
from vllm_rast.evaluation.runs.folder import Sample
from vllm_rast.evaluation.tasks.text import read_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WORDS = Path(__file__).with_suffix(".yaml")
PER = 1000  # tokens
Words = dict[str, list[str]]
Question = tuple[str, str]


def read_words(path: str | Path | None = None) -> Words:
    """Lists of words by category, from a YAML file. Raises UserError, naming --words, for anything else."""
    try:
        words = yaml.safe_load(read_text(Path(path or WORDS), "--words"))
    except yaml.YAMLError as error:
        raise UserError(f"--words {path}: not YAML: {' '.join(str(error).split())}") from error
    fits = isinstance(words, dict) and words and all(isinstance(name, str) for name in words)
    for name, some in (words if fits else {}).items():
        fits = fits and isinstance(some, list) and bool(some) and all(isinstance(w, str) and w.strip() for w in some)
        if not fits:
            raise UserError(f"--words {path}: {name}: expected a list of words, got {shown(some)}")
    if not fits:
        raise UserError(f"--words {path}: expected lists of words by category, such as branching: [suppose, try]")
    return words


def forms(word: str) -> list[str]:
    """An English word with the endings that verbs, nouns and adverbs take; a phrase or a word with a hyphen alone."""
    word = word.strip().lower()
    if not word.isalpha():
        return [word]
    endings = {"s", "ed", "ing"}
    stems = {word: endings}
    if word.endswith("e"):
        stems = {word: {"s", "d"}, word[:-1]: {"ing"}}
    elif word.endswith("y") and word[-2:-1] not in "aeiou":
        stems = {word: {"ing"}, word[:-1]: {"ies", "ied"}}
    elif word.endswith(("s", "x", "z", "ch", "sh")):
        stems = {word: {"es", "ed", "ing"}}
    elif re.fullmatch(r"[^aeiou]*[aeiou][^aeiouwxy]", word):  # plug, plugged
        stems = {word: {"s"}, word + word[-1]: {"ed", "ing"}}
    return [word, *sorted(stem + ending for stem, some in stems.items() for ending in some)]


def pattern(words: Sequence[str]) -> re.Pattern[str]:
    """Matches every form of the words, longest first, where no letter is beside it."""
    every = sorted({form for word in words for form in forms(word)}, key=lambda form: (-len(form), form))
    return re.compile(rf"(?<![^\W\d_])(?:{'|'.join(map(re.escape, every))})(?![^\W\d_])", re.IGNORECASE)


def reasoning_words(samples: Sequence[Sample], words: Words) -> Finding:
    """How often each category occurs in each row's answers, and how much more often than in the base's."""
    rows = list(dict.fromkeys(sample.row for sample in samples))
    lines, short, counted = [], [], {}
    for category, some in words.items():
        counts = {row: count(samples, row, pattern(some)) for row in rows}
        for row in rows:
            rate, difference = rate_of(counts[row]), against_base(counts, row)
            counted[row, category] = rate
            lines.append([row, category, *rate, *difference, sum(hits for hits, _ in counts[row].values())])
            beside = f"{difference.value:+.2f} [{difference.low:+.2f}, {difference.high:+.2f}]"
            short.append([row, category, f"{rate.value:.2f} [{rate.low:.2f}, {rate.high:.2f}]", beside])
        lines += [
            [row, f"{category}: {word}", PER * hits / tokens, *[""] * 5, hits]
            for row in rows
            for word, hits, tokens in by_word(samples, row, pattern(some))
        ]
    for line in short:
        line[3] = "" if "nan" in line[3] or line[0] == "base" else line[3]
    return Finding(
        "reasoning_words",
        [
            "row",
            "words",
            "per_1000_tokens",
            "low",
            "high",
            "more_than_base",
            "difference_low",
            "difference_high",
            "count",
        ],
        lines,
        Table(
            "words of reasoning, for 1,000 tokens of each row's answers",
            ["answers of", "words", "number", "more than the base"],
            short,
        ),
        [partial(draw, counted=counted)],
        {row: {f"{name} / 1,000": f"{counted[row, name].value:.2f}" for name in words} for row in rows},
    )


def count(samples: Sequence[Sample], row: str, words: re.Pattern[str]) -> dict[Question, tuple[int, int]]:
    """(words, tokens) of each question in a row's answers."""
    found: dict[Question, tuple[int, int]] = {}
    for sample in samples:
        if sample.row == row:
            hits, tokens = found.get((sample.benchmark, sample.problem), (0, 0))
            more = sum(1 for _ in words.finditer(sample.text))
            found[sample.benchmark, sample.problem] = hits + more, tokens + sample.tokens
    return found


def by_word(samples: Sequence[Sample], row: str, words: re.Pattern[str]) -> list[tuple[str, int, int]]:
    """(form, how often, tokens of the row) of the forms that occur, the most frequent first."""
    own = [sample for sample in samples if sample.row == row]
    hits = Counter(match[0].lower() for sample in own for match in words.finditer(sample.text))
    tokens = sum(sample.tokens for sample in own)
    return [(word, number, tokens) for word, number in hits.most_common()]


def rate_of(counts: Mapping[Question, tuple[int, int]]) -> Estimate:
    hits, tokens = np.array(list(counts.values()), dtype=float).T
    return Estimate(*(PER * value for value in ratios(hits[:, None], tokens[:, None])[0]))


def against_base(counts: Mapping[str, Mapping[Question, tuple[int, int]]], row: str) -> Estimate:
    """The row's rate less the base's, over the questions that both answered; nan without a base."""
    both = [question for question in counts[row] if question in counts.get("base", {})]
    if not both:
        return Estimate(np.nan, np.nan, np.nan)
    first, second = (np.array([counts[one][question] for question in both], dtype=float).T for one in (row, "base"))
    return Estimate(*(PER * value for value in ratio_difference((first[0], first[1]), (second[0], second[1]))))


def draw(axes: Axes, counted: Mapping[tuple[str, str], Estimate]) -> None:
    rows, categories = (list(dict.fromkeys(names)) for names in zip(*counted, strict=True))
    colours = {row: colour for row, (colour, _) in styles_of(rows).items()}
    bars(axes, categories, {row: [counted[row, category] for category in categories] for row in colours}, colours)
    label(axes, "words of reasoning", "", "for 1,000 tokens")
    legend(axes)
