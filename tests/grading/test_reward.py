"""The grader as a reward: called as TRL and verl call, and never held up."""

from __future__ import annotations

import os
import threading
from typing import Any

import numpy as np
import pytest

import vllm_rast.grading.reward as reward
from vllm_rast.errors import UserError
from vllm_rast.grading import GradeItem, answer_reward, compute_score, compute_scores

TEXTS = ["So it is \\boxed{1/2}.", "The answer is 3.", "I do not know.", "\\boxed{0.5}"]
GOLDS = ["\\frac12", "4", "1", "\\frac{1}{2}"]
WANTED = [1.0, 0.0, 0.0, 1.0]


def as_trl_calls(function: Any, completions: list[Any], **columns: list[Any]) -> list[float]:
    """With keywords, and beside the columns what the trainer adds."""
    assert isinstance(function.__name__, str)  # what it logs rewards under
    extra = {"trainer_state": object(), "log_extra": print, "log_metric": print}
    ids = [[1, 2]] * len(completions)
    return function(prompts=["?"] * len(completions), completions=completions, completion_ids=ids, **columns, **extra)


@pytest.mark.parametrize("column", reward.GOLD_COLUMNS)
def test_trl_with_texts(column: str) -> None:
    assert as_trl_calls(answer_reward, TEXTS, **{column: GOLDS}) == WANTED


def test_trl_with_conversations() -> None:
    chats = [[{"role": "assistant", "content": text}] for text in TEXTS[:3]]
    chats += [[{"role": "assistant", "content": [{"type": "text", "text": TEXTS[3]}]}]]
    assert as_trl_calls(answer_reward, chats, answer=GOLDS) == WANTED
    assert as_trl_calls(answer_reward, [[], [{"role": "assistant", "content": None}]], answer=["1", "1"]) == [0.0, 0.0]


def test_trl_with_columns_that_say_how() -> None:
    texts = ["\\boxed{5 m}", "\\boxed{5 m}", "The answer is 5.", "The answer is 5."]
    said = {"unit": ["cm", None, None, None], "boxed_only": [False, False, True, None]}
    assert as_trl_calls(answer_reward, texts, answer=["5"] * 4, **said) == [0.0, 1.0, 0.0, 1.0]


def test_a_whole_solution_and_numbers_as_golds() -> None:
    golds = ["6 + 6 = 12 #### 12", 12, 12.0, None, ["1", "2"]]
    texts = ["It is 12."] * 4 + ["\\boxed{2, 1}"]
    assert as_trl_calls(answer_reward, texts, solution=golds) == [1.0, 1.0, 1.0, 0.0, 1.0]


def test_no_gold() -> None:
    with pytest.raises(UserError, match="answer_reward: the data set has no gold; call its column one of answer"):
        as_trl_calls(answer_reward, TEXTS, label=GOLDS)


def test_verl_one_by_one() -> None:
    def score(text: str, gold: Any, extra: Any = None) -> float:
        return compute_score(data_source="math", solution_str=text, ground_truth=gold, extra_info=extra)

    assert [score(text, gold) for text, gold in zip(TEXTS, GOLDS, strict=True)] == WANTED
    assert score("\\boxed{5 m}", "5", {"unit": "cm", "split": "train", "index": 3}) == 0.0
    assert compute_score("math", TEXTS[0], GOLDS[0], None) == 1.0
    assert compute_score("math", TEXTS[0], GOLDS[0], extra_info={}, reward_router_address=None) == 1.0


def test_verl_in_batches() -> None:
    extra = [{"index": 0}, None, {}, {"unit": None}]
    said = {"data_sources": ["math"] * 4, "solution_strs": TEXTS, "ground_truths": GOLDS}
    assert compute_scores(**said, extra_infos=extra) == compute_scores(**said) == WANTED
    arrays = {name: np.array(values, dtype=object) for name, values in {**said, "extra_infos": extra}.items()}
    assert compute_scores(**arrays) == WANTED


def test_threads_share_one_grader() -> None:
    found: list[list[float]] = []
    threads = [
        threading.Thread(target=lambda: found.append(as_trl_calls(answer_reward, TEXTS, answer=GOLDS)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [WANTED] * 8


def test_a_fork_makes_its_own_grader() -> None:
    answer_reward(TEXTS, answer=GOLDS)
    mine = reward.shared_grader()
    child = os.fork()
    if not child:
        os._exit(reward.shared_grader() is mine or answer_reward(TEXTS, answer=GOLDS) != WANTED)
    assert os.waitpid(child, 0)[1] == 0
    assert reward.shared_grader() is mine


def test_an_answer_that_takes_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that does not come back is killed; the rest of the batch is graded."""
    slow, gold = "\\boxed{\\int_0^{\\infty} \\frac{\\sin x}{x^{9}+1} dx}", "\\int_0^1 x dx"
    with reward.Grader(timeout_s=0.2, workers=1) as grader:
        assert grader.grade(GradeItem(slow, gold)).status == "timeout"
        monkeypatch.setattr(reward, "_grader", (os.getpid(), grader))
        assert answer_reward([slow, TEXTS[0]], answer=[gold, GOLDS[0]]) == [0.0, 1.0]
