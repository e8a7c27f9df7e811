"""Speculation and run folders: what changes the samples of a run is refused, what changes its speed alone is not."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_decoding import FakeBackend

from vllm_rast.cli.main import main
from vllm_rast.errors import UserError
from vllm_rast.evaluation.runs import backends
from vllm_rast.evaluation.runs.folder import RunFolder
from vllm_rast.mix.model_names import TINY_FOLDER

MODELS = ["--model", "org/base", "--positive", "org/positive", "--negative", "org/negative"]
GREEDY = ["--temperature", "0", "--n", "1"]
SAMPLING = ["--n", "2"]

Generate = Callable[..., int]


@pytest.fixture
def generate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Generate:
    """`vllm-rast generate` of three problems into one folder, with a backend that needs no model."""
    monkeypatch.setattr(backends, "open_backend", lambda plan: FakeBackend())

    def run(*options: str, problems: int = 3) -> int:
        command = ["generate", *MODELS, "--benchmark", "tiny", "--run", str(tmp_path / "run")]
        return main([*command, "--limit", str(problems), *options])

    return run


def line(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    "before, now, said",
    [
        ([], ["--speculate", "2"], "--speculate (row 'rast' of 'tiny') changed, 'no drafts' → 'org/positive'"),
        (["--speculate", "2"], [], "--speculate (row 'rast' of 'tiny') changed, 'org/positive' → 'no drafts'"),
        (
            ["--speculate", "2"],
            ["--speculate", "2", "--drafter", "negative"],
            "--drafter (row 'rast' of 'tiny') changed, 'org/positive' → 'org/negative'",
        ),
    ],
)
def test_samples_of_another_drafter_are_refused(
    generate: Generate, capsys: pytest.CaptureFixture[str], before: list[str], now: list[str], said: str
) -> None:
    assert generate("--rows", "rast", *SAMPLING, *before) == 0
    for more in ([], ["--dry-run"]):
        assert generate("--rows", "rast", *SAMPLING, *now, *more, problems=4) == 2
        assert said in line(capsys)
    assert generate("--rows", "rast", *SAMPLING, *before, problems=4) == 0


def test_the_number_of_drafts_may_change(generate: Generate, tmp_path: Path) -> None:
    assert generate(*SAMPLING, "--speculate", "1") == 0
    assert generate(*SAMPLING, "--speculate", "5", "--drafter", "positive:1", problems=4) == 0
    assert generate(*SAMPLING, "--speculate", "auto", problems=4) == 0
    assert generate(*SAMPLING, "--speculate", "5", "--drafter", "positive:1", problems=4) == 0
    run = RunFolder(tmp_path / "run")
    assert len(run.done()) == 4 * 2 * 3
    assert (run.config["speculate"], run.config["drafter"]) == (5, "positive:1")
    assert run.config["drafters"] == {"tiny": dict.fromkeys(("base", "rast", "positive"), "org/positive")}


def test_greedy_rows_may_change_all_of_it(generate: Generate, tmp_path: Path) -> None:
    assert generate(*GREEDY, "--speculate", "3") == 0
    assert generate(*GREEDY, problems=4) == 0
    assert generate(*GREEDY, "--speculate", "2", "--drafter", "negative", problems=5) == 0
    run = RunFolder(tmp_path / "run")
    assert len(run.done()) == 5 * 3
    assert run.config["drafters"] == {"tiny": {}}


def test_a_sampling_row_of_a_greedy_run_is_bound_on_its_own(
    generate: Generate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, cool, warm = ["--rows", "rast"], ["--rows", "rast,cool=1@0.5"], ["--rows", "warm=1@2"]
    assert generate(*GREEDY, *rows, "--speculate", "3") == 0
    assert generate(*GREEDY, *cool) == 0  # the new row samples without drafts, whatever the run began with
    assert generate(*GREEDY, *warm, "--speculate", "3") == 0
    assert generate(*GREEDY, *rows, "--speculate", "1", problems=4) == 0
    assert generate(*GREEDY, *cool, "--speculate", "1", problems=4) == 2
    assert "--speculate (row 'cool' of 'tiny') changed, 'no drafts' → 'org/positive'" in line(capsys)
    assert generate(*GREEDY, *warm, problems=4) == 2
    assert "--speculate (row 'warm' of 'tiny') changed, 'org/positive' → 'no drafts'" in line(capsys)
    run = RunFolder(tmp_path / "run")
    assert run.config["drafters"] == {"tiny": {"cool": None, "warm": "org/positive"}}
    assert Counter(sample.row for sample in run.samples()) == {"rast": 4, "cool": 3, "warm": 3}


def test_what_was_never_asked_is_free(generate: Generate, tmp_path: Path) -> None:
    """A run that has the row and the benchmark, and not the one on the other."""
    other = tmp_path / "other.jsonl"
    other.write_text('{"id": "x", "prompt": "Go on: "}\n')
    assert generate(*SAMPLING, "--rows", "base") == 0
    command = ["generate", *MODELS, "--run", str(tmp_path / "run"), "--input", str(other), *SAMPLING]
    assert main([*command, "--rows", "rast", "--speculate", "2"]) == 0
    assert main([*command, "--rows", "base", "--speculate", "2"]) == 0
    drafters = RunFolder(tmp_path / "run").config["drafters"]
    assert drafters == {"tiny": {"base": None}, "other": {"rast": "org/positive", "base": "org/positive"}}


def test_runs_of_earlier_versions_count_as_off(
    generate: Generate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate(*SAMPLING) == 0
    path = tmp_path / "run" / "config.json"
    config = json.loads(path.read_text())
    for name in ("speculate", "drafter", "drafters"):
        del config[name]
    path.write_text(json.dumps(config))
    assert len(RunFolder(tmp_path / "run").done()) == 18
    assert generate(*SAMPLING, "--speculate", "2", problems=4) == 2
    assert "'no drafts' → 'org/positive'" in line(capsys)
    assert generate(*SAMPLING, problems=4) == 0
    assert generate(*SAMPLING, "--rows", "half=0.5", "--speculate", "2", problems=4) == 0
    assert RunFolder(tmp_path / "run").config["drafters"]["tiny"] == {
        **dict.fromkeys(("base", "rast", "positive")),
        "half": "org/positive",
    }


def test_samples_that_were_copied_in_are_found(generate: Generate, tmp_path: Path) -> None:
    assert generate(*SAMPLING, "--rows", "rast", "--speculate", "2") == 0
    drafted = (tmp_path / "run").rename(tmp_path / "drafted")
    assert generate(*SAMPLING, "--rows", "rast", problems=2) == 0
    with open(tmp_path / "run" / "samples.jsonl", "a") as file:
        file.write((drafted / "samples.jsonl").read_text().split("\n")[-2] + "\n")
    with pytest.raises(UserError, match="line 5 was made with another formula, drafter, sampling, data or model"):
        RunFolder(tmp_path / "run").done()


def test_the_drafters_weights_belong_to_a_row_that_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its formula does not name the drafter, and its samples depend on it."""
    monkeypatch.setattr(backends, "open_backend", lambda plan: FakeBackend())
    settings = []
    for number, weights in enumerate((b"one", b"two")):
        small = tmp_path / "small"
        small.mkdir(exist_ok=True)
        (small / "config.json").write_text("{}")
        (small / "model.safetensors").write_bytes(weights)
        run = tmp_path / f"run{number}"
        command = ["generate", "--model", "org/base", "--positive", str(small), "--benchmark", "tiny", "--limit", "1"]
        assert main([*command, *SAMPLING, "--rows", "base", "--speculate", "2", "--run", str(run)]) == 0
        settings.append(RunFolder(run).settings("tiny", "base"))
    assert settings[0] != settings[1]


