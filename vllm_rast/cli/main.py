"""`vllm-rast`: one module of this package per subcommand, imported lazily enough for --help to be quick."""

from __future__ import annotations

import argparse
import importlib
import os
import shlex
import shutil
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import vllm_rast
from vllm_rast.cli.exit_codes import ERROR, INTERRUPTED, TERMINATED, USAGE, Terminated, fail
from vllm_rast.cli.parser import Parser, unknown_option, with_dashes
from vllm_rast.errors import UserError

# In the order of --help. Each module has add_arguments(subparsers), which sets `func(args) -> exit code`.
COMMANDS = (
    "demo",
    "preflight",
    "generate",
    "evaluate",
    "report",
    "analyze",
    "sweep",
    "merge",
    "serve",
    "grade",
    "benchmarks",
    "recipes",
    "doctor",
)

PROGRAM = "vllm-rast"
FORMAT_WARNING = warnings.formatwarning


def main(arguments: Sequence[str] | None = None, interrupted: Callable[[], object] = lambda: None) -> int:
    """Run one subcommand and return its exit code (see `exit_codes`).

    interrupted: called when it ends by Ctrl-C or SIGTERM, before its engine does.
    """
    arguments = with_dashes(sys.argv[1:] if arguments is None else arguments)
    previous = signal.signal(signal.SIGTERM, terminate)
    warnings.formatwarning = format_warning
    try:
        return run(arguments)
    except UserError as error:
        return fail(USAGE, str(error))
    except KeyboardInterrupt:
        interrupted()
        return fail(INTERRUPTED, f"interrupted; go on with: {command(arguments)}", "")
    except Terminated:
        interrupted()
        return fail(TERMINATED, f"terminated; go on with: {command(arguments)}", "")
    except BrokenPipeError:  # `vllm-rast ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ERROR
    except Exception as error:
        from vllm_rast.evaluation.runs.jsonl import FULL, RunError

        full = isinstance(error, OSError) and error.errno in FULL
        if not (full or isinstance(error, RunError)):
            raise
        return fail(ERROR, f"{error}; go on with: {command(arguments)}")
    finally:
        signal.signal(signal.SIGTERM, previous)
        warnings.formatwarning = FORMAT_WARNING


def program() -> int:
    """`main` as a program: after an interruption the engine ends in order, and a second Ctrl-C ends everything."""
    return main(interrupted=lambda: signal.signal(signal.SIGINT, leave_at_once))


def leave_at_once(signal_number: int, frame: FrameType | None) -> None:
    """What is finished is in its file; the engine's processes end with this one."""
    os._exit(INTERRUPTED)


def run(arguments: list[str]) -> int:
    parser = build_parser([arguments[0]] if arguments[:1] and arguments[0] in COMMANDS else COMMANDS)
    topic = engine_help_topic(arguments)
    if topic:
        from vllm_rast.cli.engine_options import print_engine_help

        print_engine_help(topic, "serve" if arguments[0] == "serve" else "generate")
        return 0
    args, rest = parser.parse_known_args(arguments)
    if rest and not hasattr(args, "engine_arguments"):
        raise UserError(unknown_option(rest[0], subcommand(parser, args.command).option_names))
    if rest:
        args.engine_arguments = rest
    args.typed = arguments[1:]
    if getattr(args, "no_lock", False):
        from vllm_rast.evaluation.runs.jsonl import Lock

        Lock.needed = False
    return args.func(args)


def build_parser(commands: Sequence[str] = COMMANDS) -> Parser:
    parser = Parser(
        prog=PROGRAM,
        description="Decode with base + alpha * (positive - negative) in vLLM, and evaluate what comes out.",
        epilog="Exit codes: 0 done, 1 error, 2 usage, 130 interrupted.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {vllm_rast.__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in commands:
        importlib.import_module(f"vllm_rast.cli.{name}").add_arguments(subparsers)
    return parser


def subcommand(parser: argparse.ArgumentParser, name: str) -> Parser:
    """The parser of one subcommand."""
    (choices,) = (a.choices for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return choices[name]


def engine_help_topic(arguments: list[str]) -> str | None:
    """TOPIC of `--help=TOPIC`, which asks for vLLM's help on its own options."""
    topics = [argument.partition("=")[2] for argument in arguments if argument.startswith("--help=")]
    return topics[0] if topics else None


def command(arguments: Sequence[str]) -> str:
    """What the user typed, ready to be typed again; with the program's path if the shell would not find it."""
    path = sys.argv[0]
    elsewhere = os.path.basename(path) == PROGRAM and shutil.which(PROGRAM) != path
    return shlex.join([path if elsewhere else PROGRAM, *arguments])


def format_warning(message: Any, category: type[Warning], *place: Any, **options: Any) -> str:
    """Our own warnings are for users, who care for no place in the source."""
    if category.__module__.startswith("vllm_rast."):
        return f"vllm-rast: warning: {message}\n"
    return FORMAT_WARNING(message, category, *place, **options)


def terminate(signal_number: int, frame: FrameType | None) -> None:
    raise Terminated


if __name__ == "__main__":
    sys.exit(program())
