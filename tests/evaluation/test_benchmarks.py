"""Benchmarks: shipped ones, one's own, and rows with something wrong. No test needs the real data."""

from __future__ import annotations

import argparse
import json
import re

import pytest
import yaml

from vllm_rast.cli import benchmarks as command
from vllm_rast.errors import UserError
from vllm_rast.evaluation.tasks import benchmark as benchmarks
from vllm_rast.evaluation.tasks.benchmark import DataWarning, list_benchmarks, load_benchmark
from vllm_rast.grading import GradeItem, Grader

NAMES = ["aime24", "aime25", "amc23", "gsm8k", "math500", "minerva", "olympiadbench", "tiny"]
UNPINNED = ["aime26", "brumo25", "gpqa", "hmmt25", "mmlu_pro"]  # nobody here has seen their rows


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def problems(name, path):
    with pytest.warns(DataWarning):
        return load_benchmark(name, path).problems()


def test_the_shipped_benchmarks():
    shipped = list_benchmarks()
    assert [b.name for b in shipped] == sorted(NAMES + UNPINNED)
    for benchmark in shipped:
        assert benchmark.title and benchmark.licence and benchmark.n_rows
        if benchmark.name in UNPINNED:
            text = (benchmarks.FOLDER / f"{benchmark.name}.yaml").read_text()
            assert text.startswith("# Not downloaded here") and benchmark.revision is None
            continue
        assert benchmark.sha256
        if benchmark.hub:
            assert re.fullmatch("[0-9a-f]{40}", benchmark.revision), "a branch is no pin"
            assert benchmark.revision in benchmark.source


def test_names_and_aliases():
    assert load_benchmark("minerva_math").name == "minerva"
    with pytest.raises(UserError, match="did you mean math500"):
        load_benchmark("math50")
    with pytest.raises(UserError, match="known: aime24"):
        load_benchmark("qqqqqq")


def test_tiny_comes_with_the_package(monkeypatch, tmp_path):
    rows = load_benchmark("tiny").problems()
    assert len(rows) == 1000 and rows[0].family and rows[0].boxed_only
    monkeypatch.setattr(benchmarks, "DATASETS", tmp_path)  # as installed, without the folder beside the package
    assert load_benchmark("tiny").problems() == rows
    assert load_benchmark("tiny").problems(limit=3) == rows[:3]


def test_golds_as_the_data_sets_write_them(tmp_path):
    row = {"id": 1, "problem": "P", "question": "P", "answer": "025"}
    assert problems("aime24", write(tmp_path / "a.jsonl", [row]))[0].gold == "25"
    assert problems("amc23", write(tmp_path / "b.jsonl", [{**row, "answer": 27.0}]))[0].gold == "27"
    assert problems("aime25", write(tmp_path / "c.jsonl", [{"problem": "P", "expected_answer": "70"}]))[0].gold == "70"
    solution = "First \\boxed{1}, then $\\boxed{4.5e33} \\mathrm{ergs}$."
    minerva = problems("minerva", write(tmp_path / "d.jsonl", [{"problem": "P", "solution": solution, "type": "T"}]))[0]
    assert (minerva.gold, minerva.kind, minerva.family) == ("4.5e33", "rounded", "T")
    gsm8k = problems("gsm8k", write(tmp_path / "e.jsonl", [{"question": "Q", "answer": "1 + 1 = 2\n#### 2,125"}]))[0]
    assert gsm8k.gold == "2125" and gsm8k.id == "0"


def test_rows_of_mathematical_contests(tmp_path):
    row = {"problem_idx": 3, "problem": "P", "answer": "\\frac{1}{576}", "problem_type": ["Algebra"]}
    for name in ("hmmt25", "brumo25"):
        (problem,) = problems(name, write(tmp_path / f"{name}.jsonl", [row]))
        assert (problem.id, problem.gold, problem.kind) == ("3", "\\frac{1}{576}", "math")
    (problem,) = problems("aime26", write(tmp_path / "a.jsonl", [{**row, "answer": 277}]))
    assert (problem.gold, problem.kind) == ("277", "integer")


GPQA = {
    "Record ID": "rec1",
    "Question": "Which?",
    "Correct Answer": "one\n",
    "Incorrect Answer 1": "two",
    "Incorrect Answer 2": "three",
    "Incorrect Answer 3": "four",
    "High-level domain": "Physics",
}


def test_choices_in_an_order_of_their_own(tmp_path):
    """By the seed and the id alone: the same in every run, whatever stands before the row."""
    rows = [{**GPQA, "Record ID": f"rec{i}"} for i in range(60)]
    found = problems("gpqa_diamond", write(tmp_path / "g.jsonl", rows))
    for problem in found:
        question, empty, *lines = problem.question.splitlines()
        assert (question, empty, len(lines), problem.family) == ("Which?", "", 4, "Physics")
        assert f"{problem.gold}) one" in lines and problem.kind == "choice"
        assert sorted(line[3:] for line in lines) == ["four", "one", "three", "two"]
    golds = [problem.gold for problem in found]
    assert "".join(golds[:8]) == "DBDBBABD"
    assert min(map(golds.count, "ABCD")) > 5
    assert problems("gpqa", write(tmp_path / "one.jsonl", rows[5:6]))[0] == found[5]


