"""How many tokens are drafted in a step where `speculate` is "auto": as many as pay, by what was measured so far.

The cost model. In a step of n requests, of which m draft K tokens each, all models read n + m K rows, and the drafter
reads m rows K times:

    seconds(K) = passes(n + m K) + K drafts(m)
    tokens(K)  = n + m (share(1) + ... + share(K))

share(i) is the part of the drafts at place i that is accepted. The K with the most tokens per second is chosen. Nothing
is assumed about the machine or the models: seconds and shares are those of the steps so far, so on a CPU, where rows
are not free, K falls to 0 as the batch grows.

What was not measured is guessed in its favour, so that it is tried once: more rows cost more by no less than the rows
before them did (a step's time is flat as long as weights are read, then grows). So that one bad measurement does not
rule out a number for good, a neighbour of the best one is tried now and then.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from statistics import median

KEPT = 5  # measurements of one number of rows; their median is what counts
FEW = 3  # fewer measurements than these may be an accident
SOON, LATER = 32, 128  # steps between trials of a neighbour that was measured few times, and of one that was not
WINDOW = 128  # drafts at one place after which older ones count half
PRIOR_SHARE = 0.7  # of accepted drafts at the first place, before any was verified
PRIOR_DRAFTS = 8  # as many drafts is that guess worth


class Seconds:
    """Seconds of a pass by its number of rows: medians of what was measured, straight lines between them."""

    def __init__(self) -> None:
        self.measured: dict[int, deque[float]] = {}  # by `bucket`
        self.medians: dict[int, tuple[int, float]] = {}  # the same, with the number of rows that came first
        self.points: list[tuple[int, float]] = []  # these in order

    def note(self, rows: int, seconds: float) -> None:
        """Add a measurement."""
        key = bucket(rows)
        kept = self.measured.setdefault(key, deque(maxlen=KEPT))
        kept.append(seconds)
        self.medians[key] = self.medians.get(key, (rows, 0.0))[0], median(kept)
        self.points = sorted(self.medians.values())

    def times(self, rows: int) -> int:
        """How many measurements there are of about this many rows."""
        return len(self.measured.get(bucket(rows), ()))

    def guess(self, rows: int) -> float:
        """Seconds of a pass; 0 if nothing was measured."""
        if not self.points:
            return 0.0
        (first, low), (last, high) = self.points[0], self.points[-1]
        slope = max(0.0, (high - low) / (last - first)) if last > first else 0.0
        if rows >= last:
            return high + slope * (rows - last)
        if rows <= first:
            return max(0.0, low - slope * (first - rows))
        place = bisect_left(self.points, (rows,))
        (left, before), (right, after) = self.points[place - 1], self.points[place]
        return before + (after - before) * (rows - left) / (right - left)


class DraftSchedule:
    """Chooses the number of drafts of each step. most: the most that is allowed."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.passes = Seconds()
        self.drafts = Seconds()
        self.drafted = [0.0] * most  # at each place, with older ones counting less
        self.accepted = [0.0] * most
        self.steps = 0
        self.trials = 0

    def note_accepted(self, drafted: int, accepted: int) -> None:
        """One request had so many drafts, and so many of them, from the first on, turned out right."""
        for place in range(min(drafted, self.most)):
            if self.drafted[place] >= WINDOW:
                self.drafted[place] /= 2
                self.accepted[place] /= 2
            self.drafted[place] += 1
            self.accepted[place] += place < accepted

    def shares(self) -> list[float]:
        """The part of the drafts at each place that is accepted, [most].

        Each begins with a guess: that of the drafts whose forerunner was right, as many are as at the first place.
        """
        found: list[float] = []
        guess = PRIOR_SHARE
        for drafted, accepted in zip(self.drafted, self.accepted, strict=True):
            found.append((accepted + PRIOR_DRAFTS * guess) / (drafted + PRIOR_DRAFTS))
            guess = found[-1] * found[0]
        return found

    def choose(self, requests: int, drafting: int) -> int:
        """How many tokens each request drafts. requests: how many run. drafting: how many of them can draft."""
        if not drafting or not self.passes.points:
            return 0  # the first step says what one costs
        self.steps += 1
        speeds = self.speeds(requests, drafting)
        best = max(range(len(speeds)), key=speeds.__getitem__)
        neighbours = [k for k in (best + 1, best - 1, 0) if 0 <= k < len(speeds) and k != best]
        trial = neighbours[self.trials % len(neighbours)] if neighbours else best
        few = self.passes.times(requests + trial * drafting) < FEW
        if self.steps >= (SOON if few else LATER):
            self.steps = 0
            self.trials += 1
            return trial
        return best

    def speeds(self, requests: int, drafting: int) -> list[float]:
        """Tokens per second of 0, 1, ... drafts, as far as the rows are at most twice what was measured."""
        furthest = max(2 * self.passes.points[-1][0], requests + drafting)
        draft, tokens = self.drafts.guess(drafting), float(requests)
        found = []
        for k, share in enumerate([0.0, *self.shares()]):
            rows = requests + k * drafting
            if rows > furthest:
                break
            tokens += drafting * share
            found.append(tokens / max(self.passes.guess(rows) + k * draft, 1e-9))
        return found


def bucket(rows: int) -> int:
    """Numbers of rows within 9 % of each other count as one."""
    return round(8 * math.log2(rows))
