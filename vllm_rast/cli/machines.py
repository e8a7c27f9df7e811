"""Where a plan is decoded: in this process, in several on this machine, on a Ray cluster, or by servers."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from vllm_rast.errors import UserError

if TYPE_CHECKING:
    from vllm_rast.evaluation.runs.decode import Backend
    from vllm_rast.evaluation.runs.plan import Plan


def check_machines(args: argparse.Namespace, plan: Plan) -> None:
    """Raises UserError for options that do not go together."""
    elsewhere = [name for name in ("ray", "servers") if getattr(args, name)]
    if len(elsewhere) > 1:
        raise UserError("--servers: --ray starts engines of its own; leave one of the two out")
    for name in ("replicas", "replica_cpus"):
        value = getattr(args, name)
        option = f"--{name.replace('_', '-')} {value}"
        if value is not None and not args.ray:
            raise UserError(f"{option}: only with --ray; for this machine alone there is --data-parallel-size")
        if value is not None and value < 1:
            raise UserError(f"{option}: at least 1")
    if elsewhere and plan.backend != "vllm":
        raise UserError(f"--{elsewhere[0]}: --backend {plan.backend} decodes in this process; leave one of the two out")
    if not args.servers:
        check_engines(args, plan)


def check_engines(args: argparse.Namespace, plan: Plan) -> None:
    """Raises UserError for what does not go with several engines on this machine."""
    option = f"--data-parallel-size {plan.engines}"
    if plan.engines == 1:
        return
    if plan.engines < 1:
        raise UserError(f"{option}: at least 1")
    if args.ray:
        raise UserError(f"{option}: on a cluster --replicas {plan.engines} does it; give that instead")
    if plan.engine.get("distributed_executor_backend") == "ray":
        raise UserError(f"{option}: the engines are this machine's; with vLLM's Ray executor say --ray --replicas")


def opener(args: argparse.Namespace) -> Callable[[Plan], Backend]:
    """What opens the back end that the options ask for."""
    if args.servers:
        from vllm_rast.evaluation.runs.servers import ServersBackend

        return partial(ServersBackend, urls=args.servers)
    if args.ray:
        from vllm_rast.evaluation.cluster.backend import RayBackend

        return partial(RayBackend, address=args.ray, replicas=args.replicas, replica_cpus=args.replica_cpus)
    return open_here


def open_here(plan: Plan) -> Backend:
    """One engine in this process, or as many as the plan asks for in processes of their own."""
    from vllm_rast.evaluation.runs import backends, processes

    if plan.engines > 1:
        return processes.ProcessesBackend(plan)
    return backends.open_backend(plan)
