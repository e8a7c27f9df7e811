"""The examples run as they stand, on the tiny models."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from paths import ROOT

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
NEEDS = {"client": "server", "grade": "slow"}


def run(*command: str) -> str:
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, cwd=ROOT, env=os.environ)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_every_example_is_listed() -> None:
    assert {path.stem for path in FOLDER.glob("*.py")} == set(SAYS)
    assert all(
        f"`{path.name}`" in (FOLDER / "README.md").read_text() for path in FOLDER.iterdir() if path.suffix != ".md"
    )


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=getattr(pytest.mark, NEEDS.get(name, "engine"))) for name in SAYS]
)
def test_example(name: str) -> None:
    out = run(str(FOLDER / f"{name}.py"))
    assert SAYS[name] in out
    assert name == "grade" or "boxed" in out


@pytest.mark.engine
def test_the_notebook(tmp_path: Path) -> None:
    """Its cells, in order, as one program: what a kernel would do, without one."""
    cells = json.loads((FOLDER / "tour.ipynb").read_text())["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    script = tmp_path / "tour.py"
    script.write_text("if __name__ == '__main__':\n" + "\n".join(f"    {line}" for line in code.splitlines()) + "\n")
    out = run(str(script))
    assert "rast       avg@4" in out and "boxed" in out
    assert not any(cell.get("outputs") for cell in cells), "clear the outputs before you commit"
