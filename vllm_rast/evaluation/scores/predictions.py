"""Prediction files of the original RAST repository, graded again.

One file `prediction-*.jsonl` is one run over a benchmark; a line holds `question`, `model_output` and `answer` (the
gold). A rerun there appends to the file, so a question that occurs twice in one file counts once, and the number left
out is reported.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vllm_rast.errors import UserError
from vllm_rast.evaluation.scores.grade_run import Progress
from vllm_rast.evaluation.scores.graded import GradedSample
from vllm_rast.evaluation.scores.summary import Row, summarize
from vllm_rast.evaluation.tasks.text import lines_of, parse_json

COLUMNS = ("question", "model_output", "answer")
PATTERN = "prediction-*.jsonl"


@dataclass(frozen=True)
class Prediction:
    """One output; `run` names the file it is from."""

    run: str
    question: str
    model_output: str
    answer: str


def prediction_files(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """The files named, and those of the folders named. Raises UserError if there is none."""
    files: list[Path] = []
    for path in map(Path, paths):
        if not path.exists():
            raise UserError(f"{path}: no such file or folder")
        found = sorted(path.glob(PATTERN)) if path.is_dir() else [path]
        if not found:
            raise UserError(f"{path}: no {PATTERN} in this folder; name the files")
        files += found
    return files


def read_predictions(paths: Iterable[str | os.PathLike[str]]) -> tuple[list[Prediction], int]:
    """All predictions, and how many lines were left out because their file has the question already.

    Raises:
        UserError: no file; a line that is not JSON or lacks a column.
    """
    predictions, left_out = [], 0
    for path in prediction_files(paths):
        seen: set[str] = set()
        for number, line in lines_of(path, "predictions"):
            record = _record(line, f"{path}, line {number}")
            if record["question"] in seen:
                left_out += 1
                continue
            seen.add(record["question"])
            outputs = record["model_output"]
            for output in outputs if isinstance(outputs, list) else [outputs]:
                text = "" if output is None else str(output)
                predictions.append(Prediction(str(path), record["question"], text, str(record["answer"])))
    if not predictions:
        raise UserError(f"{', '.join(map(str, paths))}: no predictions")
    return predictions, left_out


def _record(line: str, where: str) -> dict[str, Any]:
    record = parse_json(line, where, whole=False)
    for column in COLUMNS:
        if not isinstance(record, dict) or column not in record:
            raise UserError(f"{where}: no {column!r}; a line needs {', '.join(COLUMNS)}")
    if record["answer"] is None or not isinstance(record["question"], str):
        raise UserError(f"{where}: the answer is null or the question is not a text; give the gold, or delete the line")
    return record


def grade_predictions(
    predictions: Sequence[Prediction],
    grader: str = "default",
    kind: str = "math",
    progress: Progress | None = None,
) -> Row:
    """The predictions graded and counted; the samples of a question are those of all runs.

    Raises:
        UserError: an unknown grader.
    """
    from vllm_rast.grading import GradeItem, Grader

    items = (GradeItem(p.model_output, p.answer, kind) for p in predictions)
    samples = []
    with Grader(grader) as marker:
        for place, (prediction, grade) in enumerate(zip(predictions, marker.grade_many(items), strict=True)):
            samples.append(
                GradedSample(
                    benchmark="predictions",
                    row="predictions",
                    problem=prediction.question,
                    sample=place,
                    seed=0,
                    text=prediction.model_output,
                    finish_reason="",
                    tokens=0,
                    correct=grade.correct,
                    answer=grade.answer,
                    how=grade.how,
                    status=grade.status,
                    ms=grade.ms,
                    answer_class=grade.answer_class or None,
                )
            )
            if progress:
                progress(place + 1, len(predictions))
    return summarize(samples).rows["predictions"]
