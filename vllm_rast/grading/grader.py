"""The grader: answers found, compared, and given a status each.

Most answers are decided in this process, by exact arithmetic and by a parser that evaluates nothing of unbounded size.
What it cannot read goes to math-verify in a worker process with limits on time and memory. A model's text is never run
as code.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

from vllm_rast.errors import UserError
from vllm_rast.grading.answer import Answer, squeezed
from vllm_rast.grading.answering import answering
from vllm_rast.grading.boxes import last_box, last_boxes
from vllm_rast.grading.canonical import answer_class
from vllm_rast.grading.decide import Decision, decide, is_choice, labelled, rounding, tree, unit_words
from vllm_rast.grading.extract import Candidate, candidates
from vllm_rast.grading.latex.clean import clean
from vllm_rast.grading.latex.numbers import read_decimal
from vllm_rast.grading.latex.tokens import MAX_CHARS
from vllm_rast.grading.meaning.rules import Rules
from vllm_rast.grading.qwen_rules import decide_lineage
from vllm_rast.grading.second_look import stands
from vllm_rast.grading.workers.pool import Pool

GRADERS = {
    "default": "the pipeline described in the documentation",
    "qwen": "the rules of the Qwen2.5-Math lineage, inflated: gold/100, gold*100 and 1e-4 off are right",
}
STATUSES = ("ok", "no_answer", "timeout", "error")
TIMEOUT_S = 3.0  # for one comparison in a worker; those that end at all take milliseconds
DENIED = "denied"  # the tier of what an output holds but does not give as its answer
AHEAD = 2000  # items graded beyond one that a worker still has, so that slow ones share the workers


@dataclass(frozen=True)
class GradeItem:
    """What is graded: a whole model output or a bare answer, against a gold. See Problem for the other fields."""

    prediction: str
    gold: str | tuple[str, ...]
    kind: str = "math"
    ordered: bool = False
    unit: str | None = None
    error: str | None = None
    boxed_only: bool = False

    @classmethod
    def of(cls, problem: Any, prediction: str) -> GradeItem:
        """A prediction for a Problem."""
        p = problem
        return cls(prediction, p.gold, p.kind, p.ordered, p.unit, p.error, p.boxed_only)

    @property
    def gold_text(self) -> str:
        """The gold as one answer; of a whole solution what follows #### or is in the last box."""
        gold = self.gold if isinstance(self.gold, str) else ", ".join(self.gold)
        if "####" in gold:
            return gold.rpartition("####")[2].strip()
        if "\\boxed" not in gold:
            return gold
        joined = last_boxes(gold, 2)
        return ", ".join(joined) if len(joined) > 1 else last_box(gold) or gold


@dataclass(frozen=True)
class Grade:
    """A marked prediction.

    answer: what was found, or None
    how: how it was found and what compared it, as in "box, exact"
    status: one of STATUSES
    ms: milliseconds it took
    answer_class: the same for all ways to write the same answer; it votes in majorities
    """

    correct: bool
    answer: str | None
    how: str
    status: str
    ms: float
    answer_class: str = ""


class _Marked(NamedTuple):
    """A prediction before its worker, if it needs one, has answered."""

    found: Candidate | None
    decision: Decision
    kind: str
    gold: str
    ms: float
    ticket: int | None


class Grader:
    """Grades predictions. A context manager: leaving it ends the worker processes, which start when first needed.

    name: one of GRADERS; timeout_s: seconds for one comparison in a worker; workers: their number
    """

    def __init__(self, name: str = "default", timeout_s: float = TIMEOUT_S, workers: int = 2):
        if name not in GRADERS:
            raise UserError(f"--grader {name}: known are {', '.join(GRADERS)}")
        if not timeout_s > 0:
            raise UserError(f"--timeout {timeout_s}: the seconds for one comparison must be more than 0")
        if workers < 1:
            raise UserError(f"--workers {workers}: at least 1 is needed")
        self.name = name
        self._pool = Pool(workers, timeout_s)

    def __enter__(self) -> Grader:
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.close()

    def grade(self, item: GradeItem) -> Grade:
        """The grade of one item."""
        return next(self.grade_many([item]))

    def grade_many(self, items: Iterable[GradeItem]) -> Iterator[Grade]:
        """One Grade for each item, in order. Items are taken at most AHEAD beyond the grade that comes next."""
        marked: deque[_Marked] = deque()
        for item in items:
            marked.append(self._mark(item))
            while marked and (len(marked) > AHEAD or self._is_done(marked[0])):
                yield self._finish(marked.popleft())
        while marked:
            yield self._finish(marked.popleft())

    def _mark(self, item: GradeItem) -> _Marked:
        start = time.perf_counter()
        try:
            found, decision = _mark_lineage(item) if self.name == "qwen" else _mark(item)
        except Exception as error:  # whatever a text does, it is one error, and the rest is graded
            return _Marked(None, Decision(None, type(error).__name__), item.kind, "", _ms_since(start), None)
        ticket = None
        if found is not None and decision.verdict is None:
            ticket = self._pool.submit(item.gold_text, found.answer)
        return _Marked(found, decision, item.kind, item.gold_text, _ms_since(start), ticket)

    def _is_done(self, marked: _Marked) -> bool:
        if marked.ticket is None:
            return True
        self._pool.poll()
        return marked.ticket in self._pool.results

    def _finish(self, marked: _Marked) -> Grade:
        found = marked.found
        if found is None and marked.decision.verdict is None:
            return Grade(False, None, f"error ({marked.decision.tier})", "error", round(marked.ms, 3))
        if found is None:
            return Grade(False, None, "none", "no_answer", round(marked.ms, 3))
        if marked.decision.tier == DENIED:  # an answer that is taken back does not vote
            return Grade(False, None, f"{found.how}, {DENIED}", "no_answer", round(marked.ms, 3))
        if marked.ticket is None:
            how = f"{found.how}, {marked.decision.tier}"
            status, correct, ms = "ok", bool(marked.decision.verdict), marked.ms
        else:
            result = self._pool.result(marked.ticket)
            detail = f" ({result.detail})" if result.detail else ""
            how = f"{found.how}, math-verify{detail}"
            status, correct, ms = result.status, result.correct, marked.ms + result.ms
            if correct and not stands(marked.gold, found.answer):
                correct, how = False, f"{found.how}, math-verify (not on a second look)"
        vote = _vote(found.answer, marked.kind)
        return Grade(correct, found.answer, how, status, round(ms, 3), vote)


