"""Prompts and answer lengths like real ones: the same at every run, and of the same shape at every size."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

# Answers of a reasoning model to school mathematics: many of a hundred tokens, a few that run into the limit.
ANSWER_MEDIAN = 128  # tokens
ANSWER_SIGMA = 0.9  # of the logarithm: one answer in sixteen would be longer than 512 and is cut there


@dataclass(frozen=True)
class Workload:
    """prompts: token ids, [num_prompts, length]. lengths: tokens of each answer, [num_prompts, n]."""

    prompts: list[list[int]]
    lengths: list[list[int]]

    @property
    def samples(self) -> int:
        return sum(map(len, self.lengths))

    @property
    def answer_tokens(self) -> int:
        return sum(map(sum, self.lengths))

    @property
    def prompt_tokens(self) -> int:
        return sum(map(len, self.prompts))

    def __str__(self) -> str:
        ends = [length for some in self.lengths for length in some]
        starts = [len(prompt) for prompt in self.prompts]
        return (
            f"{len(starts)} prompts of {min(starts)} to {max(starts)} tokens, {len(self.lengths[0])} answers each of "
            f"{min(ends)} to {max(ends)} tokens (mean {self.answer_tokens / len(ends):.0f})"
        )


def make_workload(
    num_prompts: int,
    samples: int,
    vocab: int,
    *,
    prompt_range: Sequence[int] = (16, 512),
    answer_range: Sequence[int] = (16, 512),
    seed: int = 0,
) -> Workload:
    """Prompt lengths log-uniform in prompt_range, answer lengths log-normal and cut to answer_range.

    The lengths are the distributions' quantiles in random order, so that a small workload has the same mean and the
    same spread as a large one. vocab: token ids are below it.
    """
    chance = random.Random(seed)
    low, high = map(math.log, prompt_range)
    normal = NormalDist(math.log(ANSWER_MEDIAN), ANSWER_SIGMA)
    prompt_lengths = quantiles(lambda p: low + p * (high - low), num_prompts)
    answer_lengths = quantiles(normal.inv_cdf, num_prompts * samples)
    chance.shuffle(prompt_lengths)
    chance.shuffle(answer_lengths)
    ends = [min(max(length, answer_range[0]), answer_range[1]) for length in answer_lengths]
    return Workload(
        prompts=[[chance.randrange(1, vocab) for _ in range(length)] for length in prompt_lengths],
        lengths=[ends[start : start + samples] for start in range(0, len(ends), samples)],
    )


def quantiles(inverse: Callable[[float], float], count: int) -> list[int]:
    """exp of `count` quantiles, evenly spaced in probability, as whole numbers, [count]."""
    return [round(math.exp(inverse((i + 0.5) / count))) for i in range(count)]
