"""The actor: one engine on a node of the cluster."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

from vllm_rast.errors import UserError
from vllm_rast.evaluation.cluster.nodes import difference
from vllm_rast.evaluation.runs.engine_thread import EngineThread, Opened
from vllm_rast.evaluation.runs.plan import Plan, versions

THREADS = 4  # of the actor: one waits in `pull`, one may in `open`, the others take jobs


class Replica(EngineThread):
    """What the driver calls."""

    def place(self) -> tuple[str, str, int]:
        """The host, Ray's id of the node, and the process."""
        import ray

        return socket.gethostname(), ray.get_runtime_context().get_node_id(), os.getpid()

    def open_as(self, plan: Plan, driver_versions: Mapping[str, str]) -> Opened:
        """`open`, if this node has the driver's versions. Raises UserError for other ones, too."""
        if what := difference(driver_versions, versions()):
            raise UserError(f"this node has {what}; install the same on every node")
        import ray

        # vLLM's Ray executor may be in a process of its own, which looks for a cluster by itself.
        os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
        return self.open(plan)
