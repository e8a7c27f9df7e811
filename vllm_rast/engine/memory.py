"""Where the memory will go: weights of each model, KV cache of each model, and how many tokens fit."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from vllm.config import ModelConfig, VllmConfig
from vllm.engine.arg_utils import EngineArgs
from vllm.platforms import current_platform
from vllm.utils.cpu_resource_utils import get_memory_node_info, get_visible_memory_node
from vllm.utils.torch_utils import kv_cache_dtype_str_to_dtype

from vllm_rast.engine.launch import ENGINES_HERE
from vllm_rast.engine.members import rast_config
from vllm_rast.engine.stored import EMBEDDING, FLOAT_DTYPES, HEAD, stored_tensors
from vllm_rast.errors import UserError
from vllm_rast.kernels.select import native

GIB = 1 << 30
# On a CPU vLLM takes 92 % of the machine's memory for itself and refuses to start if that much is not free.
CPU_KV_SHARE = 0.5
BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


@dataclass(frozen=True)
class ModelPlan:
    """One model's share on each device: bytes of weights (None: unknown before loading), bytes of KV per token."""

    name: str
    weight_bytes: int | None
    kv_bytes_per_token: int


@dataclass(frozen=True)
class MemoryPlan:
    """What every device holds.

    kv_bytes: what is left for the KV cache, None if it is known only after loading. drafts: a line about the mix's own
    speculation, if it is on.
    """

    models: tuple[ModelPlan, ...]
    kv_bytes: int | None
    source: str
    drafts: str | None = None

    @property
    def kv_bytes_per_token(self) -> int:
        return sum(model.kv_bytes_per_token for model in self.models)

    @property
    def tokens(self) -> int | None:
        """How many tokens of context fit, over all requests together."""
        return None if self.kv_bytes is None else max(0, self.kv_bytes) // self.kv_bytes_per_token

    def check(self, max_model_len: int) -> None:
        """Raises UserError, with the plan, if not even one request of max_model_len fits."""
        if self.tokens is None or self.tokens >= max_model_len:
            return
        needed = self.kv_bytes_per_token * max_model_len
        raise UserError(
            f"memory: one request of max_model_len {max_model_len} needs {needed / GIB:.2f} GiB of KV cache, and "
            f"{max(0, self.kv_bytes or 0) / GIB:.2f} GiB are left ({self.source}); lower max_model_len to "
            f"{self.tokens}, raise gpu_memory_utilization or kv_cache_memory_bytes, or add tensor parallelism\n{self}"
        )

    def __str__(self) -> str:
        rows = [
            f"  {model.name:<40} weights {size(model.weight_bytes):>10}   KV {model.kv_bytes_per_token:>8} bytes/token"
            for model in self.models
        ]
        fits = "known after loading" if self.tokens is None else f"{self.tokens} tokens fit"
        left = "unknown" if self.kv_bytes is None else size(max(0, self.kv_bytes))
        rows.append(f"  KV cache: {left} ({self.source}), {self.kv_bytes_per_token} bytes/token, {fits}")
        rows += [f"  {self.drafts}"] if self.drafts else []
        return "\n".join(rows)


def size(count: int | None) -> str:
    """A number of bytes for people."""
    if count is None:
        return "unknown"
    return f"{count / GIB:.2f} GiB" if count >= GIB / 10 else f"{count / (1 << 20):.1f} MiB"


def memory_plan(
    vllm_config: VllmConfig, members: list[ModelConfig], sharing: Mapping[int, int] | None = None
) -> MemoryPlan:
    """The plan of a finished configuration. members: [num_models], the base's first.

    sharing: the bytes that models which read another's weights have of their own, by their columns.

    With a draft model for speculative decoding that is added as one more model, unless one of the members drafts.
    """
    config = rast_config(vllm_config)
    names = [source.name for source in config.sources] if config else [member.model for member in members]
    speculative = vllm_config.speculative_config
    own = speculative is not None and speculative.draft_model_config is members[0]
    if speculative is not None and speculative.uses_draft_model() and not own:
        members = [*members, speculative.draft_model_config]
        names.append(f"{speculative.draft_model_config.model} (drafter)")
    own_bytes = sharing or {}
    models = tuple(
        ModelPlan(
            short(name),
            own_bytes[column] if column in own_bytes else weight_bytes(member, vllm_config),
            kv_bytes_per_token(member, vllm_config),
        )
        for column, (name, member) in enumerate(zip(names, members, strict=True))
    )
    kv_bytes, source = kv_budget(vllm_config, models)
    return MemoryPlan(models, kv_bytes, source)


