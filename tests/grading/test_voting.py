"""Answers that the grader calls the same vote together, others apart, whatever their order."""

from __future__ import annotations

import random

import pytest

from vllm_rast.evaluation.scores.majority import maj_at_k, tally
from vllm_rast.grading.voting import voting_classes

TOGETHER = [
    ["\\frac{6}{4}", "1.5", "3/2", "1\\frac12"],
    ["\\log_3 81", "4", "4.0", "\\sqrt{16}"],
    ["\\sin(\\pi/6)", "\\frac12", "0.5"],
    ["2<x\\le5", "(2,5]", "x \\in (2, 5]"],
    ["D", "(D)", "\\text{D}", "\\mathrm{D}", "D."],
    ["6:4", "3:2"],
    ["2 \\text{ hours}", "120 \\text{ minutes}"],
    ["x=7", "7", "7 \\text{ apples}"],
    ["2024!", "2024 \\cdot 2023!"],
    ["\\{1,2\\}", "\\{2,1\\}"],
    ["x^2-1", "(x-1)(x+1)"],
    ["75\\%", "0.75", "\\frac34"],
    ["f(g(x))", "f\\left(g(x)\\right)", "(f\\circ g)(x)"],
    ["f(x)g(x)", "g(x)f(x)"],
    ["-2", "\\begin{vmatrix}1&2\\\\3&4\\end{vmatrix}"],
    ["\\frac{\\pi}{4}+k\\pi, k\\in\\mathbb{Z}", "\\frac{(4m+1)\\pi}{4}, m \\text{ integer}"],
    ["\\{x\\mid x>2\\}", "\\{t\\mid t>2\\}", "(2,\\infty)"],
    ["\\begin{cases}1&x>0\\\\0&x\\le0\\end{cases}", "\\begin{cases}0&\\text{otherwise}\\\\1&x>0\\end{cases}"],
    ["3.5", "3,5", "3{,}5"],
    ["120", "\\binom{10}{3}", "C(10,3)", "10C3", "10 \\text{ choose } 3"],
    ["n \\text{ odd}", "n\\text{ is odd}", "\\text{odd } n"],
    ["n \\equiv 1 \\pmod 3", "n \\equiv 1 \\ (\\text{mod } 3)", "n\\equiv 4\\bmod 3"],
    ["\\vec a+\\vec b", "\\mathbf{a}+\\mathbf{b}", "\\boldsymbol b+\\boldsymbol a"],
]
APART = [
    ["3 \\text{ kg}", "3 \\text{ g}"],
    ["(1,2)", "(2,1)"],
    ["2^{2000}", "2^{2000}+1"],
    ["\\pi", "3.14"],
    ["A", "B"],
    ["\\gcd(a,b)", "\\gcd(a,c)"],
    ["\\text{even}", "\\text{odd}"],
    ["x+1", "x-1"],
    ["[0,1]", "(0,1)"],
    ["e^{-100}", "0"],
    ["f(g(x))", "g(f(x))"],
    ["f\\circ g", "g\\circ f"],
    ["\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "\\begin{vmatrix}1&2\\\\3&4\\end{vmatrix}"],
    ["2n+1", "2k+1"],
    ["2k, k\\in\\mathbb{Z}", "2k, k\\in\\mathbb{N}"],
    ["n\\text{ odd}", "n\\text{ even}"],
    ["n\\equiv1\\pmod3", "n\\equiv2\\pmod3"],
    ["n\\equiv1\\pmod3", "1"],
    ["\\vec a\\cdot\\vec b", "\\vec a\\times\\vec b"],
    ["1.234", "1,234"],
    ["\\begin{cases}1&x>0\\\\0&x\\le0\\end{cases}", "\\begin{cases}0&x>0\\\\1&x\\le0\\end{cases}"],
    ["\\textbf{(B)}\\ 12", "\\textbf{(C)}\\ 12"],
    ["\\textbf{(B)}\\ 12", "\\textbf{(B)}\\ 13"],
]


@pytest.mark.parametrize("answers", TOGETHER)
def test_one_answer_votes_once(answers: list[str]) -> None:
    assert len(set(voting_classes(answers))) == 1


@pytest.mark.parametrize("answers", APART)
def test_two_answers_vote_apart(answers: list[str]) -> None:
    assert len(set(voting_classes(answers))) == 2


def test_units_join_the_number_but_not_each_other() -> None:
    first, second, third, none = voting_classes(["5", "5 \\text{ cm}", "5 \\text{ m}", None])
    assert second != third and first in (second, third) and none is None


def test_the_order_of_samples_changes_nothing() -> None:
    answers: list[str | None] = [
        "5",
        "5 \\text{ cm}",
        "5 \\text{ m}",
        "x=5",
        "\\frac{10}{2}",
        "6",
        "six",
        None,
        "7",
    ] * 3
    wanted = dict(zip(answers, voting_classes(answers), strict=True))
    for seed in range(20):
        shuffled = random.Random(seed).sample(answers, len(answers))
        assert voting_classes(shuffled) == [wanted[answer] for answer in shuffled]


def test_spellings_of_the_right_answer_win_together() -> None:
    """Three ways to write 0.5 against two samples that agree on 0.6."""
    answers = ["\\frac12", "\\cos(\\pi/3)", "50\\%", "0.6", "0.6"]
    assert maj_at_k(tally(voting_classes(answers), [True, True, True, False, False]), 5) == 1


def test_many_different_answers_are_a_bounded_number_of_comparisons(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm_rast.grading import voting

    asked = []
    real = voting.decide
    monkeypatch.setattr(voting, "decide", lambda a, b: asked.append(a) or real(a, b))
    answers = [f"x^{{{n}}}+{n}" for n in range(200)]
    assert len(set(voting_classes(answers))) == 200
    assert len(asked) <= 2 * voting.MAX_COMPARED
