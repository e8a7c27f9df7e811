"""From options to a plan: models, rows, benchmarks and sampling, each checked before any model loads."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vllm_rast.cli.arguments import DEFAULT_N
from vllm_rast.errors import UserError

if TYPE_CHECKING:
    from vllm_rast.evaluation.runs.plan import Plan, Task
    from vllm_rast.mix.config import ModelPair, RastConfig

TINY_TRIO = {"model": "tiny:base", "positive": "tiny:positive", "negative": "tiny:negative"}
DEFAULT_BENCHMARK = "tiny"
DEFAULT_TEMPLATE = "paper"


def with_recipe(args: argparse.Namespace) -> argparse.Namespace:
    """The options of --recipe, and over them those of the command line."""
    from vllm_rast.cli.recipe import recipe_arguments

    written = recipe_arguments(args.recipe)
    merged, rest = args.parser.parse_known_args(written + args.typed)
    merged.engine_arguments = rest
    return merged


def plan_of(args: argparse.Namespace) -> Plan:
    """What the options ask for. Raises UserError naming the option that is wrong; loads no model."""
    from vllm_rast.cli.engine_options import parse_engine_options
    from vllm_rast.engine.launch import engine_defaults
    from vllm_rast.evaluation.runs.plan import Plan
    from vllm_rast.evaluation.tasks.prompts import get_template
    from vllm_rast.evaluation.tasks.rows import parse_rows

    trace = trace_of(args)
    models = models_of(args)
    rows = parse_rows(args.rows or default_rows(models), models)
    tasks = tasks_of(args, models)
    if args.backend != "vllm" and models.speculate:
        raise UserError(f"--speculate: --backend {args.backend} drafts nothing; leave it out")
    if args.backend != "vllm" and args.engine_arguments:
        raise UserError(f"{args.engine_arguments[0]}: --backend {args.backend} takes none of vLLM's options")
    engine = parse_engine_options(args.engine_arguments, models, args.parser.option_names)
    if args.backend == "vllm":
        engine = engine_defaults(models) | engine
    return Plan(
        models=models,
        rows=rows,
        tasks=tasks,
        n=samples_of(args),
        seed=args.seed,
        template=get_template(args.template or DEFAULT_TEMPLATE),
        backend=args.backend,
        engine=engine,
        skip_too_long=args.skip_too_long,
        trace=trace,
    )


def trace_of(args: argparse.Namespace) -> int | None:
    """How many likeliest ids are kept with every token; None for no traces."""
    from vllm_rast.mix.trace import check_likeliest

    if args.trace is None:
        return None
    if args.backend != "vllm":
        raise UserError(f"--trace: --backend {args.backend} keeps no traces; leave it out")
    return check_likeliest(args.trace, "--trace")


def models_of(args: argparse.Namespace) -> RastConfig:
    """The base and the pairs; the shipped trio if no model is named."""
    from vllm_rast.mix.alpha import check_alpha, default_alpha
    from vllm_rast.mix.config import ModelPair, RastConfig
    from vllm_rast.mix.model_names import look_up

    if not (args.model or args.positive or args.negative or args.pair):
        args = argparse.Namespace(**vars(args) | TINY_TRIO)
    if not args.model:
        raise UserError("--model: name the base that the pairs are added to")
    if not getattr(args, "dry_run", False):
        look_up(
            [args.model, args.positive, args.negative, *(name for pair in args.pair for name in pair.split(",")[:2])]
        )
    pairs: list[ModelPair] = []
    alpha, gate = default_alpha(args.alpha)
    alpha = 1.0 if alpha is None else check_alpha(alpha, "--alpha")
    if args.positive or args.negative:
        pairs.append(ModelPair(args.positive, args.negative, alpha))
    for text in args.pair:
        pairs.append(ModelPair.parse(f"{text},{alpha!r}" if text.count(",") == 1 else text))
    if args.alpha is not None and not pairs:
        raise UserError("--alpha: there is nothing to mix; name --positive and --negative")
    options = {"check_tokenizers": args.check_tokenizers, "pair_forward": args.pair_forward, "gate": gate}
    options |= speculation_of(args)
    return RastConfig(args.model, tuple(pairs), **options)


def speculation_of(args: argparse.Namespace) -> dict[str, Any]:
    """How much is drafted and by whom, as far as it was said; RastConfig checks both."""
    said = {name: getattr(args, name) for name in ("speculate", "drafter") if getattr(args, name) is not None}
    if "drafter" in said and "speculate" not in said:
        raise UserError("--drafter: nothing is drafted; add --speculate K, or leave --drafter out")
    return said


def default_rows(models: RastConfig) -> list[str]:
    has_positive = any(pair.positive for pair in models.pairs)
    return ["base"] + (["rast"] if models.pairs else []) + (["positive"] if has_positive else [])


def tasks_of(args: argparse.Namespace, models: RastConfig) -> list[Task]:
    """The benchmarks with their data and sampling, checked as far as no network is needed."""
    from vllm_rast.engine.launch import is_tiny
    from vllm_rast.evaluation.runs.plan import Task
    from vllm_rast.evaluation.tasks.benchmark import Benchmark, load_benchmark
    from vllm_rast.evaluation.tasks.inputs import InputFile
    from vllm_rast.evaluation.tasks.prompts import get_template
    from vllm_rast.evaluation.tasks.sampling import PAPER, changed
    from vllm_rast.evaluation.tasks.shard import parse_shard

    if args.limit is not None and args.limit < 1:
        raise UserError(f"--limit {args.limit}: at least 1 problem")
    names = list(args.benchmark)
    if not names and not args.input:
        if not is_tiny(models):
            raise UserError("--benchmark: name at least one, such as math500, or a file with --input")
        names = [DEFAULT_BENCHMARK]
    data = data_of(args.data, names)
    sources: list[tuple[Benchmark | InputFile, str | None]] = [
        (load_benchmark(name, data.get(name)), data.get(name)) for name in names
    ]
    if args.input:
        sources.append((InputFile(args.input), args.input))
    tasks = []
    for source, path in sources:
        own, template = (source.sampling, source.template) if isinstance(source, Benchmark) else (PAPER, None)
        sampling = changed(own, args.temperature, args.top_p, args.max_tokens)
        own_template = get_template(template) if template and args.template is None else None
        tasks.append(Task(source, sampling, args.limit, path, own_template))
    if args.shard:
        tasks = [replace(task, shard=parse_shard(args.shard)) for task in tasks]
    for task in tasks:
        if [other.name for other in tasks].count(task.name) > 1:
            raise UserError(f"--benchmark {task.name}: this name occurs twice; names must differ")
    return tasks


def data_of(texts: list[str], names: list[str]) -> dict[str, str]:
    """The local data of each benchmark: NAME=PATH for one, PATH for every other."""
    own, common = {}, None
    for text in texts:
        name, equals, path = text.partition("=")
        if equals and not Path(text).exists():
            if name not in names:
                raise UserError(f"--data {text}: {name!r} is not among the benchmarks {', '.join(names)}")
            own[name] = path
        elif common is not None:
            raise UserError(f"--data {text}: write NAME=PATH if there are several")
        else:
            common = text
    if common and len(names) > 1 and not Path(common).is_dir():
        raise UserError(f"--data {common}: several benchmarks need a folder, or NAME=PATH for each")
    return {name: chosen for name in names if (chosen := own.get(name, common))}


def samples_of(args: argparse.Namespace) -> int:
    """n: greedy decoding makes the same answer every time, so one sample of it is all there is."""
    greedy = args.temperature == 0
    n = (1 if greedy else DEFAULT_N) if args.n is None else args.n
    if n < 1:
        raise UserError(f"--n {n}: at least 1 sample of each problem")
    if greedy and n > 1:
        raise UserError(f"--n {n}: with --temperature 0 all samples of a problem are the same; use --n 1")
    return n
