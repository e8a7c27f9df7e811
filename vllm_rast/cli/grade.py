"""`vllm-rast grade`: mark the samples of a run, or pairs of gold and prediction from a file."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from vllm_rast.cli.arguments import add_lock_argument
from vllm_rast.cli.exit_codes import TOO_MANY_ERRORS
from vllm_rast.errors import UserError

MAX_ERRORS = 0.02  # share of a run's answers


def add_arguments(subparsers: Any) -> None:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "grade",
        help="mark the samples of a run, or gold-prediction pairs of a file",
        description="Mark the samples of a run that have no current grade, or, with --pairs, every line of a file."
        " Nothing that a model wrote is run as code; what cannot be compared at once goes to worker processes that are"
        " killed when they exceed their time.",
    )
    parser.add_argument("run", nargs="?", help="run folder")
    parser.add_argument(
        "--pairs",
        metavar="FILE",
        help="JSON lines with gold and prediction (a whole output or a bare answer), and optionally benchmark or kind,"
        " ordered, unit, error; prints one JSON line for each, in order; - is standard input",
    )
    parser.add_argument("--grader", default="default", help="default, or qwen: the lineage's inflated rules")
    parser.add_argument("--kind", default=None, help="with --pairs: the kind of answers (see `vllm-rast benchmarks`)")
    parser.add_argument("--out", metavar="FOLDER", help="where the grades go if the run folder cannot be written")
    add_lock_argument(parser)
    parser.add_argument("--timeout", type=float, default=None, metavar="SECONDS", help="for one comparison in a worker")
    parser.add_argument("--workers", type=int, default=None, metavar="N", help="worker processes")
    parser.add_argument(
        "--ray", metavar="auto|local|ADDRESS", help="grade on every core of a Ray cluster, as `generate` decodes on one"
    )
    parser.add_argument("--regrade", action="store_true", help="mark a run's samples again, graded or not")
    parser.add_argument(
        "--max-errors",
        type=float,
        default=None,
        metavar="SHARE",
        help=f"exit with {TOO_MANY_ERRORS} if more than this share of the answers met a grader error or time-out"
        f" (a run: {MAX_ERRORS}; --pairs: never)",
    )
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    if (args.run is None) == (args.pairs is None):
        raise UserError("grade: name a run folder, or a file with --pairs")
    limit = args.max_errors if args.max_errors is not None else 1.0 if args.pairs else MAX_ERRORS
    if not 0 <= limit <= 1:
        raise UserError(f"--max-errors {limit}: a share between 0 and 1 is needed")
    return _sum_up(_grade_pairs(args) if args.pairs else _grade_run(args), limit)


def _grade_pairs(args: argparse.Namespace) -> Counter[str]:
    statuses: Counter[str] = Counter()
    with grader_opener(args)(args.grader, args.timeout, args.workers) as grader:
        for grade in grader.grade_many(_read_pairs(args.pairs, args.kind)):
            line = {
                "correct": grade.correct,
                "answer": grade.answer,
                "how": grade.how,
                "status": grade.status,
                "ms": grade.ms,
            }
            print(json.dumps(line, ensure_ascii=not _is_printable(grade.answer)), flush=True)
            statuses[grade.status] += 1
    return statuses


def grader_opener(args: argparse.Namespace) -> Callable[[str, float | None, int | None], Any]:
    """What opens the grader, here or on a cluster."""
    if args.ray:
        from vllm_rast.evaluation.cluster.grading import RayGrader

        return partial(RayGrader, args.ray)
    from vllm_rast.evaluation.scores import grade_run

    return grade_run.open_grader


def _is_printable(answer: str | None) -> bool:
    """Whether an answer can be written as UTF-8: half a character cannot."""
    try:
        (answer or "").encode()
    except UnicodeEncodeError:
        return False
    return True


def _read_pairs(name: str, kind: str | None) -> Iterator[Any]:
    """The items of a file of pairs, checked line by line."""
    from vllm_rast.evaluation.tasks.text import lines_of

    if name != "-" and not Path(name).is_file():
        raise UserError(f"--pairs {name}: no such file")
    for number, line in lines_of(Path("/dev/stdin" if name == "-" else name), "--pairs"):
        yield _item(line, f"--pairs {name}, line {number}", kind)


def _item(line: str, where: str, default_kind: str | None) -> Any:
    from vllm_rast.evaluation.tasks.benchmark import KINDS
    from vllm_rast.evaluation.tasks.text import parse_json
    from vllm_rast.grading import GradeItem

    pair = parse_json(line, where, whole=False)
    if not isinstance(pair, dict):
        raise UserError(f"{where}: expected an object with gold and prediction")
    for column in ("gold", "prediction"):
        if column not in pair:
            raise UserError(f"{where}: no column {column!r}; it has {', '.join(map(repr, pair))}")
    kind = pair.get("kind") or default_kind
    if kind is None:
        kind = _kind_of(pair["benchmark"]) if pair.get("benchmark") else "math"
    if kind not in KINDS:
        raise UserError(f"{where}: kind {kind!r} is not one of {', '.join(KINDS)}")
    gold = pair["gold"]
    if gold is None or gold == [] or (isinstance(gold, list) and None in gold):
        raise UserError(f"{where}: the gold is null; give an answer, or delete the line")
    if pair.get("ordered") not in (None, True, False):
        raise UserError(f'{where}: "ordered" must be true or false, not {pair["ordered"]!r}')
    unit = pair.get("unit")
    if unit is not None and not isinstance(unit, str):
        raise UserError(f'{where}: "unit" must be a text, not {unit!r}')
    return GradeItem(
        prediction="" if pair["prediction"] is None else str(pair["prediction"]),
        gold=tuple(map(str, gold)) if isinstance(gold, list) else str(gold),
        kind=kind,
        ordered=bool(pair.get("ordered")),
        unit=unit,
        error=None if pair.get("error") is None else str(pair["error"]),
    )


@lru_cache
def _kind_of(benchmark: str) -> str:
    from vllm_rast.evaluation.tasks.benchmark import load_benchmark

    return load_benchmark(benchmark).kind


def _grade_run(args: argparse.Namespace) -> Counter[str]:
    from vllm_rast.evaluation.runs.folder import RunFolder
    from vllm_rast.evaluation.runs.progress import Progress
    from vllm_rast.evaluation.scores.grade_run import grade_run, other_grades
    from vllm_rast.evaluation.scores.graded import read_grades

    with Progress("grading") as progress:
        graded = grade_run(
            args.run,
            args.grader,
            timeout_s=args.timeout,
            workers=args.workers,
            regrade=args.regrade,
            progress=progress,
            out=args.out,
            opener=grader_opener(args),
        )
    print(f"{graded.new} samples graded, {graded.kept} grades kept, by {graded.grader}", file=sys.stderr)
    run = RunFolder(args.run)
    grades = read_grades(run, graded.grader, other_grades(run, args.out))
    return Counter(grade["status"] for grade in grades.values())


def _sum_up(statuses: Counter[str], max_errors: float) -> int:
    """Say what went wrong on stderr; the exit code."""
    total = sum(statuses.values())
    shown = ", ".join(f"{statuses[status]} {status}" for status in ("ok", "no_answer", "timeout", "error"))
    print(f"{total} graded: {shown}", file=sys.stderr)
    failed = statuses["timeout"] + statuses["error"]
    if total and failed > max_errors * total:
        print(f"error: {failed} met a grader error or time-out, above --max-errors {max_errors:g}", file=sys.stderr)
        return TOO_MANY_ERRORS
    return 0
