"""What goes wrong with runs in practice: copied samples, odd file systems, killed writers, files in other encodings."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import refused
from fake_decoding import FakeBackend
from run_samples import CONFIG, sample

from vllm_rast.cli.main import main
from vllm_rast.errors import UserError
from vllm_rast.evaluation.runs import backends, jsonl
from vllm_rast.evaluation.runs.folder import RunFolder
from vllm_rast.evaluation.runs.jsonl import Lock

TINY = ["generate", "--n", "2", "--limit", "3"]


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> FakeBackend:
    fake = FakeBackend()
    monkeypatch.setattr(backends, "open_backend", lambda plan: fake)
    return fake


def write_lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


# Samples of other runs


@pytest.mark.parametrize(
    "options",
    [
        ["--alpha", "0.5"],
        ["--temperature", "0.7"],
        ["--max-tokens", "50"],
        ["--top-p", "0.5"],
        ["--positive", "tiny:ceiling"],
    ],
)
def test_samples_of_another_run_are_refused(
    backend: FakeBackend, tmp_path: Path, capsys: Any, options: list[str]
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    models = ["--model", "tiny:base", "--negative", "tiny:negative"]
    positive = [] if "--positive" in options else ["--positive", "tiny:positive"]
    assert main([*TINY, "--run", str(one), *models, "--positive", "tiny:positive", "--rows", "rast"]) == 0
    assert main([*TINY, "--run", str(two), *models, *positive, *options, "--rows", "rast"]) == 0
    with (one / "samples.jsonl").open("a") as file:
        file.write((two / "samples.jsonl").read_text())
    capsys.readouterr()
    message = refused(capsys, ["evaluate", str(one)])
    assert "line 7 was made with another formula, drafter, sampling, data or model" in message


def test_a_row_that_the_run_does_not_have_is_refused(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path, CONFIG) as folder:
        folder.append(sample(0))
        folder.append(sample(0, row="other"))
    with pytest.raises(UserError, match="line 2 is of row 'other'"):
        list(RunFolder(tmp_path).samples())


def test_samples_of_earlier_versions_count(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path, CONFIG) as folder:
        folder.append(sample(0))
    record = json.loads((tmp_path / "samples.jsonl").read_text())
    del record["settings"]
    write_lines(tmp_path / "samples.jsonl", record)
    assert [one.sample for one in RunFolder(tmp_path).samples()] == [0]


# Templates and prompts


def test_a_template_that_is_edited_meanwhile_is_used_as_it_was_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = tmp_path / "own.txt"
    template.write_text("First {question}")
    fake = FakeBackend()

    def load_models(plan: Any) -> FakeBackend:
        template.write_text("Second {question}")
        return fake

    monkeypatch.setattr(backends, "open_backend", load_models)
    assert main([*TINY, "--run", str(tmp_path / "run"), "--template", str(template)]) == 0
    assert {job.prompt.split()[0] for job in fake.made} == {"First"}
    assert RunFolder(tmp_path / "run").config["template_hash"]


def test_a_byte_order_mark_keeps_the_stop_strings(backend: FakeBackend, tmp_path: Path) -> None:
    template = tmp_path / "own.txt"
    template.write_bytes(b'\xef\xbb\xbfstop: ["END"]\r\nAsk {question}')
    assert main([*TINY, "--run", str(tmp_path / "run"), "--template", str(template)]) == 0
    assert {job.stop for job in backend.made} == {("END",)}
    assert all(job.prompt.startswith("Ask ") for job in backend.made)


def long_problems(tmp_path: Path) -> Path:
    return write_lines(
        tmp_path / "own.jsonl", {"prompt": "1 + 1 = "}, {"prompt": "1 + " * 2000}, {"prompt": "2 + 2 = "}
    )


def test_a_prompt_that_is_too_long_is_found_before_the_models_load(
    backend: FakeBackend, tmp_path: Path, capsys: Any
) -> None:
    command = ["generate", "--input", str(long_problems(tmp_path)), "--run", str(tmp_path / "run"), "--n", "2"]
    message = refused(capsys, command)
    assert message.startswith("--max-model-len 512: 1 prompts leave no room for an answer, the first is own 1 with ")
    assert "--skip-too-long" in message and not backend.made
    assert main([*command, "--skip-too-long"]) == 0
    assert {job.key.problem for job in backend.made} == {"0", "2"}
    run = RunFolder(tmp_path / "run")
    assert list(run.config["skipped"]["own"]) == ["1"]
    capsys.readouterr()
    assert main([*command, "--skip-too-long"]) == 0
    assert "0 samples made" in capsys.readouterr().out


def test_room_for_more_is_no_change_of_a_run(backend: FakeBackend, tmp_path: Path, capsys: Any) -> None:
    problems = write_lines(tmp_path / "own.jsonl", {"prompt": "1 + 1 = "})
    command = ["generate", "--input", str(problems), "--run", str(tmp_path / "run"), "--n", "1", "--max-model-len"]
    assert main([*command, "256"]) == 0
    assert main([*command[:-1], "--rows", "base", "half=0.5", "--max-model-len", "512"]) == 0
    assert len(list(RunFolder(tmp_path / "run").samples())) == 4
    assert RunFolder(tmp_path / "run").config["engine"]["max_model_len"] == 512
    capsys.readouterr()
    assert "--max-model-len changed, 512 → 128" in refused(capsys, [*command, "128"])


def test_skipped_problems_stand_in_every_table(backend: FakeBackend, tmp_path: Path, capsys: Any) -> None:
    problems = write_lines(
        tmp_path / "own.jsonl", {"prompt": "1 + 1 = ", "answer": 2}, {"prompt": "1 + " * 2000, "answer": 3}
    )
    run = str(tmp_path / "run")
    assert main(["generate", "--input", str(problems), "--run", run, "--n", "2", "--skip-too-long"]) == 0
    assert main(["evaluate", run]) == 0
    assert "(1 too long, left out)" in capsys.readouterr().out
    assert main(["evaluate", run, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["skipped"] == {"own": 1}
    assert main(["report", run]) == 0
    assert "left out" in (tmp_path / "run" / "report.md").read_text()
    assert "left out" in (tmp_path / "run" / "report.html").read_text()


# A benchmark of one's own


def test_a_benchmark_in_one_file(backend: FakeBackend, tmp_path: Path, capsys: Any) -> None:
    """Its rows, its sampling and its template; the command line overrides them."""
    write_lines(tmp_path / "rows.jsonl", {"q": "1 + 1?", "a": 2}, {"q": "2 + 2?", "a": "4"})
    (tmp_path / "sums.yaml").write_text(
        "name: sums\nfile: rows.jsonl\nquestion: [q]\ngold: {a: text}\nkind: integer\n"
        "sampling: {temperature: 0.6, max_tokens: 77}\ntemplate: ask.txt\n"
    )
    (tmp_path / "ask.txt").write_text("Ask: {question}")
    command = ["generate", "--model", "tiny:base", "--benchmark", str(tmp_path / "sums.yaml"), "--n", "2"]
    assert main([*command, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "temperature 0.6, top_p 0.95, max_tokens 77" in shown and "Ask: 1 + 1?" in shown
    assert main([*command, "--run", str(tmp_path / "run")]) == 0
    assert {(job.prompt, job.temperature, job.max_tokens) for job in backend.made} == {
        ("Ask: 1 + 1?", 0.6, 77),
        ("Ask: 2 + 2?", 0.6, 77),
    }
    assert main(["evaluate", str(tmp_path / "run")]) == 0
    backend.made.clear()
    assert main([*command, "--run", str(tmp_path / "two"), "--temperature", "0.1", "--template", "paper"]) == 0
    assert {(job.prompt[:9], job.temperature) for job in backend.made} == {("Question:", 0.1)}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("sampling: {temperatur: 1}", "unknown key 'temperatur' in sampling"),
        ('sampling: {temperature: "1"}', "sampling.temperature must be a number"),
        ("sampling: {max_tokens: 1.5}", "sampling.max_tokens must be a number"),
        ("sampling: {top_p: 2}", "sampling.top-p 2"),
        ("sampling: 1", "sampling must be a mapping"),
        ("kind: math", "the key 'kind' is given twice"),
        ('boxed_only: "no"', "boxed_only must be true or false"),
    ],
)
def test_wrong_benchmark_files(tmp_path: Path, capsys: Any, line: str, message: str) -> None:
    path = tmp_path / "b.yaml"
    path.write_text(f"name: b\nfile: rows.jsonl\nquestion: [q]\ngold: {{a: text}}\nkind: integer\n{line}\n")
    assert message in refused(capsys, ["generate", "--model", "tiny:base", "--benchmark", str(path), "--dry-run"])


# Files


INPUT = ["generate", "--model", "tiny:base", "--dry-run", "--input"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"prompt": "caf\u00e9"}\n'.encode("latin-1"), "line 1: not UTF-8"),
        (b'{"prompt": "a"}\n' + '{"prompt": "b"}\n'.encode("utf-16"), "line 2: not UTF-8"),
        (b'{"prompt": "a"}\n{"prompt": "\\ud800"}\n', "line 2: half of a surrogate pair"),
        (b'{"prompt": "a"}\n' + b"[" * 100_000 + b"\n", "line 2: JSON that is nested too deeply"),
        (b'{"prompt": ""}\n', "line 1: the prompt is empty"),
        (b'{"question": "  \\n"}\n', "line 1: the question is empty"),
        (b'{"prompt": "a", "id": 1}\n{"prompt": "b"}\n', "lines 1 and 2 have the id '1'"),
        (b'{"prompt": "a", "id": true}\n', '"id" must be a text or an integer'),
        (b'{"prompt": "a", "id": 1.5}\n', '"id" must be a text or an integer'),
    ],
)
def test_inputs_that_cannot_be_read_name_the_line(tmp_path: Path, capsys: Any, content: bytes, message: str) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(content)
    assert message in refused(capsys, [*INPUT, str(path)])


def test_an_id_that_is_null_is_none(backend: FakeBackend, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "own.jsonl", {"prompt": "a", "id": None}, {"prompt": "b", "id": "None"})
    assert (
        main(["generate", "--model", "tiny:base", "--input", str(path), "--run", str(tmp_path / "r"), "--n", "1"]) == 0
    )
    assert {job.key.problem for job in backend.made} == {"0", "None"}


def test_a_byte_order_mark_is_no_part_of_the_first_line(backend: FakeBackend, tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"prompt": "a"}\n')
    assert main([*INPUT, str(path)]) == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"gold": "\xe9", "prediction": "5"}\n', "line 1: not UTF-8"),
        (b'{"gold": null, "prediction": "None"}\n', "line 1: the gold is null"),
        (b'{"gold": [], "prediction": "5"}\n', "the gold is null"),
        (b'{"gold": "5", "prediction": "5", "ordered": "false"}\n', '"ordered" must be true or false'),
        (b'{"gold": "5", "prediction": "5", "unit": 3}\n', '"unit" must be a text'),
        (b"[" * 100_000 + b"\n", "line 1: JSON that is nested too deeply"),
    ],
)
def test_pairs_that_cannot_be_read_name_the_line(tmp_path: Path, capsys: Any, content: bytes, message: str) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(content)
    assert message in refused(capsys, ["grade", "--pairs", str(path)])


def test_half_characters_and_missing_predictions_are_graded(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(
        b'{"gold": "5", "prediction": "\\\\boxed{\\ud800}"}\n{"gold": "5", "prediction": null}\n'
        b'{"gold": "5", "prediction": "5 m", "unit": "cm"}\n{"gold": "5", "prediction": "5 cm", "unit": "cm"}\n'
    )
    assert main(["grade", "--pairs", str(path)]) == 0
    grades = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [grade["correct"] for grade in grades] == [False, False, False, True]
    assert grades[1]["status"] == "no_answer"


def test_predictions_without_an_answer_are_refused_and_without_an_output_are_wrong(tmp_path: Path, capsys: Any) -> None:
    script = [sys.executable, "eval/pass_at_k.py"]
    good = write_lines(tmp_path / "prediction-1.jsonl", {"question": "a", "model_output": None, "answer": "None"})
    done = subprocess.run([*script, str(good), "--json"], capture_output=True, text=True)
    assert json.loads(done.stdout)["pass@k"]["1"]["value"] == 0
    bad = write_lines(tmp_path / "prediction-2.jsonl", {"question": "a", "model_output": None, "answer": None})
    done = subprocess.run([*script, str(bad)], capture_output=True, text=True)
    assert done.returncode == 2 and "line 1: the answer is null" in done.stderr


@pytest.mark.parametrize(
    ("gold", "right"), [("20%", "20%"), ("3/4", "0.75"), ("\u22125", "-5"), ("$1,200", "1200"), ("1e3", "1000")]
)
def test_numbers_as_data_sets_write_them(backend: FakeBackend, tmp_path: Path, gold: str, right: str) -> None:
    from vllm_rast.grading import GradeItem, Grader

    rows = write_lines(tmp_path / "gsm8k.jsonl", {"question": "q", "answer": f"work\n#### {gold}"})
    (problem,) = _problems(rows)
    with Grader() as grader:
        assert grader.grade(GradeItem.of(problem, f"#### {right}")).correct


def _problems(rows: Path) -> Any:
    from vllm_rast.evaluation.tasks.benchmark import load_benchmark

    with pytest.warns(UserWarning):
        return load_benchmark("gsm8k", rows).problems()


@pytest.mark.parametrize("gold", ["nan", "Infinity", "x", "1/0", ""])
def test_golds_that_are_not_numbers_are_refused(tmp_path: Path, gold: str) -> None:
    from vllm_rast.evaluation.tasks.benchmark import load_benchmark

    rows = write_lines(tmp_path / "gsm8k.jsonl", {"question": "q", "answer": f"work\n#### {gold}"})
    with pytest.raises(UserError, match="row 1 of") as error:
        load_benchmark("gsm8k", rows).problems()
    assert "ConversionSyntax" not in str(error.value)


def test_a_recipe_that_gives_a_key_twice_is_refused(tmp_path: Path, capsys: Any) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("model: tiny:base\nn: 4\nn: 8\n")
    assert "line 3: the key 'n' is given twice" in refused(capsys, ["generate", "--recipe", str(recipe), "--dry-run"])


# Locks and left-overs


@pytest.fixture
def no_flock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without flock."""

    def fail(fd: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(jsonl.fcntl, "flock", fail)


def test_without_flock_the_lock_is_posix(no_flock: None, tmp_path: Path) -> None:
    with RunFolder.open(tmp_path, CONFIG) as folder:
        folder.append(sample(0))
        probe = "import fcntl, sys; fcntl.lockf(open(sys.argv[1], 'r+'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
        lock = tmp_path / ".samples.jsonl.lock"
        done = subprocess.run([sys.executable, "-c", probe, str(lock)], capture_output=True, text=True)
        assert "BlockingIOError" in done.stderr
    assert len(list(RunFolder(tmp_path).samples())) == 1


def test_without_any_lock_one_line_names_the_option(
    no_flock: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: FakeBackend, capsys: Any
) -> None:
    def fail(fd: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(jsonl.fcntl, "lockf", fail)
    monkeypatch.setattr(Lock, "needed", True)
    command = [*TINY, "--run", str(tmp_path / "run")]
    message = refused(capsys, command)
    assert "this file system has no locks (No locks available)" in message and "--no-lock" in message
    assert main([*command, "--no-lock"]) == 0
    assert len(list(RunFolder(tmp_path / "run").samples())) == 18


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    RunFolder.open(tmp_path, CONFIG).close()
    left = [tmp_path / ".config.json.4242", tmp_path / ".problems.jsonl.17"]
    kept = [tmp_path / ".config.json.bak", tmp_path / ".notes.12"]
    for path in [*left, *kept]:
        path.write_text("half")
    list(RunFolder(tmp_path).samples())
    assert all(path.exists() for path in left), "a reader deletes nothing"
    RunFolder.open(tmp_path, CONFIG).close()
    assert not any(path.exists() for path in left) and all(path.exists() for path in kept)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_run_can_be_evaluated(backend: FakeBackend, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert main([*TINY, "--run", str(run)]) == 0
    run.chmod(0o555)
    assert main(["evaluate", str(run), "--out", str(tmp_path / "grades")]) == 0


def test_grades_of_a_read_only_run_go_elsewhere(
    backend: FakeBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    run, out = tmp_path / "run", tmp_path / "grades"
    assert main([*TINY, "--run", str(run)]) == 0
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != run)
    assert main(["evaluate", str(run), "--out", str(out)]) == 0
    assert not (run / "grades.jsonl").exists() and (out / "run.grades.jsonl").stat().st_size
    before = (out / "run.grades.jsonl").read_text()
    assert main(["report", str(run), "--out", str(out)]) == 0
    assert (out / "run.grades.jsonl").read_text() == before
