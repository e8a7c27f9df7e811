"""Parts of a run, decoded apart, and joined."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import refused
from fake_decoding import FakeBackend

from vllm_rast.cli.main import main
from vllm_rast.errors import UserError
from vllm_rast.evaluation.runs import backends
from vllm_rast.evaluation.runs.folder import RunFolder
from vllm_rast.evaluation.runs.merge import merge_runs
from vllm_rast.evaluation.scores.evaluate import evaluate_runs
from vllm_rast.evaluation.tasks.shard import Shard, parse_shard

MODELS = ["--model", "org/base", "--positive", "org/positive", "--negative", "org/negative"]


@pytest.fixture(autouse=True)
def backend(monkeypatch: pytest.MonkeyPatch) -> FakeBackend:
    fake = FakeBackend()
    monkeypatch.setattr(backends, "open_backend", lambda plan: fake)
    return fake


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "sums.jsonl"
    path.write_text("".join(json.dumps({"question": f"{i} + {i}?", "answer": 2 * i}) + "\n" for i in range(10)))
    return path


def generate(questions: Path, run: Path, *more: str) -> Path:
    assert main(["generate", *MODELS, "--input", str(questions), "--run", str(run), "--n", "2", *more]) == 0
    return run


def samples(run: Path) -> list[object]:
    return sorted(RunFolder(run).samples(), key=lambda one: one.key)


@pytest.fixture
def parts(questions: Path, tmp_path: Path) -> list[Path]:
    return [generate(questions, tmp_path / f"part-{i}", "--shard", f"{i}/3") for i in (1, 2, 3)]


def test_parts_are_the_whole() -> None:
    items = list(range(11))
    parts = [Shard(index, 4) for index in (1, 2, 3, 4)]
    assert sorted(item for part in parts for item in part.of(items)) == items
    assert [part.share(11) for part in parts] == [len(part.of(items)) for part in parts] == [3, 3, 3, 2]
    for part in parts:
        assert set(part.of(items[:5])) <= set(part.of(items)), "a larger --limit must not move problems"


@pytest.mark.parametrize("text", ["", "1", "0/4", "5/4", "a/b", "1/0", "-1/4", "1/4/2", "1.0/2"])
def test_what_is_no_part(text: str) -> None:
    with pytest.raises(UserError, match="--shard .*: expected INDEX/COUNT"):
        parse_shard(text)


def test_merged_parts_equal_one_run(questions, parts, tmp_path, capsys) -> None:
    whole = generate(questions, tmp_path / "whole")
    assert [len(list(RunFolder(part).problems())) for part in parts] == [4, 3, 3]
    capsys.readouterr()
    merged = tmp_path / "merged"
    assert main(["merge", *map(str, parts), "--run", str(merged)]) == 0
    assert capsys.readouterr().out == f"{merged}: 60 samples written, 0 were there already\n"
    assert samples(merged) == samples(whole)
    assert len(RunFolder(merged).config["sittings"]) == 3
    tables = [evaluate_runs([run]).pooled.rows for run in (merged, whole)]
    assert tables[0]["rast"].avg == tables[1]["rast"].avg and len(tables[0]["rast"].questions) == 10
    assert main(["merge", *map(str, parts), "--run", str(merged)]) == 0
    assert capsys.readouterr().out == f"{merged}: 0 samples written, 60 were there already\n"
    generate(questions, merged)
    assert "0 samples made, 60 were there already" in capsys.readouterr().out


def test_a_part_that_was_not_finished_is_made_up_for_without_parts(questions, parts, tmp_path, capsys) -> None:
    lines = (parts[1] / "samples.jsonl").read_bytes().splitlines(keepends=True)
    (parts[1] / "samples.jsonl").write_bytes(b"".join(lines[:5]))
    merge_runs(parts, tmp_path / "merged")
    capsys.readouterr()
    generate(questions, tmp_path / "merged")
    assert f"{len(lines) - 5} samples made" in capsys.readouterr().out
    assert samples(tmp_path / "merged") == samples(generate(questions, tmp_path / "whole"))


def test_samples_of_several_parts(parts, tmp_path, capsys) -> None:
    first = (parts[0] / "samples.jsonl").read_text()
    with (parts[1] / "samples.jsonl").open("a") as file:
        file.write(first)
    merged = merge_runs(parts, tmp_path / "merged")
    assert (merged.written, merged.there, merged.twice) == (60, 0, 24)
    assert len(samples(tmp_path / "merged")) == 60
    line, _, rest = first.partition("\n")
    (parts[0] / "samples.jsonl").write_text(json.dumps(json.loads(line) | {"text": "another"}) + "\n" + rest)
    said = refused(capsys, ["merge", *map(str, parts), "--run", str(tmp_path / "again")])
    assert said.startswith(f"{parts[1]}: sample ") and "is another than the one before" in said


@pytest.mark.parametrize(
    "more, said",
    [
        (["--seed", "1"], "--seed is 1, and 0 in"),
        (["--temperature", "0.5"], "--temperature (sums) is 0.5, and 1.0 in"),
        (["--rows", "rast=0.5"], "alpha of row 'rast' is 0.5, and 1.0 in"),
    ],
)
def test_parts_of_different_runs(questions, parts, tmp_path, capsys, more, said) -> None:
    other = generate(questions, tmp_path / "other", "--shard", "2/3", *more)
    capsys.readouterr()
    line = refused(capsys, ["merge", str(parts[0]), str(other), "--run", str(tmp_path / "merged")])
    assert line.startswith(f"{other}: {said}") and line.endswith("merge only the parts of one run")
    assert not (tmp_path / "merged").exists()


def test_what_cannot_be_merged(questions, parts, tmp_path, capsys) -> None:
    assert "is one of the parts" in refused(capsys, ["merge", str(parts[0]), "--run", str(parts[0])])
    assert "is not a run folder" in refused(capsys, ["merge", str(tmp_path / "no"), "--run", str(tmp_path / "merged")])
    text = (parts[1] / "problems.jsonl").read_text()
    (parts[1] / "problems.jsonl").write_text(text + (parts[0] / "problems.jsonl").read_text().replace('"0"', '"7"'))
    said = refused(capsys, ["merge", *map(str, parts), "--run", str(tmp_path / "merged")])
    assert "is another than in" in said


def test_another_part_in_the_same_folder_is_refused(questions, parts, capsys) -> None:
    command = ["generate", *MODELS, "--input", str(questions), "--run", str(parts[0]), "--n", "2", "--shard", "2/3"]
    assert "--shard (sums) changed, '1/3' → '2/3'" in refused(capsys, command)
