"""Samples by the CPU library against Gumbel noise written out, on every instruction set of this machine."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from kernel_cases import using

GAMMA, FIRST, SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
pytestmark = pytest.mark.usefixtures("every_instruction_set")
WIDTHS = (1, 2, 63, 64, 65, 2047, 2048, 2049, 5000)  # around a block of 64 and a tile of 2048


def mixed(numbers: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(FIRST)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(SECOND)
    return numbers ^ (numbers >> np.uint64(31))


def gumbel(seed: int, width: int) -> np.ndarray:
    """The noise of every id, [width] in float64."""
    with np.errstate(over="ignore"):
        start = mixed(np.array([seed], dtype=np.uint64))
        bits = mixed(start + np.arange(1, width + 1, dtype=np.uint64) * np.uint64(GAMMA))
    return -np.log(-np.log(((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53))


def written_out(logits: torch.Tensor, temperatures: torch.Tensor, seeds: torch.Tensor) -> list[int]:
    """Noise for every id, and the largest sum."""
    found = []
    for row, temperature, seed in zip(logits, temperatures, seeds.tolist(), strict=True):
        scaled = (row / temperature if temperature > 0 else row).double().numpy()
        found.append(int((scaled + gumbel(seed, len(scaled))).argmax()))
    return found


def draw(logits: torch.Tensor, seeds: torch.Tensor, temperatures: torch.Tensor | None = None) -> list[int]:
    ones = torch.ones(len(logits))
    return torch.ops.vllm_rast.draw(logits, ones if temperatures is None else temperatures, seeds).tolist()


@pytest.mark.parametrize("spread", [0, 1, 4, 30])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_largest_of_logits_and_noise(width: int, spread: float) -> None:
    generator = torch.Generator().manual_seed(width)
    logits = torch.randn(200, width, generator=generator) * spread
    temperatures = torch.tensor([1.0, 0.0, 0.7, 1.3]).repeat(50)
    seeds = torch.randint(2**62, (200,), generator=generator)
    assert draw(logits, seeds, temperatures) == written_out(logits, temperatures, seeds)


def test_a_real_vocabulary() -> None:
    logits = torch.randn(8, 151_936, generator=torch.Generator().manual_seed(1)) * 3
    logits[4:, 20:] -= 12  # a few ids with most of the probability
    seeds = torch.arange(8)
    assert draw(logits, seeds) == written_out(logits, torch.ones(8), seeds)


@pytest.mark.parametrize("kept", [1, 5, 1000])
def test_ids_that_are_ruled_out(kept: int) -> None:
    generator = torch.Generator().manual_seed(kept)
    logits = torch.full((100, 6000), -torch.inf)
    for row in logits:
        row[torch.randperm(6000, generator=generator)[:kept]] = torch.randn(kept, generator=generator)
    seeds = torch.arange(100)
    assert draw(logits, seeds) == written_out(logits, torch.ones(100), seeds)


def test_every_logit_wins_as_often_as_its_probability() -> None:
    logits = torch.tensor([0.0, 1.0, -torch.inf, 2.0, 2.0])
    counts = np.bincount(draw(logits.repeat(100_000, 1), torch.arange(100_000)), minlength=5)
    np.testing.assert_allclose(counts / 100_000, logits.softmax(0).numpy(), atol=0.006)  # four standard errors


def test_large_logits_keep_their_noise() -> None:
    """Two logits of 1e38 win alike: noise is added to differences."""
    found = draw(torch.tensor([[1e38, 1e38, -1e38]]).repeat(100, 1), torch.arange(100))
    assert 20 < sum(found) < 80 and set(found) == {0, 1}


def test_rows_that_are_no_distribution() -> None:
    """A nan wins nothing and an infinity everything; without any id the first one comes out."""
    odd = torch.tensor([[torch.nan, 0.0, torch.nan], [0.0, torch.inf, 1.0], [-torch.inf] * 3, [torch.nan] * 3])
    assert draw(odd, torch.arange(4)) == [1, 1, 0, 0]
    assert couple(odd[:2], torch.zeros(2, 3), torch.arange(2), torch.arange(2)) == [1, 1]


def test_rows_apart_and_no_rows() -> None:
    wide = torch.randn(6, 300, generator=torch.Generator().manual_seed(3))
    seeds = torch.arange(3)
    assert draw(wide[::2, 20:200], seeds) == draw(wide[::2, 20:200].contiguous(), seeds)
    assert draw(wide[:0], seeds[:0]) == [] == couple(wide[:0], wide[:0], seeds[:0], seeds[:0])


def couple(p: torch.Tensor, q: torch.Tensor, seeds: torch.Tensor, positions: torch.Tensor) -> list[int]:
    rows, temperatures = torch.arange(len(p)), torch.ones(len(p))
    return torch.ops.vllm_rast.draw_coupled(p, q, rows, temperatures, seeds, positions).tolist()


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_neither_threads_nor_neighbours_matter(threads: int) -> None:
    generator = torch.Generator().manual_seed(4)
    p = torch.randn(40, 20_000, generator=generator) * 3
    q = p + torch.randn(40, 20_000, generator=generator)
    seeds, positions = torch.arange(40), torch.arange(40) % 3
    alone = [couple(p[n : n + 1], q[n : n + 1], seeds[n : n + 1], positions[n : n + 1])[0] for n in range(40)]
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        assert couple(p, q, seeds, positions) == alone
    finally:
        torch.set_num_threads(before)
    with using("baseline"):
        assert couple(p, q, seeds, positions) == alone


def test_the_drafters_rows_and_temperatures() -> None:
    generator = torch.Generator().manual_seed(5)
    p, q = torch.randn(100, 3000, generator=generator), torch.randn(200, 2900, generator=generator)
    rows = torch.randperm(200, generator=generator)[:100]
    temperatures = torch.rand(100, generator=generator) + 0.5
    seeds, positions = torch.arange(100), torch.arange(100)
    got = torch.ops.vllm_rast.draw_coupled(p, q, rows, temperatures, seeds, positions)
    assert got.tolist() == couple(p, q[rows] / temperatures.unsqueeze(1), seeds, positions)


def test_the_same_distribution_keeps_every_draft() -> None:
    """And if nothing of the drafter's can be kept, the token is one of the mix's."""
    p = torch.randn(500, 3000, generator=torch.Generator().manual_seed(6))
    seeds, positions = torch.arange(500), torch.full((500,), 7)
    drafts = couple(p, p, seeds, positions)
    assert len(set(drafts)) > 400 and drafts == couple(p + 5, p, seeds, positions)
    apart_p, apart_q = p.clone(), p.clone()
    apart_p[:, :1500], apart_q[:, 1500:] = -torch.inf, -torch.inf
    assert min(couple(apart_p, apart_q, seeds, positions)) >= 1500


def test_what_does_not_fit_is_refused() -> None:
    logits, ones, seeds = torch.randn(2, 10), torch.ones(2), torch.arange(2)
    operations, rows = torch.ops.vllm_rast, torch.arange(2)
    for wrong, message in [
        (lambda: operations.draw(logits.bfloat16(), ones, seeds), "logits: must be a float32 matrix"),
        (lambda: operations.draw(logits[0], ones, seeds), "logits: must be a float32 matrix"),
        (lambda: operations.draw(logits[:1], ones, seeds), "temperatures: must be float32"),
        (lambda: operations.draw(logits.t(), torch.ones(10), torch.arange(10)), "logits: columns must lie"),
        (lambda: operations.draw(logits, ones[:1], seeds), "temperatures: must be float32"),
        (lambda: operations.draw(logits, ones, seeds.int()), "seeds: must be int64"),
        (lambda: operations.draw_coupled(logits[:, :5], logits, rows, ones, seeds, seeds), "more columns than p"),
        (lambda: operations.draw_coupled(logits, logits, rows + 1, ones, seeds, seeds), "rows: q has no such row"),
        (lambda: operations.draw_coupled(logits, logits, rows, ones, seeds, seeds[:1]), "positions: must be int64"),
    ]:
        with pytest.raises(RuntimeError, match=message):
            wrong()
