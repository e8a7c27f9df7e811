"""Models that have all weights in common but an adapter's: one forward, which reads the weights once for all."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from vllm.config import VllmConfig
from vllm.model_executor.layers.attention import Attention
from vllm.model_executor.layers.linear import LinearBase

from vllm_rast.engine.adapted_linear import Factors, adapt
from vllm_rast.engine.shared_rows import SharedRows


class SharedModel(nn.Module):
    """One set of weights for several models of a mix.

    Every model has rows of its own, one model's after the other's. Linear layers multiply all of them at once and add
    each adapter to its own model's rows; attention keeps keys and values of each model, under that model's prefix, so
    that vLLM's cache knows as many layers as without sharing. Norms and embeddings are the same for all.

    model: the foundation, loaded plain under prefixes[0]. adapters: for each model the factors of its adapter by the
    name of the linear layer that they change (`model.layers.0.self_attn.q_proj`), or None for the foundation itself.
    every_time: run all models even if only some are asked for, as a compiled graph does.
    Raises ValueError if an adapter changes what is no linear layer of this model.
    """

    def __init__(
        self,
        model: nn.Module,
        vllm_config: VllmConfig,
        prefixes: Sequence[str],
        adapters: Sequence[Mapping[str, Factors] | None],
        every_time: bool = False,
    ) -> None:
        super().__init__()
        self.model: Any = model
        self.count = len(prefixes)
        self.rows = SharedRows(self.count)
        self.every_time = every_time
        adapt_linears(model, self.rows, adapters)
        split_attention(model, self.rows, vllm_config, prefixes)

    def forward(
        self, input_ids: torch.Tensor | None, positions: torch.Tensor, places: Sequence[int]
    ) -> list[torch.Tensor]:
        """Hidden states of the models at `places`, in their order, each [num_tokens, hidden size]."""
        self.rows.running = tuple(range(self.count)) if self.every_time else tuple(places)
        times = len(self.rows.running)
        ids = None if input_ids is None else input_ids.repeat(times)
        hidden = self.model(ids, torch.cat([positions] * times, dim=-1))
        parts = dict(self.rows.parts(len(hidden)))
        return [hidden[parts[place]] for place in places]

    def compute_logits(self, hidden: Sequence[torch.Tensor]) -> list[torch.Tensor | None]:
        """The logits of several of the models, each [num_rows, ids], from one product with the head that they share."""
        logits = self.model.compute_logits(torch.cat(list(hidden)))
        return [None] * len(hidden) if logits is None else list(logits.chunk(len(hidden)))


class SharingModel(nn.Module):
    """One of the models of a SharedModel, as the ensemble calls any model."""

    def __init__(self, shared: SharedModel, place: int) -> None:
        super().__init__()
        self.shared = shared
        self.place = place

    def embed_input_ids(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.shared.model.embed_input_ids(input_ids)

    def forward(self, input_ids: torch.Tensor | None, positions: torch.Tensor) -> torch.Tensor:
        return self.shared(input_ids, positions, (self.place,))[0]

    def compute_logits(self, hidden: torch.Tensor) -> torch.Tensor | None:
        logits: torch.Tensor | None = self.shared.model.compute_logits(hidden)
        return logits


def loaded_once(members: Iterable[nn.Module]) -> list[nn.Module]:
    """The models of a mix as vLLM loaded them, without those that share another's weights."""
    return list(dict.fromkeys(m.shared.model if isinstance(m, SharingModel) else m for m in members))


def running_together(members: Iterable[nn.Module], active: Sequence[bool]) -> list[tuple[nn.Module, list[int]]]:
    """What runs in a step: every model that is active, with its column; those that share one together, with theirs."""
    found: dict[nn.Module, list[int]] = {}
    for column, member in enumerate(members):
        if active[column]:
            found.setdefault(member.shared if isinstance(member, SharingModel) else member, []).append(column)
    return list(found.items())


def columns_with(members: Sequence[nn.Module], column: int) -> list[int]:
    """The models that run whenever one of them does."""
    member = members[column]
    if not isinstance(member, SharingModel) or not member.shared.every_time:
        return [column]
    return [c for c, other in enumerate(members) if isinstance(other, SharingModel) and other.shared is member.shared]


def adapt_linears(model: nn.Module, rows: SharedRows, adapters: Sequence[Mapping[str, Factors] | None]) -> None:
    """Let every linear layer add what the adapters have for it."""
    left = {place: set(adapter) for place, adapter in enumerate(adapters) if adapter}
    fused = getattr(model, "packed_modules_mapping", {})
    for name, layer in model.named_modules():
        if not isinstance(layer, LinearBase):
            continue
        path, _, last = name.rpartition(".")
        names = [f"{path}.{part}" for part in fused.get(last, [last])]
        updates = {place: [adapters[place].get(one) for one in names] for place in left}  # type: ignore[union-attr]
        updates = {place: parts for place, parts in updates.items() if any(parts)}
        if updates:
            adapt(layer, rows, updates)
            for known in left.values():
                known.difference_update(names)
    unknown = sorted(name for known in left.values() for name in known)
    if unknown:
        raise ValueError(f"pair_forward: an adapter changes {unknown[0]}, which is no linear layer here")


class SplitAttention(nn.Module):
    """One layer's attention in several models: each reads and writes keys and values of its own.

    The first is the layer that vLLM made; the others are copies of it under their models' names, where vLLM's runner
    finds them when it lays out its cache.
    """

    def __init__(self, attention: Attention, names: Sequence[str], rows: SharedRows, layers: dict[str, Any]) -> None:
        super().__init__()
        self.rows = rows
        self.attentions = nn.ModuleList([attention])
        for name in names:
            other = copy.copy(attention)
            other.impl = copy.copy(attention.impl)
            other.layer_name = name
            if name in layers:
                raise ValueError(f"Duplicate layer name: {name}")
            layers[name] = other
            self.attentions.append(other)

    def forward(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Each [the rows of all running models, its heads' width] to the same of the outputs."""
        return torch.cat(
            [
                self.attentions[place](query[part], key[part], value[part])
                for place, part in self.rows.parts(query.shape[0])
            ]
        )


def split_attention(model: nn.Module, rows: SharedRows, vllm_config: VllmConfig, prefixes: Sequence[str]) -> None:
    """Put a SplitAttention in the place of every attention layer."""
    layers = vllm_config.compilation_config.static_forward_context
    found = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, Attention)]
    for name, layer in found:
        inside = layer.layer_name.removeprefix(f"{prefixes[0]}.") if prefixes[0] else layer.layer_name
        names = [f"{prefix}.{inside}" if prefix else inside for prefix in prefixes[1:]]
        path, _, last = name.rpartition(".")
        setattr(model.get_submodule(path), last, SplitAttention(layer, names, rows, layers))
