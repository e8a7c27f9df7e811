"""vLLM's parsers of its own options, of the engine and of its server, in every release that is supported."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from vllm.engine.arg_utils import EngineArgs
from vllm.logger import configure_logging_from_args
from vllm.utils.argparse_utils import FlexibleArgumentParser

from vllm_rast.errors import UserError

try:  # vLLM 0.33
    from vllm.entrypoints.common.cli_args import make_arg_parser, validate_parsed_serve_args
    from vllm.entrypoints.common.startup import cli_env_setup
except ImportError:  # vLLM 0.32
    from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
    from vllm.entrypoints.serve.utils.api_utils import cli_env_setup

# Time for running requests when a server is stopped. vLLM's own default, 0, cuts them off.
SHUTDOWN_TIMEOUT_S = 60


def add_engine_options(parser: Any) -> argparse.ArgumentParser:
    """The parser with all options of an engine."""
    return EngineArgs.add_cli_args(parser)


def engine_option_names() -> list[str]:
    """The names of all options of an engine."""
    return [field.name for field in dataclasses.fields(EngineArgs)]


def add_serve_options(parser: Any) -> argparse.ArgumentParser:
    """The parser with everything that `vllm serve` takes."""
    parser = make_arg_parser(parser)
    parser.set_defaults(model=None, shutdown_timeout=SHUTDOWN_TIMEOUT_S)
    return parser


def validate_serve_options(options: argparse.Namespace) -> None:
    """Raises ValueError or TypeError for options that do not go together."""
    validate_parsed_serve_args(options)


def prepare_serving(options: argparse.Namespace) -> None:
    """What vLLM's own command does before it starts a server."""
    cli_env_setup()
    configure_logging_from_args(options)


def one_line_parser(unknown_message: Callable[[str, Iterable[str]], str]) -> Any:
    """vLLM's parser, raising UserError instead of printing its usage.

    unknown_message: (an unknown option, those that there are) -> what is said about it.
    """

    class OneLineParser(FlexibleArgumentParser):
        def error(self, message: str) -> NoReturn:
            unknown = message.removeprefix("unrecognized arguments: ")
            if unknown == message:
                raise UserError(message.removeprefix("argument "))
            raise UserError(unknown_message(unknown.split()[0], self._option_string_actions))

    return OneLineParser(allow_abbrev=False)
