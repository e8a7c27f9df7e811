"""`vllm-rast preflight`: a look at a mix before the long run."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vllm_rast.cli.arguments import (
    EPILOG,
    add_decoding_arguments,
    add_model_arguments,
    add_run_arguments,
    add_speculation_arguments,
)
from vllm_rast.cli.exit_codes import WARNED
from vllm_rast.cli.planning import plan_of, with_recipe
from vllm_rast.errors import UserError

if TYPE_CHECKING:
    from vllm_rast.evaluation.analysis.preflight import Look, Speed
    from vllm_rast.evaluation.runs.backends import VllmBackend
    from vllm_rast.evaluation.runs.plan import Plan

ALPHAS = "0.3,0.5,1"
DESCRIPTION = """\
Decode a few problems with the base and with the mix at several alphas, in one engine, read the answers with all models,
and say what that tells of the whole run: memory, speed and hours, answers that end, vanish or loop, right ones against
the base's, how many tokens the mix moves and whether to where the base finds plausible. Takes the options of generate.
Exit code 4 if something is certainly wrong, with one line for each on stderr.
"""


def add_arguments(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "preflight",
        help="decode and read a few problems: memory, speed, and what the mix does, before the long run",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    parser.add_argument("--recipe", metavar="FILE", help="YAML file of these options; command-line options override it")
    parser.add_argument(
        "--problems", type=int, default=30, metavar="N", help="first problems of each benchmark (default: %(default)s)"
    )
    parser.add_argument("--alphas", default=ALPHAS, metavar="A,...", help="alphas to try (default: %(default)s)")
    parser.add_argument("--ceiling", metavar="MODEL", help="the tuned model of the base's size, to compare with")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    add_run_arguments(parser)
    add_model_arguments(parser)
    parser.add_argument("--rows", nargs="+", metavar="ROW", help="the whole run's rows, as for generate")
    add_decoding_arguments(parser)
    add_speculation_arguments(parser)
    parser.set_defaults(func=main, engine_arguments=[], parser=parser)


def main(args: argparse.Namespace) -> int:
    if args.recipe:
        args = with_recipe(args)
    if args.problems < 1:
        raise UserError(f"--problems {args.problems}: at least 1")
    if args.backend != "vllm":
        raise UserError(f"--backend {args.backend}: it keeps no token traces; leave it out")
    whole = plan_of(args)
    small = small_plan(whole, args)
    if args.dry_run:
        from vllm_rast.cli.dry_run import describe

        print(describe(small, args.run))
        return 0
    if args.run:
        look = look_at(whole, small, Path(args.run))
    else:
        with tempfile.TemporaryDirectory(prefix="vllm-rast-preflight-") as folder:
            look = look_at(whole, small, Path(folder) / "preflight")
    print(json.dumps(look.to_dict(), indent=1)) if args.json else show(look)
    for warning in look.warnings:
        print(f"vllm-rast: warning: {warning}", file=sys.stderr)
    return WARNED if look.warnings else 0


def small_plan(whole: Plan, args: argparse.Namespace) -> Plan:
    """The first problems of each benchmark, one sample each: the base, the mix at every alpha, the run's own mixes."""
    from vllm_rast.evaluation.analysis.answers import mixes
    from vllm_rast.evaluation.tasks.rows import parse_rows

    if not whole.models.pairs:
        raise UserError("--positive: name what to mix with the base")
    models = replace(whole.models, token_traces=True, ceiling=args.ceiling or whole.models.ceiling)
    alphas = [f"alpha={alpha.strip()}={alpha.strip()}" for alpha in args.alphas.split(",") if alpha.strip()]
    tried = parse_rows(["base", *alphas], models)
    own = [row for row in whole.rows if mixes(row.alpha, models) and row.alpha not in [one.alpha for one in tried]]
    limit = args.problems
    tasks = [replace(task, limit=min(limit, limit if task.limit is None else task.limit)) for task in whole.tasks]
    return replace(whole.for_one_engine(), models=models, rows=[*tried, *own], tasks=tasks, n=1)


