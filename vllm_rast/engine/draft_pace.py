"""How many tokens each request drafts after a step: the engine's number, or what the steps' times say."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from vllm.distributed import get_tp_group

from vllm_rast.mix.draft_schedule import DraftSchedule


class DraftPace:
    """The same number each time, or with `schedule` the one that it chooses from what is measured here.

    A pass lasts from the end of one drafting to the beginning of the next: scheduling, all models, sampling, and what
    the engine's own process does between. It counts if its requests were all there before and none read its prompt, and
    if the drafter took part.
    """

    def __init__(self, most: int, schedule: DraftSchedule | None) -> None:
        self.most = most
        self.schedule = schedule
        self.began = self.ended = 0.0
        self.req_ids: set[str] = set()

    def choose(self, req_ids: Sequence[str], rows: int, drafted: int, drafting: int) -> int:
        """Call after the step's tokens are known and before drafting.

        rows: how many tokens the step read, drafted: of these drafts. drafting: how many of its requests can draft now.
        """
        if self.schedule is None:
            return self.most
        self.began = time.perf_counter()
        if drafting and rows == len(req_ids) + drafted and self.req_ids.issuperset(req_ids):
            self.schedule.passes.note(rows, self.began - self.ended)
        self.req_ids = set(req_ids)
        return of_first_rank(self.schedule.choose(len(req_ids), drafting))

    def note(self, counts: Sequence[int]) -> None:
        """Call after drafting. counts: how many drafts each request has; those without are left out."""
        if self.schedule is None:
            return
        self.ended = time.perf_counter()
        if counts and min(counts) == max(counts):
            self.schedule.drafts.note(len(counts), (self.ended - self.began) / counts[0])


def of_first_rank(number: int) -> int:
    """The first rank's number: times differ, and all ranks have to run the same passes."""
    group = get_tp_group()
    if group.world_size == 1:
        return number
    return int(group.broadcast(torch.tensor([number], device=group.device), src=0))
