"""`evaluate` grades what is missing, counts it, and says so in a table, in JSON and by its exit code."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
from stub_grader import StubGrader, stub_grader
from synthetic import write_run

from vllm_rast.cli import evaluate as command
from vllm_rast.errors import UserError
from vllm_rast.evaluation.runs.folder import RunFolder
from vllm_rast.evaluation.scores.evaluate import evaluate_runs
from vllm_rast.evaluation.scores.grade_run import grade_run

__all__ = ["stub_grader"]
SAMPLES = 12 * 4 * 4  # questions, rows, n


def evaluate(*args: object) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser.add_subparsers())
    parsed = parser.parse_args(["evaluate", *map(str, args)])
    return parsed.func(parsed)


def grades(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "grades.jsonl").read_text().splitlines()]


@pytest.fixture
def run(tmp_path: Path, stub_grader: StubGrader) -> Path:
    return write_run(tmp_path / "demo")


def test_json_counts_what_the_texts_say(run, capsys):
    assert evaluate(run, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    texts = {row: [] for row in ("base", "positive", "rast", "ceiling")}
    golds = {problem.id: problem.gold for problem in RunFolder(run).problems()}
    for sample in RunFolder(run).samples():
        texts[sample.row].append(f"boxed{{{golds[sample.problem]}}}" in sample.text)
    assert list(result["rows"]) == list(texts)
    for row, right in texts.items():
        assert result["rows"][row]["avg"] == pytest.approx(sum(right) / len(right))
        low, high = result["rows"][row]["ci"]
        assert 0 <= low < result["rows"][row]["avg"] < high <= 1
        assert list(result["rows"][row]["pass_at_k"]) == ["1", "2", "4"]
        assert result["rows"][row]["pass_at_k"]["1"] == pytest.approx(result["rows"][row]["avg"])
        assert result["rows"][row]["maj_at_k"]["1"] == pytest.approx(result["rows"][row]["avg"])
        assert result["rows"][row]["n"] == 4 and result["rows"][row]["questions"] == 12
    base, rast, ceiling = (result["rows"][row]["avg"] for row in ("base", "rast", "ceiling"))
    assert result["recovery_rate"] == pytest.approx((rast - base) / (ceiling - base))
    assert result["differences"]["rast - base"]["value"] == pytest.approx(rast - base)
    assert result["benchmarks"]["sums"]["rows"] == result["rows"]


def test_table_goes_to_stdout_and_names_every_row(run, capsys):
    assert evaluate(run) == 0
    out = capsys.readouterr().out
    for expected in (
        "base",
        "positive",
        "rast",
        "ceiling",
        "pass@4",
        "maj@4",
        "recovery rate of rast",
        "unanswered",
    ):
        assert expected in out


def test_a_second_evaluation_grades_nothing(run, stub_grader):
    evaluate(run, "--json")
    assert stub_grader.graded == SAMPLES
    again = grade_run(run)
    assert (again.new, again.kept, again.without_gold) == (0, SAMPLES, 0)
    assert stub_grader.graded == SAMPLES == len(grades(run))


def test_only_a_changed_text_is_graded_again(run, stub_grader):
    evaluate(run)
    lines = (run / "samples.jsonl").read_text().splitlines()
    sample = json.loads(lines[5]) | {"text": "\\boxed{-1}"}
    (run / "samples.jsonl").write_text("\n".join([*lines[:5], json.dumps(sample), *lines[6:]]) + "\n")
    evaluation = evaluate_runs([run])
    assert stub_grader.graded == SAMPLES + 1
    changed = [s for s in evaluation.samples if s.text == "\\boxed{-1}"]
    assert [s.answer for s in changed] == ["-1"] and len(evaluation.samples) == SAMPLES


def test_a_new_version_of_the_grader_grades_everything_again(run, stub_grader):
    evaluate(run)
    stub_grader.version = "stub/2"
    evaluate(run)
    assert stub_grader.graded == 2 * SAMPLES
    stub_grader.version = "stub/1"
    evaluate(run)
    assert stub_grader.graded == 2 * SAMPLES
    evaluate(run, "--regrade")
    assert stub_grader.graded == 3 * SAMPLES


def test_grading_killed_in_a_line_goes_on_from_there(run, stub_grader):
    evaluate(run)
    whole = (run / "grades.jsonl").read_bytes()
    expected = evaluate_runs([run]).pooled.rows["rast"].avg
    (run / "grades.jsonl").write_bytes(whole[: len(whole) // 2])
    assert evaluate_runs([run]).pooled.rows["rast"].avg == expected
    kept = (len(whole[: len(whole) // 2].splitlines())) - 1
    assert stub_grader.graded == 2 * SAMPLES - kept
    assert len(grades(run)) == SAMPLES


def test_grades_can_be_read_line_by_line(run):
    evaluate(run)
    assert set(grades(run)[0]) == {
        "benchmark", "row", "problem", "sample", "correct", "answer", "how", "status", "ms", "class",
        "text_hash", "grader",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("demands", "code"), [(["rast=0.01"], 0), (["rast=1%", "base=99%"], 100), (["base=0.99"], 100)]
)
def test_demanded_accuracy(run, capsys, demands, code):
    assert evaluate(run, "--json", *(word for demand in demands for word in ("--fail-below", demand))) == code
    assert ("'base' has" in capsys.readouterr().err) == (code == 100)


def test_demand_for_an_unknown_row_is_a_usage_error(run):
    with pytest.raises(UserError, match="--fail-below rats=.*'rats'.*base, positive, rast, ceiling"):
        evaluate(run, "--fail-below", "rats=0.5")


@pytest.mark.parametrize("option", [("--fail-below", "rast"), ("--fail-below", "rast=80"), ("--max-errors", "lots")])
def test_malformed_options_are_usage_errors(run, capsys, option):
    with pytest.raises(SystemExit) as stop:
        evaluate(run, *option)
    assert stop.value.code == 2 and option[0] in capsys.readouterr().err


def test_too_many_grader_errors(run, stub_grader, capsys):
    lines = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    for index in range(0, len(lines), 10):
        lines[index]["text"] = ("TIMEOUT", "ERROR")[index // 10 % 2]
    (run / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert evaluate(run, "--json", "--fail-below", "rast=1") == 3
    out, err = capsys.readouterr()
    assert "--max-errors" in err
    rows = json.loads(out)["rows"].values()
    assert sum(row["timeouts"] * row["samples"] for row in rows) == pytest.approx(10)
    assert sum(row["errors"] * row["samples"] for row in rows) == pytest.approx(10)
    assert evaluate(run, "--json", "--max-errors", "0.2") == 0


def test_a_folder_that_is_no_run_is_a_usage_error(tmp_path, stub_grader):
    with pytest.raises(UserError, match="is not a run folder"):
        evaluate(tmp_path)


def test_a_run_without_samples_is_a_usage_error(tmp_path, stub_grader):
    with pytest.raises(UserError, match="no finished sample"):
        evaluate(write_run(tmp_path / "empty", n=0))


def test_a_sample_without_its_problem_is_a_usage_error(run):
    problems = (run / "problems.jsonl").read_text().splitlines()
    (run / "problems.jsonl").write_text("\n".join(problems[1:]) + "\n")
    with pytest.raises(UserError, match="lacks problem 'q0'"):
        evaluate(run)


def without_answers(run: Path, ids: str) -> None:
    """Take the golds of some problems away, as in a file of bare prompts."""
    problems = [json.loads(line) for line in (run / "problems.jsonl").read_text().splitlines()]
    lines = [json.dumps(p | {"gold": "" if p["id"] in ids.split() else p["gold"]}) for p in problems]
    (run / "problems.jsonl").write_text("\n".join(lines) + "\n")


def test_problems_without_an_answer_are_left_out_and_told(run, capsys):
    without_answers(run, "q1 q2")
    assert evaluate(run) == 0
    assert "32 samples of problems without an answer" in capsys.readouterr().out
    assert len(evaluate_runs([run]).pooled.rows["rast"].questions) == 10


def test_a_run_without_any_answer_is_a_usage_error(run):
    without_answers(run, " ".join(f"q{i}" for i in range(12)))
    with pytest.raises(UserError, match='add "answer"'):
        evaluate(run)


def test_the_default_grader_marks_a_run(tmp_path):
    evaluation = evaluate_runs([write_run(tmp_path / "demo", questions=4, n=2)])
    golds = {problem.id: problem.gold for problem in evaluation.runs[0].problems()}
    assert evaluation.grader.startswith("default/")
    for sample in evaluation.samples:
        assert sample.correct == (f"\\boxed{{{golds[sample.problem]}}}" in sample.text)
        assert sample.status == ("ok" if "boxed" in sample.text else "no_answer")
        assert sample.answer_class == (sample.answer if "boxed" in sample.text else None)
        assert sample.tier in {"text", "exact", "formula", "no answer"}
    assert evaluation.pooled.rows["rast"].tiers.total() == 8


def test_several_benchmarks_are_pooled_and_told_apart(tmp_path, stub_grader, capsys):
    run = write_run(tmp_path / "two", benchmarks=("first", "second"), questions=5)
    assert evaluate(run, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    first, second = (result["benchmarks"][name]["rows"]["rast"] for name in ("first", "second"))
    assert result["rows"]["rast"]["questions"] == first["questions"] + second["questions"] == 10
    assert result["rows"]["rast"]["avg"] == pytest.approx((first["avg"] + second["avg"]) / 2)


def test_rows_of_several_runs_stand_side_by_side(tmp_path, stub_grader):
    one = write_run(tmp_path / "one", skills={"base": 0.4, "rast": 0.8})
    two = write_run(tmp_path / "two", skills={"ceiling": 0.9, "rast": 0.7}, seed=1)
    rows = evaluate_runs([one, two]).pooled.rows
    assert sorted(rows) == ["base", "ceiling", "one:rast", "two:rast"]
    assert all(len(row.questions) == 12 and row.n == 4 for row in rows.values())


def test_an_unfinished_run_says_so(tmp_path, stub_grader, capsys):
    run = write_run(tmp_path / "demo")
    lines = (run / "samples.jsonl").read_text().splitlines(keepends=True)
    (run / "samples.jsonl").write_text("".join(lines[:-5]))  # the last question's ceiling row, and one more
    assert evaluate(run) == 0
    out = capsys.readouterr().out
    assert "different numbers of questions" in out and "3 to 4 samples" in out
    assert "11 of 12" in out and "row ceiling is not finished: 44 of 48 samples, 11 of 12 questions" in out
    assert evaluate(run, "--json") == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert (rows["ceiling"]["complete"], rows["ceiling"]["expected_questions"]) == (False, 12)
    assert (rows["base"]["complete"], rows["base"]["samples"]) == (True, 48)
    evaluation = evaluate_runs([run])
    assert evaluation.pooled.recovery().questions == 11
    assert evaluation.pooled.rows["rast"].n == 3
