"""What is refused before any weights load, each with one line that names the option and the remedy."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

from transformers import AutoTokenizer
from vllm.config import ModelConfig, VllmConfig
from vllm.config.utils import replace
from vllm.logger import init_logger
from vllm.platforms import current_platform

from vllm_rast.engine.adapters import adapter_of, loader_of
from vllm_rast.engine.compiling import check_compiling
from vllm_rast.engine.members import first_line, member_model_configs, rast_config
from vllm_rast.engine.memory import choose_kv_bytes, memory_plan
from vllm_rast.engine.sharing import adapter_bytes, sharing_columns
from vllm_rast.engine.speculation import share_drafter
from vllm_rast.engine.stored import stored_tensors
from vllm_rast.errors import UserError
from vllm_rast.mix.config import RastConfig
from vllm_rast.mix.model_names import ModelSource
from vllm_rast.mix.speculation import describe_drafts

logger = init_logger("vllm.rast")

# Drafters that read the target's hidden states; the ensemble's rows hold several models' and would mislead them.
DRAFTERS_WITHOUT_HIDDEN_STATES = ("ngram", "ngram_gpu", "draft_model", "suffix")


def check_engine(vllm_config: VllmConfig) -> None:
    """Check a finished configuration that asks for a mix, and log its memory plan. Raises UserError."""
    config = rast_config(vllm_config)
    assert config is not None
    check_features(vllm_config)
    check_compiling(vllm_config)
    members = member_model_configs(vllm_config, config)
    for source, member in zip(config.sources, members, strict=True):
        check_kv_layout(members[0], member, source.path)
        check_experts(members[0], member, source.path)
        if member is not members[0]:
            check_quantisation(vllm_config, member, source.path)
        check_adapter(vllm_config, config, source, member)
    if config.check_tokenizers and not vllm_config.model_config.skip_tokenizer_init:
        for source, member in zip(config.sources[1:], members[1:], strict=True):
            check_tokenizer(vllm_config.model_config, source, member)
    if config.speculate:
        share_drafter(vllm_config, config, members)
    drafts = describe_drafts(config) if config.speculate else None
    plan = dataclasses.replace(
        memory_plan(vllm_config, members, shared_bytes(vllm_config, config, members)), drafts=drafts
    )
    chosen = choose_kv_bytes(vllm_config, plan)
    if chosen is not None:
        vllm_config.cache_config.kv_cache_memory_bytes = chosen
        plan = dataclasses.replace(
            plan, kv_bytes=chosen, source="enough for max_num_seqs, at most half of what is free"
        )
    logger.info("memory plan\n%s", plan)
    plan.check(vllm_config.model_config.max_model_len)


def shared_bytes(vllm_config: VllmConfig, config: RastConfig, members: list[ModelConfig]) -> dict[int, int]:
    """What models that read another's weights have of their own, in bytes, by their columns."""
    groups = sharing_columns(vllm_config, config, members)
    return {column: adapter_bytes(adapter_of(config.sources[column])) for columns in groups for column in columns[1:]}


def check_features(vllm_config: VllmConfig) -> None:
    """Refuse what cannot work, or has not been made to work, on several models in lockstep."""
    parallel, model, speculative = vllm_config.parallel_config, vllm_config.model_config, vllm_config.speculative_config
    refused = [
        (parallel.pipeline_parallel_size > 1, "pipeline_parallel_size", "use tensor_parallel_size instead"),
        (parallel.enable_dbo, "enable_dbo", "leave it off"),
        (vllm_config.lora_config is not None, "enable_lora", "merge the adapter into its model first"),
        (model.enable_prompt_embeds, "enable_prompt_embeds", "send token ids or text"),
        (model.runner_type != "generate", "runner", "only generating models can be mixed"),
        (model.is_multimodal_model, "model", "a multimodal base cannot be mixed with text models; use a text model"),
    ]
    for wrong, option, remedy in refused:
        if wrong:
            raise UserError(f"{option}: not supported by a mix of models; {remedy}")
    if speculative is not None and speculative.method not in DRAFTERS_WITHOUT_HIDDEN_STATES:
        known = ", ".join(DRAFTERS_WITHOUT_HIDDEN_STATES)
        raise UserError(
            f"speculative_config: {speculative.method!r} reads the base's hidden states, which a mix does not have; "
            f"use one of {known}"
        )