def test_choices_as_they_stand(tmp_path):
    row = {"question_id": 70, "question": "Which?", "options": ["A", "x"] * 5, "answer": "J", "category": "business"}
    (problem,) = problems("mmlu_pro", write(tmp_path / "m.jsonl", [row]))
    assert problem.gold == "J" and problem.question.endswith("\nI) A\nJ) x")
    assert load_benchmark("mmlu_pro").template.endswith("choices.txt")


@pytest.mark.parametrize(
    ("name", "row", "said"),
    [
        ("gpqa", {**GPQA, "Incorrect Answer 1": "one"}, "two choices are the same, row 1"),
        ("gpqa", {**GPQA, "Incorrect Answer 3": None}, "no column 'Incorrect Answer 3'"),
        ("mmlu_pro", {"question": "Q", "options": ["x", "y"], "answer": "C"}, "no choice 'C' among 2, row 1"),
        ("mmlu_pro", {"question": "Q", "options": ["x"], "answer": "A"}, "1 choices instead of 2 to 10"),
        ("mmlu_pro", {"question": "Q", "options": ["x", "y"], "answer": "first"}, "'first' is not a letter"),
    ],
)
def test_choices_that_are_wrong(tmp_path, name, row, said):
    with pytest.raises(UserError, match=said):
        load_benchmark(name, write(tmp_path / "x.jsonl", [row])).problems()


def test_choices_are_graded(tmp_path):
    (problem,) = problems("gpqa", write(tmp_path / "g.jsonl", [GPQA]))
    wrong = next(letter for letter in "ABCD" if letter != problem.gold)
    said = ["\\boxed{%s}", "\\boxed{\\text{%s}}", "The answer is (%s).", "So %s) is right, \\boxed{(%s)}."]
    with Grader() as grader:
        for text in said:
            for letter in (problem.gold, wrong):
                filled = text.replace("%s", letter)
                assert grader.grade(GradeItem.of(problem, filled)).correct == (letter == problem.gold), filled


def test_the_kind_and_the_key_go_together(tmp_path):
    path = tmp_path / "b.yaml"
    path.write_text("name: x\nfile: x.jsonl\nquestion: q\ngold: {a: letter}\nkind: choice")
    with pytest.raises(UserError, match="the kind choice and the key choices go together"):
        load_benchmark(str(path))


def test_olympiad_rows(tmp_path):
    row = {
        "id": 7,
        "question": "Q",
        "final_answer": ["1,2"],
        "is_multiple_answer": True,
        "unit": None,
        "error": None,
        "subfield": "Algebra",
    }
    rows = [
        row,
        {**row, "id": 8, "final_answer": ["4.2"], "is_multiple_answer": False, "unit": "%", "error": "1e-1"},
        {**row, "id": 9, "final_answer": ["1", "2"]},
    ]
    first, second, third = problems("olympiadbench", write(tmp_path / "o.jsonl", rows))
    assert (first.gold, first.ordered, first.family, first.unit) == ("1,2", False, "Algebra", None)
    assert (second.ordered, second.error, second.unit) == (True, "1e-1", "%")
    assert third.gold == ("1", "2")


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        ("math500", {"problem": "P"}, "no column 'answer' in row 1 of"),
        ("math500", {"answer": "1"}, "no column 'problem' in row 1 of"),
        ("aime24", {"problem": "P", "answer": "many"}, "no integer answer"),
        ("aime24", {"problem": "P", "answer": "2.5"}, "not an integer"),
        ("gsm8k", {"question": "Q", "answer": "just 5"}, "no ####"),
        ("minerva", {"question": "Q", "solution": "just 5"}, "no \\\\boxed"),
        ("math500", {"problem": "P", "answer": " "}, "it is empty"),
        ("olympiadbench", {"question": "Q", "final_answer": []}, "it is empty"),
    ],
)
def test_bad_rows_are_named(tmp_path, name, row, message):
    path = write(tmp_path / "rows.jsonl", [row])
    with pytest.raises(UserError, match=message):
        load_benchmark(name, path).problems()


