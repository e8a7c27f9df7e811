"""The demo: four rows in one engine, the report, and a second time only the report."""

from __future__ import annotations

import json

import pytest
from fake_decoding import FakeBackend
from traced import FakeReader, TinyBackend

from vllm_rast.cli.main import main
from vllm_rast.evaluation.analysis import reading as readings
from vllm_rast.evaluation.runs import backends
from vllm_rast.evaluation.runs.folder import RunFolder
from vllm_rast.mix.model_names import TINY_FOLDER

pytestmark = pytest.mark.skipif(not (TINY_FOLDER / "base").exists(), reason="the shipped models are not there")
ROWS = ["base", "positive", "rast", "ceiling"]


@pytest.fixture
def opened(monkeypatch):
    """The plans that a backend was opened for, and the backend."""
    plans, fake = [], FakeBackend()

    def open_backend(plan):
        plans.append(plan)
        return fake

    monkeypatch.setattr(backends, "open_backend", open_backend)
    return plans, fake


def test_the_demo(opened, tmp_path, capsys):
    plans, fake = opened
    run = tmp_path / "runs" / "demo"
    command = ["demo", "--run", str(run), "--limit", "5", "--n", "2"]
    assert main(command) == 0
    assert len(plans) == 1
    assert {job.alpha for job in fake.made} == {"base", "positive", (1.0, 0.0), "positive:2"}
    assert len(fake.made) == 4 * 5 * 2
    assert {(job.temperature, job.top_p, job.max_tokens) for job in fake.made} == {(1.0, 1.0, 96)}
    config = RunFolder(run).config
    assert list(config["rows"]) == ROWS
    assert config["rows"]["rast"]["formula"] == "tiny:base + 1.0 * (tiny:positive - tiny:negative)"
    assert config["rows"]["ceiling"]["formula"] == "tiny:ceiling"
    assert config["engine"]["dtype"] == "float32"
    assert {"report.md", "report.json", "report.html", "pass_at_k.png"} <= {path.name for path in run.iterdir()}
    first = capsys.readouterr().out
    assert f"{run}: 40 samples made" in first
    assert "recovery rate of rast" in first
    assert main(command) == 0
    assert len(plans) == 1  # nothing to decode: no engine was started
    assert capsys.readouterr().out == first.replace("40 samples made, 0 were", "0 samples made, 40 were")
    assert main(["evaluate", str(run), "--json"]) == 0
    numbers = json.loads(capsys.readouterr().out)
    assert list(numbers["rows"]) == ROWS
    assert "recovery_rate" in numbers
    assert all(0 <= row["avg"] <= 1 for row in numbers["rows"].values())


@pytest.mark.slow
def test_the_demo_analyzed(monkeypatch, tmp_path, capsys):
    """With the ceiling, which is the model of the demo's own row."""
    read = []

    def open_reader(reading):
        read.append(reading)
        return FakeReader()

    monkeypatch.setattr(backends, "open_backend", lambda plan: TinyBackend())
    monkeypatch.setattr(readings, "open_reader", open_reader)
    assert main(["demo", "--run", str(tmp_path), "--limit", "3", "--n", "2", "--analyze"]) == 0
    assert "what the mix does" in capsys.readouterr().out
    (reading,) = read
    assert reading.models.ceiling == "tiny:ceiling" and (tmp_path / "analysis" / "analysis.md").exists()


def test_what_fails_is_not_reported_on(opened, tmp_path, capsys):
    assert main(["demo", "--run", str(tmp_path), "--n", "0"]) == 2
    assert capsys.readouterr().err == "vllm-rast: error: --n 0: at least 1 sample of each problem\n"
    assert not (tmp_path / "report.md").exists()
