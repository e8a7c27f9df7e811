"""A plan decoded by replicas on a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from vllm_rast.engine.launch import is_tiny
from vllm_rast.errors import UserError
from vllm_rast.evaluation.cluster.connect import connected
from vllm_rast.evaluation.cluster.crew import Order, RayCrew
from vllm_rast.evaluation.cluster.nodes import Need, Node, alive_nodes, check_nodes, check_room, usable
from vllm_rast.evaluation.runs.backends import open_backend
from vllm_rast.evaluation.runs.decode import Completion, Failure, Job
from vllm_rast.evaluation.runs.plan import CPU_PACKAGE, Plan, versions, weights_of
from vllm_rast.evaluation.runs.pool import Pool, say
from vllm_rast.evaluation.runs.tokenizer import BaseTokenizer


class RayBackend:
    """All rows on every replica. Each replica is one engine with its own tensor parallelism, on one node.

    address: see `connected`. replicas: None: as many as there is room for. replica_cpus: cores of each; None: one for
    the shipped models, one beside GPUs, else a whole node's. open_engine: what loads a replica's engine.
    Raises UserError for what can be seen before any model loads, and if no replica can start.
    """

    def __init__(
        self,
        plan: Plan,
        address: str,
        replicas: int | None = None,
        replica_cpus: int | None = None,
        open_engine: Callable[[Plan], Any] = open_backend,
    ):
        with ExitStack() as stack:
            ray = stack.enter_context(connected(address))
            here, weights = versions(), weights_of(plan.models)
            nodes = alive_nodes(ray)
            need = need_of(plan, nodes, CPU_PACKAGE in here, replica_cpus)
            check_room(need, nodes)
            check_nodes(ray, usable(need, nodes), here, weights)
            order = Order(for_a_replica(plan), need, weights, open_engine)
            self.crew = RayCrew(ray, order, replicas)
            stack.callback(self.crew.close)
            say(f"{len(self.crew.slots)} replicas of {need}, on {address}")
            self.crew.wait_for_first()
            self.connection = stack.pop_all()
        self.hosts = self.crew.hosts
        self.device = f"Ray: {next(iter(self.hosts.values()))}"
        self.rows_apart = not need.gpus  # on a CPU a step leaves out the models that none of its rows uses
        self.tokenizer = BaseTokenizer(plan).loaded if plan.needs_tokenizer else None

    def stream(self, jobs: Iterable[Job]) -> Generator[tuple[Job, Completion | Failure]]:
        """See Backend. Ends the replicas, and the connection, when it ends."""
        with self.connection:
            yield from Pool(self.crew).stream(jobs)


def need_of(plan: Plan, nodes: list[Node], on_cpu: bool, replica_cpus: int | None) -> Need:
    """What one replica takes. Raises UserError for options that do not go together."""
    ranks = int(plan.engine.get("tensor_parallel_size") or 1)
    if replica_cpus is not None and replica_cpus < 1:
        raise UserError(f"--replica-cpus {replica_cpus}: at least 1")
    across_nodes = plan.engine.get("distributed_executor_backend") == "ray"
    if across_nodes and on_cpu:
        raise UserError("--distributed-executor-backend ray: vLLM has no such executor for CPUs; leave it out")
    if not on_cpu:
        return Need(replica_cpus or (ranks if across_nodes else 1), ranks, across_nodes)
    largest = int(max((node.cpus for node in nodes), default=1)) or 1
    return Need(replica_cpus or (ranks if is_tiny(plan.models) else max(ranks, largest)))


def for_a_replica(plan: Plan) -> Plan:
    """What a replica must know of a plan. The executor is named: inside a placement group vLLM's own choice is Ray's,
    which knows no CPUs, and needs a group with a bundle for each rank."""
    ranks = int(plan.engine.get("tensor_parallel_size") or 1)
    engine = {"distributed_executor_backend": "mp" if ranks > 1 else "uni"} | plan.engine
    return replace(plan, rows=[], tasks=[], engine=engine)