def short(name: str) -> str:
    """The end of a path: the last two parts say which model it is."""
    return "/".join(name.rstrip("/").split("/")[-2:])


def kv_bytes_per_token(model: ModelConfig, vllm_config: VllmConfig) -> int:
    """Bytes that one token's keys and values take on one device, over all layers of a model."""
    parallel = vllm_config.parallel_config
    dtype = kv_cache_dtype_str_to_dtype(vllm_config.cache_config.cache_dtype, model)
    per_layer = 2 * model.get_num_kv_heads(parallel) * model.get_head_size() * dtype.itemsize
    if model.use_mla:
        per_layer = model.get_head_size() * dtype.itemsize
    return per_layer * model.get_num_layers(parallel)


def kv_budget(vllm_config: VllmConfig, models: tuple[ModelPlan, ...]) -> tuple[int | None, str]:
    """How many bytes of one device are for the KV cache, and which option said so."""
    cache = vllm_config.cache_config
    if cache.kv_cache_memory_bytes is not None:
        return cache.kv_cache_memory_bytes, "kv_cache_memory_bytes"
    if any(model.weight_bytes is None for model in models):
        return None, "the size of the weights is not known yet"
    total = current_platform.get_device_total_memory()
    budget = int(total * cache.gpu_memory_utilization)
    left = budget - sum(model.weight_bytes or 0 for model in models)
    return left, f"{cache.gpu_memory_utilization:g} of {total / GIB:.1f} GiB, less the weights"


def choose_kv_bytes(vllm_config: VllmConfig, plan: MemoryPlan) -> int | None:
    """Bytes for the KV cache on a CPU, or None if vLLM's own rule, or the user's word, holds.

    Enough for max_num_seqs requests of max_model_len, at most half of what is free once the weights are loaded; of an
    engine's share of it, if several are being started.
    """
    cache = vllm_config.cache_config
    said = cache.gpu_memory_utilization != EngineArgs.gpu_memory_utilization or cache.kv_cache_memory_bytes is not None
    if said or not current_platform.is_cpu():
        return None
    tokens = vllm_config.scheduler_config.max_num_seqs * (vllm_config.model_config.max_model_len + cache.block_size)
    enough = plan.kv_bytes_per_token * tokens
    weights = sum(model.weight_bytes or 0 for model in plan.models)
    node = get_memory_node_info(get_visible_memory_node()[0])
    available = node.available_memory // int(os.environ.get(ENGINES_HERE, "1"))
    free = int((available - weights) * CPU_KV_SHARE)
    return max(0, min(enough, free))


def weight_bytes(model: ModelConfig, vllm_config: VllmConfig) -> int | None:
    """Bytes of a model's weights on one device, from the headers of its safetensors files; None if there are none."""
    dtype = model.dtype
    stored = stored_tensors(model.model, model.revision)
    if not stored:
        return None
    total = sum(
        one.numel * (dtype.itemsize if one.dtype in FLOAT_DTYPES else BYTES.get(one.dtype, 1))
        for one in stored.values()
    )
    tied = getattr(model.hf_text_config, "tie_word_embeddings", False)
    if not tied and HEAD not in stored and EMBEDDING in stored:  # an adapter's own (`Adapter.give_own_head`)
        total += stored[EMBEDDING].numel * dtype.itemsize
    if current_platform.is_cpu() and dtype != torch.float32 and not (dtype == torch.bfloat16 and native("cpu")):
        # The head is widened to float32 (heads.use_float32_head): two more bytes for each weight, or a copy if tied.
        head = model.get_vocab_size() * model.get_hidden_size()
        total += head * (4 if tied else 2)
    return total // vllm_config.parallel_config.tensor_parallel_size
