"""A mended function of vLLM's: how drafts get their request's temperature, top-k and top-p on a CPU.

vLLM 0.32 calls a C++ function for integers on copies of these numbers and drops the copy with the result, so that every
draft of a request that samples was verified at a temperature that nobody set: what was in memory. That holds for every
drafter, n-grams too; greedy requests have no such numbers.
"""

from __future__ import annotations

import torch
from vllm.v1.sample import rejection_sampler


def expand_batch_to_tokens(
    x: torch.Tensor, cu_num_tokens: torch.Tensor, num_tokens: int, replace_from: int = 0, replace_to: int = 0
) -> torch.Tensor:
    """Each request's number for each of its drafts, [num_tokens], from one for each request, [num_reqs].

    cu_num_tokens: running sums of the numbers of drafts, [num_reqs].
    """
    counts = torch.diff(cu_num_tokens, prepend=cu_num_tokens.new_zeros(1))
    return torch.where(x == replace_from, replace_to, x).to(x.dtype).repeat_interleave(counts, output_size=num_tokens)


def mend_rejection_sampling() -> None:
    """Put the function in place of vLLM's, in a worker's process."""
    rejection_sampler.expand_batch_to_tokens = expand_batch_to_tokens
