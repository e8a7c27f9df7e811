"""Grading on a cluster: chunks of answers as Ray's tasks, each marked by the same grader as here."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from functools import cache
from importlib import metadata
from itertools import islice
from typing import Any

from vllm_rast.errors import UserError
from vllm_rast.evaluation.cluster.connect import connected
from vllm_rast.evaluation.cluster.nodes import Need, alive_nodes, check_nodes, last_line, room
from vllm_rast.evaluation.runs.jsonl import RunError
from vllm_rast.evaluation.runs.plan import versions
from vllm_rast.grading import Grade, GradeItem, Grader

CHUNK = 64  # answers of one task: some tenths of a second, if no answer needs a worker
AHEAD = 3  # tasks for each core: one that runs, and some beyond the one whose grades come next
RETRIES = 3  # of a task whose node or process is gone, by Ray; a grade depends on nothing but its item


class RayGrader:
    """What `Grader` is, on every core of a cluster. A context manager: leaving it ends the tasks.

    Each process that grades keeps a Grader with its own killable workers, so a text that stops one stops no other.
    """

    def __init__(self, address: str, name: str, timeout_s: float | None, workers: int | None):
        options: dict[str, Any] = {"timeout_s": timeout_s, "workers": workers or 1}
        self.options = tuple((key, value) for key, value in options.items() if value is not None)
        self.name = name
        with Grader(name, **dict(self.options)):  # what is wrong with the options, before anything starts
            pass
        with ExitStack() as stack:
            self.ray = stack.enter_context(connected(address))
            nodes = [node for node in alive_nodes(self.ray) if node.cpus >= 1]
            if not nodes:
                raise UserError(f"--ray {address}: no node of the cluster has a CPU for grading")
            here = {name: versions()[name] for name in ("python", "vllm_rast")}
            here["math-verify"] = metadata.version("math-verify")
            check_nodes(self.ray, nodes, here, {}, same=here)
            self.tasks = AHEAD * room(Need(1), nodes)
            self.connection = stack.pop_all()

    def __enter__(self) -> RayGrader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.connection.close()

    def grade_many(self, items: Iterable[GradeItem]) -> Iterator[Grade]:
        """One Grade for each item, in order. Raises RunError if a chunk fails however often it is tried."""
        task = self.ray.remote(grade_chunk).options(num_cpus=1, max_retries=RETRIES)
        source, running = iter(items), deque[Any]()
        while True:
            while len(running) < self.tasks and (chunk := list(islice(source, CHUNK))):
                running.append(task.remote(self.name, self.options, chunk))
            if not running:
                return
            try:
                grades = self.ray.get(running.popleft())
            except self.ray.exceptions.RayError as error:
                raise RunError(f"grading on the cluster failed: {last_line(error)}") from error
            yield from grades


def grade_chunk(name: str, options: tuple[tuple[str, Any], ...], items: list[GradeItem]) -> list[Grade]:
    """The grades of some items, by this process's grader."""
    return list(own_grader(name, options).grade_many(items))


@cache
def own_grader(name: str, options: tuple[tuple[str, Any], ...]) -> Grader:
    """A grader that lives as long as the process: Ray uses one for many tasks. Its workers end with it."""
    return Grader(name, **dict(options))
