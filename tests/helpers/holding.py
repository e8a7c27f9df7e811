"""What a runner, V1 or V2, has in memory."""

from __future__ import annotations

from typing import Any


def held(runner: Any) -> dict[str, Any]:
    """Bytes of weights, number of the cache's blocks, and its shape in each attention layer and bytes in all."""
    caches = {name: layer.kv_cache for name, layer in runner.compilation_config.static_forward_context.items()}
    return {
        "weights": sum(one.numel() * one.element_size() for one in runner.model.parameters()),
        "blocks": runner.kv_cache_config.num_blocks,
        "layers": {name: list(cache.shape) for name, cache in caches.items()},
        "bytes": sum(cache.numel() * cache.element_size() for cache in caches.values()),
    }
