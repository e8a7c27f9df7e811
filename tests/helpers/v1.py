"""The V1 runner of an engine in this process, and what it counts."""

from __future__ import annotations

from typing import Any

import numpy as np


def runner_of(engine: Any) -> Any:
    return engine.llm_engine.engine_core.engine_core.model_executor.driver_worker.worker.model_runner


def counters(engine: Any) -> dict[str, Any]:
    """vLLM's metrics, of the engine that was started last."""
    return {metric.name: getattr(metric, "value", getattr(metric, "values", 0)) for metric in engine.get_metrics()}


def drafts(engine: Any) -> np.ndarray:
    """How many tokens were drafted so far at each place, and how many accepted, [2, most drafts]."""
    verifier = runner_of(engine).rejection_sampler
    return np.stack([verifier.drafted, verifier.accepted])
