"""A linear layer of several models that differ by adapters: one product for all, and each adapter's on its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from vllm.model_executor.layers.linear import (
    LinearBase,
    QKVParallelLinear,
    RowParallelLinear,
    UnquantizedLinearMethod,
)
from vllm.model_executor.parameter import ModelWeightParameter

from vllm_rast.engine.shared_rows import SharedRows

QKV_SHARDS = ("q", "k", "v")


class Factors(NamedTuple):
    """What an adapter adds to a linear layer: x @ down.T @ up.T * scale. down: [rank, inputs]. up: [outputs, rank]."""

    down: torch.Tensor
    up: torch.Tensor
    scale: float


class AdaptedLinear(UnquantizedLinearMethod):
    """In place of a layer's own method; the layer shards, gathers and sums over ranks as before.

    updates: for each place (see SharedRows) the adapter's factors, this rank's part of them: `down`, [rank, inputs],
    and `up`, [outputs, rank], which the adapter's scale is in. A place without an adapter is left out.
    """

    def __init__(self, plain: Any, rows: SharedRows, updates: Mapping[int, tuple[torch.Tensor, torch.Tensor]]) -> None:
        # Not vLLM's own __init__: it chooses a product, and the plain method has one.
        self.plain = plain
        self.rows = rows
        self.updates = updates

    def apply(self, layer: nn.Module, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """x: [the rows of all places, inputs] to [the same, outputs]."""
        out = self.plain.apply(layer, x, bias)
        for place, part in self.rows.parts(len(x)):
            if place in self.updates:
                down, up = self.updates[place]
                middle = x[part].to(down.dtype) @ down.T
                if out.dtype == up.dtype:
                    out[part].addmm_(middle, up.T)
                else:
                    out[part] += middle @ up.T
        return out


def adapt(layer: LinearBase, rows: SharedRows, updates: Mapping[int, Sequence[Factors | None]]) -> None:
    """Let a loaded layer add adapters.

    updates: for each place the factors of the layer's parts (q, k and v; gate and up; or the one that it is).
    """
    layer.quant_method = AdaptedLinear(
        layer.quant_method, rows, {place: fused_factors(layer, parts) for place, parts in updates.items()}
    )


def fused_factors(layer: Any, parts: Sequence[Factors | None]) -> tuple[torch.Tensor, torch.Tensor]:
    """This rank's `down`, [sum of ranks, inputs], and `up`, [outputs, sum of ranks], of a layer of one or more parts.

    `up` has a block for each part and zeros elsewhere: two products for a fused layer instead of two for each part.
    The layer's own weight loader cuts what is cut. On a CPU the factors stay float32: they are small, and torch
    multiplies bfloat16 slowly there.
    """
    device = next(layer.parameters(), torch.empty(0)).device
    dtype = torch.float32 if device.type == "cpu" else layer.params_dtype
    known = [(shard, factors) for shard, factors in enumerate(parts) if factors is not None]
    down = torch.cat([factors.down for _, factors in known]).to(device, dtype)
    up = torch.zeros(local_outputs(layer), len(down), device=device, dtype=dtype)
    first = 0
    for shard, factors in known:
        last = first + factors.up.shape[1]
        wide = torch.zeros(factors.up.shape[0], len(down), device=device, dtype=dtype)
        wide[:, first:last] = factors.scale * factors.up.to(device)
        if isinstance(layer, RowParallelLinear) or layer.tp_size == 1 and len(parts) == 1:
            up += wide
        else:
            load_rows(layer, up, wide, shard, len(parts))
        first = last
    if isinstance(layer, RowParallelLinear) and layer.tp_size > 1:
        down = local_inputs(layer, down)
    return down, up


def local_outputs(layer: Any) -> int:
    return layer.output_size if isinstance(layer, RowParallelLinear) else layer.output_size_per_partition


def load_rows(layer: Any, up: torch.Tensor, wide: torch.Tensor, shard: int, parts: int) -> None:
    """Write this rank's rows of one part, [outputs of the part, width], to their place in `up`."""
    parameter = ModelWeightParameter(data=up, input_dim=1, output_dim=0, weight_loader=layer.weight_loader_v2)
    if isinstance(layer, QKVParallelLinear):
        layer.weight_loader_v2(parameter, wide, QKV_SHARDS[shard])
    elif parts > 1:
        layer.weight_loader_v2(parameter, wide, shard)
    else:
        layer.weight_loader_v2(parameter, wide)


def local_inputs(layer: Any, down: torch.Tensor) -> torch.Tensor:
    """This rank's columns of `down`, [rank, inputs]."""
    width = layer.input_size_per_partition
    return down[:, layer.tp_rank * width : (layer.tp_rank + 1) * width].contiguous()
