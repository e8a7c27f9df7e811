"""Grade a run: every sample that has no current grade, and no other."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vllm_rast.errors import UserError
from vllm_rast.evaluation.runs.folder import RunFolder, Sample
from vllm_rast.evaluation.runs.jsonl import LineFile, RunError
from vllm_rast.evaluation.scores.graded import GRADES, GradedSample, is_current, join, read_grades, text_hash

if TYPE_CHECKING:
    from vllm_rast.evaluation.tasks.benchmark import Problem
    from vllm_rast.grading import Grade, GradeItem, Grader

Progress = Callable[[int, int], None]  # (graded so far, to grade)


class Graded(NamedTuple):
    """A graded run: samples marked now, those of problems without a gold, the grader as "name/version", all grades."""

    new: int
    without_gold: int
    grader: str
    samples: list[GradedSample]

    @property
    def kept(self) -> int:
        """Samples whose grade was current."""
        return len(self.samples) - self.new


def grade_run(
    path: str | os.PathLike[str],
    grader: str = "default",
    *,
    timeout_s: float | None = None,
    workers: int | None = None,
    regrade: bool = False,
    progress: Progress | None = None,
    out: str | os.PathLike[str] | None = None,
    opener: Callable[[str, float | None, int | None], Any] | None = None,
) -> Graded:
    """Mark the samples of the run folder at `path` and append their grades to its grades.jsonl, one flushed
    line each; to a file in the folder `out` if the run folder cannot be written to.

    Stopped at any moment, it goes on from there the next time. `regrade` marks everything again. `timeout_s`
    is the grader's limit for one answer, `workers` its number of processes; None leaves either to the grader.
    `opener` makes the grader from its name and these two: another than `open_grader` grades elsewhere.

    Raises:
        UserError: no run folder; an unknown grader; a sample of a problem that the run folder does not hold.
    """
    run = RunFolder(path)
    identity = grader_identity(grader)
    elsewhere = other_grades(run, out)
    grades = {} if regrade else read_grades(run, identity, elsewhere)
    problems = {(problem.benchmark, problem.id): problem for problem in run.problems()}
    finished = list(run.samples())
    samples = [sample for sample in finished if has_gold(problems, sample)]
    todo = [sample for sample in samples if not is_current(grades.get(sample.key), sample)]
    if todo:
        file = _open_lines(elsewhere or run.path / GRADES)
        with closing(file) as lines, (opener or open_grader)(grader, timeout_s, workers) as marker:
            marks = marker.grade_many(_items(todo, problems))
            for done, (sample, grade) in enumerate(zip(todo, marks, strict=True), 1):
                grades[sample.key] = _record(sample, grade, identity)
                lines.append(grades[sample.key])
                if progress:
                    progress(done, len(todo))
    graded = [join(sample, grades[sample.key]) for sample in samples]
    return Graded(len(todo), len(finished) - len(samples), identity, graded)


def other_grades(run: RunFolder, out: str | os.PathLike[str] | None) -> Path | None:
    """Where the grades of a run go whose folder cannot be written to; None if it can, or without another folder."""
    if out is None or os.access(run.path, os.W_OK):
        return None
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {folder}: {error.strerror}; name a folder that can be written") from error
    return folder / f"{run.path.resolve().name}.{GRADES}"


def _open_lines(path: Path) -> LineFile:
    try:
        return LineFile(path)
    except RunError as error:
        raise UserError(f"{error}; name a folder for the grades with --out") from error


def has_gold(problems: Mapping[tuple[str, str], Problem], sample: Sample) -> bool:
    """Whether a sample can be graded; raises UserError if its problem is missing from the run folder."""
    problem = problems.get((sample.benchmark, sample.problem))
    if problem is None:
        raise UserError(
            f"problems.jsonl lacks problem {sample.problem!r} of {sample.benchmark!r}, which has a sample; "
            "run the same `generate` command again to restore it"
        )
    return bool(problem.gold)


def grader_identity(grader: str) -> str:
    """A grader's name and version, "default/1": grades by another version are not current."""
    from vllm_rast import grading

    return f"{grader}/{grading.VERSION}"


def open_grader(name: str, timeout_s: float | None, workers: int | None) -> Grader:
    """The grader of that name; options that are None stay the grader's own."""
    from vllm_rast.grading import Grader

    options: dict[str, Any] = {"timeout_s": timeout_s, "workers": workers}
    return Grader(name, **{key: value for key, value in options.items() if value is not None})


def _items(samples: Iterable[Sample], problems: Mapping[tuple[str, str], Problem]) -> Iterator[GradeItem]:
    from vllm_rast.grading import GradeItem

    for sample in samples:
        yield GradeItem.of(problems[sample.benchmark, sample.problem], sample.text)


def _record(sample: Sample, grade: Grade, grader: str) -> dict[str, Any]:
    return {
        **sample.key._asdict(),
        "correct": grade.correct,
        "answer": grade.answer,
        "how": grade.how,
        "status": grade.status,
        "ms": round(grade.ms, 2),
        "class": grade.answer_class or None,
        "text_hash": text_hash(sample.text),
        "grader": grader,
    }
