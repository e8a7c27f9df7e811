"""vLLM's own processes end with the one that started them, whoever kills what, and say so in one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import forked
import psutil
import pytest
from serving import free_port, living

pytestmark = [pytest.mark.engine, pytest.mark.slow]

PROGRAM = [sys.executable, "-m", "vllm_rast"]
SCRIPT = """
if __name__ == "__main__":
    from vllm_rast import RastLLM
    llm = RastLLM("tiny:base", positive="tiny:positive", negative="tiny:negative", max_model_len=512,
                  tensor_parallel_size=2, kv_cache_memory_bytes=1 << 26, enforce_eager=True)
    print("up", flush=True)
    while True:
        llm.generate("Question:", use_tqdm=False)
"""
START_LIMIT_S = 500  # 15 s on a quiet machine
END_LIMIT_S = 60  # 1 to 10 s


@contextmanager
def started(
    command: list[str],
    folder: Path,
    up: Callable[[], bool],
    popen: type[subprocess.Popen[Any]] = forked.WholePopen,
) -> Iterator[subprocess.Popen[str]]:
    """A program in a session of its own, with engine and workers in processes of theirs; up once `up` says so."""
    environment = {**os.environ, "VLLM_ENABLE_V1_MULTIPROCESSING": "1"}
    errors = (folder / "stderr").open("w+")
    process = popen(
        command,
        stdout=(folder / "stdout").open("w"),
        stderr=errors,
        text=True,
        env=environment,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + START_LIMIT_S
        while not up():
            assert process.poll() is None and time.monotonic() < deadline, (folder / "stderr").read_text()
            time.sleep(0.2)
        yield process
    finally:
        for left in living(process.pid):
            left.kill()
        process.wait()


def wait_for_the_end(process: subprocess.Popen[str]) -> int:
    """The exit code, once every process of the session is gone."""
    deadline = time.monotonic() + END_LIMIT_S
    while living(process.pid):
        process.poll()
        assert time.monotonic() < deadline, living(process.pid)
        time.sleep(0.2)
    return process.wait()


@contextmanager
def generating(folder: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    samples = folder / "run" / "samples.jsonl"
    command = [*PROGRAM, "generate", "--run", str(folder / "run"), "--n", "400", *options]
    with started(command, folder, lambda: samples.exists() and samples.stat().st_size > 0) as process:
        yield process


def named(process: subprocess.Popen[str], name: str) -> psutil.Process:
    return next(one for one in living(process.pid) if any(name in part for part in one.cmdline()))


def lines_of(folder: Path) -> list[str]:
    """What our program said, without its progress."""
    lines = (folder / "stderr").read_text().splitlines()
    assert not any("Traceback" in line for line in lines), "\n".join(lines)
    return [line for line in lines if line.startswith("vllm-rast: ") and "samples" not in line]


def test_a_killed_generate_takes_an_engine_that_still_starts_with_it(tmp_path: Path) -> None:
    """Killed while the engine's process waits for it, before any plug-in is loaded. Started as a user starts it."""
    command = [*PROGRAM, "generate", "--run", str(tmp_path / "run")]
    with started(command, tmp_path, lambda: True, subprocess.Popen) as process:
        deadline = time.monotonic() + START_LIMIT_S
        while not any("spawn_main" in " ".join(one.cmdline()) for one in living(process.pid)):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(3)
        process.kill()
        assert wait_for_the_end(process) == -signal.SIGKILL


def test_a_killed_script_takes_its_engine_with_it(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    out = tmp_path / "stdout"
    with started(
        [sys.executable, str(tmp_path / "script.py")], tmp_path, lambda: "up" in out.read_text().splitlines()
    ) as process:
        assert len([one for one in living(process.pid) if "Worker" in " ".join(one.cmdline())]) == 2
        process.kill()
        assert wait_for_the_end(process) == -signal.SIGKILL


def test_a_killed_server_takes_its_engine_with_it(tmp_path: Path) -> None:
    command = [*PROGRAM, "serve", "--port", str(free_port()), "--host", "127.0.0.1"]
    log = tmp_path / "stderr"
    with started(command, tmp_path, lambda: "vllm-rast: serving" in log.read_text()) as process:
        process.kill()
        assert wait_for_the_end(process) == -signal.SIGKILL


@pytest.mark.parametrize("victim", ["EngineCore", "Worker"])
def test_a_killed_engine_is_one_line(tmp_path: Path, victim: str) -> None:
    with generating(tmp_path) as process:
        named(process, victim).kill()
        assert wait_for_the_end(process) == 1
    (line,) = lines_of(tmp_path)
    assert line.startswith("vllm-rast: error: vLLM's engine ended unexpectedly") and "go on with: " in line
    assert (tmp_path / "run" / "samples.jsonl").read_text().count("\n") > 0


def test_ctrl_c_is_one_line_and_a_second_ends_at_once(tmp_path: Path) -> None:
    """A terminal sends it to all processes."""
    with generating(tmp_path) as process:
        os.killpg(process.pid, signal.SIGINT)
        deadline = time.monotonic() + END_LIMIT_S
        while "interrupted" not in (tmp_path / "stderr").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.5)
        os.killpg(process.pid, signal.SIGINT)
        assert wait_for_the_end(process) == 130
    said = (tmp_path / "stderr").read_text()
    assert "KeyboardInterrupt" not in said  # vLLM's engine may say how it died in the middle of a message
    (line,) = (line for line in said.splitlines() if line.startswith("vllm-rast: ") and "samples" not in line)
    assert line.startswith("vllm-rast: interrupted; go on with: ")