# With the engine


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The engines of this test, one for each number of drafts."""
    if not (TINY_FOLDER / "base").exists():
        pytest.skip("the shipped models are not there")
    pytest.importorskip("vllm")
    engines: dict[int, backends.VllmBackend] = {}

    def open_once(plan):
        if plan.models.speculate not in engines:
            engines[plan.models.speculate] = backends.VllmBackend(plan)
        return engines[plan.models.speculate]

    monkeypatch.setattr(backends, "open_backend", open_once)
    yield
    for engine in engines.values():
        engine.llm.llm_engine.engine_core.shutdown()


def test_resumed_with_another_number_of_drafts_equals_uninterrupted(engine: None, tmp_path: Path) -> None:
    rows = ["--rows", 'base,rast,positive,cool=0.5@0.5,late={"alpha": 1, "warmup": 9}', "--max-num-seqs", "16"]

    def lines(run: str) -> Counter[bytes]:
        return Counter((tmp_path / run / "samples.jsonl").read_bytes().splitlines())

    def generate(run: str, drafts: int, problems: int, n: int) -> int:
        options = ["--limit", str(problems), "--n", str(n), "--speculate", str(drafts), "--run", str(tmp_path / run)]
        return main(["generate", *rows, *options])

    assert generate("whole", 3, 4, 2) == 0
    assert generate("broken", 1, 3, 1) == 0
    assert 0 < lines("broken").total() < lines("whole").total() == 40
    assert generate("broken", 3, 4, 2) == 0
    assert lines("broken") == lines("whole")
