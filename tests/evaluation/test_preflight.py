"""What a look before a long run counts and warns of, on answers and traces made up here."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from traced import make_table

from vllm_rast.evaluation.analysis.preflight import (
    Look,
    Speed,
    answer_table,
    answers_of_rows,
    loops,
    token_table,
    tokens_of_rows,
    warnings,
)
from vllm_rast.evaluation.runs.folder import Key
from vllm_rast.evaluation.scores.graded import GradedSample

FINE = "So the answer is \\boxed{4}."


def graded(row: str, problem: int, text: str = FINE, finish: str = "stop", correct: bool = True) -> GradedSample:
    return GradedSample("sums", row, str(problem), 0, 0, text, finish, 10, correct, "4", "", "ok", 0.0, None)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (FINE, False),
        ("wait " * 12, True),
        ("wait " * 11, False),
        ("1 2 3 " * 4, True),
        ("a b " + "let us see whether it is so . " * 5 + "let us see", True),
        ("no no no no but then it went on and on with other words until it was done at last", False),
        ("", False),
    ],
)
def test_loops(text: str, found: bool) -> None:
    assert loops(text) == found


def test_answers_of_rows() -> None:
    samples = [graded("rast", i, correct=i < 3) for i in range(4)] + [
        graded("base", i, correct=i < 1) for i in range(4)
    ]
    found = answers_of_rows(samples, graded=True, order=["base", "rast", "missing"])
    assert list(found) == ["base", "rast"]
    assert found["rast"].right is not None and found["rast"].right.value == 0.75
    gain = found["rast"].gain
    assert gain is not None and gain.value == 0.5 and 0 <= gain.low <= 0.5 <= gain.high <= 1
    assert found["base"].gain is None and found["rast"].boxed == 1 and warnings(found, {}) == []
    assert answers_of_rows(samples, graded=False)["rast"].right is None


def test_warnings_are_about_what_the_base_does_not_do() -> None:
    base = [graded("base", i) for i in range(10)]
    bad: dict[str, tuple[list[GradedSample], str]] = {
        "empty": ([graded("x", i, "" if i < 3 else FINE) for i in range(10)], "x: 30% of 10 answers are empty"),
        "loops": (
            [graded("x", i, "hm " * 50 if i < 2 else FINE) for i in range(10)],
            "x: 20% of 10 answers end in a loop",
        ),
        "length": ([graded("x", i, finish="length") for i in range(10)], "x: 100% of 10 answers were cut off"),
        "unboxed": ([graded("x", i, "4" if i else FINE) for i in range(10)], "x: 10% of the answers are boxed"),
    }
    for some, said in bad.values():
        (warning,) = warnings(answers_of_rows([*base, *some], True), {})
        assert warning.startswith(said) and "base" in warning
    alike = [graded(row, i, finish="length") for row in ("base", "x") for i in range(10)]
    assert warnings(answers_of_rows(alike, True), {}) == ["base: 100% of 10 answers were cut off at --max-tokens"]


def table(**changes: Any) -> Any:
    columns: dict[str, Any] = {f"{model}_rank": [1, 1, 2, 7] for model in ("base", "positive", "mix")}
    columns |= {f"{model}_logprob": [-0.5] * 4 for model in ("base", "positive", "mix")}
    columns |= {"base_argmax": [1, 2, 3, 4], "mix_argmax": [1, 2, 3, 9], "positive_argmax": [1, 2, 9, 9]}
    columns |= {"js_mix_base": [0, 0, 0.05, 0.3], "tv_mix_base": [0, 0.1, 0.1, 0.2]}
    columns |= {"implausible": [math.nan, 0.5, 0, 0.5], **changes}
    return make_table([(Key("sums", "rast", "1", 0), columns)])


def test_tokens_of_rows() -> None:
    found = tokens_of_rows(table())["rast"]
    assert (found.tokens, found.covered.value, found.changed.value, found.moved.value) == (4, 0.5, 0.25, 0.25)
    assert found.implausible.value == pytest.approx(0.15 / 0.4)
    assert found.drafted is not None and found.drafted.value == 0.75
    assert found.cosine is None and found.numbers
    broken = tokens_of_rows(table(mix_logprob=np.array([-1, math.nan, -1, -1])))
    assert warnings({}, broken) == ["rast: a model gives nan for some tokens"]


def test_a_look_as_json() -> None:
    speed = Speed(tokens_per_s=100, samples=36, tokens=360_000)
    look = Look({"o/base": 90}, "plan", answers_of_rows([graded("base", 1)], True), tokens_of_rows(table()), speed)
    said = json.loads(json.dumps(look.to_dict(), allow_nan=False))
    assert said["speed"]["hours"] == 1 and said["warnings"] == []
    assert said["answers"]["base"]["right"] == [1, None, None], "one question has no interval"
    assert len(answer_table(look.answers).rows) == 1 and token_table(look.tokens).rows[-1][0] == "the paper's"
