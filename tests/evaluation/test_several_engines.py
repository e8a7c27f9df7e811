"""`--data-parallel-size`: engines in processes of this machine make the samples of one, whatever is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from unittest.mock import patch

import forked
import psutil
import pytest
import stub_processes
from commands import refused
from paths import ROOT
from watching import after, command_of, lines, wait_for

from vllm_rast.cli import machines
from vllm_rast.cli.main import main
from vllm_rast.evaluation.runs.folder import RunFolder
from vllm_rast.evaluation.runs.places import cores

pytestmark = [pytest.mark.slow, pytest.mark.skipif(len(cores()) < 2, reason="needs two CPU cores")]

SIZE = ["generate", "--model", "tiny:base", "--n", "4", "--limit", "30"]  # 120 samples
TWO = ["--data-parallel-size", "2"]


@pytest.fixture
def stubs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines, "open_here", stub_processes.open_here)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Counter[bytes]:
    """The samples of a run with one engine."""
    run = tmp_path_factory.mktemp("alone") / "run"
    with patch.object(machines, "open_here", stub_processes.open_here):
        assert main([*SIZE, "--run", str(run)]) == 0
    assert lines(run).total() == 120
    return lines(run)


def engines(of: int | None = None) -> list[psutil.Process]:
    """The processes of engines that a process has started."""
    return [one for one in psutil.Process(of).children() if "spawn_main" in command_of(one)]


def test_the_samples_are_the_same(stubs: None, alone: Counter[bytes], tmp_path: Path) -> None:
    """And a run that one engine began is gone on with by two."""
    run = tmp_path / "run"
    assert main(["generate", "--model", "tiny:base", "--n", "1", "--limit", "30", "--run", str(run)]) == 0
    assert main([*SIZE, *TWO, "--run", str(run)]) == 0
    assert lines(run) == alone
    assert not engines()
    _, sitting = RunFolder(run).config["sittings"]
    assert sitting["device"] == "2 engines: none" and sitting["hosts"] == {os.uname().nodename: "none"}


@pytest.mark.parametrize("number", [1, 2])
def test_killed_in_the_middle(
    stubs: None,
    alone: Counter[bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
) -> None:
    go_on = tmp_path / "go on"
    monkeypatch.setenv("VLLM_STUB_HOLD", f"12:{go_on}")  # 20 samples need both
    run = tmp_path / "run"
    thread = after(run, 20, lambda: ([process.kill() for process in engines()[:number]], go_on.touch()))
    assert main([*SIZE, *TWO, "--run", str(run)]) == 0
    thread.join()
    assert lines(run) == alone
    said = capsys.readouterr().err
    assert "is lost: its process ended (killed, or out of memory)" in said and "go to others" in said


def test_a_sample_that_kills_engines_is_given_up(
    stubs: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    problems = tmp_path / "p.jsonl"
    texts = [*(f"{number} + 1 = " for number in range(20)), "KILL", *(f"{number} + 2 = " for number in range(20))]
    problems.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    run = tmp_path / "run"
    command = ["generate", "--model", "tiny:base", "--input", str(problems), "--n", "1", "--run", str(run)]
    assert main([*command, *TWO]) == 1
    assert "1 samples were given up (failed.jsonl), the first is sample 0 of '20'" in capsys.readouterr().err
    assert len(lines(run)) == 40
    assert main([*command, "--retry-failed"]) == 0, "one engine makes it, here"
    assert len(lines(run)) == 41


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        ("error", 1, "did not start: ValueError: no such kernel"),
        ("user", 2, "error: max_model_len: does not fit; lower it"),
        ("killed", 1, "did not start: its process ended (killed, or out of memory)"),
    ],
)
def test_engines_that_do_not_start(
    stubs: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    fault: str,
    code: int,
    said: str,
) -> None:
    """One line, with what the engine itself said last; nothing of what the engines write comes through."""
    monkeypatch.setenv("VLLM_STUB_OPEN", fault)
    assert main([*SIZE, *TWO, "--run", str(tmp_path / "run")]) == code
    captured = capfd.readouterr()
    assert said in captured.err.splitlines()[-1]
    assert captured.out == "" and all(line.startswith("vllm-rast: ") for line in captured.err.splitlines())
    assert not engines()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_the_driver_ends(stubs: None, alone: Counter[bytes], tmp_path: Path, number: int) -> None:
    """No engine stays behind, and the same command goes on."""
    run = tmp_path / "run"
    command = [*SIZE, *TWO, "--run", str(run)]
    script = ROOT / "tests" / "helpers" / "stub_processes.py"
    process = subprocess.Popen(
        [sys.executable, str(script), *command],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"VLLM_STUB_HOLD": f"8:{tmp_path / 'never'}"},
        start_new_session=True,
    )
    wait_for(lambda: lines(run).total() >= 10)
    begun = engines(process.pid)
    assert len(begun) == 2
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does
    else:
        process.kill()
    _, said = process.communicate(timeout=120)
    assert process.returncode == (130 if number == signal.SIGINT else -number), said
    assert number == signal.SIGKILL or "go on with: " in said.splitlines()[-1]
    assert "Traceback" not in said
    _, left = psutil.wait_procs(begun, timeout=60)
    assert not left
    assert 10 <= lines(run).total() < 120 and lines(run) <= alone
    assert main(command) == 0
    assert lines(run) == alone


def test_options_that_do_not_go_together(stubs: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options, said in (
        ([*TWO, "--ray", "local"], "--data-parallel-size 2: on a cluster --replicas 2 does it; give that instead"),
        ([*TWO, "--backend", "transformers"], "--backend transformers takes none of vLLM's options"),
        ([*TWO, "--distributed-executor-backend", "ray"], "--data-parallel-size 2: the engines are this machine's"),
        (["--data-parallel-size", "0"], "--data-parallel-size 0: at least 1"),
    ):
        assert said in refused(capsys, [*SIZE, "--dry-run", *options])
    many = str(len(cores()) + 1)
    assert main([*SIZE, "--data-parallel-size", many, "--run", str(tmp_path / "run")]) == 2
    assert f"--data-parallel-size {many}: {many} engines of 1 CPU core each need {many}" in capsys.readouterr().err


@pytest.mark.engine
def test_real_engines(tmp_path: Path) -> None:
    """The shipped models, sampled, in two processes of which one is killed: the samples of a run in one process."""
    size = ["generate", "--n", "4", "--limit", "16", "--rows", "base,rast,positive", "--max-num-seqs", "4"]
    one, two = tmp_path / "one", tmp_path / "two"
    forked.run([sys.executable, "-m", "vllm_rast", *size, "--run", str(one)], check=True, timeout=600)
    thread = after(two, 20, lambda: engines()[0].kill())
    assert main([*size, *TWO, "--run", str(two)]) == 0
    thread.join()
    assert lines(one) == lines(two) and lines(one).total() == 192
    assert not engines()
