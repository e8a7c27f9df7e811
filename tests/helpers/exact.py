"""The exact distribution of an answer's first tokens, and how far samples are from it.

The tree of answers is cut where fewer than MIN_EXPECTED samples are expected: what lies beyond a cut is one cell
together with its siblings, so every cell of the chi-square test is large enough, and no sample is left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
import torch

from vllm_rast.reference import ReferenceLLM

MIN_EXPECTED = 5.0
Cell = tuple[int, ...]
REST = -1  # in a cell: any token that has no cell of its own there


def cells(
    reference: ReferenceLLM,
    prompt: Sequence[int],
    alpha: Any,
    samples: int,
    *,
    depth: int = 3,
    temperature: float = 1.0,
    top_p: float = 1.0,
) -> dict[Cell, float]:
    """The probability of each beginning of an answer, cut as said above; they sum to 1."""
    found: dict[Cell, float] = {}
    open_: list[tuple[Cell, float]] = [((), 1.0)]
    while open_:
        start, probability = open_.pop()
        if len(start) == depth or (start and start[-1] == reference.tokenizer.eos_token_id):
            found[start] = probability
            continue
        logits = reference.logits([*prompt, *start], alpha, num_prompt_tokens=len(prompt))[-1]
        shares = nucleus(torch.softmax(logits.double() / temperature, dim=-1), top_p) * probability
        large = (shares * samples >= MIN_EXPECTED).nonzero().flatten().tolist()
        open_ += [((*start, token), float(shares[token])) for token in large]
        found[(*start, REST)] = probability - sum(float(shares[token]) for token in large)
    return found


def nucleus(probabilities: torch.Tensor, top_p: float) -> torch.Tensor:
    """The smallest set of tokens whose mass reaches top_p, as in `vllm_rast.reference.choose`."""
    if top_p == 1:
        return probabilities
    ordered, order = probabilities.sort(descending=True)
    ordered[ordered.cumsum(0) - ordered >= top_p] = 0
    kept = torch.zeros_like(probabilities).scatter_(0, order, ordered)
    return kept / kept.sum()


def chi_square(answers: Iterable[Sequence[int]], wanted: dict[Cell, float], depth: int = 3) -> dict[str, float]:
    """{"statistic", "cells", "p"}: p is the chance of a statistic as large, if the samples follow the distribution.

    Cells of fewer than MIN_EXPECTED samples, the rests, are counted as one.
    """
    begins = {cell[:length] for cell in wanted for length in range(1, len(cell) + 1)}
    counts: Counter[Cell] = Counter()
    total = 0
    for answer in answers:
        total += 1
        length = next(
            (n for n in range(1, depth + 1) if tuple(answer[:n]) in wanted or tuple(answer[:n]) not in begins), depth
        )
        start = tuple(answer[:length])
        counts[start if start in wanted else (*start[:-1], REST)] += 1
    assert set(counts) <= set(wanted), "an answer that cannot be"
    small = {cell for cell, p in wanted.items() if p * total < MIN_EXPECTED}
    pairs = [(counts[cell], p * total) for cell, p in wanted.items() if cell not in small]
    rest = sum(wanted[cell] for cell in small) * total
    if rest > 0:
        pairs.append((sum(counts[cell] for cell in small), rest))
    assert all(expected > 0 for _, expected in pairs)
    statistic = sum((count - expected) ** 2 / expected for count, expected in pairs)
    freedom = torch.tensor((len(pairs) - 1) / 2, dtype=torch.float64)
    p = float(torch.special.gammaincc(freedom, torch.tensor(statistic / 2, dtype=torch.float64)))
    return {"statistic": statistic, "cells": len(pairs), "p": p}


def assert_coupled(
    p: torch.Tensor, q: torch.Tensor, tokens: Sequence[int], drafts: Sequence[int], *, tolerance: float
) -> None:
    """Tokens are samples of softmax(p), [vocab], drafts of softmax(q), [up to vocab], by chi-square, and each token is
    its draft as often as the two overlap."""
    target, source = p.softmax(0).double(), q.softmax(0).double()
    for drawn, wanted in ((tokens, target), (drafts, source)):
        shares = {(i,): share for i, share in enumerate(wanted.tolist()) if share}
        found = chi_square([[token] for token in drawn], shares, 1)
        assert found["p"] > 0.01, found
    overlap = float(torch.minimum(target[: len(source)], source).sum())
    agreed = sum(token == draft for token, draft in zip(tokens, drafts, strict=True))
    assert agreed / len(tokens) == pytest.approx(overlap, abs=tolerance)