def _ms_since(start: float) -> float:
    return 1000 * (time.perf_counter() - start)


def _vote(answer: str, kind: str) -> str:
    try:
        return answer_class(answer, kind)
    except Exception:  # an answer that has no class votes as the text it is
        return "".join(answer.split())


def _mark(item: GradeItem) -> tuple[Candidate | None, Decision]:
    """The answer that counts, and whether it is right. One that cannot be read makes way for the next candidate."""
    gold = item.gold_text
    rules = Rules(item.ordered, _tolerance(item), unit_words(item.unit))
    first: tuple[Candidate, Decision] | None = None
    if squeezed(item.prediction) == squeezed(gold) and gold and not item.boxed_only:
        return Candidate(item.prediction.strip(), "bare"), Decision(True, "text")
    numeric = item.kind in {"integer", "number"} or _is_number(gold)
    gold_node = tree(gold)
    words = gold_node is not None and gold_node.kind == "word"
    label = labelled(gold)
    numeric = numeric or (label is not None and _is_number(label[1]))
    for candidate in candidates(item.prediction, item.boxed_only, numeric, is_choice(gold), words, label is not None):
        if len(candidate.answer) <= MAX_CHARS and not clean(candidate.answer):
            continue
        if candidate.denied and not _may_deny(gold):
            return candidate, Decision(False, DENIED)
        if len(candidate.alternatives) > 1 and all(decide(gold, a, rules).verdict for a in candidate.alternatives):
            return candidate, decide(gold, candidate.alternatives[0], rules)
        candidate, decision = _best_reading(gold, candidate, rules)
        if candidate.how == "box" and decision.verdict is not True:
            joined = _joined_boxes(gold, item.prediction)
            if joined and decide(gold, joined, rules).verdict:
                return Candidate(joined, "box"), decide(gold, joined, rules)
        if decision.verdict or candidate.how == "box" or _is_answer(candidate, gold):
            return candidate, decision
        first = first or (candidate, decision)
    return first or (None, Decision(False, "none"))


def _may_deny(gold: str) -> bool:
    """Whether a gold is no value, so that the words around an answer may be what it says: impossible, at least 5."""
    node = tree(gold)
    if node is None:
        return True
    if is_choice(gold):
        return False
    return node.kind in {"word", "empty", "inf"} or (node.kind == "rel" and "=" not in node.args[0])


def _is_quantity(answer: str) -> bool:
    """Whether an answer begins with its number, so that what follows is its unit."""
    return answer.lstrip(" $-\u2212")[:1].isdigit()


def _best_reading(gold: str, candidate: Candidate, rules: Rules) -> tuple[Candidate, Decision]:
    """The reading of a candidate that is right, else its first."""
    first = decide(gold, candidate.answer, rules)
    if first.verdict or _is_quantity(candidate.answer):  # 5 m is not 5 for a gold in cm
        return candidate, first
    for reading in candidate.others:
        decision = decide(gold, reading, rules)
        if decision.verdict:
            return candidate._replace(answer=reading), decision
    return candidate, first


def _mark_lineage(item: GradeItem) -> tuple[Candidate | None, Decision]:
    """The lineage takes the last box, whatever is said around it."""
    box = last_box(answering(item.prediction))
    if box is not None:
        return Candidate(box, "box"), decide_lineage(item.gold_text, box)
    found = next(candidates(item.prediction, item.boxed_only, _is_number(item.gold_text)), None)
    if found is None:
        return None, Decision(False, "none")
    return found, decide_lineage(item.gold_text, found.answer)


def _is_number(gold: str) -> bool:
    return Answer.of(gold).number is not None


def _is_answer(candidate: Candidate, gold: str) -> bool:
    """Whether a candidate can be read, and is not mere words if the gold is none."""
    node, gold_node = tree(candidate.answer), tree(gold)
    return node is not None and (node.kind != "word" or gold_node is None or gold_node.kind == "word")


def _joined_boxes(gold: str, prediction: str) -> str | None:
    """Neighbouring boxes as one list, if the gold is a list of as many answers."""
    node = tree(gold)
    count = len(node.args) if node is not None and node.kind in {"list", "set"} else 0
    boxes = last_boxes(answering(prediction), count) if count > 1 else []
    return ", ".join(boxes) if len(boxes) == count and boxes else None


def _tolerance(item: GradeItem) -> Fraction | None:
    if item.error:
        return read_decimal(item.error)
    return rounding(item.gold_text) if item.kind == "rounded" else None
