"""The grader as a reward, by the signatures that trainers call: TRL's GRPOTrainer and verl's reward managers.

A right answer is 1, anything else 0; no format is rewarded. Answers are compared as in `vllm-rast evaluate`, in this
process or in killable workers, so that no output can hold up a step for longer than the timeout. TRL calls with
keywords and lists, one entry for each completion; verl once for each completion, or with lists (its reward manager
"batch").
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Iterable, Sequence
from typing import Any

from vllm_rast.errors import UserError
from vllm_rast.grading.grader import GradeItem, Grader

# Where data sets for training keep the gold, in the order in which they are tried.
GOLD_COLUMNS = ("answer", "gold", "ground_truth", "solution", "final_answer")
# What a data set may say about the comparison, as a benchmark's rows do.
OPTIONS = ("kind", "ordered", "unit", "error", "boxed_only")

_lock = threading.Lock()  # trainers grade in threads, and a grader serves one at a time
_grader: tuple[int, Grader] | None = None  # with the process that made it: a fork has no workers


def answer_reward(completions: Sequence[Any], **columns: Any) -> list[float]:
    """1.0 for each completion with the right answer, else 0.0: for TRL's `GRPOTrainer(reward_funcs=answer_reward)`.

    completions: texts, or conversations of {"role", "content"}, whose last message counts; [num_completions].
    columns: the data set's, each [num_completions]. The gold is the first of GOLD_COLUMNS that there is; `kind`,
        `unit` and the other OPTIONS, if there are such columns, say how it is compared. The rest is left aside.
    Raises UserError if no column has the gold.
    """
    name = next((name for name in GOLD_COLUMNS if name in columns), None)
    if name is None:
        raise UserError(f"answer_reward: the data set has no gold; call its column one of {', '.join(GOLD_COLUMNS)}")
    options = [{option: columns[option][i] for option in OPTIONS if option in columns} for i in range(len(completions))]
    texts = [text_of(completion) for completion in completions]
    return rewards(texts, columns[name], options)


def compute_score(
    data_source: Any = None,
    solution_str: str = "",
    ground_truth: Any = "",
    extra_info: dict[str, Any] | None = None,
    **others: Any,
) -> float:
    """1.0 if the answer is right, else 0.0: for verl's `custom_reward_function`.

    extra_info: OPTIONS of the comparison, if it has some. data_source and what else verl passes do not matter.
    """
    return rewards([solution_str], [ground_truth], [extra_info])[0]


def compute_scores(
    data_sources: Sequence[Any],
    solution_strs: Sequence[str],
    ground_truths: Sequence[Any],
    extra_infos: Sequence[dict[str, Any] | None] | None = None,
    **others: Any,
) -> list[float]:
    """`compute_score` of a whole batch, [num_completions]: for verl's reward manager "batch", and faster."""
    if extra_infos is None:  # verl has arrays, which are neither true nor false
        extra_infos = [None] * len(solution_strs)
    return rewards(solution_strs, ground_truths, extra_infos)


def rewards(texts: Iterable[str], golds: Iterable[Any], options: Iterable[dict[str, Any] | None]) -> list[float]:
    """The grades of texts against golds as numbers; a gold that is missing (None) gives 0.0."""
    items = [
        None if gold is None else GradeItem(text, gold_of(gold), **known(said))
        for text, gold, said in zip(texts, golds, options, strict=True)
    ]
    with _lock:
        grades = shared_grader().grade_many([item for item in items if item is not None])
        return [float(item is not None and next(grades).correct) for item in items]


def shared_grader() -> Grader:
    """One grader for each process; its workers start when an answer first needs one, and end with the process."""
    global _grader
    if _grader is None or _grader[0] != os.getpid():
        _grader = os.getpid(), Grader()
        atexit.register(_grader[1].__exit__)
    return _grader[1]


def gold_of(gold: Any) -> str | tuple[str, ...]:
    """A gold as text: data sets have numbers and lists too."""
    if isinstance(gold, list | tuple):
        return tuple(str(one) for one in gold)
    return str(gold)


def known(said: dict[str, Any] | None) -> dict[str, Any]:
    """The options among what a row says; None leaves the default."""
    return {name: said[name] for name in OPTIONS if said.get(name) is not None} if isinstance(said, dict) else {}


def text_of(completion: Any) -> str:
    """A completion's text: itself, or that of the last message of a conversation."""
    if isinstance(completion, str):
        return completion
    content = completion[-1]["content"] if completion else ""
    if isinstance(content, list):  # parts of a message
        return "".join(part.get("text") or "" for part in content)
    return content or ""
