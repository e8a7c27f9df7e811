"""Answers in words: names, yes and no, choice letters, numbers spelt out, and the names of some sets."""

from __future__ import annotations

import re
from fractions import Fraction

from vllm_rast.grading.latex.parse import Node
from vllm_rast.grading.latex.tokens import word_set

MAX_WORDS = 12  # of a number

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
    " eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_SMALL = {word: number for number, word in enumerate(_ONES.split())}
_SMALL |= {word: 10 * number for number, word in enumerate(_TENS.split(), 2)}
_LARGE = {"thousand": 10**3, "million": 10**6, "billion": 10**9}
_PARTS = "half third quarter fifth sixth seventh eighth ninth tenth"
_DENOMINATORS = {word: number for number, word in enumerate(_PARTS.split(), 2)} | {
    "halve": 2,
    "fourth": 4,
    "twelfth": 12,
}
_MEANINGS = {
    "none": {"no solution", "no solutions", "empty set", "no real solution", "no real solutions", "no real roots"},
    "undefined": {"does not exist", "dne", "not defined"},
    "reals": {"all real numbers", "all reals", "real numbers", "every real number", "any real number"},
}
_LEADING = (
    "the answer is ",
    "it is ",
    "they are ",
    "there is ",
    "there are ",
    "the ",
    "a ",
    "an ",
    "option ",
    "choice ",
    "answer ",
)


def word_of(node: Node) -> str | None:
    """The words of an answer in words, without articles and punctuation; None for other answers."""
    if node.kind != "word":
        return None
    words = " ".join(node.args[0].replace("-", " ").replace("'", "").strip(' .()!?"').split())
    for leading in _LEADING:
        if words.startswith(leading) and len(words) > len(leading):
            words = words.removeprefix(leading)
    return words


_QUALITIES = word_set(
    "odd even prime composite positive negative nonnegative nonzero zero integer rational irrational real increasing"
    " decreasing convex concave infinite finite"
)
_ARITHMETIC = frozenset(["odd", "even", "prime", "composite"])  # only of integers
_FILLERS = word_set(
    "is are be must has have to should an a the any all every each only number numbers value values of for when if"
    " where iff exactly integers naturals natural"
)


def qualities(node: Node) -> tuple[str | None, frozenset[str]] | None:
    """Of n odd, n is odd, odd n and the like the name, if there is one, and what is said; None for other answers."""
    if node.kind == "unit" and node.args[0].kind == "sym":
        name, text = node.args[0].args[0], node.args[1].casefold()
    elif node.kind == "word":
        name, text = None, node.args[0]
    else:
        return None
    said = set(re.sub(r"non-", "non", text).split()) - _FILLERS
    letters = {word for word in said if len(word) == 1}
    if name is None and len(letters) == 1:
        name = letters.pop()
        said.discard(name)
    if said & _ARITHMETIC:
        said.discard("integer")
    return (name, frozenset(said)) if said and said <= _QUALITIES else None


def same_words(gold: Node, answer: Node) -> bool:
    """Whether two answers, at least one of them in words, say the same."""
    gold_words, words = spelt(gold), spelt(answer)
    if gold_words is None or words is None:
        return False
    return gold_words == words


def spelt(node: Node) -> str | None:
    """An answer in words: as it is, or a formula that words may stand for."""
    words = word_of(node)
    if words is not None:
        meant = next((name for name, spellings in _MEANINGS.items() if words in spellings), words)
        number = spoken_number(words)
        return meant if number is None else str(number)
    if node.kind == "rel" and len(node.args[1]) == 2 and node.args[0] == ("=",):
        return spelt(node.args[1][1]) if node.args[1][1].kind == "word" else None
    if node.kind == "num":
        return str(node.args[0])
    if node.kind == "div" and all(part.kind == "num" for part in node.args) and node.args[1].args[0]:
        return str(node.args[0].args[0] / node.args[1].args[0])
    if node.kind == "empty":
        return "none"
    if node.kind == "reals":
        return "reals"
    return _letters(node)


def _letters(node: Node) -> str | None:
    """The letters of a product of symbols, as in names of two or three letters; the one letter of a choice."""
    if node.kind == "sym":
        return node.args[0].casefold()
    if node.kind == "mul":
        letters = [_letters(part) for part in node.args]
        return None if None in letters else "".join(filter(None, letters))
    return None


def spoken_number(words: str) -> Fraction | None:
    """The value of a number in words: twenty five, one hundred and six, two thirds; None for other words."""
    parts = [word for word in words.split() if word != "and"]
    if parts[:1] in (["minus"], ["negative"]):
        positive = spoken_number(" ".join(parts[1:]))
        return None if positive is None else -positive
    if len(parts) > MAX_WORDS:
        return None
    if len(parts) > 1 and parts[-1].removesuffix("s") in _DENOMINATORS:
        top = _spoken_integer(parts[:-1])
        return None if top is None else Fraction(top, _DENOMINATORS[parts[-1].removesuffix("s")])
    whole = _spoken_integer(parts)
    return None if whole is None else Fraction(whole)


def _spoken_integer(parts: list[str]) -> int | None:
    total = group = 0
    previous = 10**12
    for word in parts:
        if word in _SMALL and (previous >= 100 or (previous >= 20 and _SMALL[word] < 10)):
            group += _SMALL[word]
            previous = _SMALL[word]
        elif word == "hundred" and 0 < group < 100:
            group *= 100
            previous = 100
        elif word in _LARGE and group:
            total, group, previous = total + group * _LARGE[word], 0, _LARGE[word]
        else:
            return None
    return total + group if parts else None
