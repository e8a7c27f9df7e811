"""The trace of a decoded sample, against the reference's logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vllm_rast.kernels.token_trace import likeliest_columns
from vllm_rast.reference import ReferenceLLM

MODELS = ("base", "positive", "negative")


def assert_decode_trace(
    reference: ReferenceLLM, prompt: list[int], ids: Sequence[int], trace: dict[str, Any], alpha: Any, number: int
) -> None:
    """trace: {column: [num_tokens]}, of a sample's tokens that a base and one pair decoded."""
    assert list(trace) == likeliest_columns(reference.config, number)
    assert all(len(values) == len(ids) for values in trace.values())
    text = [*prompt, *ids]
    for label, one in {**{name: name for name in MODELS}, "mix": alpha}.items():
        rows = reference.logits(text, one, len(prompt)).log_softmax(-1)[len(prompt) - 1 : -1].numpy()
        np.testing.assert_allclose(trace[f"{label}_logprob"], rows[np.arange(len(rows)), ids], atol=2e-4)
        order = np.argsort(-rows, axis=1)
        for place in range(number):
            assert (np.array(trace[f"{label}_top{place + 1}"]) == order[:, place]).all()
            likely = rows[np.arange(len(rows)), order[:, place]]
            np.testing.assert_allclose(trace[f"{label}_top{place + 1}_logprob"], likely, atol=2e-4)
