"""Every analysis on tables small enough to count by hand."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from run_samples import sample
from traced import make_table

from vllm_rast.errors import UserError
from vllm_rast.evaluation.analysis.entropy import class_of, entropy, forking
from vllm_rast.evaluation.analysis.estimates import grouped_means, mean, ratio_difference, ratios, short_percent
from vllm_rast.evaluation.analysis.finding import Finding
from vllm_rast.evaluation.analysis.moved_tokens import moved_tokens
from vllm_rast.evaluation.analysis.path_coverage import coverage, path_coverage
from vllm_rast.evaluation.analysis.reasoning_words import forms, pattern, read_words, reasoning_words
from vllm_rast.evaluation.analysis.repairs import repairs
from vllm_rast.evaluation.analysis.similarity import similarity
from vllm_rast.evaluation.analysis.sparsity import sparsity
from vllm_rast.evaluation.runs.folder import Key

NAN = math.nan


def key(problem: str = "p", row: str = "base", number: int = 0) -> Key:
    return Key("maths", row, problem, number)


def as_dicts(finding: Finding) -> list[dict[str, object]]:
    return [dict(zip(finding.columns, line, strict=True)) for line in finding.lines]


# Estimates


def test_a_mean_over_tokens_is_of_tokens_and_its_interval_of_questions() -> None:
    values, questions = [1, 1, 1, 0, 0], [0, 0, 0, 1, 1]
    found = mean(values, questions)
    assert found.value == 0.6
    # Two questions: both the first, both the second, or one of each. The ends of 95 % are the extremes.
    assert (found.low, found.high) == (0, 1)


def test_intervals_cover_the_mean_as_often_as_they_say() -> None:
    """Questions differ, and tokens within a question agree: an interval over tokens would be far too short."""
    rng, covered = np.random.default_rng(0), 0
    for _ in range(200):
        levels, lengths = rng.normal(0.5, 0.2, 40), rng.integers(5, 60, 40)
        questions = np.repeat(np.arange(40), lengths)
        found = mean(levels[questions] + rng.normal(0, 0.05, len(questions)), questions)
        covered += found.low <= 0.5 <= found.high
    assert 0.88 <= covered / 200 <= 0.99


def test_what_is_no_number_does_not_count() -> None:
    first, second, third = grouped_means([1, NAN, 3, np.inf], [0, 0, 1, 1], 3, [0, 0, 1, 1])
    assert first.value == 1 and second.value == 3 and math.isnan(third.value)
    (alone,) = ratios([[2.0]], [[4.0]])
    assert alone.value == 0.5 and math.isnan(alone.low) and short_percent(alone) == "50.0 %"


def test_differences_are_paired() -> None:
    """Questions differ by far more than the rows do: only a paired interval sees the difference."""
    rng = np.random.default_rng(1)
    tokens = np.full(50, 1000.0)
    second = rng.integers(0, 200, 50).astype(float)
    found = ratio_difference((second + 1, tokens), (second, tokens))
    assert found.value == pytest.approx(0.001) and found.low == pytest.approx(0.001) == found.high


# Analyses


def test_path_coverage_counts_every_position_once() -> None:
    """The published script skips the last position and divides by all: here it would say 2/4 and 0/1."""
    table = make_table(
        [
            (key("p"), {"base_rank": [1, 1, 4, 1]}),
            (key("q"), {"base_rank": [1]}),
            (key("q", number=1), {"base_rank": [6]}),
        ]
    )
    top1, top3, top5 = coverage(table, "base")
    assert top1.value == pytest.approx((3 / 4 + 1 + 0) / 3) == top3.value
    assert top5.value == pytest.approx((1 + 1 + 0) / 3)
    assert {line["top"] for line in as_dicts(path_coverage(table))} == {1, 3, 5}


def sparse_table():
    js = [0.0, 0.05, 0.2, 0.3, NAN] * 2
    columns = {"js_mix_base": js, "kl_mix_base": [0.5] * 10, "base_argmax": [1] * 10, "mix_argmax": [1] * 8 + [2] * 2}
    return make_table([(key("p"), columns), (key("q"), columns)])


def test_sparsity() -> None:
    lines = as_dicts(sparsity(sparse_table()))
    shares = {(line["measure"], line["threshold"]): line["share"] for line in lines if line["tenth"] == "all"}
    assert shares["js_mix_base", 0.1] == 0.4 and shares["js_mix_base", 0.01] == 0.6 and shares["js_mix_base", 1] == 0
    assert shares["kl_mix_base", 0.316] == 1 and shares["kl_mix_base", 0.562] == 0
    assert shares["argmax_changed", ""] == 0.2
    tenths = [line["share"] for line in lines if line["measure"] == "js_mix_base" and line["tenth"] != "all"]
    assert tenths == [0, 0, 1, 1, 0] * 2, "a divergence that is no number counts as not above"


def test_moved_tokens_with_their_contexts() -> None:
    columns = {
        "token": [0, 1, 2, 3],
        "base_argmax": [0, 2, 2, 2],
        "mix_argmax": [0, 1, 1, 3],
        "js_mix_base": [0.9, 0.1, 0.4, 0.2],
    }
    finding = moved_tokens(make_table([(key(), columns)], ["So", " we", " then", " check"]))
    up, second, down = as_dicts(finding)
    assert (up["direction"], up["token"], up["count"], up["per_1000_tokens"]) == ("up", " we", 2, 500)
    assert up["weight"] == pytest.approx(0.5)
    assert (up["context_1"], up["context_2"], up["context_3"]) == ("So we", "So", ""), "the heaviest first"
    assert (second["token"], second["count"]) == (" check", 1)
    assert (down["direction"], down["token"], down["count"]) == ("down", " then", 3)


def test_similarity() -> None:
    columns = {"delta_cosine_ceiling": [0.2, 0.6, 0.7, 0.9, 0.1] * 2, "delta_cosine_ceiling_centred": [NAN] * 10}
    columns["js_mix_base"] = [0, 0.3, 0, 0.2, 0] * 2
    finding = similarity(make_table([(key("p"), columns), (key("q"), columns)]), {"base": 0.8})
    assert finding is not None and len(finding.panels) == 3
    lines = as_dicts(finding)
    (whole,) = (one for one in lines if one["cosine"] == "delta_cosine_ceiling" and one["tenth"] == "all")
    assert whole["mean"] == pytest.approx(0.5) and whole["share_above_0.5"] == 0.6 and whole["tokens"] == 20
    (moved,) = (one for one in lines if one["cosine"] == "delta_cosine_ceiling" and one["tenth"] == "moved")
    assert moved["mean"] == pytest.approx(0.75) and moved["share_above_0.5"] == 1 and moved["tokens"] == 8
    tenths = [one for one in lines if one["cosine"] == "delta_cosine_ceiling" and isinstance(one["tenth"], int)]
    assert [one["mean"] for one in tenths] == pytest.approx(columns["delta_cosine_ceiling"])
    assert similarity(sparse_table()) is None


def test_tenths_of_answers_of_every_length() -> None:
    table = make_table([(key(), {"x": [0] * 3}), (key("q"), {"x": [0] * 25})])
    assert table.part[:3].tolist() == [0, 3, 6]
    assert np.bincount(table.part[3:]).tolist() == [3, 2, 3, 2, 3, 2, 3, 2, 3, 2]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (" check", "word"),
        ("été", "word"),
        (" 12", "number"),
        ("x2", "number"),
        ("\\frac", "mathematics"),
        (" =", "mathematics"),
        (".", "punctuation"),
        ("\n\n", "space"),
        ("", "space"),
        ("<|endoftext|>", "special"),
        (" <", "mathematics"),
        ("<>", "mathematics"),
    ],
)
def test_classes_of_tokens(text: str, name: str) -> None:
    assert class_of(text) == name


def test_entropy() -> None:
    columns = {
        "token": [0, 1, 0, 1, 0],
        "base_entropy": [0.1, 2.0, 0.2, 1.0, 0.3],
        "mix_entropy": [0.0, 1.0, 0.0, 1.0, 0.0],
        "js_mix_base": [0.0, 0.3, 0.0, 0.1, 0.0],
        "base_argmax": [0, 0, 0, 0, 0],
        "mix_argmax": [0, 1, 0, 0, 0],
    }
    table = make_table([(key("p"), columns), (key("q"), columns)], ["+", " so"])
    assert np.flatnonzero(forking(table)).tolist() == [1, 6]
    lines = {line["group"]: line for line in as_dicts(entropy(table, {("maths", "p"): 0.5, ("maths", "q"): 1.0}))}
    assert set(lines) == {"word", "mathematics", "forking", "other", "right up to half", "base always right"}
    assert lines["word"]["base_entropy"] == 1.5 and lines["mathematics"]["base_entropy"] == pytest.approx(0.2)
    assert lines["forking"]["base_entropy"] == 2 and lines["forking"]["js_share"] == pytest.approx(0.75)
    assert lines["forking"]["argmax_changed"] == 1 and lines["other"]["argmax_changed"] == 0
    assert lines["base always right"]["answer_length"] == 5 and lines["base always right"]["tokens"] == 5


def test_repairs() -> None:
    vocabulary = ["a", "b", "c", "d"]

    def answer(row: str, problem: str, tokens: list[int]) -> tuple[Key, dict[str, list[float]]]:
        js, logprob = (
            [0.1 * (place + 1) for place in range(len(tokens))],
            [-1.0 - place for place in range(len(tokens))],
        )
        return key(problem, row), {"token": tokens, "js_mix_base": js, "base_logprob": logprob}

    table = make_table(
        [
            answer("base", "p", [0, 1, 2]),
            answer("base", "q", [0, 1]),
            answer("base", "r", [0, 1, 2, 3]),
            answer("base", "s", [3]),
            answer("rast", "p", [0, 1, 3, 3]),
            answer("rast", "q", [0, 1]),
            answer("rast", "r", [0, 1]),
            answer("rast", "t", [0]),
        ],
        vocabulary,
    )
    right = {key("p"): False, key("q"): True, key("r"): True, key("p", "rast"): True, key("q", "rast"): True}
    right |= {key("r", "rast"): False, key("t", "rast"): True, key("s"): True}
    finding = repairs(table, right)
    assert finding is not None
    first, same, shorter = as_dicts(finding)
    assert (first["problem"], first["outcome"], first["position"], first["place_in_answer"]) == (
        "p",
        "repaired",
        2,
        0.5,
    )
    assert first["js_mix_base"] == pytest.approx(0.3) and first["base_surprise"] == 3
    assert (first["context"], first["base_went_on"], first["mix_went_on"]) == ("ab", "c", "dd")
    assert (same["outcome"], same["position"]) == ("both right", "")
    assert (shorter["outcome"], shorter["position"], shorter["place_in_answer"]) == ("broken", 2, 1)
    assert repairs(table, {}) is None
    assert [line[:2] for line in finding.table.rows] == [
        ["repaired", "1"],
        ["broken", "1"],
        ["both right", "1"],
        ["both wrong", "0"],
    ]


# Words


def test_forms_of_words() -> None:
    assert forms("check") == ["check", "checked", "checking", "checks"]
    assert set(forms("verify")) == {"verify", "verifies", "verified", "verifying"}
    assert set(forms("validate")) == {"validate", "validates", "validated", "validating"}
    assert set(forms("plug")) == {"plug", "plugs", "plugged", "plugging"}
    assert set(forms("guess")) == {"guess", "guesses", "guessed", "guessing"}
    assert set(forms("play")) == {"play", "plays", "played", "playing"}
    assert forms("another way") == ["another way"] and forms("double-check") == ["double-check"]


def test_words_are_found_whole_and_once() -> None:
    words = pattern(["check", "double-check", "wait"])
    found = [
        match[0] for match in words.finditer("Wait: double-check, Checked twice; paycheck, waiter, check_1, checks.")
    ]
    assert found == ["Wait", "double-check", "Checked", "check", "checks"]


def test_reasoning_words_for_1000_tokens() -> None:
    samples = [
        sample(0, "check and check", row="base", problem="p", tokens=100),
        sample(0, "wait", row="base", problem="q", tokens=300),
        sample(0, "We verify. Wait!", row="rast", problem="p", tokens=50),
        sample(0, "nothing", row="rast", problem="q", tokens=50),
    ]
    lines = as_dicts(reasoning_words(samples, {"look": ["check", "verify"], "back": ["wait"]}))
    rates = {(line["row"], line["words"]): (line["per_1000_tokens"], line["more_than_base"]) for line in lines}
    assert rates["base", "look"] == (5, 0) and rates["rast", "look"] == (10, pytest.approx(5))
    assert rates["base", "back"] == (2.5, 0) and rates["rast", "back"] == (10, pytest.approx(7.5))
    assert rates["base", "look: check"] == (5, "")


def test_words_of_ones_own(tmp_path: Path) -> None:
    assert set(read_words()) == {"branching", "backtracking", "self-verification"}
    file = tmp_path / "words.yaml"
    file.write_text("mine: [so, thus]\n")
    assert read_words(file) == {"mine": ["so", "thus"]}
    for text in ("[so]", "mine: so", "mine: []", "mine: [1]", "mine: ['']", "3: [so]", "", "mine: [so"):
        file.write_text(text)
        with pytest.raises(UserError, match="^--words .*words.yaml: ") as caught:
            read_words(file)
        assert "\n" not in str(caught.value)


# Files


def test_files_of_a_finding(tmp_path: Path) -> None:
    finding = sparsity(sparse_table().only([0]))
    paths = finding.write(tmp_path)
    assert [path.name for path in paths] == ["sparsity.csv", "sparsity.png", "sparsity.svg"]
    with paths[0].open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(finding.lines)
    assert lines[0]["threshold"] == "0.0001" and float(lines[0]["share"]) == finding.lines[0][4]
    assert {line["low"] for line in lines} == {""}, "one question has no interval"
    assert paths[1].read_bytes()[:4] == b"\x89PNG" and b"<svg" in paths[2].read_bytes()
