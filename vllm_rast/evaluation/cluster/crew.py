"""The replicas of a run: Ray places them, what they say becomes the events of the pool, lost ones are started again."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from vllm_rast.errors import UserError
from vllm_rast.evaluation.cluster.nodes import Need, Node, alive_nodes, check_nodes, last_line, room, usable
from vllm_rast.evaluation.cluster.replica import THREADS, Replica
from vllm_rast.evaluation.runs.backends import open_backend
from vllm_rast.evaluation.runs.decode import Job
from vllm_rast.evaluation.runs.jsonl import RunError
from vllm_rast.evaluation.runs.lives import Life, LivesCrew, Slot
from vllm_rast.evaluation.runs.plan import Plan, versions
from vllm_rast.evaluation.runs.pool import Event, say

PLACING_S = 20.0  # in which Ray finds a place, if there is room: then a process has to start
LOOK_S = 2.0  # between looks for nodes that have come
REMIND_S = 60.0  # between lines that say what is waited for
PATIENCE_S = 300.0  # without any node that has room


@dataclass(frozen=True)
class Order:
    """What every replica of a run gets, and takes. weights: {model: fingerprint} of the models that are folders."""

    plan: Plan
    need: Need
    weights: dict[str, str] = field(default_factory=dict)
    open_engine: Callable[[Plan], Any] = open_backend


class Actor(Life):
    """One actor."""

    def __init__(self, slot: Slot, actor: Any, group: Any = None):
        super().__init__(slot)
        self.actor, self.group = actor, group
        self.born = time.monotonic()
        self.node = ""

    @property
    def name(self) -> str:
        return f"the replica on {self.host}" if self.host else "a replica"

    def send(self, jobs: Sequence[Job]) -> None:
        self.actor.push.remote(jobs)


class RayCrew(LivesCrew):
    """Actors as workers of a pool.

    A replica that is lost comes back as another actor, and not by Ray's own `max_restarts`: a restarted actor answers
    under the old handle, so that a call made meanwhile may reach either life of it.

    replicas: how many; None: as many as there is room for, more when nodes come.
    """

    def __init__(self, ray: Any, order: Order, replicas: int | None):
        super().__init__()
        self.ray, self.order, self.wanted = ray, order, replicas
        self.nodes = {node.id: node for node in usable(order.need, alive_nodes(ray))}
        self.hosts: dict[str, str] = {}
        self.calls: dict[Any, tuple[str, Actor]] = {}  # what is waited for: reference, method
        self.looked = self.reminded = self.had_room = time.monotonic()
        for _ in range(replicas or room(order.need, self.nodes.values())):
            self.slots.append(Slot())
            self._start(self.slots[-1])

    @property
    def coming(self) -> int:
        """Replicas that load their models, or are about to."""
        soon = time.monotonic() - PLACING_S
        return sum(
            method == "open_as" or (method == "place" and life.born > soon) for method, life in self.calls.values()
        )

    def close(self) -> None:
        for _, life in self.calls.values():
            self._end(life)
        self.calls.clear()

    def _start(self, slot: Slot) -> None:
        need, group = self.order.need, None
        options = {"num_cpus": need.cpus, "num_gpus": need.gpus, "max_restarts": 0, "max_concurrency": THREADS}
        if need.across_nodes:
            group, options = grouped(self.ray, need, options)
        actor = self.ray.remote(Replica).options(**options).remote(self.order.open_engine)
        self._call("place", Actor(slot, actor, group))

    def _call(self, method: str, life: Actor, *arguments: Any) -> None:
        self.calls[getattr(life.actor, method).remote(*arguments)] = (method, life)

    def _end(self, life: Actor) -> None:
        with contextlib.suppress(Exception):  # it may be gone already, and the cluster with it
            self.ray.kill(life.actor, no_restart=True)
            if life.group is not None:
                self.ray.util.remove_placement_group(life.group)

    def _look(self) -> list[Event]:
        """What has happened since the last look; waits for at most LOOK_S."""
        try:
            ready, rest = self.ray.wait(list(self.calls), num_returns=1, timeout=LOOK_S)
            if ready and rest:
                ready += self.ray.wait(rest, num_returns=len(rest), timeout=0)[0]
            events = [event for reference in ready for event in self._answer(reference)]
            if time.monotonic() - self.looked >= LOOK_S:
                self._look_around()
        except (self.ray.exceptions.RayError, ConnectionError) as error:  # of Ray itself, not of a replica
            raise RunError(f"the Ray cluster is gone: {last_line(error)}") from error
        return events

    def _answer(self, reference: Any) -> list[Event]:
        """What a finished call means."""
        method, life = self.calls.pop(reference)
        try:
            answer = self.ray.get(reference)
        except (UserError, RunError, self.ray.exceptions.RayError) as error:
            return self._lost(life, method, error)
        if method == "place":
            life.host, life.node, _ = answer
            self._call("open_as", life, self.order.plan, versions())
            return []
        self._call("pull", life)
        if method == "open_as":
            self.hosts[life.host] = answer.device
            return [self._join(life, answer)]
        return self._finish(life, answer)

    def _lost(self, life: Actor, method: str, error: Exception) -> list[Event]:
        """A life that has ended, or whose engine has."""
        self._end(life)
        cause = error.cause if isinstance(error, self.ray.exceptions.RayTaskError) else error
        alive = life.node in {node.id for node in alive_nodes(self.ray)}
        reason = last_line(cause)
        if isinstance(cause, self.ray.exceptions.RayActorError) and method != "place":
            reason = "its process ended (killed, or out of memory)" if alive else "its node is gone"
        return self._lose(life, cause, reason, blameless=not alive)

    def _look_around(self) -> None:
        """Use nodes that have come; say what is waited for, and stop waiting for what does not come."""
        self.looked = now = time.monotonic()
        nodes = {node.id: node for node in usable(self.order.need, alive_nodes(self.ray))}
        for ident in nodes.keys() - self.nodes.keys():
            self._welcome(nodes[ident])
        self.nodes = nodes
        if nodes:
            self.had_room = now
        if any(method != "place" for method, _ in self.calls.values()):
            self.reminded = now
        elif now - self.had_room > PATIENCE_S:
            raise RunError(f"no node has had room for a replica ({self.order.need}) for {PATIENCE_S:g} s")
        elif now - self.reminded > REMIND_S:
            self.reminded = now
            say(f"waiting for room for a replica ({self.order.need})")

    def _welcome(self, node: Node) -> None:
        """Use a node that has come, if it has what a replica needs."""
        try:
            check_nodes(self.ray, [node], versions(), self.order.weights)
        except UserError as error:
            return say(f"not used: {error}")
        if self.wanted is None:
            for _ in range(room(self.order.need, [node])):
                self.slots.append(Slot())
                self._start(self.slots[-1])


def grouped(ray: Any, need: Need, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """A placement group with a bundle for each rank, for vLLM's Ray executor, and the options of an actor inside it.

    The actor itself takes nothing: the executor starts a worker in each bundle.
    """
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    group = ray.util.placement_group(need.bundles, strategy="PACK")
    inside = PlacementGroupSchedulingStrategy(group, placement_group_capture_child_tasks=True)
    return group, options | {"num_cpus": 0, "num_gpus": 0, "scheduling_strategy": inside}
