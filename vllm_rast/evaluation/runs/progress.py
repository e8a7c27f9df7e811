"""The progress display, on stderr: a bar on a terminal, else a line every LINE_EVERY_S seconds and one at the end."""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from typing import Any

LINE_EVERY_S = 10.0


class Progress:
    """Called after each sample with (done, total), and its tokens if they are to be counted; a context manager.

    done: how many samples were there before; they do not count for the rate. Without a terminal, work without tokens
    that is over before its first line gets none at the end either.
    """

    def __init__(self, title: str, done: int = 0) -> None:
        self.title, self.first, self.done, self.total, self.tokens = title, done, done, done, 0
        self.start = self.shown = time.monotonic()
        self.bar: Any = None

    def __call__(self, done: int, total: int, tokens: int = 0) -> None:
        self.done, self.total, self.tokens = done, total, self.tokens + tokens
        if sys.stderr.isatty():
            self._draw()
        elif time.monotonic() - self.shown >= LINE_EVERY_S:
            self._print()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.bar is not None:
            self.bar.close()
        elif self.tokens or self.shown > self.start:
            self._print()

    def _rate(self, count: int) -> float:
        return count / max(time.monotonic() - self.start, 1e-9)

    def _draw(self) -> None:
        if self.bar is None:
            from tqdm import tqdm

            self.bar = tqdm(total=self.total, initial=self.first, unit=" samples", dynamic_ncols=True, desc=self.title)
        if self.tokens:
            self.bar.set_postfix_str(f"{self._rate(self.tokens):,.0f} tokens/s", refresh=False)
        self.bar.update(self.done - self.bar.n)

    def _print(self) -> None:
        self.shown = time.monotonic()
        rate = self._rate(self.done - self.first)
        tokens = f"{self._rate(self.tokens):,.0f} tokens/s, " if self.tokens else ""
        left = timedelta(seconds=round((self.total - self.done) / max(rate, 1e-9)))
        print(
            f"vllm-rast: {self.title}: {self.done:,} of {self.total:,} samples, {rate:.1f} samples/s, {tokens}"
            f"about {left} left",
            file=sys.stderr,
            flush=True,
        )