def check_kv_layout(base: ModelConfig, member: ModelConfig, path: str) -> None:
    """All models share one block table, so each must keep a key and a value of every token in paged blocks."""
    reason = None
    if member.is_encoder_decoder:
        reason = "it is an encoder-decoder model"
    elif member.is_attention_free or member.is_hybrid:
        reason = "it keeps a recurrent state instead of keys and values"
    elif member.use_mla != base.use_mla:
        reason = "it and the base differ in multi-head latent attention"
    if reason:
        raise UserError(f"model {path!r}: cannot share a KV cache layout with the base, because {reason}; use another")


def check_experts(base: ModelConfig, member: ModelConfig, path: str) -> None:
    """vLLM makes the process groups of experts for the base alone."""
    if member.is_moe and not base.is_moe:
        raise UserError(f"model {path!r}: it is a mixture of experts, and the base is none; use a dense model")


def check_quantisation(vllm_config: VllmConfig, member: ModelConfig, path: str) -> None:
    """Raises UserError for a small model whose quantisation vLLM has for another dtype or device only.

    vLLM itself says so of the base before anything loads, but of a small model while it does.
    """
    try:
        VllmConfig.get_quantization_config(member, vllm_config.load_config)
    except ValueError as error:
        raise UserError(f"model {path!r}: {first_line(error)}; set dtype to one of these") from error
    said = getattr(member.hf_config, "quantization_config", None) or {}
    if current_platform.is_cpu() and (reason := fp8_obstacle(member.quantization, said)) is not None:
        raise UserError(f"model {path!r}: vLLM has no FP8 with {reason} on a CPU; use another checkpoint")


def fp8_obstacle(quantization: str | None, said: dict[str, Any]) -> str | None:
    """Which kind of FP8 a checkpoint has that vLLM 0.32 finds no product for on a CPU, or one that fails.

    said: its quantization_config. Blocks of weights, and scales for rows of weights and of activations, do run.
    """
    if quantization == "fp8":
        return None if said.get("weight_block_size") else "one scale for a weight"
    groups = said.get("config_groups") or {}
    for group in groups.values() if quantization == "compressed-tensors" else ():
        weights, activations = group.get("weights") or {}, group.get("input_activations")
        if weights.get("type") == "float" and weights.get("num_bits") == 8:
            if weights.get("strategy") == "tensor":
                return "one scale for a weight"
            if not activations:
                return "activations of 16 bits"
    return None


def check_adapter(vllm_config: VllmConfig, config: RastConfig, source: ModelSource, member: ModelConfig) -> None:
    """Raises UserError if the adapter of a model, if it has one, cannot be merged into it."""
    adapter = adapter_of(source)
    if adapter is not None:
        loader_of(replace(vllm_config.load_config, load_format=config.load_format), source)
        adapter.check(member, stored_tensors(source.path, source.revision))


def check_tokenizer(base: ModelConfig, source: ModelSource, member: ModelConfig) -> None:
    """The same id must be the same string in every model. Raises UserError, naming the first id that differs."""
    ids = load_vocabulary(base.tokenizer, base.tokenizer_revision, base.trust_remote_code)
    other = load_vocabulary(source.path, source.revision, base.trust_remote_code)
    for token_id in sorted(ids.keys() | other.keys()):
        if ids.get(token_id) != other.get(token_id):
            raise UserError(
                f"model {source.path!r}: its tokenizer differs from the base's at id {token_id}: "
                f"{other.get(token_id)!r} instead of {ids.get(token_id)!r}; use models of one family"
            )
    if member.get_vocab_size() <= max(ids):
        raise UserError(
            f"model {source.path!r}: {member.get_vocab_size()} embedding rows do not cover the tokenizer's ids, "
            f"which end at {max(ids)}; use a complete checkpoint"
        )


@cache
def load_vocabulary(path: str, revision: str | None, trust_remote_code: bool) -> dict[int, str]:
    """Every token by its id. Raises UserError if the model brings no tokenizer."""
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(path, revision=revision, trust_remote_code=trust_remote_code)
    except Exception as error:  # each tokenizer class raises its own
        raise UserError(
            f"model {path!r}: no tokenizer to compare with the base's ({first_line(error)}); "
            "copy the base's into its folder, or set check_tokenizers to false if you know that they agree"
        ) from error
    return {token_id: token for token, token_id in tokenizer.get_vocab().items()}
