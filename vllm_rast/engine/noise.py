"""Random numbers that follow from a request's seed and a token's position alone, whatever ran before.

A generator would not do: how many numbers it has given depends on how many drafts a request had, which depends on the
batch, on preemption, on where a run was stopped. SplitMix64 (Steele, Lea and Flood, 2014) is a hash of a counter, so
every number can be had again: the n-th of a seed is `mixed(mixed(seed) + n * GAMMA)`.
"""

from __future__ import annotations

import numpy as np
import torch

GAMMA = np.uint64(0x9E3779B97F4A7C15)
# What a number is for. Each position has one of each.
DRAFT, ACCEPT, RESIDUAL = range(3)
PURPOSES = 3


def mixed(numbers: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser on unsigned 64-bit integers."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))


def hashes(seeds: np.ndarray, positions: np.ndarray, purpose: int) -> np.ndarray:
    """64 random bits for each (seed, position), [n] unsigned. seeds, positions: [n] integers."""
    places = positions.astype(np.uint64) * np.uint64(PURPOSES) + np.uint64(purpose + 1)
    return mixed(mixed(seeds.astype(np.uint64)) + places * GAMMA)


def row_seeds(seeds: np.ndarray, positions: np.ndarray, purpose: int) -> torch.Tensor:
    """A seed for the noise over the whole vocabulary, [n] in int64, not negative."""
    return torch.from_numpy((hashes(seeds, positions, purpose) >> np.uint64(1)).astype(np.int64))


def uniforms(seeds: np.ndarray, positions: np.ndarray, purpose: int) -> torch.Tensor:
    """Numbers in [0, 1) with 53 random bits, [n] in float64."""
    return torch.from_numpy((hashes(seeds, positions, purpose) >> np.uint64(11)) * 2.0**-53)
