"""Mended functions of vLLM's: how drafts are verified at their request's temperature, top-k and top-p on a CPU.

vLLM 0.32 calls a C++ function for integers on copies of these numbers and drops the copy with the result, so that every
draft of a request that samples was verified at a temperature that nobody set: what was in memory. And a step that
schedules no draft after all (a request's last token) ends the engine if a request has a top-k alone: the largest of no
numbers. Both hold for every drafter, n-grams too; greedy requests have no such numbers.
"""

from __future__ import annotations

from typing import Any

import torch
from vllm.v1.sample import rejection_sampler

vllm_apply_sampling_constraints = rejection_sampler.apply_sampling_constraints


def expand_batch_to_tokens(
    x: torch.Tensor, cu_num_tokens: torch.Tensor, num_tokens: int, replace_from: int = 0, replace_to: int = 0
) -> torch.Tensor:
    """Each request's number for each of its drafts, [num_tokens], from one for each request, [num_reqs].

    cu_num_tokens: running sums of the numbers of drafts, [num_reqs].
    """
    counts = torch.diff(cu_num_tokens, prepend=cu_num_tokens.new_zeros(1))
    return torch.where(x == replace_from, replace_to, x).to(x.dtype).repeat_interleave(counts, output_size=num_tokens)


def apply_sampling_constraints(logits: torch.Tensor, cu_num_draft_tokens: torch.Tensor, metadata: Any) -> torch.Tensor:
    """vLLM's, [num_tokens, vocab_size], and nothing to do for no tokens."""
    return vllm_apply_sampling_constraints(logits, cu_num_draft_tokens, metadata) if len(logits) else logits


def mend_rejection_sampling() -> None:
    """Put the functions in place of vLLM's, in a worker's process."""
    rejection_sampler.expand_batch_to_tokens = expand_batch_to_tokens
    rejection_sampler.apply_sampling_constraints = apply_sampling_constraints
