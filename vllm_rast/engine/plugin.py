"""The entry point that vLLM calls in every process."""

from __future__ import annotations

from vllm_rast.engine.names import LOAD_FORMAT

_registered = False


def register() -> None:
    """Make `load_format="rast"` known and check mixes in the front end. Safe to call any number of times."""
    global _registered
    if _registered:
        return
    _registered = True

    from vllm_rast.engine.children import end_with_parent

    end_with_parent()
    from vllm.model_executor.model_loader import register_model_loader

    from vllm_rast.engine.loader import RastModelLoader
    from vllm_rast.engine.patches import apply_patches

    register_model_loader(LOAD_FORMAT)(RastModelLoader)
    apply_patches()
