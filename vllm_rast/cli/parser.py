"""argparse with one-line errors, and option names that may be written with underscores, as vLLM's may."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Iterable
from typing import Any, NoReturn

from vllm_rast.errors import UserError


class Parser(argparse.ArgumentParser):
    """Raises UserError instead of printing the usage, and never takes an abbreviation for an option."""

    def __init__(self, *args: Any, **kwargs: Any):
        kwargs["allow_abbrev"] = False
        super().__init__(*args, **kwargs)

    def error(self, message: str) -> NoReturn:
        raise UserError(message.removeprefix("argument "))

    @property
    def option_names(self) -> list[str]:
        return list(self._option_string_actions)


def with_dashes(arguments: Iterable[str]) -> list[str]:
    """`--top_p=0.9` as `--top-p=0.9`; values and anything after a dot (`--hf-overrides.head_dtype`) stay."""
    return [dashed(argument) if argument.startswith("--") else argument for argument in arguments]


def dashed(argument: str) -> str:
    name, equals, value = argument.partition("=")
    name, dot, rest = name.partition(".")
    return name.replace("_", "-") + dot + rest + equals + value


def unknown_option(option: str, known: Iterable[str]) -> str:
    """One line about an option that nobody knows, with the closest that somebody does."""
    name = dashed(option.partition("=")[0])
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"unknown option {option.partition('=')[0]}; " + (
        f"did you mean {close[0]}?" if close else "see --help and, for the engine's options, --help=engine"
    )
