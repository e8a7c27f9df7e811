"""From a data set's column to a gold: the rules that a benchmark's YAML file names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vllm_rast.grading.boxes import last_box
from vllm_rast.grading.latex.clean import clean
from vllm_rast.grading.latex.numbers import read_decimal


def _text(value: Any) -> str:
    text = str(value).strip()
    if not text:
        raise ValueError("it is empty")
    return text


def _boxed(value: Any) -> str:
    box = last_box(str(value))
    if box is None:
        raise ValueError("there is no \\boxed{}")
    return _text(box)


def _after_hashes(value: Any) -> str:
    _, hashes, answer = str(value).rpartition("####")
    if not hashes:
        raise ValueError("there is no ####")
    return _text(answer)


def _several(value: Any) -> str | tuple[str, ...]:
    answers = tuple(_text(v) for v in value) if isinstance(value, list | tuple) else (_text(value),)
    if not answers:
        raise ValueError("it is empty")
    return answers[0] if len(answers) == 1 else answers


def _letter(value: Any) -> str:
    letter = str(value).strip().strip("().").upper()
    if len(letter) != 1 or not "A" <= letter <= "Z":
        raise ValueError(f"{value!r} is not a letter")
    return letter


def _integer(gold: str) -> str:
    number = read_decimal(clean(gold))  # 025 and 27.0 occur
    if number is None or number.denominator != 1:
        raise ValueError(f"{gold!r} is not an integer")
    return str(number)


def _number(gold: str) -> str:
    """A decimal, a fraction or a percentage, in plain digits."""
    text = clean(gold)
    if read_decimal(text) is not None:
        return text.replace(",", "").lstrip("+")
    top, slash, bottom = text.removesuffix("%").partition("/")
    if read_decimal(top) is None or (slash and not read_decimal(bottom)):
        raise ValueError(f"{gold!r} is not a number")
    return text.replace(",", "")


GOLD_RULES: dict[str, Callable[[Any], Any]] = {
    "text": _text,
    "last box": _boxed,
    "after hashes": _after_hashes,
    "list": _several,
    "letter": _letter,
}
CANONICAL: dict[str, Callable[[Any], str]] = {"integer": _integer, "number": _number}
