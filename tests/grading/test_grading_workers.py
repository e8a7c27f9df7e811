"""Workers: limits, replacement, and answers meant to break graders."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time

import pytest

from vllm_rast.grading import GradeItem, Grader
from vllm_rast.grading.workers import worker
from vllm_rast.grading.workers.pool import WORKER, Pool
from vllm_rast.grading.workers.worker import MEMORY

TOWER = "5^{5^{5^{5}}}"
SUM = "\\sum_{k=1}^{3} k"  # only math-verify can read it


@pytest.fixture
def pool():
    pool = Pool(workers=1, timeout_s=20)
    yield pool
    pool.close()


def compare(pool: Pool, gold: str, answer: str):
    return pool.result(pool.submit(gold, answer))


def test_a_stuck_worker_costs_its_time_and_is_replaced(pool):
    assert compare(pool, SUM, "6").correct  # started and warm
    pool.timeout_s = 0.5
    before, child = pool.workers[0], pool.workers[0].child
    begin = time.monotonic()
    result = compare(pool, "5", TOWER)
    assert (result.correct, result.status) == (False, "timeout")
    assert 0.5 <= time.monotonic() - begin < 5
    pool.timeout_s = 20
    assert compare(pool, SUM, "6").correct
    assert pool.workers == [before] and before.child != child
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_a_killed_worker_is_replaced(pool):
    assert compare(pool, SUM, "6").correct
    os.kill(pool.workers[0].child, signal.SIGKILL)
    results = [compare(pool, SUM, "6") for _ in range(3)]  # the first may fall to the dead child
    assert {r.status for r in results} <= {"ok", "error"} and results[-1].correct
    pool.workers[0].process.kill()
    results = [compare(pool, SUM, "6") for _ in range(3)]
    assert {r.status for r in results} <= {"ok", "error"} and results[-1].correct


@pytest.mark.slow
def test_a_memory_bomb_is_contained(pool):
    assert compare(pool, SUM, "6").correct
    pool.timeout_s = 1
    for bomb in ("2^{10^{10}}", "(10^{8000000})^{1000}", "(x+y+z)^{100000}", "\\binom{10^9}{500000000}"):
        assert not compare(pool, "5", bomb).correct
        with open(f"/proc/{pool.workers[0].process.pid}/statm") as statm:
            assert int(statm.read().split()[0]) * os.sysconf("SC_PAGE_SIZE") < MEMORY
    pool.timeout_s = 20
    assert compare(pool, SUM, "6").correct


def test_the_kernel_limits_a_worker():
    """In a process of its own, as limits cannot be raised again: memory, files, processes."""
    code = f"""
import sys
sys.path.insert(0, {str(WORKER.parent.parent.parent.parent)!r})
from vllm_rast.grading.workers import worker
worker._limit()
try:
    bytearray(2 * worker.MEMORY)
except MemoryError:
    print("memory", end=" ")
try:
    with open("grown", "w") as file:
        file.write("x")
except OSError:
    print("file", end=" ")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tempfile.mkdtemp(), preexec_fn=_ignore_sigxfsz
    )
    assert done.stdout == "memory file ", done.stderr


def _ignore_sigxfsz() -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


@pytest.mark.parametrize(
    ("raised", "reply"),
    [
        (MemoryError, "out of memory"),
        (RecursionError, "nested too deeply"),
        (ZeroDivisionError, "ZeroDivisionError"),
    ],
)
def test_a_worker_reports_what_went_wrong(monkeypatch, raised, reply):
    def fail(gold, answer):
        raise raised

    monkeypatch.setattr(worker, "_compare", fail)
    assert worker._reply("1", "2") == {"error": reply}


def test_workers_end_with_the_pool():
    pool = Pool(workers=2, timeout_s=20)
    tickets = [pool.submit(SUM, "6") for _ in range(4)]
    assert all(pool.result(ticket).correct for ticket in tickets)
    processes = [w.process for w in pool.workers]
    children = [w.child for w in pool.workers]
    pool.close()
    assert all(process.poll() is not None for process in processes)
    deadline = time.monotonic() + 10  # a child of a killed process is reaped by init, some time later
    while time.monotonic() < deadline and any(os.path.exists(f"/proc/{child}/task") for child in children):
        if all(state(child) in "ZX" for child in children):
            break
        time.sleep(0.01)
    assert all(state(child) in "ZX" for child in children)


def state(process: int) -> str:
    try:
        with open(f"/proc/{process}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "X"


def test_workers_start_only_when_needed():
    with Grader() as grader:
        items = [GradeItem("The answer is \\boxed{\\frac{1}{2}}.", "0.5"), GradeItem("#### 7", "7"), GradeItem("", "7")]
        assert [grade.correct for grade in grader.grade_many(items)] == [True, True, False]
        assert grader._pool.workers == []


HOSTILE = [
    "(" * 20_000 + ")" * 20_000,
    "{" * 50_000,
    "\\boxed{" * 10_000,
    "\\boxed{" * 5_000 + "}" * 5_000,
    "answer is " * 10_000,
    "answer" + " " * 50_000,
    "$" * 50_001,
    "\\[" * 20_000,
    "2," * 1_400,
    "-" * 2_900 + "1",
    "2+" * 1_400 + "1",
    "x^" * 1_400 + "2",
    "\\sqrt{" * 400 + "2" + "}" * 400,
    "\\frac{" * 1_000,
    "|" * 3_000,
    "9" * 50_000,
    "#### " * 10_000,
    "\\text{" * 400 + "}" * 400,
    "\\boxed{" + ", ".join(f"\\sin({n}x)" for n in range(150)) + "}",
    "\\boxed{\\begin{pmatrix}" + "2&" * 300 + "2\\end{pmatrix}}",
    "\x00\x01\x02",
    "\ud800",
]


def test_hostile_texts_are_marked_wrong_at_once():
    with Grader(timeout_s=1, workers=1) as grader:
        for text in HOSTILE:
            for gold in ("5", "x+1", "3,4,5"):
                grade = grader.grade(GradeItem(text, gold))
                assert not grade.correct, (text[:40], gold, grade)


def test_samples_behind_a_slow_one_are_graded_all_the_same():
    items = [GradeItem(f"\\boxed{{{TOWER if n == 2 else n}}}", str(n)) for n in range(50)]
    with Grader(timeout_s=0.5, workers=1) as grader:
        marked = list(grader.grade_many(items))
    assert [grade.status for grade in marked] == ["timeout" if n == 2 else "ok" for n in range(50)]
    assert [grade.correct for grade in marked] == [n != 2 for n in range(50)]
