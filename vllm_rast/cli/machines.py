"""Where a plan is decoded: in this process, on a Ray cluster, or by servers."""

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
            raise UserError(f"{option}: only with --ray; add --ray local for this machine alone")
        if value is not None and value < 1:
            raise UserError(f"{option}: at least 1")
    if elsewhere and plan.backend != "vllm":
        raise UserError(f"--{elsewhere[0]}: --backend {plan.backend} decodes in this process; leave one of the two out")
    parallel = plan.engine.get("data_parallel_size") or 1
    if parallel > 1 and not args.servers:
        raise UserError(
            f"--data-parallel-size {parallel}: that is for `serve`; here --ray local --replicas {parallel} decodes "
            "with as many engines"
        )


def opener(args: argparse.Namespace) -> Callable[[Plan], Backend]:
    """What opens the back end that the options ask for."""
    if args.servers:
        from vllm_rast.evaluation.runs.servers import ServersBackend

        return partial(ServersBackend, urls=args.servers)
    if args.ray:
        from vllm_rast.evaluation.cluster.backend import RayBackend

        return partial(RayBackend, address=args.ray, replicas=args.replicas, replica_cpus=args.replica_cpus)
    from vllm_rast.evaluation.runs import backends

    return backends.open_backend
