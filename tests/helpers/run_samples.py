"""A run's configuration and samples for it."""

from __future__ import annotations

from vllm_rast.evaluation.runs.folder import Sample, config_hash

CONFIG = {
    "weights": {"A": "1"},
    "rows": {"base": {"alpha": "base", "formula": "A"}, "rast": {"alpha": 1.0, "formula": "A + 1.0 * (P - N)"}},
    "benchmarks": {
        "maths": {"data": "m.jsonl", "data_hash": "1", "limit": 5, "temperature": 1.0, "top_p": 0.9, "max_tokens": 8}
    },
    "sampling": {"n": 2},
    "template": "paper",
    "template_hash": "t",
    "seed": 0,
    "backend": "vllm",
    "engine": {"dtype": "float32", "max_num_seqs": 64},
}


def sample(number: int = 0, text: str = "t", **other: object) -> Sample:
    fields = dict(
        benchmark="maths",
        row="base",
        problem="p",
        sample=number,
        seed=1,
        text=text,
        finish_reason="stop",
        prompt_tokens=3,
        tokens=4,
        config_hash=config_hash(CONFIG),
    )
    return Sample(**{**fields, **other})
