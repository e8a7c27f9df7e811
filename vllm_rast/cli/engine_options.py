"""vLLM's engine options on our command line, under vLLM's own names."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NoReturn

from vllm_rast.cli.parser import unknown_option
from vllm_rast.errors import UserError

if TYPE_CHECKING:
    from vllm_rast.config import RastConfig


def parse_engine_options(arguments: list[str], models: RastConfig, ours: Iterable[str] = ()) -> dict[str, Any]:
    """The engine options among `arguments` that the user gave, by vLLM's names for them, without any default.

    `ours` are the caller's own options, for finding what a misspelt one was meant to be. Imports vLLM, which takes
    seconds, unless `arguments` is empty. Raises UserError naming an unknown option or a wrong value.
    """
    if not arguments:
        return {}
    parser = engine_parser(models, list(ours))
    return vars(parser.parse_args(arguments))


def print_engine_help(topic: str) -> None:
    """vLLM's help on its engine options; `topic` is an option, a group, `all`, or `engine` for the groups."""
    parser = engine_parser(None, [])
    parser.prog = "vllm-rast generate [vllm-rast's options]"
    parser.parse_args(["--help" if topic == "engine" else f"--help={topic}"])


def engine_parser(models: RastConfig | None, ours: list[str]) -> argparse.ArgumentParser:
    from vllm_rast.evaluation.backends import set_environment

    set_environment(models)
    from vllm.engine.arg_utils import EngineArgs
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    class EngineParser(FlexibleArgumentParser):
        def error(self, message: str) -> NoReturn:
            unknown = message.removeprefix("unrecognized arguments: ")
            if unknown == message:
                raise UserError(message.removeprefix("argument "))
            raise UserError(unknown_option(unknown.split()[0], [*ours, *self._option_string_actions]))

    parser = EngineArgs.add_cli_args(EngineParser(allow_abbrev=False))
    for action in parser._actions:
        if action.dest != "help":
            action.default = argparse.SUPPRESS
    return parser
