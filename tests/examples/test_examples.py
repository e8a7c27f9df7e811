"""The examples run as they stand, on the tiny models, in this process: starting another costs 15 s of CPU."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from paths import ROOT
from serving import Server

FOLDER = ROOT / "examples"
# What each says at least once: the mix works out and boxes its answers.
SAYS = {
    "batch": "the candle: ",
    "weights": "alpha = positive: ",
    "schedule": "from 0 to 1 over 16 tokens: ",
    "two_pairs": "alpha = positive:2: ",
    "client": "tiny:base:base, alpha None: ",
    "grade": "{'right': 3, 'wrong': 2}",
}
BY_HAND = {"grpo"}  # needs TRL, and minutes
ENGINES = sorted(SAYS.keys() - {"client", "grade"})


@pytest.fixture
def engines_end() -> Iterator[None]:
    """The engine of an example ends with its program, which is this one."""
    from engines import forget_engines

    forget_engines()
    yield
    forget_engines()


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], path: Path, *arguments: str) -> str:
    """What a program prints if it is started with the arguments."""
    monkeypatch.setattr(sys, "argv", [str(path), *arguments])
    monkeypatch.chdir(ROOT)
    runpy.run_path(str(path), run_name="__main__")
    return capsys.readouterr().out


def test_every_example_is_listed() -> None:
    assert {path.stem for path in FOLDER.glob("*.py")} == set(SAYS) | BY_HAND
    assert all(
        f"`{path.name}`" in (FOLDER / "README.md").read_text() for path in FOLDER.iterdir() if path.suffix != ".md"
    )


def test_the_training_rows_of_the_example_are_what_the_reward_reads() -> None:
    from vllm_rast.grading import answer_reward

    rows = runpy.run_path(str(FOLDER / "grpo.py"))["training_rows"](1)
    columns = {name: [row[name] for row in rows] for name in rows[0] if name != "prompt"}
    right = [f"So the answer is \\boxed{{{row['answer']}}}." for row in rows]
    assert answer_reward(right, **columns) == [1.0] * len(rows)
    assert answer_reward([text.replace("\\boxed", "") for text in right], **columns) == [0.0] * len(rows)


@pytest.mark.engine
@pytest.mark.parametrize("name", ENGINES)
def test_example(
    name: str, engines_end: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = run(monkeypatch, capsys, FOLDER / f"{name}.py")
    assert SAYS[name] in out and "boxed" in out


def test_the_client(server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    out = run(monkeypatch, capsys, FOLDER / "client.py", server.url)
    assert SAYS["client"] in out and "boxed" in out
    assert out.count(" nats, the base's own: ") > 4


@pytest.mark.slow
def test_grade(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert SAYS["grade"] in run(monkeypatch, capsys, FOLDER / "grade.py")


@pytest.mark.engine
def test_the_notebook(
    engines_end: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its cells, in order, as one program: what a kernel would do, without one."""
    cells = json.loads((FOLDER / "tour.ipynb").read_text())["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    script = tmp_path / "tour.py"
    script.write_text("if __name__ == '__main__':\n" + "\n".join(f"    {line}" for line in code.splitlines()) + "\n")
    out = run(monkeypatch, capsys, script)
    assert "rast       avg@4" in out and "boxed" in out
    assert not any(cell.get("outputs") for cell in cells), "clear the outputs before you commit"
