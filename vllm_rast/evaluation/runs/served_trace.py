"""The trace of tokens in a server's answer, as an engine in this process gives it."""

from __future__ import annotations

from typing import Any

import numpy as np

from vllm_rast.evaluation.runs.decode import TokenTrace
from vllm_rast.mix.trace import ANSWER_FIELD

MIX = "mix"


def served_trace(choice: Any) -> TokenTrace:
    """The trace in a choice of the openai package's, as vllm_rast/serving/traced_answer.py writes it; the columns as
    `likeliest_columns` names them, the mix's last."""
    answer: dict[str, Any] = choice.model_extra[ANSWER_FIELD]
    models = [name for name, value in answer.items() if isinstance(value, dict) and name != MIX]
    columns = {}
    for model in [*models, MIX]:
        numbers = answer[model]
        columns[f"{model}_logprob"] = logprobs(numbers["logprobs"])
        ids, theirs = numbers.get("top_token_ids", ()), numbers.get("top_logprobs", ())
        for place, (some, values) in enumerate(zip(zip(*ids, strict=True), zip(*theirs, strict=True), strict=True), 1):
            columns[f"{model}_top{place}"] = np.array(some, dtype=np.float32)
            columns[f"{model}_top{place}_logprob"] = logprobs(values)
    return TokenTrace(answer["token_ids"], columns)


def logprobs(values: Any) -> np.ndarray:
    """[num_tokens] in float32; null stands for minus infinity."""
    return np.array([-np.inf if value is None else value for value in values], dtype=np.float32)
