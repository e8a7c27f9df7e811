"""`vllm-rast analyze`: read a run's answers with all models, and say where and how the mix differs from the base."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vllm_rast.cli.arguments import EPILOG, add_lock_argument
from vllm_rast.errors import UserError

if TYPE_CHECKING:
    from vllm_rast.evaluation.analysis.reading import Reading
    from vllm_rast.mix.alpha import Alpha
    from vllm_rast.mix.config import RastConfig

DESCRIPTION = """\
Read answers of a run with all of its models, prompt and answer in one prefill; nothing is decoded. About twenty numbers
for each token are kept in RUN/traces as Parquet files; tables (CSV) and plots (PNG, SVG) are written to RUN/analysis.
The same command again reads only what is missing.
"""


def add_arguments(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "analyze",
        help="read a run's answers with all models: where, how far and how alike the mix moves the base",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="run folder that `vllm-rast generate` wrote")
    parser.add_argument("--rows", nargs="+", metavar="ROW", help="rows whose answers are read (default: all)")
    parser.add_argument("--samples", type=int, default=1, metavar="N", help="samples of each problem (default: 1)")
    parser.add_argument(
        "--problems", type=int, default=50, metavar="N", help="first problems of each benchmark (default: 50)"
    )
    parser.add_argument(
        "--ceiling",
        metavar="MODEL",
        help="the tuned model of the base's size, to compare with (default: the model of the run's row `ceiling`)",
    )
    parser.add_argument(
        "--alpha",
        metavar="ALPHA",
        help="the mix that reads all answers, as in --rows of generate: 0.5, 1/0.5, a schedule (default: the row's own"
        " if it mixes, else the pairs' own)",
    )
    parser.add_argument("--words", metavar="FILE", help="YAML file of your own lists of reasoning words")
    parser.add_argument("--out", metavar="DIR", type=Path, help="where tables and plots go (default: RUN/analysis)")
    add_lock_argument(parser)
    parser.set_defaults(func=main, engine_arguments=[], parser=parser)


def main(args: argparse.Namespace) -> int:
    from vllm_rast.evaluation.analysis import reading as readings
    from vllm_rast.evaluation.analysis.reasoning_words import read_words
    from vllm_rast.evaluation.analysis.write import analyze

    reading, words = reading_of(args), read_words(args.words)
    traces = readings.read_answers(reading, readings.open_reader)
    analyze(reading, traces, args.out or args.run / "analysis", words)
    return 0


def reading_of(args: argparse.Namespace) -> Reading:
    """What the options ask for, checked before any model loads."""
    from vllm_rast.cli.engine_options import parse_engine_options
    from vllm_rast.evaluation.analysis.reading import Reading, engine_of_run, models_of_run
    from vllm_rast.evaluation.runs.folder import RunFolder

    for option in ("samples", "problems"):
        if getattr(args, option) < 1:
            raise UserError(f"--{option} {getattr(args, option)}: at least 1")
    config = RunFolder(args.run).config
    models = models_of_run(config, args.ceiling)
    given = parse_engine_options(args.engine_arguments, models, args.parser.option_names)
    return Reading(
        run=args.run,
        models=models,
        rows=[row for text in args.rows for row in text.split(",") if row] if args.rows else None,
        samples=args.samples,
        problems=args.problems,
        alpha=None if args.alpha is None else alpha_of(args.alpha, models),
        engine=engine_of_run(config, models, given),
    )


def alpha_of(text: str, models: RastConfig) -> Alpha:
    """--alpha, in the form that a row has after its name."""
    from vllm_rast.evaluation.tasks.rows import read_alpha
    from vllm_rast.mix.alpha import parse_alpha

    try:
        alpha = read_alpha(f"alpha={text}", text, models)
    except UserError as error:
        known = "a number, numbers joined by '/', base, positive, negative, positive:2 or a schedule"
        raise UserError(f"--alpha {text}: expected {known}") from error
    try:
        parse_alpha(models, alpha)
    except UserError as error:
        raise UserError(f"--alpha {text}: {error}") from error
    return alpha
