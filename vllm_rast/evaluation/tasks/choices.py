"""Questions with several choices: what a question says about them, and which letter is right."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

LETTERS = "ABCDEFGHIJ"
LETTER_RULE = "letter"


def order(seed: int | None, ident: str) -> Callable[[int], list[int]]:
    """The order in which a problem's choices stand: as they are, or by the seed and the problem's id alone."""

    def places(count: int) -> list[int]:
        found = list(range(count))
        if seed is not None:
            random.Random(f"{seed} {ident}").shuffle(found)
        return found

    return places


def with_choices(
    question: str, choices: Sequence[str], gold: str, rule: str, order: Callable[[int], list[int]]
) -> tuple[str, str]:
    """The question with its choices, one a line, and the letter of the right one.

    gold: a letter by the choices' own order if the rule is `letter`, else the text of the right choice.
    Raises ValueError if there is no such choice, or it cannot be told which.
    """
    if not 2 <= len(choices) <= len(LETTERS):
        raise ValueError(f"{len(choices)} choices instead of 2 to {len(LETTERS)}")
    if len(set(choices)) < len(choices) and rule != LETTER_RULE:
        raise ValueError("two choices are the same")
    right = LETTERS.find(gold) if rule == LETTER_RULE else choices.index(gold) if gold in choices else -1
    if not 0 <= right < len(choices):
        raise ValueError(f"no choice {gold!r} among {len(choices)}")
    places = order(len(choices))
    lines = [f"{LETTERS[letter]}) {choices[place]}" for letter, place in enumerate(places)]
    return "\n".join([question, "", *lines]), LETTERS[places.index(right)]
