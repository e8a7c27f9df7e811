"""The command line of eval/pass_at_k.py and eval/maj_at_k.py: prediction files in, one metric out."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from vllm_rast.errors import UserError
from vllm_rast.evaluation.runs.progress import Progress
from vllm_rast.evaluation.scores.metric import Metric
from vllm_rast.evaluation.scores.predictions import PATTERN, grade_predictions, read_predictions
from vllm_rast.evaluation.scores.summary import Row, table_ks


def main(metric: Metric, arguments: Sequence[str] | None = None) -> int:
    """Print a metric for the files named in `arguments`; returns the exit code, 2 for bad input."""
    parser = argparse.ArgumentParser(
        description=f"Grade prediction files again and print {metric.label} with its 95 %% interval over questions. "
        "A line holds question, model_output and answer; each file is one run.",
    )
    parser.add_argument("paths", nargs="+", metavar="PATH", help=f"files, or folders that hold {PATTERN}")
    parser.add_argument("--k", nargs="+", type=int, metavar="K", help="default: powers of two, and all samples")
    parser.add_argument("--kind", default="math", help="how answers are compared (default: %(default)s)")
    parser.add_argument("--grader", default="default", help="default, or qwen for the published lineage's rules")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args(arguments)
    try:
        row = read_and_grade(args.paths, args.grader, args.kind)
        ks = checked_ks(args.k, row)
    except UserError as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 2
    scores = {k: row.score(metric, k) for k in ks}
    if args.json:
        values = {str(k): {"value": score.value, "ci": score.ci} for k, score in scores.items()}
        print(json.dumps({"questions": len(row.questions), "n": row.n, metric.label: values}))
        return 0
    shares = ", ".join(
        f"{name} {getattr(row, name) / row.samples:.1%}" for name in ("unanswered", "timeouts", "errors")
    )
    print(f"{len(row.questions)} questions, {row.n} samples each at least; {shares}")
    for k, score in scores.items():
        interval = f"  [{100 * score.ci.low:.1f}, {100 * score.ci.high:.1f}]" if score.ci else ""
        print(f"{metric.at(k):>8}  {100 * score.value:5.1f} %{interval}")
    return 0


def read_and_grade(paths: Sequence[str], grader: str, kind: str) -> Row:
    """All files' predictions, counted; says on stderr what was left out. Raises UserError for bad input."""
    from vllm_rast.evaluation.tasks.benchmark import KINDS

    if kind not in KINDS:
        raise UserError(f"--kind {kind}: known are {', '.join(KINDS)}")
    predictions, left_out = read_predictions(paths)
    if left_out:
        print(f"{left_out} lines left out: their file has the question already", file=sys.stderr)
    with Progress("grading") as progress:
        return grade_predictions(predictions, grader, kind, progress)


def checked_ks(ks: Sequence[int] | None, row: Row) -> list[int]:
    """The values of k asked for, or those of a table. Raises UserError for one without an unbiased estimate."""
    for k in ks or ():
        if not 1 <= k <= row.n:
            raise UserError(f"--k {k}: a question has only {row.n} samples; k must lie between 1 and that")
    return list(ks) if ks else table_ks(row.n)
