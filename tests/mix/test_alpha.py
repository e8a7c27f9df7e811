"""The forms of alpha and what they weigh; the operation against float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vllm_rast import ModelPair, RastConfig, UserError, combine_logits
from vllm_rast.evaluation.tasks.rows import formula
from vllm_rast.mix.alpha import MAX_ALPHA, parse_alpha, single_models, weight_row
from vllm_rast.reference import mix, weighted

TWO_PAIRS = RastConfig.build("o/base", "o/rl", "o/small", pairs=[ModelPair("o/rl2", "o/small", 0.25)])


@pytest.mark.parametrize(
    ("alpha", "row"),
    [
        (None, (1, 1, -1.25, 0.25)),
        (0, (1, 0, 0, 0)),
        (2, (1, 2, -4, 2)),
        ([0.5, -1], (1, 0.5, 0.5, -1)),
        ("base", (1, 0, 0, 0)),
        ("positive", (0, 1, 0, 0)),
        ("negative", (0, 0, 1, 0)),
        ("positive:2", (0, 0, 0, 1)),
        ("negative:2", (0, 0, 1, 0)),
    ],
)
def test_weight_rows(alpha: Any, row: tuple[float, ...]) -> None:
    assert weight_row(TWO_PAIRS, alpha) == row


def test_the_base_may_stand_in_a_pair() -> None:
    amplified = RastConfig.build("o/base", "o/rl", "o/base", alpha=0.5)
    assert weight_row(amplified, None) == (0.5, 0.5)
    assert single_models(amplified) == {"base": 0, "positive": 1, "positive:1": 1, "negative": 0, "negative:1": 0}


class HalfPair(ModelPair):
    """A form of a pair: the negative counts half."""

    def weights(self, alpha: float) -> tuple[float, float]:
        return alpha, -alpha / 2

    def formula(self, alpha: str) -> str:
        return f"{alpha} * ({self.positive} - {self.negative} / 2)"


def test_a_new_form_of_a_pair_is_weighed_and_shown() -> None:
    config = RastConfig("o/base", (HalfPair("o/rl", "o/small", 0.5), ModelPair("o/rl", None, 2)))
    assert weight_row(config, None) == (1, 2.5, -0.25)
    assert weight_row(config, [4, 0]) == (1, 4, -2)
    assert parse_alpha(config, {"ramp": [[0, 0], [2, [4, 0]]]}).rows_at(np.array([1])).tolist() == [[1, 2, -1]]
    assert formula(config, (4.0, 1.0)) == "o/base + 4.0 * (o/rl - o/small / 2) + 1.0 * (o/rl)"


@pytest.mark.parametrize("alpha", [True, math.nan, math.inf, 2 * MAX_ALPHA, "0.5", "rl", [1], [1, "x"], {}, b"base"])
def test_bad_alphas(alpha: Any) -> None:
    with pytest.raises(UserError, match="^alpha") as caught:
        weight_row(TWO_PAIRS, alpha)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("a/b,c/d", ModelPair("a/b", "c/d", 1.0)),
        ("a/b,,0.5", ModelPair("a/b", None, 0.5)),
        (",c/d,-1", ModelPair(None, "c/d", -1.0)),
    ],
)
def test_pairs_of_the_command_line(text: str, pair: ModelPair) -> None:
    assert ModelPair.parse(text) == pair


@pytest.mark.parametrize("text", ["", "a/b", ",", "a/b,c/d,x", "a/b,c/d,nan", "a,b,1,2", "tiny:nobody,"])
def test_bad_pairs(text: str) -> None:
    with pytest.raises(UserError):
        ModelPair.parse(text)


def test_alpha_list_must_fit_the_pairs() -> None:
    with pytest.raises(UserError, match="2 values for 1 pairs"):
        RastConfig.build("o/base", "o/rl", "o/small", alpha=[1, 2])


@settings(deadline=None)  # the first call may build the kernel
@given(
    rows=st.integers(0, 5),
    base_vocab=st.integers(1, 40),
    vocabs=st.lists(st.integers(1, 45), min_size=0, max_size=3),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    seed=st.integers(0, 10**6),
    in_place=st.booleans(),
)
def test_combine_against_float64(
    rows: int, base_vocab: int, vocabs: list[int], dtype: torch.dtype, seed: int, in_place: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = [torch.randn(rows, vocab, generator=generator) * 10 for vocab in [base_vocab, *vocabs]]
    logits = [logits[0]] + [some.to(dtype) for some in logits[1:]]
    weights = torch.randn(rows, len(logits), generator=generator)
    weights[torch.rand(weights.shape, generator=generator) < 0.3] = 0
    wanted = [weighted([some[row].double() for some in logits], weights[row].double().tolist()) for row in range(rows)]
    result = combine_logits(logits, weights, out=logits[0] if in_place else None)
    assert result.dtype == torch.float32 and (not in_place or result is logits[0])
    for got, want in zip(result, wanted, strict=True):
        torch.testing.assert_close(got, want.float(), rtol=1e-5, atol=1e-4)


def test_weighted_is_the_formula() -> None:
    base, positive, negative = torch.randn(3, 50, dtype=torch.float64)
    assert torch.allclose(
        weighted([base, positive, negative], [1, 0.7, -0.7]), mix(base, [(0.7, positive, negative)]), atol=1e-12
    )


def test_single_models_are_exact_copies_and_unused_ones_unread() -> None:
    base = torch.tensor([[1.5, -0.0, math.inf, -math.inf, 3e38]]).repeat(3, 1)
    other = torch.tensor([[math.nan, math.inf, -math.inf]]).repeat(3, 1)
    small = torch.tensor([[0.25, -0.0, 7.0]]).repeat(3, 1)
    weights = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.5]])
    result = combine_logits([base, other, small], weights)
    assert torch.equal(result[0], base[0]) and math.copysign(1, result[0, 1]) == -1
    assert torch.equal(result[1, :3], small[1]) and torch.isneginf(result[1, 3:]).all()
    assert result[2].tolist() == [1.625, 0.0, math.inf, -math.inf, -math.inf]
