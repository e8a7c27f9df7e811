"""Token traces of what is decoded: every model's log-probability of each token, and its likeliest ids.

A request asks with `extra_args={"trace": K}`. Once its tokens are chosen, the rows that they were chosen from go
through the heads of all models again, one by one and whole, so a step without such a request pays nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vllm_rast.engine.token_rows import to_device
from vllm_rast.errors import UserError
from vllm_rast.kernels.token_trace import likeliest_tokens
from vllm_rast.mix.trace import FIELD, check_likeliest

if TYPE_CHECKING:
    from vllm.config import VllmConfig

    from vllm_rast.engine.ensemble import Ensemble


def wanted_trace(params: Any) -> int | None:
    """How many likeliest ids a request's trace has; None if it asks for no trace."""
    extra = params.extra_args if params is not None else None
    return extra.get(FIELD) if isinstance(extra, dict) else None


def check_decode_trace(params: Any, vllm_config: VllmConfig) -> bool:
    """Whether a request asks for a trace. Raises UserError for a bad number, or a runner that keeps none."""
    wanted = wanted_trace(params)
    if wanted is None:
        return False
    check_likeliest(wanted)
    if vllm_config.use_v2_model_runner:
        raise UserError(f"{FIELD}: vLLM's V2 runner keeps none; set VLLM_USE_V2_MODEL_RUNNER=0 in the environment")
    if vllm_config.scheduler_config.async_scheduling:
        raise UserError(f"{FIELD}: tokens are read on the host; start the engine with async_scheduling=False")
    return True


class DecodeTraces:
    """Each request's numbers, one row for each of its tokens, until somebody takes them.

    most: how many requests that ended may wait to be taken; of more the oldest are forgotten.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.kept: dict[str, list[np.ndarray]] = {}

    def note(
        self,
        ensemble: Ensemble,
        rows: torch.Tensor,
        counts: Sequence[int],
        tokens: Mapping[str, Sequence[int]],
        requests: Mapping[str, Any],
    ) -> None:
        """Keep this step's tokens of requests that ask.

        rows: the ensemble's, [num_rows, ...], in the order of `tokens`, which has what every request of the step got.
        counts: the rows of each request. requests: vLLM's state of each that runs, by id.
        """
        starts = np.cumsum([0, *counts[:-1]])
        asked = {req_id: wanted_trace(requests[req_id].sampling_params) for req_id in tokens}
        for number in sorted({wanted for wanted in asked.values() if wanted is not None}):
            chosen = [
                (req_id, start, new)
                for (req_id, new), start in zip(tokens.items(), starts, strict=True)
                if asked[req_id] == number and new
            ]
            if not chosen:
                continue
            places = np.concatenate([np.arange(start, start + len(new)) for _, start, new in chosen])
            ids = np.concatenate([np.array(new, dtype=np.int64) for _, _, new in chosen])
            found = self.numbers(ensemble, rows, places, ids, number)
            ends = np.cumsum([len(new) for _, _, new in chosen])
            for (req_id, _, _), some in zip(chosen, np.split(found, ends[:-1]), strict=True):
                self.kept.setdefault(req_id, []).append(some)
        self.forget([req_id for req_id in self.kept if req_id not in requests])

    @staticmethod
    def numbers(ensemble: Ensemble, rows: torch.Tensor, places: np.ndarray, ids: np.ndarray, number: int) -> np.ndarray:
        """[num_tokens, num_columns] of the rows at `places`."""
        every = ensemble.every_logits(rows[to_device(places, rows.device)])
        assert every is not None, "every rank samples"
        logits, weights, gates = every
        found = likeliest_tokens(logits, weights, to_device(ids, rows.device), ensemble.rast_config, number, gates)
        return found.cpu().numpy()

    def forget(self, ended: Sequence[str]) -> None:
        """Of the requests that ended, keep the last ones."""
        for req_id in ended[: max(0, len(ended) - self.most)]:
            del self.kept[req_id]

    def take(self, request_ids: Iterable[str]) -> list[tuple[str, int, bytes]]:
        """(request, number of the sample, numbers as float32 bytes) of the requests that vLLM's outputs call so; they
        are forgotten here."""
        wanted, found = set(request_ids), []
        for internal in list(self.kept):
            for name, sample in names_of(internal):
                if name in wanted:
                    found.append((name, sample, np.concatenate(self.kept.pop(internal)).tobytes()))
                    break
        return found


def names_of(internal: str) -> list[tuple[str, int]]:
    """What vLLM's outputs may call a request, and which sample of it this is: "7-1a2b3c4d" is the only one of 7, and
    "2_7-1a2b3c4d" of 2_7, or the third of 7."""
    name = internal.rpartition("-")[0]
    sample, _, parent = name.partition("_")
    return [(name, 0), (parent, int(sample))] if parent and sample.isdigit() else [(name, 0)]
