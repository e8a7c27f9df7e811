"""A KV cache size that lets a mix start anywhere, if the user named none."""

from __future__ import annotations

from vllm.config import VllmConfig
from vllm.engine.arg_utils import EngineArgs
from vllm.platforms import current_platform
from vllm.utils.cpu_resource_utils import get_memory_node_info, get_visible_memory_node

from vllm_rast.engine.memory import MemoryPlan

# On a CPU vLLM takes 92 % of the machine's memory for itself and refuses to start where that much is not free.
CPU_KV_SHARE = 0.5


def choose_kv_bytes(vllm_config: VllmConfig, plan: MemoryPlan) -> int | None:
    """Bytes for the KV cache on a CPU, or None if vLLM's own rule, or the user's word, holds.

    Enough for max_num_seqs requests of max_model_len, at most half of what is free once the weights are loaded.
    """
    cache = vllm_config.cache_config
    said = cache.gpu_memory_utilization != EngineArgs.gpu_memory_utilization or cache.kv_cache_memory_bytes is not None
    if said or not current_platform.is_cpu():
        return None
    tokens = vllm_config.scheduler_config.max_num_seqs * (vllm_config.model_config.max_model_len + cache.block_size)
    enough = plan.kv_bytes_per_token * tokens
    weights = sum(model.weight_bytes or 0 for model in plan.models)
    node = get_memory_node_info(get_visible_memory_node()[0])
    free = int((node.available_memory - weights) * CPU_KV_SHARE)
    return max(0, min(enough, free))
