"""Files that people give: UTF-8, with one line that says where it is not, and JSON and YAML without surprises."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from vllm_rast.errors import UserError

BOM = "\ufeff"
HASH_DIGITS = 16  # hexadecimal digits kept of a SHA-256


def read_text(path: Path, option: str) -> str:
    """A whole text file, without a byte-order mark. Raises UserError, naming `option` and the line."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{option} {path}: {error.strerror}") from error
    try:
        return content.decode("utf-8").removeprefix(BOM).replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{option} {path}, line {content.count(10, 0, error.start) + 1}: {NOT_UTF8}") from error


NOT_UTF8 = "not UTF-8; save the file as UTF-8, or convert it with iconv"


def lines_of(path: Path, option: str) -> Iterator[tuple[int, str]]:
    """(number, text) of every line that is not blank, one at a time. Raises UserError as `read_text` does."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    text = line.decode("utf-8")
                except UnicodeDecodeError as error:
                    raise UserError(f"{option} {path}, line {number}: {NOT_UTF8}") from error
                text = text.removeprefix(BOM) if number == 1 else text
                if text.strip():
                    yield number, text
    except OSError as error:
        raise UserError(f"{option} {path}: {error.strerror}") from error


def short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:HASH_DIGITS]


def parse_json(text: str, where: str, whole: bool = True) -> Any:
    """A line of JSON. Raises UserError, beginning with `where`, for anything else.

    whole: refuse half of a surrogate pair, which no tokenizer takes; a model's output to be graded may hold one.
    """
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise UserError(f"{where}: JSON that is nested too deeply") from error
    except ValueError as error:
        raise UserError(f"{where}: not JSON: {error}") from error
    if whole:
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError as error:
            raise UserError(f"{where}: half of a surrogate pair, which is not a character; mend the text") from error
    return value


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key that is given twice, of which YAML would keep the last without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.YAMLError(f"line {key.start_mark.line + 1}: the key {key.value!r} is given twice")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def load_yaml(path: Path, option: str) -> Any:
    """A YAML file. Raises UserError, naming `option`, if it is not one or gives a key twice."""
    try:
        return yaml.load(read_text(path, option), Loader=_Loader)
    except (yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split()) or "nested too deeply"
        raise UserError(f"{option} {path}: not YAML: {reason}") from error
