"""Evaluate run folders: grade what is missing, then count."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from vllm_rast.evaluation.runs.folder import RunFolder
from vllm_rast.evaluation.runs.progress import Progress
from vllm_rast.evaluation.scores.grade_run import grade_run
from vllm_rast.evaluation.scores.graded import GradedSample, merge_runs, require_samples
from vllm_rast.evaluation.scores.summary import Expected, Summary, by_benchmark, summarize


@dataclass
class Evaluation:
    """Run folders, graded and counted: over all questions together, and benchmark by benchmark."""

    runs: list[RunFolder]
    grader: str
    samples: list[GradedSample]
    without_gold: int
    pooled: Summary
    benchmarks: dict[str, Summary]

    @property
    def skipped(self) -> dict[str, int]:
        """How many problems of each benchmark were left out because their prompts were too long."""
        found: Counter[str] = Counter()
        for run in self.runs:
            for benchmark, problems in run.skipped.items():
                found[benchmark] = max(found[benchmark], len(problems))
        return dict(found)

    @property
    def title(self) -> str:
        return ", ".join(run_names(self.runs))


def evaluate_runs(
    paths: Sequence[str | os.PathLike[str]],
    *,
    grader: str = "default",
    timeout_s: float | None = None,
    workers: int | None = None,
    regrade: bool = False,
    out: str | os.PathLike[str] | None = None,
) -> Evaluation:
    """Grade the samples that have no current grade and count all of them.

    Rows of several runs stand side by side; a row that two runs decoded on one benchmark is called "run:row".

    Raises:
        UserError: as `grade_run`; or there is no finished sample.
    """
    runs = [RunFolder(path) for path in paths]
    names = run_names(runs)
    graded = []
    for run, name in zip(runs, names, strict=True):
        with Progress(f"grading {name}") as progress:
            graded.append(
                grade_run(
                    run.path, grader, timeout_s=timeout_s, workers=workers, regrade=regrade, progress=progress, out=out
                )
            )
    samples = merge_runs([(name, run.samples) for name, run in zip(names, graded, strict=True)])
    without_gold = sum(run.without_gold for run in graded)
    require_samples(samples, without_gold, paths)
    order = list(dict.fromkeys(row for run in runs for row in run.config["rows"]))
    expected = expected_of(runs, names, samples)
    pooled: dict[str, Expected] = {}
    for (_, row), one in expected.items():
        before = pooled.get(row, Expected(0, 0))
        pooled[row] = Expected(before.questions + one.questions, before.samples + one.samples)
    return Evaluation(
        runs,
        graded[0].grader,
        samples,
        without_gold,
        summarize(samples, order, pooled),
        by_benchmark(samples, order, expected),
    )


def expected_of(
    runs: Sequence[RunFolder], names: Sequence[str], samples: Sequence[GradedSample]
) -> dict[tuple[str, str], Expected]:
    """What finished runs have by (benchmark, row), rows called as in `samples`; for what they were asked to decode."""
    called = {sample.row for sample in samples}
    found = {}
    for run, name in zip(runs, names, strict=True):
        n = run.config["sampling"]["n"]
        asked = (p for p in run.problems() if p.gold and not run.is_skipped(p.benchmark, p.id))
        questions = Counter(problem.benchmark for problem in asked)
        for row in run.config["rows"]:
            shown = f"{name}:{row}" if f"{name}:{row}" in called else row
            for benchmark, count in questions.items():
                found[benchmark, shown] = Expected(count, count * n)
    return found


def run_names(runs: Sequence[RunFolder]) -> list[str]:
    """Each run folder's name, or its path if two folders have the same name."""
    names = [run.path.resolve().name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.path) for run in runs]
