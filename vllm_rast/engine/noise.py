"""Random numbers that follow from a request's seed and a token's position alone, whatever ran before.

A generator would not do: how many numbers it has given depends on how many drafts a request had, which depends on the
batch, on preemption, on where a run was stopped. SplitMix64 (Steele, Lea and Flood, 2014) is a hash of a counter, so
every number can be had again: the n-th of a seed is `mixed(mixed(seed) + n * GAMMA)`.

Seeds and positions are tensors on the device of the logits, so that nothing waits for it. torch has no arithmetic of
unsigned 64-bit integers; that of signed ones wraps around to the same bits.
"""

from __future__ import annotations

import torch

# What a number is for. Each position has one of each.
DRAFT, ACCEPT, RESIDUAL = range(3)
PURPOSES = 3


def signed(number: int) -> int:
    """The integer from -2**63 to 2**63 - 1 with the same 64 bits."""
    return number - (1 << 64) if number >= 1 << 63 else number


GAMMA = signed(0x9E3779B97F4A7C15)
FIRST, SECOND = signed(0xBF58476D1CE4E5B9), signed(0x94D049BB133111EB)


def shifted(numbers: torch.Tensor, by: int) -> torch.Tensor:
    """64-bit numbers shifted to the right, with zeros on the left."""
    return (numbers >> by) & ((1 << (64 - by)) - 1)


def mixed(numbers: torch.Tensor) -> torch.Tensor:
    """SplitMix64's finaliser on 64-bit integers."""
    numbers = (numbers ^ shifted(numbers, 30)) * FIRST
    numbers = (numbers ^ shifted(numbers, 27)) * SECOND
    return numbers ^ shifted(numbers, 31)


def hashes(seeds: torch.Tensor, positions: torch.Tensor, purpose: int) -> torch.Tensor:
    """64 random bits for each (seed, position), [n]. seeds, positions: [n] in int64."""
    return mixed(mixed(seeds) + (positions * PURPOSES + (purpose + 1)) * GAMMA)


def row_seeds(seeds: torch.Tensor, positions: torch.Tensor, purpose: int) -> torch.Tensor:
    """A seed for the noise over the whole vocabulary, [n] in int64, not negative."""
    return shifted(hashes(seeds, positions, purpose), 1)


def uniforms(seeds: torch.Tensor, positions: torch.Tensor, purpose: int) -> torch.Tensor:
    """Numbers in [0, 1) with 53 random bits, [n] in float64."""
    return shifted(hashes(seeds, positions, purpose), 11).double() * 2.0**-53
