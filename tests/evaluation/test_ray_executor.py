"""Tensor parallelism across machines is vLLM's Ray executor, which starts our workers."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import forked
import pytest
from paths import ROOT

from vllm_rast.cli.main import main
from vllm_rast.errors import UserError
from vllm_rast.evaluation.cluster import backend
from vllm_rast.evaluation.cluster.backend import for_a_replica, need_of
from vllm_rast.evaluation.cluster.nodes import Need
from vllm_rast.evaluation.runs.plan import Plan
from vllm_rast.mix.config import RastConfig

pytest.importorskip("ray")

STORE = 80 << 20  # bytes; Ray takes no less
EXECUTOR = {"distributed_executor_backend": "ray", "tensor_parallel_size": 4}
HELPERS = ROOT / "tests" / "helpers"


def plan(**engine: object) -> Plan:
    return Plan(RastConfig("tiny:base"), rows=[], tasks=[], n=1, engine=engine)


def test_what_a_replica_is_told() -> None:
    """vLLM's executor is the one that was asked for, and else one that knows no Ray."""
    assert for_a_replica(plan(**EXECUTOR)).engine == EXECUTOR
    assert need_of(plan(**EXECUTOR), [], False, None) == Need(4, 4, across_nodes=True)
    assert for_a_replica(plan(tensor_parallel_size=2)).engine["distributed_executor_backend"] == "mp"
    assert for_a_replica(plan()).engine["distributed_executor_backend"] == "uni"


def test_vllm_has_none_for_cpus() -> None:
    with pytest.raises(UserError, match="--distributed-executor-backend ray: vLLM has no such executor for CPUs"):
        need_of(plan(**EXECUTOR), [], True, None)


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Two nodes, each of which says that it has a GPU, and processes whose vLLM says that it is one."""
    from cpu_on_ray import plug_in
    from ray.cluster_utils import Cluster

    folders = [str(ROOT), str(HELPERS), plug_in(tmp_path / "plug-in")]
    environment = {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": os.pathsep.join(folders)}
    # An earlier cluster may have left a token in the home folder, which vLLM's process would ask these nodes for.
    environment["RAY_AUTH_MODE"] = "disabled"
    with patch.dict(os.environ, environment):
        head = {"num_cpus": 0, "num_gpus": 0, "object_store_memory": STORE, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            for _ in range(2):
                cluster.add_node(num_cpus=1, num_gpus=1, object_store_memory=STORE)
            yield cluster.address
        finally:
            cluster.shutdown()


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.engine
def test_two_ranks_on_two_nodes(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole way of a replica across nodes: its placement group, vLLM's executor in it, our worker, plug-in and mix
    in each rank. Its engine is in a process of its own, as it is on a GPU."""
    size = ["generate", "--n", "1", "--limit", "6", "--rows", "base,rast", "--temperature", "0", "--max-tokens", "12"]
    alone, across = tmp_path / "alone", tmp_path / "across"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment["PYTHONPATH"] = str(ROOT)  # without the plug-in
    command = [sys.executable, "-m", "vllm_rast", *size, "--run", str(alone)]
    forked.run(command, check=True, timeout=600, env=environment)
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    monkeypatch.setattr(backend, "CPU_PACKAGE", "none")  # or the option is refused, since vLLM would
    ranks = ["--tensor-parallel-size", "2", "--distributed-executor-backend", "ray", "--ray", address]
    assert main([*size, *ranks, "--run", str(across)]) == 0
    assert texts(across) == texts(alone) and len(texts(alone)) == 12


def texts(run: Path) -> dict[tuple[str, str], str]:
    records = map(json.loads, (run / "samples.jsonl").read_text().splitlines())
    return {(record["row"], record["problem"]): record["text"] for record in records}
