"""vLLM's options on our command line, under vLLM's own names: the engine's, and for `serve` its server's too."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from vllm_rast.cli.parser import unknown_option
from vllm_rast.errors import UserError

if TYPE_CHECKING:
    from vllm_rast.mix.config import RastConfig


def parse_engine_options(arguments: list[str], models: RastConfig, ours: Iterable[str] = ()) -> dict[str, Any]:
    """The engine options among `arguments` that the user gave, by vLLM's names for them, without any default.

    `ours` are the caller's own options, for finding what a misspelt one was meant to be. Imports vLLM, which takes
    seconds, unless `arguments` is empty. Raises UserError naming an unknown option or a wrong value.
    """
    if not arguments:
        return {}
    parser = engine_parser(models, ours)
    return vars(parser.parse_args(arguments))


def parse_serve_options(
    arguments: list[str], ours: Iterable[str], models_of: Callable[[str | None], RastConfig]
) -> tuple[argparse.Namespace, RastConfig]:
    """All options of `vllm serve` by vLLM's names, and the models, of which `models_of` is told the base's name.

    What the user left out has vLLM's default, except that running requests get time to finish, and that the shipped
    models have theirs. Raises UserError naming an unknown option, a wrong value, or options that do not go together.
    """
    from vllm_rast.engine.launch import engine_defaults
    from vllm_rast.engine.options import validate_serve_options

    parser = serve_parser(ours)
    said = parser.parse_args(arguments)
    models = models_of(said.model_tag or said.model)
    parser.set_defaults(**engine_defaults(models))
    options = parser.parse_args(arguments)
    try:
        validate_serve_options(options)
    except (ValueError, TypeError) as error:
        raise UserError(str(error).removeprefix("Error: ")) from error
    return options, models


def engine_part(options: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """The engine's options among those of `vllm serve`, and the names of those that are not vLLM's own defaults."""
    from vllm_rast.engine.options import engine_option_names

    defaults = vars(serve_parser(()).parse_args([]))
    engine = {name: getattr(options, name) for name in engine_option_names() if hasattr(options, name)}
    return engine, [name for name, value in engine.items() if value != defaults.get(name)]


def print_engine_help(topic: str, command: str = "generate") -> None:
    """vLLM's help on its own options; `topic` is an option, a group, `all`, or `engine` for the groups."""
    from vllm_rast.engine.launch import set_environment

    set_environment()
    parser = serve_parser(()) if command == "serve" else engine_parser(None, ())
    parser.prog = f"vllm-rast {command} [vllm-rast's options]"
    parser.parse_args(["--help" if topic == "engine" else f"--help={topic}"])


def engine_parser(models: RastConfig | None, ours: Iterable[str]) -> argparse.ArgumentParser:
    """A parser of the engine's options that leaves out what the user did not give."""
    from vllm_rast.engine.launch import set_environment

    set_environment(models)
    from vllm_rast.engine.options import add_engine_options, one_line_parser

    parser = add_engine_options(one_line_parser(unknown_to(ours)))
    for action in parser._actions:
        if action.dest != "help":
            action.default = argparse.SUPPRESS
    return parser


def serve_parser(ours: Iterable[str]) -> argparse.ArgumentParser:
    """A parser of all that `vllm serve` takes."""
    from vllm_rast.engine.options import add_serve_options, one_line_parser

    return add_serve_options(one_line_parser(unknown_to(ours)))


def unknown_to(ours: Iterable[str]) -> Callable[[str, Iterable[str]], str]:
    """What is said about an option that neither vLLM nor the caller has, given vLLM's own."""
    return lambda option, known: unknown_option(option, [*ours, *known])
