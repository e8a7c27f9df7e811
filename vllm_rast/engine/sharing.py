"""Which models of a mix run as one forward, because they differ by adapters alone (see `SharedModel`)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from vllm.config import CompilationMode, ModelConfig, VllmConfig
from vllm.platforms import current_platform

from vllm_rast.engine.adapted_linear import Factors
from vllm_rast.engine.adapters import Adapter, adapter_of, module_of
from vllm_rast.engine.stored import stored_tensors
from vllm_rast.errors import UserError
from vllm_rast.mix.config import AUTO, TWO, RastConfig

# Whose layers were tried: plain attention, linear layers whose names in vLLM are those of the weights, or fused ones
# that the model lists.
ARCHITECTURES = {"LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"}
# What one forward has to save for each weight that an adapter changes, or its work on the adapter's rows may cost as
# much. Measured with rank 16 in float32: at 0.1 MB neither form is quicker, from 1.6 MB on one is (docs/adapters.md).
BYTES_FOR_A_WEIGHT = 1 << 18
LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def sharing_columns(vllm_config: VllmConfig, config: RastConfig, members: Sequence[ModelConfig]) -> list[list[int]]:
    """The models that run as one forward, by their columns in the mix: a list for each set of weights.

    members: vLLM's ModelConfig of every model, [num_models]. Raises UserError if pair_forward is "one" and none can.
    """
    if config.pair_forward == TWO:
        return []
    groups: dict[tuple[str, str | None], list[int]] = {}
    reasons: list[str] = []
    for column, source in enumerate(config.sources):
        groups.setdefault((source.path, source.revision), []).append(column)
    found = []
    for columns in groups.values():
        if len(columns) < 2:
            continue
        reason = engine_obstacle(vllm_config) or next(
            filter(None, (obstacle(config, column, members[column]) for column in columns)), None
        )
        if reason is not None:
            reasons.append(reason)
        elif config.pair_forward != AUTO or pays(config, columns, members[columns[0]]):
            found.append(columns)
    if config.pair_forward != AUTO and not found:
        reason = reasons[0] if reasons else "no two models of the mix stand on the same weights"
        raise UserError(f"pair_forward one: {reason}; leave it at auto")
    return found


def engine_obstacle(vllm_config: VllmConfig) -> str | None:
    """Why no models of this engine run as one; None if they can.

    A piece that vLLM compiles for a GPU takes at most max_num_batched_tokens rows, and its CUDA graph reads its inputs
    where they were when it was recorded. Without compilation the forward of all models is recorded as a whole.
    """
    if current_platform.is_cpu():
        return None
    if not current_platform.is_cuda():
        return f"it is for CPUs and CUDA, not for {current_platform.device_type}"
    if vllm_config.compilation_config.mode == CompilationMode.VLLM_COMPILE:
        return 'vLLM compiles no rows of several models, so set enforce_eager, or compilation_config {"mode": 0}'
    return None


def pays(config: RastConfig, columns: Sequence[int], member: ModelConfig) -> bool:
    """Whether one forward is quicker, by the bytes that it need not read and the weights that adapters add work to.

    Unknown sizes are those of models on the hub, which are large. On a GPU nothing was measured: two.
    """
    if not current_platform.is_cpu():
        return False
    source = config.sources[columns[0]]
    whole = sum(stored.numel for stored in stored_tensors(source.path, source.revision).values())
    adapters = [adapter for adapter in (adapter_of(config.sources[column]) for column in columns) if adapter]
    saved = (len(columns) - 1) * whole * member.dtype.itemsize - sum(map(adapter_bytes, adapters))
    return not whole or saved >= BYTES_FOR_A_WEIGHT * sum(len(adapter.changes) for adapter in adapters)


def obstacle(config: RastConfig, column: int, member: ModelConfig) -> str | None:
    """Why a model cannot run with others of the same weights; None if it can."""
    source = config.sources[column]
    if not set(member.architectures) <= ARCHITECTURES:
        return f"{member.architectures[0]} has not been tried"
    if member.quantization is not None:
        return f"{source.path!r} is quantised"
    adapter = adapter_of(source)
    if adapter is None:
        return None
    if adapter.config.transposed:
        return f"the adapter {adapter.name!r} is for transposed weights"
    for weight, parts in adapter.changes.items():
        if parts.keys() != {"A", "B"} or not module_of(weight).endswith(LAYERS):
            return f"the adapter {adapter.name!r} changes {weight} by more than a product of two factors"
    return None


def read_factors(adapter: Adapter | None) -> dict[str, Factors] | None:
    """The factors of an adapter in float32, by the names of the layers that they change."""
    if adapter is None:
        return None
    from safetensors import safe_open

    factors = {}
    with safe_open(adapter.file, framework="pt") as opened:
        for weight, parts in adapter.changes.items():
            module = module_of(weight)
            down, up = (opened.get_tensor(parts[part]).to(torch.float32) for part in ("A", "B"))
            factors[module] = Factors(down, up, adapter.config.scale(module))
    return factors


def adapter_bytes(adapter: Adapter | None) -> int:
    """What the factors take, in float32; 0 without an adapter."""
    return 0 if adapter is None else 4 * sum(stored.numel for stored in adapter.stored.values())
