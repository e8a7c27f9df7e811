"""Answers in words: names, yes and no, choice letters, numbers spelt out, and the names of some sets."""

from __future__ import annotations

from vllm_rast.grading.latex.parse import Node

_NUMBERS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
    " eighteen nineteen twenty"
)
_NUMBER_WORDS = {word: number for number, word in enumerate(_NUMBERS.split())}
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
        return str(_NUMBER_WORDS[words]) if words in _NUMBER_WORDS else meant
    if node.kind == "rel" and len(node.args[1]) == 2 and node.args[0] == ("=",):
        return spelt(node.args[1][1]) if node.args[1][1].kind == "word" else None
    if node.kind == "num" and node.args[0].denominator == 1:
        return str(node.args[0])
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
