"""Top-k and top-p by the CPU library against sorted probabilities in float64, on every instruction set."""

from __future__ import annotations

import pytest
import torch

pytestmark = pytest.mark.usefixtures("every_instruction_set")
WIDTHS = (1, 2, 31, 65, 2047, 2049, 9000)


def truncate(logits: torch.Tensor, k: list[int] | None = None, p: list[float] | None = None) -> torch.Tensor:
    out = logits.clone()
    ks = None if k is None else torch.tensor(k, dtype=torch.int64)
    ps = None if p is None else torch.tensor(p, dtype=torch.float32)
    torch.ops.vllm_rast.truncate(out, ks, ps)
    return out


def sorted_out(row: torch.Tensor, k: int, p: float) -> torch.Tensor:
    """The k largest and those as large as the last of them; then each that likelier ones leave room for."""
    least = row.sort(descending=True).values[min(k, len(row)) - 1]
    kept = row.where(row >= least, -torch.inf)
    if p == 1:
        return kept
    ordered = kept.double().softmax(0).sort(descending=True)
    stays = ordered.values.cumsum(0) - ordered.values < p
    last = kept[ordered.indices[stays][-1]]
    return kept.where(kept >= last, -torch.inf)


@pytest.mark.parametrize("spread", [0.1, 2, 10])
@pytest.mark.parametrize("width", WIDTHS)
def test_against_sorting(width: int, spread: float) -> None:
    generator = torch.Generator().manual_seed(width)
    cases = [(k, p) for k in (1, 3, 40, 2400, width) for p in (0.001, 0.5, 0.9, 0.999, 1.0)]
    logits = torch.randn(len(cases), width, generator=generator) * spread
    ks, ps = [k for k, _ in cases], [p for _, p in cases]
    got = truncate(logits, ks, ps)
    wanted = torch.stack([sorted_out(row, k, p) for row, (k, p) in zip(logits, cases, strict=True)])
    # The sums are of float32: one of 25 rows may end an id earlier or later, if its sum is p to six digits.
    assert int((got != wanted).sum()) <= 1
    assert torch.equal(got.where(got > -torch.inf, 0), logits.where(got > -torch.inf, 0))


def test_one_of_both_and_neither() -> None:
    logits = torch.randn(3, 3000, generator=torch.Generator().manual_seed(1))
    assert torch.equal(truncate(logits, k=[7, 3000, 50]), truncate(logits, [7, 3000, 50], [1.0] * 3))
    assert torch.equal(truncate(logits, p=[0.5, 1.0, 0.9]), truncate(logits, [3000] * 3, [0.5, 1.0, 0.9]))
    assert torch.equal(truncate(logits, k=[3000, 4000, 2**31], p=[1.0] * 3), logits)
    assert torch.equal(truncate(logits), logits)
    assert truncate(logits[:0], [], []).shape == (0, 3000)


def test_a_real_vocabulary_with_a_long_tail() -> None:
    logits = torch.randn(4, 151_936, generator=torch.Generator().manual_seed(2))
    logits[:, 30:] -= torch.tensor([[2.0], [6.0], [10.0], [0.0]])
    for row, one in zip(logits, truncate(logits, p=[0.95] * 4), strict=True):
        kept, wanted = one > -torch.inf, sorted_out(row, 151_936, 0.95) > -torch.inf
        assert abs(int(kept.sum()) - int(wanted.sum())) <= 2e-5 * int(wanted.sum()) + 1
        assert float(row.double().softmax(0)[kept].sum()) == pytest.approx(0.95, abs=0.05)


def test_equal_logits_stay_together() -> None:
    logits = torch.tensor([[1.0, 3.0, 3.0, 3.0, 2.0, -torch.inf]]).repeat(3, 1)
    got = truncate(logits, [2, 6, 4], [1.0, 0.4, 0.99])
    assert (got > -torch.inf).tolist() == [
        [False, True, True, True, False, False],
        [False, True, True, True, False, False],
        [False, True, True, True, True, False],
    ]


def test_rows_that_are_ruled_out_or_no_distribution() -> None:
    """What was -inf stays so, also if k is larger than the rest; other rows go through as they are."""
    logits = torch.full((4, 3000), -torch.inf)
    logits[0, 17], logits[1, 5:9] = 1.0, 2.0
    logits[2], logits[3, 0] = torch.nan, torch.inf
    torch.testing.assert_close(truncate(logits, [10] * 4, [0.9] * 4), logits, rtol=0, atol=0, equal_nan=True)


def test_rows_that_lie_apart_and_their_neighbours() -> None:
    wide = torch.randn(6, 300, generator=torch.Generator().manual_seed(3))
    part = wide.clone()
    torch.ops.vllm_rast.truncate(part[::2, 20:200], torch.full((3,), 9), None)
    assert torch.equal(part[::2, 20:200], truncate(wide[::2, 20:200].contiguous(), [9] * 3))
    part[::2, 20:200] = wide[::2, 20:200]
    assert torch.equal(part, wide)


def test_what_does_not_fit_is_refused() -> None:
    logits = torch.randn(2, 10)
    for wrong, message in [
        (lambda: truncate(logits.half(), [1, 1]), "logits: must be a float32 matrix"),
        (lambda: truncate(logits[0], [1]), "logits: must be a float32 matrix"),
        (lambda: truncate(logits, [1]), "k: must be int64"),
        (lambda: truncate(logits, [1, 0]), "k: must be positive"),
        (lambda: truncate(logits, None, [0.5]), "p: must be float32"),
    ]:
        with pytest.raises(RuntimeError, match=message):
            wrong()
