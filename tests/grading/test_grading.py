"""The grader against pairs, traps and hostile text."""

from __future__ import annotations

import pytest
from pairs import PAIRS, TOPICS

from vllm_rast.errors import UserError
from vllm_rast.grading import GradeItem, Grader


@pytest.fixture(scope="module")
def grader():
    with Grader(timeout_s=60) as grader:  # what is right stays right on a busy machine
        yield grader


@pytest.mark.parametrize("topic", sorted(TOPICS))
def test_pairs(grader, topic):
    """Right and wrong answers of one kind, as models and people write them."""
    pairs = TOPICS[topic]
    items = [GradeItem(pair["prediction"], pair["gold"], pair.get("kind", "math")) for pair in pairs]
    marked = zip(pairs, grader.grade_many(items), strict=True)
    assert [(pair, grade) for pair, grade in marked if grade.correct != pair["right"]] == []


def test_there_are_pairs_of_both_kinds():
    assert sum(pair["right"] for pair in PAIRS) > 500 and sum(not pair["right"] for pair in PAIRS) > 500


def test_code_in_a_box_is_not_run(grader, tmp_path):
    witness = tmp_path / "witness"
    for code in (
        f"__import__('os').system('touch {witness}')",
        f"open('{witness}', 'w')",
        f"__import__('pathlib').Path('{witness}').touch() or 5",
        f"\\text{{__import__('os').system('touch {witness}')}}",
        f"[x for x in [open('{witness}','w')]]",
        f"\\sum_{{k=1}}^{{3}} __import__('os').system('touch {witness}')",
    ):
        assert not grader.grade(GradeItem(f"\\boxed{{{code}}}", "5")).correct
    assert not witness.exists()


def test_how_an_answer_was_found(grader):
    found = {
        "so \\boxed{5}": "box",
        "#### 5": "hashes",
        "The answer is 5.": "phrase",
        "5": "bare",
        "We add up and find after some work that $x = 5$": "maths",
        "We add up and find after some work that there are 5": "number",
    }
    for text, how in found.items():
        grade = grader.grade(GradeItem(text, "5"))
        assert grade.correct and grade.how.startswith(how + ","), (text, grade)
        assert grade.answer_class == "5"


@pytest.mark.parametrize("text", ["", "   ", "\\boxed{}", "...", "$$ $$"])
def test_no_answer(grader, text):
    grade = grader.grade(GradeItem(text, "5"))
    assert (grade.correct, grade.status, grade.answer) == (False, "no_answer", None)


@pytest.mark.parametrize("text", ["The answer is not 5.", "\\boxed{5} is wrong.", "It is at least 5.", "Is it 5?"])
def test_what_is_denied_is_no_answer_and_has_no_vote(grader, text):
    grade = grader.grade(GradeItem(text, "5"))
    assert (grade.correct, grade.status, grade.answer, grade.answer_class) == (False, "no_answer", None, "")
    assert grade.how.endswith(", denied")


def test_boxed_only(grader):
    assert grader.grade(GradeItem("so \\boxed{7}", "7", "integer", boxed_only=True)).correct
    assert grader.grade(GradeItem("so it is 7", "7", "integer", boxed_only=True)).status == "no_answer"


def test_a_list_has_an_order_only_where_the_row_says_so(grader):
    assert grader.grade(GradeItem("2, 1", "1, 2")).correct
    assert not grader.grade(GradeItem("2, 1", "1, 2", ordered=True)).correct
    assert grader.grade(GradeItem("1, 2", "1, 2", ordered=True)).correct
    assert not grader.grade(GradeItem("1, 2", "1, 2, 2")).correct
    assert grader.grade(GradeItem("3, 1, 2", ("1", "2", "3"))).correct


def test_an_absolute_error(grader):
    assert grader.grade(GradeItem("4.25", "4.2", error="1e-1")).correct
    assert not grader.grade(GradeItem("4.35", "4.2", error="1e-1")).correct


def test_grades_come_in_order(grader):
    items = [GradeItem(f"\\boxed{{{n}}}" if n % 3 else "\\boxed{\\sum_{k=1}^{2} k}", "3") for n in range(12)]
    marked = list(grader.grade_many(items))
    assert [grade.correct for grade in marked] == [n % 3 == 0 or n == 3 for n in range(12)]


def test_qwen_rules_are_inflated_and_safe():
    with Grader("qwen") as qwen, Grader() as default:
        for gold, prediction in (
            ("50", "0.5"),
            ("0.5", "50"),
            ("100000", "100001"),
            ("1,2", "[1,2]"),
            ("\\pi", "3.14159"),
        ):
            item = GradeItem(prediction, gold)
            assert qwen.grade(item).correct and "inflated" in qwen.grade(item).how
            assert not default.grade(item).correct
        assert not qwen.grade(GradeItem("\\boxed{__import__('os').getpid()}", "5")).correct
        assert not qwen.grade(GradeItem("100020", "100000")).correct
        assert qwen.grade(GradeItem("\\frac12", "0.5")).correct
        several = GradeItem("\\boxed{4}, \\boxed{5}", "5")  # the lineage looks at the last box alone
        assert qwen.grade(several).correct and not default.grade(several).correct


@pytest.mark.parametrize("options", [{"name": "quen"}, {"timeout_s": 0}, {"timeout_s": float("nan")}, {"workers": 0}])
def test_bad_options(options):
    with pytest.raises(UserError):
        Grader(**options)
