"""Grade every gold against itself, which must be right, and against shifted golds, which must be wrong.

    python scripts/check_golds.py FOLDER [--grader default]

FOLDER holds the data sets as for `--data`. Nothing is left out silently: golds without a shift are listed. Exits with 1
where a verdict is wrong.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator

from vllm_rast.errors import UserError
from vllm_rast.evaluation.tasks.benchmark import Problem, list_benchmarks, load_benchmark
from vllm_rast.grading import GradeItem, Grader

FORMS = ("{}", "\\boxed{{{}}}", "So the final answer is ${}$.", "We are done: \\[\\boxed{{{}}}\\]\nThat is all.")


def text_of(problem: Problem) -> str:
    return problem.gold if isinstance(problem.gold, str) else ", ".join(problem.gold)


def shifts(gold: str) -> Iterator[str]:
    """Golds that mean something else: a digit more, another sign, something added, another word."""
    numbers = list(re.finditer(r"\d+", gold))
    for match in (numbers[0], numbers[-1]) if numbers else ():
        yield gold[: match.start()] + str(int(match[0]) + 1) + gold[match.end() :]
        yield gold[: match.start()] + match[0] + "7" + gold[match.end() :]
    bare = gold.strip(" $.")
    if re.fullmatch(r"-?[\d.,]*\d(e-?\d+)?", bare):
        yield f"-({bare})" if bare.strip("0.,") else "1"
    word = re.fullmatch(r"\\text\{\(?([A-Za-z]+)\)?\}", bare)
    if word:
        yield bare.replace(word[1], "B" if word[1] == "A" else "A")
    elif "," not in bare and "=" not in bare and "cup" not in bare and not bare.endswith("]"):
        yield f"{bare} + 1"


def far(problem: Problem, shifted: str) -> bool:
    """Whether a shifted gold is outside the error that the row allows (a rounded 4.5e33 allows 4.5e33 + 1)."""
    if problem.error:
        return abs(float(shifted) - float(text_of(problem))) > float(problem.error) if is_float(shifted) else True
    return not (problem.kind == "rounded" and shifted.endswith("+ 1") and "e" in shifted and is_float(text_of(problem)))


def is_float(text: str) -> bool:
    try:
        return float(text) == float(text)
    except ValueError:
        return False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--grader", default="default")
    args = parser.parse_args()
    wrong = 0
    with Grader(args.grader) as grader:
        for benchmark in list_benchmarks():
            wrong += check(grader, benchmark.name, args.folder if benchmark.hub else None)
    return 1 if wrong else 0


def check(grader: Grader, name: str, folder: str | None) -> int:
    """Check one benchmark and print a line for it; returns the number of wrong verdicts."""
    start = time.perf_counter()
    cases = [
        (problem, prediction, right)
        for problem in load_benchmark(name, folder).problems()
        for right, golds in (
            (True, [text_of(problem)]),
            (False, [g for g in shifts(text_of(problem)) if far(problem, g)]),
        )
        for gold in golds
        for prediction in (form.format(gold) for form in (FORMS if right else FORMS[1:2]))
        if "boxed" in prediction or not problem.boxed_only
    ]
    unshifted = {p.id for p, _, _ in cases} - {p.id for p, _, right in cases if not right}
    counts: Counter[str] = Counter()
    grades = grader.grade_many(GradeItem.of(problem, prediction) for problem, prediction, _ in cases)
    for (problem, prediction, right), grade in zip(cases, grades, strict=True):
        counts["self" if right else "shifted"] += 1
        counts["wrong"] += grade.correct != right
        counts[grade.status] += grade.status != "ok"
        if grade.correct != right or grade.status != "ok":
            print(f"  {name} {problem.id}: gold {problem.gold!r}, prediction {prediction!r}: {grade}", file=sys.stderr)
    seconds = time.perf_counter() - start
    statuses = ", ".join(f"{counts[s]} {s}" for s in ("timeout", "error", "no_answer"))
    print(
        f"{name}: {counts['self']} golds against themselves and {counts['shifted']} against others,"
        f" {counts['wrong']} wrong; {statuses}; without a shift: {sorted(unshifted) or 'none'};"
        f" {len(cases) / seconds:.0f}/s"
    )
    return counts["wrong"]


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(f"error: {error}")
