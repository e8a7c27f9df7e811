"""Times of short functions that take turns, so that a change of the machine's load meets all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

SAMPLE_SECONDS = 0.02  # a sample repeats its call for about this long


def wait_for(device: str) -> None:
    """For what a GPU still has to do."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


def seconds(function: Callable[[], Any], calls: int, device: str = "cpu") -> float:
    """Mean time of one call, over `calls` in a row."""
    wait_for(device)
    start = time.perf_counter()
    for _ in range(calls):
        function()
    wait_for(device)
    return (time.perf_counter() - start) / calls


def sample(functions: Mapping[str, Callable[[], Any]], repeats: int, device: str = "cpu") -> dict[str, list[float]]:
    """Times of each, [repeats] in seconds, taken in turns."""
    calls = {}
    for name, function in functions.items():
        seconds(function, 1, device)  # warm
        calls[name] = max(1, min(1000, int(SAMPLE_SECONDS / seconds(function, 1, device))))
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            times[name].append(seconds(function, calls[name], device))
    return times
