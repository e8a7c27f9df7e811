"""`vllm-rast generate`: decode benchmarks, or problems of one's own, into a run folder."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vllm_rast.errors import UserError

if TYPE_CHECKING:
    from vllm_rast.evaluation.runs.plan import Plan, Task
    from vllm_rast.mix.config import ModelPair, RastConfig

TINY_TRIO = {"model": "tiny:base", "positive": "tiny:positive", "negative": "tiny:negative"}
DEFAULT_BENCHMARK = "tiny"
DEFAULT_N = 8
DEFAULT_TEMPLATE = "paper"

DESCRIPTION = """\
Decode every row on every problem, n samples each, all rows in one engine. Each finished sample is one line of
samples.jsonl in the run folder. The same command again makes only what is missing: after Ctrl-C, kill -9 or a
full disk, and with more rows, benchmarks or samples. If no model is named, the shipped ones decode
(tiny:base, tiny:positive, tiny:negative).
"""
EPILOG = """\
All of vLLM's engine options are accepted under their own names, such as --tensor-parallel-size 4; --help=engine lists
them, --help=max-num-seqs explains one. Exit codes: 0 done, 1 error, 2 usage, 130 interrupted.
"""


def add_arguments(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "generate",
        help="decode benchmarks or your own problems into a run folder",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    parser.add_argument("--recipe", metavar="FILE", help="YAML file of these options; command-line options override it")
    add_run_arguments(parser)
    add_model_arguments(parser)
    parser.add_argument(
        "--rows",
        nargs="+",
        metavar="ROW",
        help="rows to decode: base, positive, negative, rast, or NAME=ALPHA[@TEMPERATURE] with ALPHA a number, numbers"
        " joined by / (one per pair), a model or a schedule, such as half=0.5,second=positive:2 or"
        ' \'late={"alpha": 1, "warmup": 100}\' (default: base,rast,positive)',
    )
    add_decoding_arguments(parser)
    parser.set_defaults(func=main, engine_arguments=[], parser=parser)


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", metavar="FOLDER", help="run folder to begin or to go on with, such as runs/NAME")
    parser.add_argument("--dry-run", action="store_true", help="print what would be decoded, load no model")
    add_lock_argument(parser)
    parser.add_argument("--backend", default="vllm", choices=("vllm", "transformers"), help="default: %(default)s")


def add_lock_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--no-lock",
        action="store_true",
        help="write run folders without a lock, on file systems that have none; nobody else may write them",
    )


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("models", "a folder, a hub id, OWNER/NAME@REVISION, or tiny:NAME")
    group.add_argument("--model", metavar="BASE", help="the base, whose vocabulary and prompt template count")
    group.add_argument("--positive", metavar="MODEL", help="the small tuned model")
    group.add_argument("--negative", metavar="MODEL", help="the small model before tuning")
    group.add_argument("--alpha", type=float, help="strength of the difference (default: 1.0)")
    group.add_argument(
        "--pair",
        action="append",
        default=[],
        metavar="P,N[,ALPHA]",
        help="a further pair, may be repeated; an empty side is left out; without ALPHA, --alpha counts",
    )
    group.add_argument(
        "--check-tokenizers",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="refuse small models whose vocabulary differs from the base's (default: yes)",
    )


def add_decoding_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("problems")
    group.add_argument(
        "--benchmark",
        nargs="+",
        default=[],
        metavar="NAME",
        help="names that `vllm-rast benchmarks` lists, or YAML files of your own (default with the tiny models: tiny)",
    )
    group.add_argument("--input", metavar="FILE", help='JSON lines: {"id", "question" or "prompt"[, "answer"]}')
    group.add_argument(
        "--data",
        nargs="+",
        default=[],
        metavar="[NAME=]PATH",
        help="local JSON-lines file or folder with the benchmark's rows, if there is no network",
    )
    group.add_argument("--limit", type=int, metavar="N", help="decode only the first N problems of each benchmark")
    group.add_argument(
        "--template",
        metavar="NAME",
        help="prompt: paper, qwen-boxed, chat or a file with {question} in it (default: the benchmark's own, or paper)",
    )
    group.add_argument(
        "--skip-too-long",
        action="store_true",
        help="leave out problems whose prompts leave no room for an answer; the run folder and every table say so",
    )
    group = parser.add_argument_group("sampling", "defaults: the benchmark's own, or the paper's")
    group.add_argument("--n", type=int, help=f"samples of each problem (default: {DEFAULT_N}, greedy 1)")
    group.add_argument("--temperature", type=float, help="0 is greedy (default: 1.0)")
    group.add_argument("--top-p", type=float, help="default: 0.95, tiny 1.0")
    group.add_argument("--max-tokens", type=int, metavar="N", help="longest answer (default: 16384, tiny 96)")
    group.add_argument("--seed", type=int, default=0, help="the samples' seeds derive from it (default: %(default)s)")


def main(args: argparse.Namespace) -> int:
    if args.recipe:
        args = with_recipe(args)
    code = generate(args, plan_of(args))
    if not args.dry_run:
        print(f"vllm-rast: next: vllm-rast evaluate {shlex.quote(args.run)}", file=sys.stderr)
    return code


def generate(args: argparse.Namespace, plan: Plan) -> int:
    """Decode a plan into --run, or describe it for --dry-run."""
    from vllm_rast.evaluation.runs import backends
    from vllm_rast.evaluation.runs.decode import decode
    from vllm_rast.evaluation.runs.folder import RunFolder

    if args.dry_run:
        from vllm_rast.cli.dry_run import describe

        print(describe(plan, args.run))
        return 0
    if not args.run:
        raise UserError("--run: name the folder to write, such as --run runs/first")
    with RunFolder.open(args.run, plan.config()) as folder:
        for task in plan.tasks:
            folder.add_problems(task.problems())
        made = decode(plan, folder, backends.open_backend)
    print(f"{args.run}: {made:,} samples made, {len(list(plan.samples())) - made:,} were there already")
    return 0


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

    models = models_of(args)
    rows = parse_rows(args.rows or default_rows(models), models)
    tasks = tasks_of(args, models)
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
    )


def models_of(args: argparse.Namespace) -> RastConfig:
    """The base and the pairs; the shipped trio if no model is named."""
    from vllm_rast.mix.config import ModelPair, RastConfig

    if not (args.model or args.positive or args.negative or args.pair):
        args = argparse.Namespace(**vars(args) | TINY_TRIO)
    if not args.model:
        raise UserError("--model: name the base that the pairs are added to")
    pairs: list[ModelPair] = []
    alpha = 1.0 if args.alpha is None else args.alpha
    if args.positive or args.negative:
        pairs.append(ModelPair(args.positive, args.negative, alpha))
    for text in args.pair:
        pairs.append(ModelPair.parse(f"{text},{alpha!r}" if text.count(",") == 1 else text))
    if args.alpha is not None and not pairs:
        raise UserError("--alpha: there is nothing to mix; name --positive and --negative")
    return RastConfig(args.model, tuple(pairs), check_tokenizers=args.check_tokenizers)


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
