"""`vllm-rast serve`: vLLM's OpenAI server on a mix of models."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vllm_rast.cli.exit_codes import ERROR, fail
from vllm_rast.cli.starting import ended_by_signals
from vllm_rast.errors import UserError

if TYPE_CHECKING:
    from vllm_rast.mix.config import RastConfig

# Refused: options under which vLLM starts servers or processes that know nothing of our additions.
NOT_HERE = {
    "grpc": "only HTTP is served; leave it out",
    "grpc_port": "only HTTP is served; leave it out",
    "headless": "only the node with the server can be started; use `vllm serve --headless` with --additional-config",
    "data_parallel_multi_port_external_lb": "start one server for each rank",
    "enable_lora": "merge the adapter into its model first",
}

DESCRIPTION = """\
vLLM's OpenAI server on the mix of BASE and the pairs. A request chooses its weights with
"vllm_xargs": {"alpha": ...} in its body, or by one of the model names that --expose adds; "trace": K beside alpha adds
what each model thinks of every token to the answer. If no model is named, the shipped ones are served (tiny:base,
tiny:positive, tiny:negative).
"""
EPILOG = """\
All options of `vllm serve` are accepted under their own names, such as --port 8000, --api-key KEY or
--tensor-parallel-size 4; --help=engine lists them, --help=port explains one. SIGTERM and Ctrl-C finish what is being
answered, for at most --shutdown-timeout seconds (default: 60). Exit codes: 0 stopped, 1 the engine died or did not
start, 2 usage.
"""


def add_arguments(subparsers: Any) -> None:
    from vllm_rast.cli.arguments import add_model_arguments, add_speculation_arguments

    parser = subparsers.add_parser(
        "serve",
        help="serve the mix to OpenAI clients",
        usage="vllm-rast serve BASE [options] [options of vllm serve]",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    add_model_arguments(parser)
    add_speculation_arguments(parser)
    group = parser.add_argument_group("server")
    group.add_argument(
        "--expose",
        action="append",
        default=[],
        metavar="LABELS",
        help="also serve BASE:LABEL for each label, separated by commas: base, positive, negative, positive:2, "
        "alpha=0.3, alpha=0.3/1 (one per pair); NAME=JSON for a schedule; may be repeated",
    )
    group.add_argument("--ui", action="store_true", help="serve a page at / that compares base and mix")
    group.add_argument("--trace", action="store_true", help="measure KL(mix || base) of what is decoded, for /metrics")
    group.add_argument(
        "--max-body-bytes",
        type=int,
        metavar="N",
        help="largest body that is read; a larger one is answered with 413 (default: what the context"
        " needs, and 4 MiB)",
    )
    group.add_argument(
        "--max-schema-bytes",
        type=int,
        default=65536,
        metavar="N",
        help="largest JSON schema, regular expression or grammar that is compiled (default: %(default)s)",
    )
    parser.set_defaults(func=main, engine_arguments=[], parser=parser)


def main(args: argparse.Namespace) -> int:
    with ended_by_signals():
        return start(args)


def start(args: argparse.Namespace) -> int:
    set_environment(args)
    from vllm_rast.cli.engine_options import engine_part, parse_serve_options

    options, config = parse_serve_options(
        args.engine_arguments, args.parser.option_names, lambda base: models(args, base)
    )
    check_server(options)
    from vllm_rast.serving.aliases import parse_exposed

    exposed = parse_exposed(args.expose, config)
    asked = engine_part(options)
    put_mix_into(options, config)
    for option in ("max_body_bytes", "max_schema_bytes"):
        if getattr(args, option) is not None and getattr(args, option) < 1:
            raise UserError(f"--{option.replace('_', '-')} {getattr(args, option)}: at least 1")
    return serve(options, config, exposed, args, asked)


def set_environment(args: argparse.Namespace) -> None:
    """Environment variables that vLLM reads when it is imported, which is before it can tell us the base's name."""
    from vllm_rast.engine import launch
    from vllm_rast.mix.config import RastConfig
    from vllm_rast.mix.model_names import TINY_PREFIX, is_shipped

    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "1"  # vLLM's server knows no engine in its own process
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "INFO")
    names = [args.positive, args.negative, *(name for pair in args.pair for name in pair.split(",")[:2])]
    tiny = all(is_shipped(name) for name in names if name)
    launch.set_environment(RastConfig(f"{TINY_PREFIX}base") if tiny else None)


def models(args: argparse.Namespace, base: str | None) -> RastConfig:
    """The mix; `base` is what stood without an option before it."""
    from vllm_rast.cli.planning import models_of

    if base and args.model:
        raise UserError(f"--model {args.model}: the base is named already, {base}; name it once")
    config = models_of(argparse.Namespace(**vars(args) | {"model": base or args.model}))
    if not config.pairs:
        raise UserError("--positive: name what to mix with the base; the base alone is served by `vllm serve`")
    return replace(config, trace=args.trace)


def check_server(options: argparse.Namespace) -> None:
    """Refuse what would start a server without our additions. Raises UserError, naming the option."""
    for name, remedy in NOT_HERE.items():
        if getattr(options, name, None):
            raise UserError(f"--{name.replace('_', '-')}: not supported by vllm-rast serve; {remedy}")
    if (options.api_server_count or 1) != 1:
        raise UserError(f"--api-server-count {options.api_server_count}: vllm-rast serve has one; leave it out")
    if os.environ.get("VLLM_USE_RUST_FRONTEND", "0") not in ("", "0"):
        raise UserError("VLLM_USE_RUST_FRONTEND: vllm-rast serve is made of vLLM's Python server; unset it")


def put_mix_into(options: argparse.Namespace, config: RastConfig) -> None:
    """Tell vLLM's server what to load, in its own words."""
    if "rast" in (options.additional_config or {}):
        raise UserError("--additional-config: its rast part is made of vllm-rast's own options; give those instead")
    base = config.sources[0]
    options.model = base.path
    options.revision = base.revision or options.revision
    options.served_model_name = options.served_model_name or [config.base]
    rast = config.to_dict() | {"load_format": options.load_format}
    options.load_format = "rast"
    options.additional_config = {**(options.additional_config or {}), "rast": rast}
    options.api_server_count = None


def serve(
    options: argparse.Namespace,
    config: RastConfig,
    exposed: dict[str, Any],
    ours: argparse.Namespace,
    asked: tuple[dict[str, Any], list[str]],
) -> int:
    """Run the server to its end."""
    from vllm_rast.engine.options import prepare_serving
    from vllm_rast.engine.plugin import register
    from vllm_rast.serving.server import Limits, ServerError, run

    prepare_serving(options)
    register()
    try:
        run(options, config, exposed, ours.ui, Limits(ours.max_body_bytes, ours.max_schema_bytes), asked)
    except ServerError as error:
        return fail(ERROR, str(error))
    return 0
