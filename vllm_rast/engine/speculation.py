"""From `speculate` to vLLM's own description of speculative decoding, and what cannot go with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vllm.config import ModelConfig, VllmConfig
from vllm.platforms import current_platform

from vllm_rast.errors import UserError
from vllm_rast.mix.config import RastConfig

VLLM_OPTIONS = ("speculative_config", "spec_method", "spec_model", "spec_tokens")


def ask_for_drafts(engine_args: Any, most: int) -> dict[str, Any]:
    """What vLLM is told while it completes its configuration; raises UserError if it was told something else before.

    Its n-gram method needs no model, so that nothing about one is read or checked; `share_drafter` names ours later.
    """
    for option in VLLM_OPTIONS:
        if getattr(engine_args, option, None) is not None:
            raise UserError(f"speculate: the mix's own drafts do not go with {option}; leave one of the two out")
    if engine_args.async_scheduling:
        raise UserError("speculate: drafts are counted on the host, so async_scheduling cannot be on; leave it out")
    return {"method": "ngram", "num_speculative_tokens": most}


def share_drafter(vllm_config: VllmConfig, config: RastConfig, members: Sequence[ModelConfig]) -> None:
    """Name the ensemble's own drafter in a finished configuration. Raises UserError for what does not go with it."""
    speculative: Any = vllm_config.speculative_config
    check_features(vllm_config, members)
    # vLLM's scheduler reserves slots of the KV cache for the drafts of a draft model. The base stands for it, as it did
    # for n-grams: vLLM compares vocabularies, and ours are padded differently.
    speculative.method = "draft_model"
    # One number for every size of a batch: it keeps the scheduler from padding requests with drafts that nobody made.
    speculative.num_speculative_tokens_per_batch_size = [
        (1, vllm_config.scheduler_config.max_num_seqs, config.most_drafts)
    ]


def check_features(vllm_config: VllmConfig, members: Sequence[ModelConfig]) -> None:
    """Raises UserError for what drafting with the ensemble's own models does not go with."""
    parallel, scheduler = vllm_config.parallel_config, vllm_config.scheduler_config
    several_groups = any(member.get_sliding_window() is not None for member in members)
    refused = [
        (vllm_config.use_v2_model_runner, "the V2 model runner", "set VLLM_USE_V2_MODEL_RUNNER=0"),
        (not current_platform.is_cpu(), "this device", "speculate on a CPU, or leave it out"),
        (parallel.data_parallel_size > 1, "data_parallel_size", "start one engine for each rank"),
        (parallel.decode_context_parallel_size > 1, "decode_context_parallel_size", "leave it at 1"),
        (vllm_config.kv_transfer_config is not None, "kv_transfer_config", "leave it out"),
        (
            several_groups and not scheduler.disable_hybrid_kv_cache_manager,
            "a model with sliding windows",
            "set disable_hybrid_kv_cache_manager",
        ),
    ]
    for wrong, what, remedy in refused:
        if wrong:
            raise UserError(f"speculate: not with {what} yet; {remedy}, or speculate 0")
