"""A machine divided among engines."""

from __future__ import annotations

import os

import pytest

from vllm_rast.engine.launch import ENGINES_HERE
from vllm_rast.errors import UserError
from vllm_rast.evaluation.analysis.reading import engine_of_run
from vllm_rast.evaluation.runs import places
from vllm_rast.evaluation.runs.places import Place, divided
from vllm_rast.evaluation.runs.plan import Plan
from vllm_rast.mix.config import RastConfig

GPUS = ("CUDA_VISIBLE_DEVICES", ["4", "5", "GPU-ab", "7"])


def test_gpus() -> None:
    assert [place.environment for place in divided(2, 2, GPUS)] == [
        {"CUDA_VISIBLE_DEVICES": "4,5"},
        {"CUDA_VISIBLE_DEVICES": "GPU-ab,7"},
    ]
    assert [place.environment["CUDA_VISIBLE_DEVICES"] for place in divided(3, 1, GPUS)] == ["4", "5", "GPU-ab"]


def test_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads of one core, and cores of one socket, stay together."""
    where = {
        0: (0, 0, 0),
        1: (1, 0, 1),
        2: (0, 1, 2),
        3: (1, 1, 3),
        4: (0, 0, 4),
        5: (1, 0, 5),
        6: (0, 1, 6),
        9: (1, 1, 9),
    }
    monkeypatch.setattr(places, "cores", lambda: set(where))
    monkeypatch.setattr(places, "position", where.__getitem__)
    assert [place.cores for place in divided(2, 1, None)] == [{0, 4, 2, 6}, {1, 5, 3, 9}]
    assert [place.cores for place in divided(4, 2, None)] == [{0, 4}, {2, 6}, {1, 5}, {3, 9}]
    assert [len(place.cores) for place in divided(3, 1, None)] == [2, 2, 2]
    assert divided(3, 1, None)[0].environment == {ENGINES_HERE: "3"}


@pytest.mark.parametrize(
    ("engines", "ranks", "gpus", "said"),
    [
        (5, 1, GPUS, "--data-parallel-size 5: 5 engines of 1 GPU each need 5, and there are 4; lower --data-parallel"),
        (3, 2, GPUS, "3 engines of 2 GPUs each need 6, and there are 4; lower --data-parallel-size or --tensor-par"),
        (2, 1, ("CUDA_VISIBLE_DEVICES", []), "2 engines of 1 GPU each need 2, and there are 0"),
        (9, 1, None, "9 engines of 1 CPU core each need 9, and there are 8"),
        (3, 4, None, "3 engines of 4 CPU cores each need 12, and there are 8"),
    ],
)
def test_too_many(
    engines: int, ranks: int, gpus: tuple[str, list[str]] | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "cores", lambda: set(range(8)))
    with pytest.raises(UserError, match=said):
        divided(engines, ranks, gpus)


def test_a_place_is_taken_only_while_a_process_starts() -> None:
    before, core = os.sched_getaffinity(0), min(os.sched_getaffinity(0))
    with Place(frozenset([core]), {"A_PLACE": "1"}).taken():
        assert os.sched_getaffinity(0) == {core} and os.environ["A_PLACE"] == "1"
    assert os.sched_getaffinity(0) == before and "A_PLACE" not in os.environ


def test_where_a_core_of_this_machine_is() -> None:
    found = [places.position(core) for core in places.cores()]
    assert len(set(found)) == len(found)
    assert places.position(10**6) == (0, 10**6, 10**6), "nothing is known of it"


def test_each_engine_is_one_and_one_reads_the_run() -> None:
    """What says how many engines there are is told to none of them, nor to the one that reads what they made."""
    models = RastConfig("org/base")
    plan = Plan(models, rows=[], tasks=[], n=1, engine={"data_parallel_size": 2, "max_num_seqs": 8})
    assert plan.engines == 2 and plan.for_one_engine().engine == {"max_num_seqs": 8}
    assert plan.for_one_engine().engines == 1
    assert engine_of_run({"engine": plan.engine}, models, {"max_num_seqs": 4}) == {"max_num_seqs": 4}
