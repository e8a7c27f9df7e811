"""From `speculate` to vLLM's own description of speculative decoding, and what cannot go with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vllm.config import ModelConfig, VllmConfig

from vllm_rast.errors import UserError
from vllm_rast.mix.config import RastConfig
from vllm_rast.mix.speculation import AUTO

VLLM_OPTIONS = ("speculative_config", "spec_method", "spec_model", "spec_tokens")


def ask_for_drafts(engine_args: Any, most: int) -> dict[str, Any]:
    """What vLLM is told while it completes its configuration; raises UserError if it was told something else before.

    Its n-gram method for GPUs needs no model, so that nothing about one is read or checked, and goes with asynchronous
    scheduling like that of a draft model; `share_drafter` names ours later.
    """
    for option in VLLM_OPTIONS:
        if getattr(engine_args, option, None) is not None:
            raise UserError(f"speculate: the mix's own drafts do not go with {option}; leave one of the two out")
    return {"method": "ngram_gpu", "num_speculative_tokens": most}


def check_scheduling(engine_args: Any, vllm_config: VllmConfig) -> None:
    """Raises UserError if asynchronous scheduling was asked for and cannot be."""
    if engine_args.async_scheduling and not vllm_config.use_v2_model_runner:
        raise UserError(
            "speculate: the V1 runner counts drafts on the host, so async_scheduling cannot be on; leave it out"
        )


def share_drafter(vllm_config: VllmConfig, config: RastConfig, members: Sequence[ModelConfig]) -> None:
    """Name the ensemble's own drafter in a finished configuration. Raises UserError for what does not go with it."""
    speculative: Any = vllm_config.speculative_config
    check_features(vllm_config, config, members)
    # vLLM's scheduler reserves slots of the KV cache for the drafts of a draft model. The base stands for it, as it did
    # for n-grams: vLLM compares vocabularies, and ours are padded differently.
    speculative.method = "draft_model"
    if vllm_config.use_v2_model_runner:
        return
    vllm_config.scheduler_config.async_scheduling = False
    # One number for every size of a batch: it keeps the scheduler from padding requests with drafts that nobody made.
    # (V2 pads them for its graphs, and knows them from drafts.)
    speculative.num_speculative_tokens_per_batch_size = [
        (1, vllm_config.scheduler_config.max_num_seqs, config.most_drafts)
    ]


def shares_drafter(speculative: Any) -> bool:
    """Whether vLLM's description of speculation, or None, is one that `share_drafter` has finished."""
    return (
        speculative is not None
        and speculative.method == "draft_model"
        and speculative.draft_model_config is speculative.target_model_config
    )


def check_features(vllm_config: VllmConfig, config: RastConfig, members: Sequence[ModelConfig]) -> None:
    """Raises UserError for what drafting with the ensemble's own models does not go with."""
    parallel, scheduler = vllm_config.parallel_config, vllm_config.scheduler_config
    v2 = vllm_config.use_v2_model_runner
    several_groups = any(member.get_sliding_window() is not None for member in members)
    refused = [
        (parallel.data_parallel_size > 1, "data_parallel_size", "start one engine for each rank"),
        (parallel.decode_context_parallel_size > 1, "decode_context_parallel_size", "leave it at 1"),
        (parallel.prefill_context_parallel_size > 1, "prefill_context_parallel_size", "leave it at 1"),
        (parallel.enable_eplb, "enable_eplb", "leave it out"),
        (vllm_config.kv_transfer_config is not None, "kv_transfer_config", "leave it out"),
        (bool(vllm_config.model_config.logits_processors), "logits_processors", "leave it out"),
        (vllm_config.watermark_config is not None, "watermark_config", "leave it out"),
        (vllm_config.cache_config.kv_sharing_fast_prefill, "kv_sharing_fast_prefill", "leave it out"),
        (v2 and config.speculate == AUTO, '"auto" in the V2 model runner', "give a number"),
        (
            several_groups and not v2 and not scheduler.disable_hybrid_kv_cache_manager,
            "a model with sliding windows in the V1 model runner",
            "set disable_hybrid_kv_cache_manager",
        ),
    ]
    for wrong, what, remedy in refused:
        if wrong:
            raise UserError(f"speculate: not with {what} yet; {remedy}, or speculate 0")
