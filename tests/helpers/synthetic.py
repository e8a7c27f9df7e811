"""Run folders made up for the tests: every row answers each question with its own skill, by one seeded coin."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from vllm_rast.evaluation.runs.folder import RunFolder, Sample
from vllm_rast.evaluation.tasks.benchmark import Problem

SKILLS = {"base": 0.35, "positive": 0.5, "rast": 0.8, "ceiling": 0.88}
ALPHAS = {"base": "base", "positive": "positive", "rast": 1.0, "ceiling": "positive:2"}


def sums(benchmark: str, questions: int) -> list[Problem]:
    """Problems with integer answers in two families."""
    return [
        Problem(
            benchmark,
            f"q{i}",
            f"What is {i} + {i}?",
            str(2 * i),
            kind="integer",
            family=("even", "odd")[i % 2],
        )
        for i in range(questions)
    ]


def sample_text(rng: random.Random, gold: int, skill: float) -> tuple[str, str]:
    """A made-up output and its finish reason: right, wrong, or cut off without an answer."""
    if rng.random() < 0.04:
        return "Let me think about this once more. " * 3, "length"
    answer = gold if rng.random() < skill else gold + rng.choice([1, 1, 1, 2, 3])
    return f"Adding the two numbers, \\(a+a\\), gives \\boxed{{{answer}}}.", "stop"


def write_run(
    path: Path,
    *,
    questions: int = 12,
    n: int = 4,
    skills: Mapping[str, float] = SKILLS,
    benchmarks: Sequence[str] = ("sums",),
    seed: int = 0,
) -> Path:
    """A finished run folder with n samples of every row and question; nothing is graded."""
    config = {
        "backend": "vllm",
        "seed": seed,
        "template": "paper",
        "rows": {row: {"alpha": ALPHAS.get(row, 1.0)} for row in skills},
        "models": {"base": "tiny:base"},
        "benchmarks": {
            name: {"data_hash": name, "limit": None, "temperature": 1.0, "top_p": 0.95, "max_tokens": 64}
            for name in benchmarks
        },
        "sampling": {"n": n},
    }
    rng = random.Random(seed)
    problems = [problem for name in benchmarks for problem in sums(name, questions)]
    with RunFolder.open(path, config) as run:
        run.add_problems(problems)
        for problem in problems:
            ease = rng.choice([0.2, 1.0, 1.0, 1.1])
            for row, skill in skills.items():
                for index in range(n):
                    text, reason = sample_text(rng, int(str(problem.gold)), skill * ease)
                    run.append(
                        Sample(
                            benchmark=problem.benchmark,
                            row=row,
                            problem=problem.id,
                            sample=index,
                            seed=index,
                            text=text,
                            finish_reason=reason,
                            prompt_tokens=9,
                            tokens=len(text) // 4,
                            config_hash=run.config["config_hash"],
                        )
                    )
    return path