def look_at(whole: Plan, small: Plan, run: Path) -> Look:
    """Decode, read and count."""
    from vllm_rast.evaluation.analysis.answers import chosen_samples
    from vllm_rast.evaluation.analysis.preflight import Look, answers_of_rows, tokens_of_rows
    from vllm_rast.evaluation.analysis.reading import Reading, VllmReader, read_answers
    from vllm_rast.evaluation.analysis.table import TraceTable
    from vllm_rast.evaluation.runs import backends
    from vllm_rast.evaluation.runs.decode import decode
    from vllm_rast.evaluation.runs.folder import RunFolder
    from vllm_rast.evaluation.scores.evaluate import evaluate_runs

    backend: Any = backends.open_backend(small)
    begin = time.monotonic()
    with RunFolder.open(run, small.config()) as folder:
        for task in small.tasks:
            folder.add_problems(task.problems())
        made = decode(small, folder, lambda plan: backend)
    seconds = time.monotonic() - begin
    reading = Reading(run, small.models, problems=max(task.limit or 0 for task in small.tasks), engine=small.engine)
    traces = read_answers(reading, lambda reading: VllmReader.of(backend.llm))
    samples = chosen_samples(folder, None, 1, reading.problems)
    graded = any(problem.gold for problem in folder.problems())
    answers = evaluate_runs([run]).samples if graded else samples
    return Look(
        vocabularies=vocabularies(backend),
        memory=memory(backend),
        answers=answers_of_rows(answers, graded, list(folder.config["rows"])),
        tokens=tokens_of_rows(TraceTable.read(traces, [sample.key for sample in samples])),
        speed=speed_of(whole, samples, seconds) if made == len(samples) else None,
    )


def speed_of(whole: Plan, samples: Any, seconds: float) -> Speed | None:
    """How long the whole run takes if its answers are as long as these; None if nothing says how many it has."""
    from vllm_rast.evaluation.analysis.preflight import Speed

    counts = [task.count() for task in whole.tasks]
    tokens = sum(sample.tokens for sample in samples)
    if None in counts:
        return None
    number = sum(count for count in counts if count) * len(whole.rows) * whole.n
    return Speed(tokens / seconds, number, number * tokens / len(samples))


def members_of(backend: VllmBackend) -> tuple[Any, list[Any]]:
    from vllm_rast.engine.members import member_model_configs

    vllm_config = backend.llm.llm_engine.vllm_config
    return vllm_config, member_model_configs(vllm_config, backend.llm.rast_config)


def vocabularies(backend: VllmBackend) -> dict[str, int]:
    """How many rows each model's head has. That their tokenizers agree, the engine has checked."""
    from vllm_rast.mix.config import model_names
    from vllm_rast.mix.model_names import parse_model

    config = backend.llm.rast_config
    names = {parse_model(name, "model"): name for name in reversed(model_names(config))}
    members = members_of(backend)[1]
    return {names[source]: one.get_vocab_size() for source, one in zip(config.sources, members, strict=True)}


def memory(backend: VllmBackend) -> str:
    from vllm_rast.engine.memory import memory_plan

    return str(memory_plan(*members_of(backend)))


def show(look: Look) -> None:
    from rich.console import Console

    from vllm_rast.evaluation.analysis.preflight import answer_table, token_table
    from vllm_rast.evaluation.reports.tables import to_rich

    console = Console() if sys.stdout.isatty() else Console(width=200)
    console.print("memory plan, and rows of each head", highlight=False)
    console.print(look.memory, highlight=False, markup=False)
    for name, rows in look.vocabularies.items():
        console.print(f"  {name}: {rows:,} ids", highlight=False, markup=False)
    for table in (answer_table(look.answers), token_table(look.tokens)):
        console.print(to_rich(table))
    if (speed := look.speed) is not None:
        console.print(
            f"{speed.tokens_per_s:,.0f} tokens/s; the whole run has {speed.samples:,} samples, by these answers "
            f"{speed.tokens:,.0f} tokens: {speed.hours:,.2f} hours at this speed",
            highlight=False,
        )
