"""What an answer declares at its end: which numbers a letter of it stands for, as in 2k + 1, where k is an integer."""

from __future__ import annotations

import re

MAX_DECLARATIONS = 3

_OPENS = r"(?:[,;\s(]|\\(?:text|mathrm|textrm|mbox)(?=\s?\{))"
_BETWEEN = r"(?:[\s,;{}~]|\\(?:text|mathrm|textrm|mbox|rm)(?![a-zA-Z])){0,12}+"
_SIGN = (
    r"(?:\\mathbb|\\mathbf)?\s?\{?\s?(?P<sign>[ZNRQC])\s?\}?"
    r"\s?(?P<part>\^\s?\{?\s?[+*]\s?\}?|_\s?\{?\s?(?:\+|>\s?0|\\(?:ge|gt)\s?0|0)\s?\}?)?"
)
_WORDS = r"(?:an?\s)?(?P<{0}>(?:(?:positive|non-?negative|natural|whole|real|arbitrary)\s)?(?:integer|number|real)s?)"
_NAME = r"(?P<{0}>[a-zA-Z]|\\(?:lambda|mu|theta|alpha|beta))(?![A-Za-z])"
_NUMBERS = r"(?P<integers>0\s?,\s?\\pm\s?1\s?,\s?(?:\\pm\s?[23]\s?,?\s?){0,2})"
_LEADS = (
    rf"(?:(?:where|for|with|and|let)\b)?{_BETWEEN}(?:\\forall(?![a-z])|(?:any|all|every|each|some|an?)\b)?{_BETWEEN}"
)
_DECLARES = re.compile(
    rf"{_OPENS}{_BETWEEN}\(?{_BETWEEN}{_LEADS}(?:"
    rf"{_NAME.format('member')}{_BETWEEN}\\in(?![a-z]){_BETWEEN}{_SIGN}"
    rf"|{_NAME.format('called')}{_BETWEEN}(?:(?:is|are|be|can|must|any)\b{_BETWEEN}){{0,3}}{_WORDS.format('words')}"
    rf"|{_WORDS.format('words_before')}{_BETWEEN}{_NAME.format('named')}"
    rf"|{_NAME.format('listed')}\s?=\s?{_NUMBERS},?\s?(?:\\[lc]?dots|\.\.\.)"
    rf"){_BETWEEN}\)?{_BETWEEN}\.?$"
)
_DOMAINS = {"integer": "Z", "positive integer": "Z+", "nonnegative integer": "Z0", "natural number": "N",
            "real number": "R", "real": "R", "arbitrary integer": "Z", "whole number": "Z0"}  # fmt: skip

_NO_LETTERS = re.compile(r"\\(?:text|mathrm)\s?\{[^{}]{0,400}\}|\\[A-Za-z]+")

Declaration = tuple[str, str]  # a letter and its domain


def declarations(text: str) -> tuple[str, tuple[Declaration, ...]]:
    """A cleaned answer without its declarations, and these. Only letters that the answer has are declared."""
    found: list[Declaration] = []
    head = text
    while len(found) < MAX_DECLARATIONS:
        match = _DECLARES.search(head)
        if match is None:
            break
        name = (match["member"] or match["called"] or match["named"] or match["listed"]).lstrip("\\")
        domain = _domain(match)
        rest = head[: match.start()]
        if domain is None or not _has(rest, name) or rest.count("{") != rest.count("}"):
            break
        head = rest
        found.append((name, domain))
    return head, tuple(reversed(found))


def _domain(match: re.Match[str]) -> str | None:
    if match["sign"]:
        part = "".join((match["part"] or "").split()).strip("^_{}")
        return match["sign"] + {"": "", "\\ge0": "0", "0": "0"}.get(part, "+")
    if match["integers"]:
        return "Z"
    words = (match["words"] or match["words_before"]).lower().replace("non-", "non").removesuffix("s")
    return _DOMAINS.get(words)


def _has(text: str, name: str) -> bool:
    """Whether a letter stands somewhere in a text, and not only in a word or a command."""
    if len(name) > 1:
        return f"\\{name}" in text
    return name in _NO_LETTERS.sub(" ", text)
