"""`vllm-rast generate` from the command line to the run folder, with a backend that needs no model."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from fake_decoding import FakeBackend, fake_text
from paths import ROOT
from watching import lines, wait_for

from vllm_rast.cli.main import main
from vllm_rast.evaluation.runs import backends
from vllm_rast.evaluation.runs.decode import seed_of
from vllm_rast.evaluation.runs.folder import Key, RunFolder

SCRIPT = ROOT / "tests" / "helpers" / "fake_decoding.py"
MODELS = ["--model", "org/base", "--positive", "org/positive", "--negative", "org/negative"]


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "sums.jsonl"
    path.write_text("".join(json.dumps({"question": f"{i} + {i}?", "answer": 2 * i}) + "\n" for i in range(20)))
    return path


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> FakeBackend:
    fake = FakeBackend()
    monkeypatch.setattr(backends, "open_backend", lambda plan: fake)
    return fake


def arguments(questions: Path, run: Path, *more: str) -> list[str]:
    return ["generate", *MODELS, "--input", str(questions), "--run", str(run), "--n", "3", *more]


def start(arguments: list[str], **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, SCRIPT, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )


def wait_for_samples(run: Path, count: int) -> None:
    wait_for(lambda: lines(run).total() >= count, limit_s=30)


def test_every_sample_once_with_all_that_is_asked(backend, questions, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(arguments(questions, run, "--rows", "base,rast", "cool=0.5@0.25", "--seed", "7")) == 0
    assert capsys.readouterr().out == f"{run}: 180 samples made, 0 were there already\n"
    samples = list(RunFolder(run).samples())
    expected = {Key("sums", row, str(i), n) for row in ("base", "rast", "cool") for i in range(20) for n in range(3)}
    assert {one.key for one in samples} == expected
    assert len(samples) == len(expected)
    jobs = {job.key: job for job in backend.made}
    for one in samples:
        job = jobs[one.key]
        assert one.text == fake_text(job)
        assert one.seed == job.seed == seed_of(7, one.key)
        assert job.prompt == f"Question:\n{one.problem} + {one.problem}?\nAnswer:\nLet's think step by step.\n"
        assert (job.top_p, job.max_tokens, job.stop) == (0.95, 16384, ("\nQuestion:",))
        alpha, temperature = {"base": ("base", 1.0), "rast": (1.0, 1.0), "cool": (0.5, 0.25)}[one.row]
        assert (job.alpha, job.temperature) == (alpha, temperature)
    config = RunFolder(run).config
    assert config["rows"]["cool"] == {
        "alpha": 0.5,
        "formula": "org/base + 0.5 * (org/positive - org/negative)",
        "temperature": 0.25,
    }
    assert config["sampling"] == {"n": 3, "temperature": 1.0, "top_p": 0.95, "max_tokens": 16384}
    assert config["benchmarks"]["sums"]["data"] == str(questions)
    assert [problem.gold for problem in RunFolder(run).problems()] == [str(2 * i) for i in range(20)]


def test_samples_of_a_problem_are_decoded_together(backend, questions, tmp_path, monkeypatch):
    seen: list[str] = []
    monkeypatch.setattr(
        FakeBackend, "stream", lambda self, jobs: (self.finish(j) for j in jobs if not seen.append(j.key.problem))
    )
    assert main(arguments(questions, tmp_path / "run")) == 0
    assert seen == [str(i) for i in range(20) for _ in range(9)]


def test_seeds_are_stable():
    """A change here would make every run of an earlier version impossible to go on with."""
    assert seed_of(0, Key("tiny", "base", "sum-001", 0)) == 61129898563212
    rows = {seed_of(0, Key("tiny", row, "sum-001", 0)) for row in ("base", "rast")}
    others = {
        seed_of(1, Key("tiny", "base", "sum-001", 0)),
        seed_of(0, Key("tin", "base", "ysum-001", 0)),
        seed_of(0, Key("tiny", "base", "sum-001", 1)),
        seed_of(0, Key("tiny", "base", "sum-0011", 0)),
    }
    assert len(rows) == 1
    assert len(rows | others) == 5
    assert all(seed < 2**53 for seed in others)


def test_a_second_run_makes_nothing_and_opens_nothing(backend, questions, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    assert main(arguments(questions, run)) == 0
    before = lines(run), (run / "config.json").read_bytes()
    monkeypatch.setattr(backends, "open_backend", lambda plan: pytest.fail("the models were loaded for nothing"))
    capsys.readouterr()
    assert main(arguments(questions, run)) == 0
    assert capsys.readouterr().out == f"{run}: 0 samples made, 180 were there already\n"
    assert (lines(run), (run / "config.json").read_bytes()) == before


def test_growing_makes_only_what_is_missing(backend, questions, tmp_path):
    small, large = tmp_path / "small", tmp_path / "large"
    assert main(arguments(questions, small, "--rows", "base", "--limit", "4", "--n", "2")) == 0
    first = lines(small)
    more = ["--rows", "base,rast", "--limit", "10", "--n", "5"]
    backend.made.clear()
    assert main(arguments(questions, small, *more)) == 0
    assert len(backend.made) == 2 * 10 * 5 - 4 * 2
    assert first <= lines(small)
    assert main(arguments(questions, large, *more)) == 0
    assert lines(small) == lines(large)
    other = tmp_path / "other.jsonl"
    other.write_text('{"id": "x", "prompt": "Go on: "}\n')
    backend.made.clear()
    assert main([*arguments(questions, small)[:7], "--input", str(other), "--run", str(small), "--rows", "base"]) == 0
    assert {(job.prompt, job.stop) for job in backend.made} == {("Go on: ", ())}  # nothing of the template
    assert set(RunFolder(small).config["benchmarks"]) == {"sums", "other"}
    assert RunFolder(small).config["sampling"]["n"] == 8


def test_a_row_of_another_base_may_join(backend, questions, tmp_path, capsys):
    """The ceiling of a results table is another model; it may be decoded later, in an engine of its own."""
    run = tmp_path / "run"
    assert main(arguments(questions, run, "--rows", "base,rast")) == 0
    own = ["generate", "--input", str(questions), "--run", str(run), "--n", "3"]
    assert main([*own, "--model", "org/large-rl", "--rows", "ceiling=base"]) == 0
    assert RunFolder(run).config["rows"]["ceiling"]["formula"] == "org/large-rl"
    assert len(RunFolder(run).done()) == 180
    capsys.readouterr()
    assert main([*own, "--model", "org/large-rl", "--rows", "base"]) == 2
    assert "formula of row 'base' changed, 'org/base' → 'org/large-rl'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "more, said",
    [
        (["--alpha", "0.5"], "alpha of row 'rast' changed, 1.0 → 0.5"),
        (["--temperature", "0.5"], "--temperature (sums) changed, 1.0 → 0.5"),
        (["--max-tokens", "5"], "--max-tokens (sums) changed, 16384 → 5"),
        (["--template", "qwen-boxed"], "--template changed, 'paper' → 'qwen-boxed'"),
        (["--seed", "5"], "--seed changed, 0 → 5"),
        (["--backend", "transformers"], "--backend changed, 'vllm' → 'transformers'"),
    ],
)
def test_a_changed_option_stops_before_anything_is_loaded(backend, questions, tmp_path, capsys, more, said):
    run = tmp_path / "run"
    assert main(arguments(questions, run, "--limit", "1")) == 0
    before = lines(run)
    assert main(arguments(questions, run, *more)) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("vllm-rast: error: ")
    assert said in error
    assert lines(run) == before


def test_changed_weights_are_refused(backend, questions, tmp_path, capsys):
    model = tmp_path / "base"
    model.mkdir()
    (model / "config.json").write_text("{}")
    command = arguments(questions, tmp_path / "run", "--model", str(model), "--limit", "1")
    for weights, code in ((b"one", 0), (b"one", 0), (b"two", 2)):
        (model / "model.safetensors").write_bytes(weights)
        assert main(command) == code
    assert f"the weights of {model} changed" in capsys.readouterr().err


def test_a_changed_data_file_is_refused(backend, questions, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(arguments(questions, run)) == 0
    before = lines(run)
    questions.write_text(questions.read_text().replace("3 + 3?", "3 + 4?"))
    for dry_run in ([], ["--dry-run"]):
        assert main(arguments(questions, run, *dry_run)) == 2
        assert f"the data of benchmark 'sums' ({questions}) changed" in capsys.readouterr().err
    assert lines(run) == before


def test_killed_and_resumed_equals_uninterrupted(questions, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert start(arguments(questions, whole)).wait() == 0
    for count in (5, 60, 120):
        there = lines(broken).total()
        process = start(arguments(questions, broken), FAKE_HOLD=f"{count + 5 - there}:{tmp_path / 'never'}")
        wait_for_samples(broken, count)
        process.kill()
        process.communicate()
    assert 120 <= sum(lines(broken).values()) < 180
    with open(broken / "samples.jsonl", "ab") as file:
        file.write(b'{"benchmark": "sums", "row": "ba')
    last = start(arguments(questions, broken))
    out, err = last.communicate()
    assert last.returncode == 0
    assert "dropped a half-written last line (32 bytes)" in err
    assert lines(broken) == lines(whole)
    configs = [json.loads((run / "config.json").read_text()) for run in (whole, broken)]
    assert len(configs[1].pop("sittings")) == 4
    assert len(configs[0].pop("sittings")) == 1
    assert configs[0] == configs[1]


@pytest.mark.parametrize("sent, code, word", [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")])
def test_interrupted(questions, tmp_path, sent, code, word):
    run = tmp_path / "a run"
    process = start(arguments(questions, run), FAKE_HOLD=f"15:{tmp_path / 'never'}")
    wait_for_samples(run, 10)
    process.send_signal(sent)
    _, err = process.communicate()
    assert process.returncode == code
    there = sum(lines(run).values())
    assert 10 <= there < 180
    assert "Traceback" not in err
    resume = re.search(rf"vllm-rast: {word}; go on with: vllm-rast (generate .*)\n", err)
    assert resume
    import shlex

    again = start(shlex.split(resume[1]))
    out, _ = again.communicate()
    assert (again.returncode, out) == (0, f"{run}: {180 - there} samples made, {there} were there already\n")
    assert sum(lines(run).values()) == 180


def test_a_full_disk(questions, tmp_path):
    run = tmp_path / "run"
    process = start(arguments(questions, run), FAKE_MAX_BYTES="9000")
    _, err = process.communicate()
    assert process.returncode == 1
    assert "Traceback" not in err
    message = err.splitlines()[-1]
    assert re.match(r"vllm-rast: error: .*samples.jsonl: File too large; free some space; go on with: ", message)
    there = sum(lines(run).values())
    assert there > 20
    assert (run / "samples.jsonl").read_bytes().endswith(b"}\n")
    again = start(arguments(questions, run))
    out, _ = again.communicate()
    assert out == f"{run}: {180 - there} samples made, {there} were there already\n"


def test_two_runs_on_one_folder(questions, tmp_path):
    run = tmp_path / "run"
    first = start(arguments(questions, run), FAKE_HOLD=f"15:{tmp_path / 'never'}")
    wait_for_samples(run, 1)
    second = start(arguments(questions, run))
    _, err = second.communicate()
    assert second.returncode == 2
    assert re.fullmatch(rf"vllm-rast: error: --run {run}: process {first.pid} on \S+ is writing this folder; .*\n", err)
    first.kill()
    first.communicate()
    third = start(arguments(questions, run))
    third.communicate()
    assert third.returncode == 0
    assert sum(lines(run).values()) == 180


def test_progress_is_on_stderr(questions, tmp_path):
    process = start(arguments(questions, tmp_path / "run"))
    out, err = process.communicate()
    assert out.count("\n") == 1
    assert re.search(r"180 of 180 samples, [\d.]+ samples/s, [\d,]+ tokens/s, about 0:00:00 left", err)


def test_a_bar_on_a_terminal(backend, questions, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert main(arguments(questions, tmp_path / "run")) == 0
    assert "180/180" in capsys.readouterr().err
