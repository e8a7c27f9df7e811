"""The grader's parts: extraction, numbers, trees, classes, the command."""

from __future__ import annotations

import argparse
import json
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vllm_rast.cli import grade as command
from vllm_rast.errors import UserError
from vllm_rast.grading import answer_class
from vllm_rast.grading.boxes import last_box, last_boxes
from vllm_rast.grading.decide import decide, rounding
from vllm_rast.grading.extract import Candidate, candidates
from vllm_rast.grading.latex.numbers import last_place, read_decimal
from vllm_rast.grading.latex.parse import parse
from vllm_rast.grading.latex.tokens import Unreadable
from vllm_rast.grading.meaning.compare import same
from vllm_rast.grading.meaning.values import TooLarge, Undefined, value


@pytest.mark.parametrize(
    ("text", "box"),
    [
        ("\\boxed{1}", "1"),
        ("\\boxed{\\frac{1}{2}} and \\boxed{2}", "2"),
        ("\\boxed{a \\} b}", "a \\} b"),
        ("\\fbox{3}", "3"),
        ("\\boxed {4}", "4"),
        ("\\boxed{1} \\boxed{}", "1"),
        ("\\boxed{1} \\boxed{2", "1"),
        ("\\boxed{\\boxed{5}}", "\\boxed{5}"),
        ("boxed{1}", None),
        ("\\boxed{", None),
        ("", None),
    ],
)
def test_the_last_box(text, box):
    assert last_box(text) == box


def test_neighbouring_boxes():
    assert last_boxes("\\boxed{0} then $\\boxed{1}$, $\\boxed{2}$ and $\\boxed{3}$.", 3) == ["1", "2", "3"]
    assert last_boxes("\\boxed{0} then $\\boxed{1}$, $\\boxed{2}$", 3) == ["1", "2"]
    assert last_boxes("$x=\\boxed{1}$ or $y=\\boxed{2}$", 2) == ["1", "2"]


def test_candidates_stop_at_a_box():
    assert list(candidates("The answer is 3. \\boxed{4} #### 5")) == [Candidate("4", "box")]
    assert list(candidates("The answer is 3.", boxed_only=True)) == []


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("12", 12), ("-3", -3), ("+3", 3), ("1,234", 1234), ("1,234.5", Fraction(2469, 2)), (".5", Fraction(1, 2)),
        ("5.", 5), ("4.5e3", 4500), ("1E-2", Fraction(1, 100)), ("12,34", None), ("1.2.3", None), ("1e99999", None),
        ("x", None), ("", None), ("1 2", None),
    ],
)  # fmt: skip
def test_decimals(text, number):
    assert read_decimal(text) == number


@settings(deadline=None)
@given(st.integers(-(10**12), 10**12), st.integers(0, 8))
def test_every_decimal_is_read_exactly(digits, places):
    number = Fraction(digits, 10**places)
    text = f"{digits}e-{places}"
    assert read_decimal(text) == number and answer_class(text) == str(number)
    assert decide(str(digits), f"{digits:,}").verdict is True
    assert decide(str(digits), str(digits + 1)).verdict is False


@settings(deadline=None)
@given(st.fractions(max_denominator=1000))
def test_fractions_in_all_spellings(number):
    top, bottom = number.numerator, number.denominator
    for text in (
        f"{top}/{bottom}",
        f"\\frac{{{top}}}{{{bottom}}}",
        f"\\dfrac{{{2 * top}}}{{{2 * bottom}}}",
        f"$-\\frac{{{-top}}}{{{bottom}}}$",
    ):
        assert value(parse(text)) == number
        assert decide(f"{top}/{bottom}", text).verdict is True
        assert answer_class(text) == str(number)
    assert decide(f"{top}/{bottom}", f"{top + bottom}/{bottom}").verdict is False


def test_the_last_place_of_a_gold():
    assert last_place("1.6") == Fraction(1, 10) and last_place("4.5e33") == 10**32 and last_place("90") == 1
    assert rounding("1.6") == Fraction(1, 20)
    assert rounding("3e8") == 15_000_000  # no more than a twentieth of it
    assert rounding("4") == Fraction(1, 25)  # an integer that may count
    assert rounding("\\frac{1}{2}") is None


@pytest.mark.parametrize("text", ["5^{5^{5^{5}}}", "9^{9^{9^{9}}}", "10^{10^{10^{10^{10}}}}"])
def test_towers_are_left_to_a_worker(text):
    with pytest.raises(TooLarge):
        value(parse(text))
    assert same(parse("5"), parse(text)) is None
    assert same(parse(text), parse(text)) is True


@pytest.mark.parametrize(
    "text", ["10^{10^{10}}", "(10^9)!", "((2^{999})^{999})^{999}", "\\sin(10^{300})", "\\binom{10^9}{5}", "1e4500"]
)
def test_large_values_are_told_apart(text):
    assert same(parse("5"), parse(text)) is False
    assert same(parse(text), parse(text)) is True


