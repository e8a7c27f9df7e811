"""Functions for workers in processes of their own, which import them from here."""

from __future__ import annotations

from typing import Any


def count_gathers(model: Any) -> None:
    """From now on the model counts its passes, those of its drafter, and gathers of logits."""
    from vllm.model_executor.layers import logits_processor

    counts = model.counts = {"compute_logits": 0, "draft": 0, "gathers": 0}

    def counting(function: Any, name: str) -> Any:
        def wrapped(*args: Any) -> Any:
            counts[name] += 1
            return function(*args)

        return wrapped

    for name in ("compute_logits", "draft"):
        setattr(model, name, counting(getattr(model, name), name))
    for name in ("tensor_model_parallel_gather", "tensor_model_parallel_all_gather"):  # a platform has one of the two
        setattr(logits_processor, name, counting(getattr(logits_processor, name), "gathers"))


def counted(model: Any) -> dict[str, int]:
    return model.counts
