"""Runs and grading on a Ray cluster of several nodes on this machine: whatever is killed, the samples are the same."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import patch

import forked
import psutil
import pytest
import stub_engine
from commands import refused
from paths import ROOT
from watching import after, command_of, lines, meanwhile, wait_for

from vllm_rast.cli import machines
from vllm_rast.cli.main import main
from vllm_rast.evaluation.cluster import nodes as cluster_nodes
from vllm_rast.evaluation.runs.folder import RunFolder

ray = pytest.importorskip("ray")
pytestmark = [pytest.mark.ray, pytest.mark.slow]

STORE = 80 << 20  # bytes; Ray takes no less
# A node that is killed is seen within five seconds, one that is slow on a busy machine is not taken for dead.
HEALTH = {"health_check_period_ms": 1000, "health_check_timeout_ms": 60000, "health_check_failure_threshold": 5}
HELPERS = ROOT / "tests" / "helpers"
SIZE = ["generate", "--model", "tiny:base", "--n", "4", "--limit", "30"]  # 120 samples
STUB = [sys.executable, str(HELPERS / "stub_engine.py")]


class Cluster:
    """Nodes of one CPU each, and a head with none."""

    def __init__(self, number: int):
        from ray.cluster_utils import Cluster as RayCluster

        head: dict[str, Any] = {"num_cpus": 0, "object_store_memory": STORE, "include_dashboard": False}
        head["_system_config"] = HEALTH
        self.cluster = RayCluster(initialize_head=True, head_node_args=head)
        # A node dies with the thread that started it, and tests start some in the middle of a run.
        self.starter = ThreadPoolExecutor(1)
        self.nodes = [self.add() for _ in range(number)]

    @property
    def address(self) -> str:
        return self.cluster.address

    def add(self) -> Any:
        # Ray would handle SIGTERM in this process, which only its main thread may ask for.
        with patch("ray._private.utils.set_sigterm_handler"):
            return self.starter.submit(self.cluster.add_node, num_cpus=1, object_store_memory=STORE).result()

    def have(self, number: int) -> None:
        """Bring the cluster back to so many nodes."""
        while len(self.nodes) < number:
            self.nodes.append(self.add())
        while len(self.nodes) > number:
            self.remove()

    def remove(self) -> None:
        """A node dies, with everything on it."""
        self.cluster.remove_node(self.nodes.pop(0), allow_graceful=False)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    environment = {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": f"{ROOT}{os.pathsep}{HELPERS}"}
    with patch.dict(os.environ, environment):
        cluster = Cluster(3)
        yield cluster
        cluster.cluster.shutdown()
        cluster.starter.shutdown()


@pytest.fixture
def stubs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines, "opener", stub_engine.opener)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Counter[bytes]:
    """The samples of a run without Ray."""
    run = tmp_path_factory.mktemp("alone") / "run"
    with patch.object(machines, "opener", stub_engine.opener):
        assert main([*SIZE, "--run", str(run)]) == 0
    assert lines(run).total() == 120
    return lines(run)


def actors() -> list[psutil.Process]:
    """The processes of replicas. Ray names a process after what it runs."""
    return [one for one in psutil.process_iter() if "ray::Replica" in command_of(one)]


def kill_one() -> None:
    wait_for(actors)[0].kill()


def lose_node(cluster: Cluster) -> None:
    """A replica outlives its node by a second or so, in which it could finish what it has begun."""
    there = set(actors())
    cluster.remove()
    wait_for(lambda: there - set(actors()))


@pytest.mark.parametrize("replicas", [1, 2, 3])
def test_the_samples_are_the_same(
    cluster: Cluster, stubs: None, alone: Counter[bytes], tmp_path: Path, replicas: int
) -> None:
    cluster.have(3)
    run = tmp_path / "run"
    assert main([*SIZE, "--run", str(run), "--ray", cluster.address, "--replicas", str(replicas)]) == 0
    assert lines(run) == alone
    assert not actors()
    (sitting,) = RunFolder(run).config["sittings"]
    assert sitting["hosts"] and sitting["device"] == "Ray: none"


FAULTS: dict[str, Callable[[Cluster], None]] = {
    "a replica": lambda cluster: kill_one(),
    "two at once": lambda cluster: [process.kill() for process in wait_for(actors)[:2]] and None,
    "a node": lose_node,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_killed_in_the_middle(
    cluster: Cluster,
    stubs: None,
    alone: Counter[bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fault: str,
) -> None:
    cluster.have(3)
    go_on = tmp_path / "go on"
    monkeypatch.setenv("VLLM_STUB_HOLD", f"8:{go_on}")  # 20 samples need all three
    run = tmp_path / "run"
    thread = after(run, 20, lambda: (FAULTS[fault](cluster), go_on.touch()))
    assert main([*SIZE, "--run", str(run), "--ray", cluster.address]) == 0
    thread.join()
    assert lines(run) == alone
    assert "is lost" in capsys.readouterr().err


@pytest.mark.parametrize("seed", [1])
def test_many_random_faults(
    cluster: Cluster, stubs: None, alone: Counter[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Replicas and nodes die and come back; whatever is given up on the way is made by --retry-failed."""
    cluster.have(2)
    monkeypatch.setenv("VLLM_STUB_DELAY_S", "0.1")
    run, chance = tmp_path / "run", random.Random(seed)
    ended = threading.Event()

    def faults() -> None:
        made = 0
        for fault in chance.choices(["replica", "node"], [5, 1], k=8):
            wait_for(lambda least=made: ended.is_set() or lines(run).total() > least)
            if ended.wait(chance.uniform(0.0, 0.5)):
                return
            made = lines(run).total()
            if fault == "replica" and (some := actors()):
                chance.choice(some).kill()
            elif fault == "node":
                cluster.remove()
                cluster.have(2)

    thread = meanwhile(faults)
    command = [*SIZE, "--run", str(run), "--ray", cluster.address]
    try:
        code = main(command)
    finally:
        ended.set()
        thread.join()
    if code:
        assert RunFolder(run).failures()
        assert main([*command, "--retry-failed"]) == 0
    assert lines(run) == alone


