"""Which models of a mix run as one forward, because they differ by adapters alone (see `SharedModel`)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from vllm.config import ModelConfig, VllmConfig
from vllm.platforms import current_platform

from vllm_rast.engine.adapted_linear import Factors
from vllm_rast.engine.adapters import Adapter, adapter_of, module_of
from vllm_rast.errors import UserError
from vllm_rast.mix.config import AUTO, TWO, RastConfig

# Whose layers were tried: plain attention, linear layers whose names in vLLM are those of the weights, or fused ones
# that the model lists.
ARCHITECTURES = {"LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"}
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
        if reason is None:
            found.append(columns)
        else:
            reasons.append(reason)
    if config.pair_forward != AUTO and not found:
        reason = reasons[0] if reasons else "no two models of the mix stand on the same weights"
        raise UserError(f"pair_forward one: {reason}; leave it at auto")
    return found


def engine_obstacle(vllm_config: VllmConfig) -> str | None:
    """Why no models of this engine run as one; None if they can."""
    if not current_platform.is_cpu():
        return "so far it is for CPUs"
    return None


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
