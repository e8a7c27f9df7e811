"""The scripts that score files of the original RAST repository."""

from __future__ import annotations

import json
import subprocess
import sys
from math import comb
from pathlib import Path

import pytest
from paths import ROOT

from vllm_rast.cli.rescore import main
from vllm_rast.errors import UserError
from vllm_rast.evaluation.scores.metric import MAJ_AT_K, PASS_AT_K
from vllm_rast.evaluation.scores.predictions import read_predictions

# Right samples of each question among 4 runs, and what the wrong ones say.
RIGHT = {"What is 1+1?": (2, 3), "What is 2+2?": (4, 1), "What is 3+3?": (6, 0)}
RUNS = 4


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for run in range(RUNS):
        lines = []
        for question, (gold, right) in RIGHT.items():
            answer = gold if run < right else 100
            lines.append({"question": question, "model_output": f"so \\boxed{{{answer}}}", "answer": str(gold)})
        (tmp_path / f"prediction-{run}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def scores(metric: str, capsys, *arguments: object) -> dict:
    assert main(metric, [*map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_pass_at_k_of_files(folder, capsys):
    result = scores(PASS_AT_K, capsys, folder)
    assert result["questions"] == 3 and result["n"] == RUNS
    for k in (1, 2, 4):
        expected = sum(1 - comb(RUNS - right, k) / comb(RUNS, k) for _, right in RIGHT.values()) / 3
        assert result["pass@k"][str(k)]["value"] == pytest.approx(expected)


def test_majority_at_k_of_files(folder, capsys):
    result = scores(MAJ_AT_K, capsys, folder, "--k", 3, 4)
    # 3 of 4 right: every three votes have a right majority; 1 of 4: none has.
    assert result["maj@k"] == {
        k: {"value": pytest.approx(1 / 3), "ci": pytest.approx([0, 0.9866], abs=1e-3)} for k in "34"
    }


def test_lines_that_a_rerun_appended_count_once(folder, capsys):
    path = folder / "prediction-0.jsonl"
    path.write_text(path.read_text() * 2)
    before = len(RIGHT) * RUNS
    predictions, left_out = read_predictions([folder])
    assert (len(predictions), left_out) == (before, len(RIGHT))
    main(PASS_AT_K, [str(folder)])
    out, err = capsys.readouterr()
    assert "3 lines left out" in err and "pass@4" in out and "3 questions, 4 samples" in out


def test_k_without_an_unbiased_estimate_is_refused(folder, capsys):
    assert main(PASS_AT_K, [str(folder), "--k", "5"]) == 2
    assert "--k 5: a question has only 4 samples" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 1: not JSON"),
        ('{"question": "", "answer": ""}', "no 'model_output'"),
        ("[]", "no 'question'"),
        ("", "no predictions"),
    ],
)
def test_files_of_another_format_are_refused(tmp_path, line, message):
    (tmp_path / "prediction-0.jsonl").write_text(line + "\n")
    with pytest.raises(UserError, match=message):
        read_predictions([tmp_path])


def test_missing_files_and_unknown_options_are_refused(tmp_path, folder, capsys):
    with pytest.raises(UserError, match="no such file"):
        read_predictions([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no prediction-"):
        read_predictions([tmp_path / "empty"])
    assert main(PASS_AT_K, [str(folder), "--kind", "poetry"]) == 2
    assert main(PASS_AT_K, [str(folder), "--grader", "kind"]) == 2
    assert "--kind poetry" in (err := capsys.readouterr().err) and "--grader kind" in err


@pytest.mark.parametrize("script", ["pass_at_k", "maj_at_k"])
def test_the_scripts_run(folder, script):
    path = ROOT / "eval" / f"{script}.py"
    done = subprocess.run([sys.executable, path, folder, "--k", "2"], capture_output=True, text=True, check=True)
    assert f"{script[:4].strip('_')}@2" in done.stdout
