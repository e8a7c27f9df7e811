"""`min_p` and `logit_bias` of requests with drafts, in the V1 runner: at every drafted position.

vLLM 0.32 knows them for one row of each request alone, so it refuses such requests in an engine with drafts, and loads
neither of the two there. With the mix's own drafts they are loaded, and applied to all rows, in the order that they
have without drafts: biases before penalties, `min_p` between temperature and top-k.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from vllm.v1.sample import rejection_sampler
from vllm.v1.sample.logits_processor import (
    BUILTIN_LOGITS_PROCESSORS,
    LogitBiasLogitsProcessor,
    LogitsProcessors,
    MinPLogitsProcessor,
)
from vllm.v1.sample.rejection_sampler import GREEDY_TEMPERATURE

from vllm_rast.engine.token_rows import to_device


def build_processors(vllm_config: Any, device: torch.device, is_pin_memory: bool, *_: Any) -> LogitsProcessors:
    """In place of vLLM's `build_logitsprocs`: its own, and nobody else's, which have no form for drafts."""
    return LogitsProcessors(made(vllm_config, device, is_pin_memory) for made in BUILTIN_LOGITS_PROCESSORS)


def add_biases(logits: torch.Tensor, processors: Any, counts: Sequence[int]) -> torch.Tensor:
    """Each request's biases on the logits of all of its rows, [num_rows, vocab], in place.

    counts: how many rows each request has, [num_reqs].
    """
    ends = np.cumsum(counts)
    for processor in processors.non_argmax_invariant:
        if isinstance(processor, LogitBiasLogitsProcessor):
            for request, biases in processor.biases.items():
                rows = slice(int(ends[request]) - counts[request], int(ends[request]))
                ids = to_device(np.fromiter(biases, dtype=np.int64), logits.device)
                logits[rows, ids] += to_device(np.fromiter(biases.values(), dtype=np.float32), logits.device)
    return logits


def mask_min_p(logits: torch.Tensor, running_sums: torch.Tensor, metadata: Any) -> tuple[torch.Tensor, Any]:
    """Logits over the temperature, [num_rows, vocab], without ids that `min_p` rules out, in place; and the metadata
    for what comes after, with a temperature of 1. Nothing changes if no request has a `min_p`.

    running_sums: of the requests' numbers of rows, [num_reqs].
    """
    known = (one for one in metadata.logitsprocs.argmax_invariant if isinstance(one, MinPLogitsProcessor))
    processor = next(known, None)  # there is none while vLLM measures its memory
    if processor is None or not processor.min_p_count or metadata.all_greedy or not len(logits):
        return logits, metadata
    # The module's function of the moment: on a CPU it is replaced by a mended one (cpu_rejection).
    expand = rejection_sampler.expand_batch_to_tokens
    temperatures = expand(metadata.temperature, running_sums, len(logits), GREEDY_TEMPERATURE, 1)
    of_requests = processor.min_p
    processor.min_p = expand(of_requests.squeeze(1), running_sums, len(logits)).unsqueeze(1)
    try:
        logits = processor.apply(logits.div_(temperatures.unsqueeze(1)))
    finally:
        processor.min_p = of_requests
    return logits, replace(metadata, temperature=torch.ones_like(metadata.temperature))