@pytest.mark.parametrize("text", ["1/0", "\\frac{1}{1-1}", "\\log 0", "0^{-1}", "(-1)!"])
def test_undefined_values(text):
    with pytest.raises(Undefined):
        value(parse(text))
    assert same(parse("5"), parse(text)) is False


@pytest.mark.parametrize(
    "text", ["", "1 2", "(1", "\\frac{1}", "x +", "__import__('os')", "a = ; b", "\\int x dx", "\\bmod 3", "#"]
)
def test_unreadable_answers(text):
    with pytest.raises(Unreadable):
        parse(text)


@pytest.mark.parametrize(
    "spellings",
    [
        ("1/2", "0.5", "\\frac12", ".50", "\\dfrac{1}{2}", "$\\frac{2}{4}$", "x = 0.5"),
        ("\\sqrt{2}", "sqrt(2)", "2^{1/2}", "\\frac{2}{\\sqrt2}"),
        ("x+1", "1+x", "(x^2-1)/(x-1)"),
        ("1,2", "2, 1", "\\{2,1\\}", "x=1 or x=2"),
        ("x>2", "(2,\\infty)", "2 < x"),
        ("5 cm", "5", "5\\text{ cm}"),
        ("\\text{Evelyn}", "Evelyn", "evelyn."),
        ("1000", "1,000", "10^3"),
        ("\\begin{pmatrix}1\\\\2\\end{pmatrix}", "\\begin{bmatrix} 1 \\\\ 2 \\end{bmatrix}"),
        ("no solution", "\\emptyset", "\\varnothing"),
        ("90^\\circ", "90", "90 degrees"),
    ],
)  # fmt: skip
def test_spellings_of_one_answer_vote_together(spellings):
    assert len({answer_class(spelling) for spelling in spellings}) == 1


def test_different_answers_vote_apart():
    answers = [
        "1",
        "-1",
        "2",
        "1/2",
        "x",
        "x+1",
        "(1,2)",
        "(2,1)",
        "1,2",
        "[1,2]",
        "\\sqrt{2}",
        "\\sqrt{3}",
        "yes",
        "10:30",
        "10_2",
        "i",
        "\\infty",
        "5^{5^{5^{5}}}",
    ]
    assert len({answer_class(answer) for answer in answers}) == len(answers)
    assert answer_class(None) == ""


def run(tmp_path, lines, *options):
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))
    parser = argparse.ArgumentParser()
    command.add_arguments(parser.add_subparsers())
    args = parser.parse_args(["grade", "--pairs", str(path), *options])
    return args.func(args)


def test_the_command_marks_pairs_in_order(tmp_path, capsys):
    pairs = [
        {"gold": "1/2", "prediction": "so \\boxed{\\frac12}"},
        {"gold": "5", "prediction": ""},
        {"gold": 27.0, "prediction": "27", "benchmark": "amc23"},
        {"gold": "1.6", "prediction": "1.62", "kind": "rounded"},
        {"gold": ["1", "2"], "prediction": "2, 1"},
        {"gold": "5", "prediction": None},
    ]
    assert run(tmp_path, pairs) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["correct"] for line in lines] == [True, False, True, True, True, False]
    assert [line["status"] for line in lines] == ["ok", "no_answer", "ok", "ok", "ok", "no_answer"]
    assert all(set(line) == {"correct", "answer", "how", "status", "ms"} for line in lines)


def test_too_many_errors_are_an_exit_code(tmp_path, capsys):
    pairs = [{"gold": "5", "prediction": "\\boxed{5^{5^{5^{5}}}}"}, {"gold": "5", "prediction": "5"}]
    assert run(tmp_path, pairs, "--timeout", "0.2") == 0
    assert run(tmp_path, pairs, "--timeout", "0.2", "--max-errors", "0.4") == 3
    assert "1 timeout" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{\n", "line 1: not JSON"),
        ({"gold": "5"}, "no column 'prediction'"),
        ({"prediction": "5"}, "no column 'gold'"),
        ("[1]\n", "expected an object"),
        ({"gold": "5", "prediction": "5", "kind": "maths"}, "kind 'maths'"),
        ({"gold": "5", "prediction": "5", "benchmark": "math50"}, "did you mean math500"),
    ],
)
def test_bad_pairs_are_named(tmp_path, line, message):
    with pytest.raises(UserError, match=message):
        run(tmp_path, [line])


def test_the_command_needs_something_to_grade(tmp_path):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser.add_subparsers())
    for words in (["grade"], ["grade", "run", "--pairs", "file"], ["grade", "--pairs", str(tmp_path / "none")]):
        args = parser.parse_args(words)
        with pytest.raises(UserError):
            args.func(args)
