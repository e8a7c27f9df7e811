"""Functions for workers in processes of their own, which import them from here."""

from __future__ import annotations

from typing import Any


def count_gathers(model: Any) -> None:
    """From now on the model counts [steps that compute logits, gathers of logits]."""
    from vllm.model_executor.layers import logits_processor

    counts = model.counts = [0, 0]

    def counting(function: Any, place: int) -> Any:
        def wrapped(*args: Any) -> Any:
            counts[place] += 1
            return function(*args)

        return wrapped

    model.compute_logits = counting(model.compute_logits, 0)
    for name in ("tensor_model_parallel_gather", "tensor_model_parallel_all_gather"):  # a platform has one of the two
        setattr(logits_processor, name, counting(getattr(logits_processor, name), 1))


def counted(model: Any) -> list[int]:
    return model.counts
