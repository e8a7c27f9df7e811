"""Token traces of what is decoded: every model's log-probability of each token, and its likeliest ids.

A request asks with `extra_args={"trace": K}`. Once its tokens are chosen, the rows that they were chosen from go
through the heads of all models again, one by one and whole, so a step without such a request pays nothing. Which tokens
were chosen, and how many of them count, is read on the device, and the numbers come to the host while the next step
runs: nothing here waits, so it is the same in both runners, with asynchronous scheduling or without.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from vllm_rast.engine.token_rows import to_device
from vllm_rast.errors import UserError
from vllm_rast.kernels.token_trace import likeliest_tokens
from vllm_rast.mix.trace import FIELD, MAX_LIKELIEST, check_likeliest

if TYPE_CHECKING:
    from vllm.config import VllmConfig

    from vllm_rast.engine.ensemble import Ensemble

# What requests that ended may leave behind on the host until somebody takes it; of more the oldest are forgotten.
MOST_BYTES = 1 << 30


def wanted_trace(params: Any) -> int | None:
    """How many likeliest ids a request's trace has; None if it asks for no trace."""
    extra = params.extra_args if params is not None else None
    return extra.get(FIELD) if isinstance(extra, dict) else None


def most_likeliest(vllm_config: VllmConfig) -> int:
    """How many likeliest ids a trace may have: no more than vLLM's own log-probabilities (--max-logprobs)."""
    most = vllm_config.model_config.max_logprobs
    return MAX_LIKELIEST if most < 0 else min(most, MAX_LIKELIEST)


def check_decode_trace(params: Any, vllm_config: VllmConfig) -> bool:
    """Whether a request asks for a trace. Raises UserError for a bad number, or an engine that can keep none."""
    wanted = wanted_trace(params)
    if wanted is None:
        return False
    check_likeliest(wanted, most=most_likeliest(vllm_config))
    speculative = vllm_config.speculative_config
    if speculative is not None and getattr(speculative, "enable_adaptive_verification", False):
        raise UserError(f"{FIELD}: adaptive verification moves rows between requests; turn it off, or ask for no trace")
    return True


class Asked(NamedTuple):
    """A request that asks. number: of likeliest ids. prompt: how many tokens its prompt has."""

    number: int
    prompt: int


class Step(NamedTuple):
    """What one step chose. The rows of logits stand in the order of the requests.

    req_ids: the requests, [num_reqs]. counts: the rows of each, [num_reqs], on the host. tokens, valid: the ids that
    each request got, and which of them count, [num_reqs, up to 1 + drafts], on the device. positions: the place of each
    row's token in prompt and answer, [num_rows], on the device.
    """

    req_ids: Sequence[str]
    counts: np.ndarray
    tokens: torch.Tensor
    valid: torch.Tensor
    positions: torch.Tensor


class DecodeTraces:
    """Each request's numbers, one row for each of its tokens, until somebody takes them.

    most_bytes: what requests that ended may leave here.
    """

    def __init__(self, device: torch.device, most_bytes: int = MOST_BYTES) -> None:
        self.device, self.most_bytes = device, most_bytes
        self.numbers: dict[str, int] = {}
        # [some tokens, num_columns + 1]; the last column is a token's place in the answer, or -1 if it does not count.
        self.kept: dict[str, list[torch.Tensor]] = {}

    def note(self, ensemble: Ensemble, rows: torch.Tensor, step: Step, asked: Mapping[str, Asked]) -> None:
        """Keep this step's tokens of requests that ask. rows: the ensemble's, [num_rows, ...]."""
        starts = np.cumsum([0, *step.counts[:-1]])
        for number in sorted({asked[req_id].number for req_id in step.req_ids if req_id in asked}):
            owners = [i for i, one in enumerate(step.req_ids) if one in asked and asked[one].number == number]
            counts = step.counts[owners]
            owner = np.repeat(owners, counts)
            local = np.concatenate([np.arange(count) for count in counts])
            prompts = np.repeat([asked[step.req_ids[i]].prompt for i in owners], counts)
            places = np.stack([starts[owner] + local, owner, local, prompts]).astype(np.int64)
            found = self.found(ensemble, rows, step, to_device(places, rows.device), number)
            for i, some in zip(owners, found.split(counts.tolist()), strict=True):
                self.numbers[step.req_ids[i]] = number
                self.kept.setdefault(step.req_ids[i], []).append(some)

    @staticmethod
    def found(ensemble: Ensemble, rows: torch.Tensor, step: Step, places: torch.Tensor, number: int) -> torch.Tensor:
        """The numbers of some rows and their tokens' places in the answers, on their way to the host,
        [num_tokens, num_columns + 1] in float32. places: of each row, the owner and the token among the owner's, and
        the length of its prompt, [4, num_tokens]."""
        row, owner, local, prompts = places
        tokens, valid = step.tokens[owner, local].long(), step.valid[owner, local]
        every = ensemble.every_logits(rows[row])
        assert every is not None, "every rank samples"
        logits, weights, gates = every
        numbers = likeliest_tokens(logits, weights, tokens.clamp(min=0), ensemble.rast_config, number, gates)
        # The row of a token says what follows it. Whole numbers up to 2^24 stay whole.
        place = torch.where(valid, step.positions[row].long() + 1 - prompts, -1)
        return torch.cat([numbers, place.float().unsqueeze(1)], dim=1).to("cpu", non_blocking=True)

    def forget(self, running: Mapping[str, Any]) -> None:
        """Of requests that run no longer keep what came last. running: those that do."""
        ended = [req_id for req_id in self.kept if req_id not in running]
        sizes = [sum(some.nbytes for some in self.kept[req_id]) for req_id in ended]
        left = sum(sizes)
        for req_id, size in zip(ended, sizes, strict=True):
            if left <= self.most_bytes:
                return
            left -= size
            self.pop(req_id)

    def take(self, request_ids: Iterable[str]) -> list[tuple[str, int, int, bytes]]:
        """(request, number of the sample, of likeliest ids, numbers as float32 bytes) of the requests that vLLM's
        outputs call so; they are forgotten here."""
        wanted, found = set(request_ids), []
        if self.kept and self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)  # what is still on its way
        for internal in list(self.kept):
            for name, sample in names_of(internal):
                if name in wanted:
                    found.append((name, sample, *self.pop(internal)))
                    break
        return found

    def pop(self, internal: str) -> tuple[int, bytes]:
        """(number of likeliest ids, numbers) of a request, [num_tokens, num_columns], by the places of its tokens.

        Tokens that were thrown away and chosen again, as after a preemption, count as they were chosen last.
        """
        rows = torch.cat(self.kept.pop(internal)).numpy()
        rows = rows[rows[:, -1] >= 0]
        places = rows[:, -1].astype(np.int64)
        numbers = np.full((places.max(initial=-1) + 1, rows.shape[1] - 1), np.nan, dtype=np.float32)
        numbers[places] = rows[:, :-1]
        return self.numbers.pop(internal), numbers.tobytes()


def names_of(internal: str) -> list[tuple[str, int]]:
    """What vLLM's outputs may call a request, and which sample of it this is: "7-1a2b3c4d" is the only one of 7, and
    "2_7-1a2b3c4d" of 2_7, or the third of 7."""
    name = internal.rpartition("-")[0]
    sample, _, parent = name.partition("_")
    return [(name, 0), (parent, int(sample))] if parent and sample.isdigit() else [(name, 0)]
