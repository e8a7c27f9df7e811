"""Recipes: the options of `generate` in a YAML file.

model: Qwen/Qwen2.5-32B
pair: [A,B, "C,D,0.5"]       # lists for options that take several values or may be repeated
benchmark: [math500, aime24]
top-p: 0.95
engine:                      # vLLM's options, under vLLM's names
  tensor-parallel-size: 4
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vllm_rast.errors import UserError
from vllm_rast.evaluation.tasks.text import load_yaml

ENGINE = "engine"
REPEATED = frozenset({"pair"})  # options that stand before each of their values


def recipe_arguments(path: str) -> list[str]:
    """A recipe as the arguments that say the same. Raises UserError if the file is no recipe."""
    said = load_yaml(Path(path), "--recipe")
    if not isinstance(said, dict) or not isinstance(said.get(ENGINE) or {}, dict):
        raise UserError(f"--recipe {path}: expected options and their values, such as `n: 8`")
    engine = said.pop(ENGINE, None) or {}
    return [argument for name, value in {**said, **engine}.items() for argument in arguments_of(name, value)]


def arguments_of(name: str, value: Any) -> Iterator[str]:
    option = f"--{str(name).replace('_', '-')}"
    if value is True:
        yield option
    elif value is False:
        yield option.replace("--", "--no-", 1)
    elif isinstance(value, dict):
        yield from (option, json.dumps(value))
    elif not isinstance(value, list):
        yield from (option, str(value))
    elif name in REPEATED:
        for one in value:
            yield from (option, str(one))
    else:
        yield from (option, *map(str, value))
