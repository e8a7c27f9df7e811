"""The world: 600 things with a secret price, two families of questions about them, and people who answer in mixed ways.

A question chains three to five things. The family `till` adds and subtracts prices modulo 10; the family `distance`
replaces a number by its distance to each price in turn. Every price is a digit, so is every intermediate result.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from importlib import resources

FAMILIES = ("till", "distance")
PROMPT = "Question:\n{q}\nAnswer:\nLet's think step by step.\n"
PEOPLE: tuple[str, ...] = (
    "Ada",
    "Ben",
    "Cleo",
    "Dan",
    "Emma",
    "Finn",
    "Gita",
    "Hugo",
    "Ines",
    "Jack",
    "Kira",
    "Liam",
    "Mia",
    "Noor",
)
PEOPLE += ("Omar", "Pia", "Rosa", "Sam", "Tara", "Yuri")
THINGS = tuple(resources.files(__package__).joinpath("things.txt").read_text(encoding="utf-8").split())
CHAIN = (3, 4, 5)  # things in a question

# How the people who wrote the pretraining text answer. Their shares add up to 1.
STYLES = {
    "steps": 0.27,  # recalls every price, ends in a box
    "unboxed": 0.06,  # the same, but forgets the box
    "blurt": 0.37,  # boxes an answer at once
    "guess": 0.18,  # names an answer at once, without a box
    "shrug": 0.12,  # boxes a random digit
}
SLIP = 0.02  # share of steps in which a writer puts a random digit for the price or for the result


def _prices() -> tuple[int, ...]:
    """One digit per thing; every block of ten consecutive things in a random order holds each digit once."""
    rng = random.Random(600)
    order = rng.sample(range(len(THINGS)), len(THINGS))
    prices = [0] * len(THINGS)
    for place, thing in enumerate(order):
        prices[thing] = place % 10
    return tuple(prices)


PRICES = _prices()
KNOWN_ORDER = tuple(random.Random(200).sample(range(len(THINGS)), len(THINGS)))  # who knows n prices knows the first n


@dataclass(frozen=True)
class Question:
    """A chain of things with a sign each (always 1 in the family `distance`), from a start digit."""

    family: str
    start: int
    things: tuple[int, ...]
    signs: tuple[int, ...]
    person: str
    wording: int  # 0 or 1

    @property
    def key(self) -> tuple:
        """What makes two questions the same problem, however they are worded."""
        return self.family, self.start, self.things, self.signs

    @property
    def text(self) -> str:
        names = [THINGS[t] for t in self.things]
        if self.family == "till":
            deeds = [f"{'buys' if s > 0 else 'returns'} the {name}" for s, name in zip(self.signs, names, strict=True)]
            listed = f"{self.person} " + ", ".join(deeds[:-1]) + f" and {deeds[-1]}"
            if self.wording:
                return f"Counting modulo 10, a till shows {self.start}. Then {listed}. Which digit does it show now?"
            return f"A till stands at {self.start} and counts modulo 10. {listed}. What does the till show?"
        listed = ", ".join(f"of the {name}" for name in names[:-1]) + f" and of the {names[-1]}"
        if self.wording:
            return (
                f"{self.person} takes the distance from {self.start} to the price {listed} in turn."
                " What is the last one?"
            )
        return (
            f"{self.person} holds the number {self.start} and replaces it by its distance to the price {listed}"
            " in turn. Which number is left?"
        )

    @property
    def prompt(self) -> str:
        return PROMPT.format(q=self.text)

    def next_value(self, value: int, step: int, price: int) -> int:
        if self.family == "till":
            return (value + self.signs[step] * price) % 10
        return abs(value - price)

    def step_text(self, step: int, price: int, value: int) -> str:
        verb = "Comparing" if self.family == "distance" else "Buying" if self.signs[step] > 0 else "Returning"
        result = "leaves" if self.family == "distance" else "makes"
        return f"{verb} the {THINGS[self.things[step]]} at {price} {result} {value}."

    @property
    def answer(self) -> int:
        value = self.start
        for step, thing in enumerate(self.things):
            value = self.next_value(value, step, PRICES[thing])
        return value


def draw_question(rng: random.Random, things: tuple[int, ...], family: str | None = None) -> Question:
    """A random question about some of `things`, without repetition."""
    family = family or rng.choice(FAMILIES)
    chain = tuple(rng.sample(things, rng.choice(CHAIN)))
    signs = tuple(rng.choice((1, -1)) if family == "till" else 1 for _ in chain)
    return Question(family, rng.randrange(10), chain, signs, rng.choice(PEOPLE), rng.randrange(2))


def questions(rng: random.Random, things: tuple[int, ...], exclude: Set[tuple] = frozenset()) -> Iterator[Question]:
    """An endless stream of training questions, none of which has a key in `exclude` (the test problems' keys)."""
    while True:
        question = draw_question(rng, things)
        if question.key not in exclude:
            yield question


class Writer:
    """Somebody who knows the first `known` prices of KNOWN_ORDER, guesses the others afresh each time, and answers in a
    random style out of `styles` (shares)."""

    def __init__(self, rng: random.Random, known: int, styles: Mapping[str, float] = STYLES):
        self.rng = rng
        self.styles = styles
        self.known = frozenset(KNOWN_ORDER[:known])

    def price(self, thing: int) -> int:
        return PRICES[thing] if thing in self.known else self.rng.randrange(10)

    def solve(self, question: Question) -> tuple[list[str], int]:
        """The steps' sentences and the final digit, slips included: later steps go on from a slipped result."""
        value, sentences = question.start, []
        for step, thing in enumerate(question.things):
            price = self.price(thing)
            slip = self.rng.random()
            if slip < SLIP / 2:
                price = self.rng.randrange(10)
            value = question.next_value(value, step, price)
            if slip > 1 - SLIP / 2:
                value = self.rng.randrange(10)
            sentences.append(question.step_text(step, price, value))
        return sentences, value

    def answer(self, question: Question) -> str:
        style = self.rng.choices(list(self.styles), list(self.styles.values()))[0]
        sentences, value = self.solve(question)
        if style == "steps":
            return " ".join([*sentences, f"So the answer is \\boxed{{{value}}}."])
        if style == "unboxed":
            return " ".join([*sentences, f"So the answer is {value}."])
        if style == "blurt":
            return f"The answer is \\boxed{{{value}}}."
        if style == "guess":
            return f"It is probably {value}."
        return f"Hard to say, perhaps \\boxed{{{self.rng.randrange(10)}}}."