def test_bad_files(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        load_benchmark("math500", tmp_path / "none.jsonl")
    with pytest.raises(UserError, match="no math500.jsonl in this folder"):
        load_benchmark("math500", tmp_path)
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"problem": "P", "answer": "1"}\n{"prob\n')
    with pytest.raises(UserError, match="line 2: not JSON"):
        load_benchmark("math500", broken).problems()
    with pytest.raises(UserError, match="no rows"):
        load_benchmark("math500", write(tmp_path / "empty.jsonl", [])).problems()
    twice = write(tmp_path / "twice.jsonl", [{"problem": "P", "answer": "1", "unique_id": "a"}] * 2)
    with pytest.raises(UserError, match="rows 1 and 2 .* same id 'a'"):
        load_benchmark("math500", twice).problems()


def test_a_folder_and_a_parquet_file(tmp_path):
    from datasets import Dataset

    row = {"problem": "P", "answer": "1", "unique_id": "a"}
    write(tmp_path / "math500.jsonl", [row])
    folder = problems("math500", tmp_path)
    Dataset.from_list([row]).to_parquet(str(tmp_path / "rows.parquet"))
    assert problems("math500", tmp_path / "rows.parquet") == folder
    write(tmp_path / "minerva_math.jsonl", [{"problem": "P", "solution": "\\boxed{1}"}])
    assert problems("minerva", tmp_path)[0].gold == "1"


def mine(tmp_path, **keys):
    said = {"name": "mine", "file": "rows.jsonl", "question": "q", "gold": {"a": "text"}, "kind": "math", **keys}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in said.items() if value is not None}))
    return str(path)


def test_a_benchmark_of_ones_own(tmp_path):
    write(tmp_path / "rows.jsonl", [{"q": "1+1?", "a": "2"}, {"q": "2+2?", "a": "4"}])
    benchmark = load_benchmark(mine(tmp_path))
    assert [(p.benchmark, p.id, p.question, p.gold) for p in benchmark.problems()] == [
        ("mine", "0", "1+1?", "2"),
        ("mine", "1", "2+2?", "4"),
    ]
    assert benchmark.n_rows is None


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"kinds": "math"}, "unknown key 'kinds'; did you mean 'kind'"),
        ({"kind": None}, "'kind' is missing"),
        ({"kind": "maths"}, "kind 'maths' is not one of"),
        ({"gold": {"a": "texts"}}, "gold must map columns"),
        ({"gold": "a"}, "gold must map columns"),
        ({"file": None}, "where the rows are"),
        ({"hub": "a/b"}, "where the rows are"),
    ],
)
def test_a_bad_benchmark_file(tmp_path, keys, message):
    with pytest.raises(UserError, match=message):
        load_benchmark(mine(tmp_path, **keys))


def test_a_changed_data_set_is_noticed(tmp_path):
    rows = [{"q": "1+1?", "a": "2"}]
    path = write(tmp_path / "rows.jsonl", rows)
    benchmark = load_benchmark(mine(tmp_path))
    pinned = {"rows": 1, "sha256": benchmark.content_hash}
    same = load_benchmark(mine(tmp_path, **pinned))
    assert same.problems() == benchmark.problems() and same.data_hash == benchmark.data_hash
    write(path, [{"q": "1+1?", "a": "3"}])
    changed = load_benchmark(mine(tmp_path, **pinned))
    with pytest.warns(DataWarning, match="other questions or golds"):
        assert changed.data_hash != benchmark.data_hash
    write(path, rows * 2)
    with pytest.warns(DataWarning, match="2 rows instead of 1"):
        load_benchmark(mine(tmp_path, **pinned)).problems()


def test_hashes_tell_ids_apart_only_where_they_matter(tmp_path):
    row = {"problem": "P", "answer": "1", "unique_id": "a"}
    first = load_benchmark("math500", write(tmp_path / "1.jsonl", [row]))
    other = load_benchmark("math500", write(tmp_path / "2.jsonl", [{**row, "unique_id": "b"}]))
    with pytest.warns(DataWarning):
        assert first.data_hash != other.data_hash and first.content_hash == other.content_hash


def test_the_hub_is_asked_for_the_pinned_revision(monkeypatch):
    import datasets

    asked = {}

    def load_dataset(*args, **options):
        asked.update(options, args=args)
        return [{"problem": "P", "answer": "1", "unique_id": "a"}]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    benchmark = load_benchmark("math500")
    with pytest.warns(DataWarning):
        assert benchmark.problems()[0].id == "a"
    assert asked == {"args": (benchmark.hub, None), "split": "test", "revision": benchmark.revision}


def test_without_a_network(monkeypatch):
    import datasets

    def load_dataset(*args, **options):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(UserError, match=r"cannot load .*\(no route\).*--data FILE") as raised:
        load_benchmark("gsm8k").problems()
    assert "\n" not in str(raised.value)


def test_the_command(capsys):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser.add_subparsers())
    args = parser.parse_args(["benchmarks"])
    assert args.func(args) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in NAMES + UNPINNED)
    args = parser.parse_args(["benchmarks", "--json"])
    assert args.func(args) == 0
    assert [json.loads(line)["name"] for line in capsys.readouterr().out.splitlines()] == sorted(NAMES + UNPINNED)
