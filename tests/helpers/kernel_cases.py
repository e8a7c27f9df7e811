"""Logits of odd shapes for the kernels, and equality to the bit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from vllm_rast.kernels import select as kernels
from vllm_rast.kernels.combine import combine_with_torch

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
ODD_COLUMNS = (1, 7, 31, 2047, 2048, 2049)  # around a tile of 2048, too
DECIDED = kernels.choose("cpu")
needs_library = pytest.mark.skipif(DECIDED.library is None, reason=f"no CPU library: {DECIDED.reason}")


@contextmanager
def using(instruction_set: str) -> Iterator[None]:
    """The CPU library with these instructions, and with the best again afterwards; skips the test if it cannot."""
    if DECIDED.library is None:
        pytest.skip(f"no CPU library: {DECIDED.reason}")
    best = kernels.instruction_set(DECIDED.library)
    try:
        if kernels.instruction_set(DECIDED.library, instruction_set) != instruction_set:
            pytest.skip(f"this processor has no {instruction_set}")
        yield
    finally:
        kernels.instruction_set(DECIDED.library, best)


def random_case(
    rows: int, columns: int, num_models: int, seed: int, dtype: torch.dtype | None = None
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Logits of several widths, strides and starts, and weights of which a third are 0 and some are 1."""
    generator = torch.Generator().manual_seed(seed)
    logits = []
    for model in range(num_models):
        width = max(1, columns + (0, -1, 2, -5)[model % 4])
        start, gap = (0, 1, 3, 2)[(model + seed) % 4], (0, 1, 5, 8)[(model + seed // 4) % 4]
        wide = torch.randn(rows, start + width + gap, generator=generator) * 10
        logits.append(wide.to(dtype or DTYPES[(model + seed) % 3])[:, start : start + width])
    weights = torch.randn(rows, num_models, generator=generator)
    chance = torch.rand(weights.shape, generator=generator)
    weights[chance < 0.3] = 0
    weights[chance > 0.9] = 1
    return logits, weights


def with_torch(logits: list[torch.Tensor], weights: torch.Tensor) -> torch.Tensor:
    out = torch.empty(logits[0].shape)
    combine_with_torch(logits, weights, out)
    return out


def assert_same_bits(got: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(got, wanted, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(torch.signbit(got) & ~got.isnan(), torch.signbit(wanted) & ~wanted.isnan())