def test_a_node_that_comes_late_is_used(
    cluster: Cluster, stubs: None, alone: Counter[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.have(1)
    go_on = tmp_path / "go on"
    monkeypatch.setenv("VLLM_STUB_HOLD", f"8:{go_on}")
    run = tmp_path / "run"
    thread = after(run, 5, lambda: (cluster.have(2), wait_for(lambda: len(actors()) == 2), go_on.touch()))
    assert main([*SIZE, "--run", str(run), "--ray", cluster.address]) == 0
    thread.join()
    assert go_on.exists() and lines(run) == alone


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_the_driver_ends(cluster: Cluster, stubs: None, alone: Counter[bytes], tmp_path: Path, number: int) -> None:
    """No actor stays behind, and the same command goes on."""
    cluster.have(2)
    run = tmp_path / "run"
    command = [*SIZE, "--run", str(run), "--ray", cluster.address]
    environment = os.environ | {"VLLM_STUB_HOLD": f"8:{tmp_path / 'never'}"}
    process = subprocess.Popen([*STUB, *command], stderr=subprocess.PIPE, text=True, env=environment)
    wait_for(lambda: lines(run).total() >= 10)
    process.send_signal(number)
    _, said = process.communicate(timeout=120)
    assert process.returncode == {signal.SIGKILL: -9, signal.SIGINT: 130, signal.SIGTERM: 143}[number], said
    assert number == signal.SIGKILL or "go on with: " in said.splitlines()[-1]
    wait_for(lambda: not actors(), limit_s=60)
    there = lines(run)
    assert 10 <= there.total() < 120 and there <= alone
    assert main(command) == 0
    assert lines(run) == alone


def test_a_cluster_of_this_machine_ends_with_the_run(
    stubs: None, alone: Counter[bytes], tmp_path: Path, cluster: Cluster
) -> None:
    run = tmp_path / "run"
    before = rays()
    done = subprocess.run(
        [*STUB, *SIZE, "--run", str(run), "--ray", "local", "--replicas", "2"],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"RAY_ADDRESS": ""},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{run}: 120 samples made, 0 were there already\n"
    assert all(line.startswith("vllm-rast: ") for line in done.stderr.splitlines()), done.stderr
    assert lines(run) == alone
    wait_for(lambda: rays() <= before, limit_s=60)


def rays() -> set[int]:
    return {one.pid for one in psutil.process_iter() if "raylet" in command_of(one) or "gcs_server" in command_of(one)}


def test_a_sample_that_kills_replicas_is_given_up(
    cluster: Cluster, stubs: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The others are made, the exit code says so, and --retry-failed tries again."""
    cluster.have(2)
    problems = tmp_path / "p.jsonl"
    texts = [*(f"{number} + 1 = " for number in range(20)), "KILL", *(f"{number} + 2 = " for number in range(20))]
    problems.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    run = tmp_path / "run"
    command = ["generate", "--model", "tiny:base", "--input", str(problems), "--n", "1", "--run", str(run)]
    command += ["--ray", cluster.address]
    assert main(command) == 1
    said = capsys.readouterr()
    assert "1 samples were given up (failed.jsonl), the first is sample 0 of '20', row 'base' of 'p'" in said.err
    assert "--retry-failed" in said.err and "40 samples made" in said.out
    assert len(lines(run)) == 40
    (key,) = RunFolder(run).failures()
    assert key.problem == "20"
    assert main(command) == 1, "still missing, and not tried again"
    assert "0 samples made, 40 were there already" in capsys.readouterr().out
    assert main([*command[:-2], "--retry-failed"]) == 0, "without Ray the stub makes it"
    assert len(lines(run)) == 41


def test_engines_that_do_not_start(
    cluster: Cluster, stubs: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line with the host and what the engine itself said last."""
    cluster.have(1)
    host = os.uname().nodename
    command = [*SIZE, "--ray", cluster.address, "--run"]
    monkeypatch.setenv("VLLM_STUB_OPEN", "error")
    assert main([*command, str(tmp_path / "1")]) == 1
    said = f"the replica on {host} did not start: ValueError: no such kernel"
    assert said in capsys.readouterr().err.splitlines()[-1]
    monkeypatch.setenv("VLLM_STUB_OPEN", "user")
    assert main([*command, str(tmp_path / "2")]) == 2
    assert f"error: {host}: max_model_len: does not fit; lower it" in capsys.readouterr().err
    monkeypatch.setenv("VLLM_STUB_OPEN", "killed")
    assert main([*command, str(tmp_path / "3")]) == 1
    assert f"the replica on {host} did not start: " in capsys.readouterr().err.splitlines()[-1]
    assert not actors()


def test_what_is_seen_before_anything_loads(
    cluster: Cluster, stubs: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.have(1)

    def error(*arguments: str) -> str:
        assert main([*SIZE, "--run", str(tmp_path / "run"), *arguments]) == 2
        return capsys.readouterr().err.splitlines()[-1]

    assert "no Ray cluster to work with (Connection refused)" in error("--ray", "127.0.0.1:1")
    assert "expected local, auto, HOST:PORT" in error("--ray", "nonsense")
    wanted = error("--ray", cluster.address, "--replica-cpus", "2")
    assert "a replica needs 2 CPUs on one node, and the largest node is " in wanted and "lower --replica-cpus" in wanted
    monkeypatch.setattr(cluster_nodes, "look_task", lambda: lambda packages, models: {"versions": {}, "weights": {}})
    assert "has python not installed, and this machine 3." in error("--ray", cluster.address)
    versions = machines_versions()
    for found, said in (
        ({"versions": versions | {"vllm_rast": "0.0.1"}, "weights": {}}, "has vllm_rast 0.0.1, and this machine"),
        ({"versions": versions, "weights": {}}, "has no model folder tiny:base; copy it there"),
        ({"versions": versions, "weights": {"tiny:base": "0"}}, "the weights of tiny:base on node"),
    ):
        monkeypatch.setattr(cluster_nodes, "look_task", lambda found=found: lambda packages, models: found)
        assert said in error("--ray", cluster.address)
    assert not actors()


def machines_versions() -> dict[str, str]:
    from vllm_rast.evaluation.runs.plan import versions

    return versions()


def test_options_that_do_not_go_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options, said in (
        (["--replicas", "2"], "--replicas 2: only with --ray"),
        (["--ray", "local", "--replicas", "0"], "--replicas 0: at least 1"),
        (["--ray", "local", "--servers", "http://a"], "--servers: --ray starts engines of its own"),
        (["--ray", "local", "--backend", "transformers"], "--ray: --backend transformers decodes in this process"),
    ):
        assert said in refused(capsys, [*SIZE, "--dry-run", *options])


def test_grades_are_the_same(cluster: Cluster, stubs: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On the cluster as here, in order, with answers that need a worker and one that no worker survives."""
    cluster.have(2)
    answers = [f"\\boxed{{{number}}}" for number in range(100)]
    answers += ["x", "", "\\boxed{\\int_0^1 x dx}", "\\boxed{" + "9" * 5000 + "!}", "\\boxed{\\frac{1}{2}}"]
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps({"gold": "\\frac12", "prediction": answer}) + "\n" for answer in answers))
    verdicts = []
    for where in ([], ["--ray", cluster.address]):
        assert main(["grade", "--pairs", str(pairs), *where]) == 0
        found = map(json.loads, capsys.readouterr().out.splitlines())
        verdicts.append([{name: value for name, value in one.items() if name != "ms"} for one in found])
    assert verdicts[0] == verdicts[1] and len(verdicts[0]) == len(answers)
    assert verdicts[0][-1]["correct"]


def test_a_replica_over_several_nodes(cluster: Cluster, stubs: None) -> None:
    """The placement of vLLM's Ray executor, which itself knows no CPUs: a bundle for each rank, gone afterwards."""
    from stub_crew import job

    from vllm_rast.evaluation.cluster.connect import connected
    from vllm_rast.evaluation.cluster.crew import Order, RayCrew
    from vllm_rast.evaluation.runs.plan import Plan
    from vllm_rast.evaluation.runs.pool import Pool
    from vllm_rast.mix.config import RastConfig

    cluster.have(2)
    need = cluster_nodes.Need(cpus=2, across_nodes=True)
    plan = Plan(RastConfig("tiny:base"), rows=[], tasks=[], n=1)
    with connected(cluster.address) as connection:
        crew = RayCrew(connection, Order(plan, need, open_engine=stub_engine.open_stub), None)
        assert len(crew.slots) == 1
        results = Pool(crew).stream(map(job, range(30)))
        assert len([next(results) for _ in range(10)]) == 10
        (group,) = ray.util.placement_group_table().values()
        assert group["state"] == "CREATED" and len(set(group["bundles_to_node_id"].values())) == 2
        results.close()
        (group,) = ray.util.placement_group_table().values()
        assert group["state"] == "REMOVED"


@pytest.mark.engine
def test_real_engines(cluster: Cluster, tmp_path: Path) -> None:
    """The shipped models, sampled: two replicas and this process make the same samples, key by key."""
    cluster.have(2)
    size = ["generate", "--n", "3", "--limit", "20", "--rows", "base,rast,positive", "--max-num-seqs", "16"]
    here, there = tmp_path / "here", tmp_path / "there"
    forked.run([sys.executable, "-m", "vllm_rast", *size, "--run", str(here)], check=True, timeout=600)
    assert main([*size, "--run", str(there), "--ray", cluster.address, "--replicas", "2"]) == 0
    assert lines(here) == lines(there) and lines(here).total() == 180
    assert not actors()
