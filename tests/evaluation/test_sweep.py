"""The sweep: its rows, its numbers and its plot, with a backend that needs no model."""

from __future__ import annotations

import json
import re
from collections import defaultdict

import pytest
from fake_decoding import FakeBackend

from vllm_rast.cli.main import main
from vllm_rast.evaluation.reports.sweep import Point, curves, write_plot
from vllm_rast.evaluation.runs import backends
from vllm_rast.evaluation.runs.folder import RunFolder
from vllm_rast.evaluation.tasks.benchmark import load_benchmark

MODELS = ["--model", "org/base", "--positive", "org/positive", "--negative", "org/negative"]


def sweep(run, *more):
    return main(["sweep", *MODELS, "--benchmark", "tiny", "--limit", "6", "--n", "4", "--run", str(run), *more])


@pytest.fixture
def backend(monkeypatch):
    fake = FakeBackend()
    monkeypatch.setattr(backends, "open_backend", lambda plan: fake)
    return fake


def test_a_sweep_decodes_grades_and_draws(backend, tmp_path, capsys):
    run = tmp_path / "run"
    assert sweep(run, "--alphas", "0,0.5", "2", "--temperatures", "1,0.5", "--rows", "positive") == 0
    out = capsys.readouterr().out
    assert "alpha=0.5@1" in out
    asked = {(job.alpha, job.temperature) for job in backend.made}
    mixes = {(alpha, temperature) for alpha in (0.0, 0.5, 2.0) for temperature in (1.0, 0.5)}
    assert asked == mixes | {("positive", 1.0)}
    golds = {problem.id: problem.gold for problem in load_benchmark("tiny").problems(6)}
    right = defaultdict(list)
    for sample in RunFolder(run).samples():
        right[sample.row].append(re.search(r"\\boxed{(\d)}", sample.text)[1] == golds[sample.problem])
    numbers = json.loads((run / "sweep.json").read_text())
    assert {(point["alpha"], point["temperature"]) for point in numbers["points"]} == mixes
    for point in numbers["points"]:
        assert point["n"] == 4
        assert point["avg"] == pytest.approx(sum(right[point["row"]]) / 24)
    assert list(numbers["rows"]) == ["positive"]
    assert (run / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (run / "sweep.svg").read_text()
    backend.made.clear()
    assert sweep(run, "--alphas", "0.5,1", "--temperatures", "1") == 0
    assert {job.alpha for job in backend.made} == {1.0}  # the rest is there already


def test_gates_are_rows_of_their_own(backend, tmp_path, capsys):
    assert sweep(tmp_path, "--gates", "js=0.01,0.1", "top=20", "none", "js=0.1", "--rows", "base") == 0
    rows = RunFolder(tmp_path).config["rows"]
    assert list(rows) == ["alpha=1+js=0.01", "alpha=1+js=0.1", "alpha=1+top=20", "alpha=1", "base"]
    assert rows["alpha=1+top=20"]["formula"].endswith('+ 1.0 * (org/positive - org/negative) gated by {"top": 20}')
    assert {job.alpha for job in backend.made} == {
        *('{"alpha": 1.0, "gate": {"js": 0.01}}', '{"alpha": 1.0, "gate": {"js": 0.1}}'),
        *('{"alpha": 1.0, "gate": {"top": 20}}', 1.0, "base"),
    }
    points = json.loads((tmp_path / "sweep.json").read_text())["points"]
    assert [point.get("gate") for point in points] == [{"js": 0.01}, {"js": 0.1}, {"top": 20}, None]
    assert "alpha=1+js=0.1" in capsys.readouterr().out


def test_without_temperatures_the_benchmark_s_own_holds(backend, tmp_path):
    assert sweep(tmp_path, "--alphas", "0.5", "--temperature", "0.25") == 0
    assert {(job.alpha, job.temperature) for job in backend.made} == {(0.5, 0.25)}
    assert list(RunFolder(tmp_path).config["rows"]) == ["alpha=0.5"]


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--alphas", "0.5,x"], "--alphas: could not convert string to float: 'x'"),
        (["--alphas", ","], "--alphas: name at least one"),
        (["--gates", "js=x"], "--gates js=x: expected FORM=X such as js=0.1, or none"),
        (["--gates", "js=7"], "--gates.js: expected nats from 0 to log 2"),
        (["--gates", "0.1"], "--gates: unknown condition ''; known: js, kl, top, random"),
        (["--temperatures", "-1"], "--temperatures: the temperature must be 0 or more"),
    ],
)
def test_wrong_values(backend, tmp_path, capsys, arguments, said):
    assert sweep(tmp_path / "run", *arguments) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def point(alpha: float, temperature: float | None, avg: float = 0.5) -> dict:
    name = Point(alpha, temperature).row
    return {"alpha": alpha, "temperature": temperature, "row": name, "avg": avg, "ci": None, "n": 1, "truncated": 0.0}


def test_the_axis_is_what_varies():
    over, lines = curves([point(2, None), point(0, None), point(1, None)])
    assert over == "alpha"
    assert {label: [p["alpha"] for p in line] for label, line in lines.items()} == {"mix": [0, 1, 2]}
    over, lines = curves([point(1, 0.5), point(1, 0.1)])
    assert over == "temperature"
    assert {label: [p["temperature"] for p in line] for label, line in lines.items()} == {"alpha 1": [0.1, 0.5]}
    gated = [point(1, None) | {"gate": gate} for gate in ({"kl": 2}, {"js": 0.3}, {"js": 0.1})]
    over, lines = curves([point(1, None), *gated])
    assert over == "the gate's threshold"
    assert {label: [p[over] for p in line] for label, line in lines.items()} == {"kl": [2], "js": [0.1, 0.3]}
    over, lines = curves([point(a, t) for t in (0.1, 0.5) for a in (0, 1)])
    assert (over, list(lines)) == ("alpha", ["temperature 0.1", "temperature 0.5"])


def test_equal_numbers_give_equal_files(tmp_path):
    numbers = {"points": [point(0, None), point(1, None, 0.8)], "rows": {"positive": {"avg": 0.2, "ci": None}}}
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for folder in ("a", "b"):
        write_plot(numbers, tmp_path / folder, "run")
    for name in ("sweep.png", "sweep.svg"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
