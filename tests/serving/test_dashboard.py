"""docs/grafana.json: well formed, and every metric in it exists."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path

from dashboard import BOARD, PANELS, QUERIES, metrics_of_the_dashboard


def vllm_samples() -> set[str]:
    """The names under which vLLM's source and Prometheus' client write their samples."""
    import vllm.v1.metrics.loggers
    import vllm.v1.spec_decode.metrics

    kinds = re.findall(
        r'_(gauge|counter|histogram)_cls\(\s*name="([^"]+)"', Path(vllm.v1.metrics.loggers.__file__ or "").read_text()
    )
    assert len(kinds) > 30
    endings = {"gauge": [""], "counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
    drafts = re.findall(r'"(vllm:spec_decode_\w+)"', Path(vllm.v1.spec_decode.metrics.__file__ or "").read_text())
    assert len(set(drafts)) == 4
    return {
        name + ending for kind, name in [*kinds, *(("counter", name) for name in drafts)] for ending in endings[kind]
    }


def test_every_metric_of_vllm_exists() -> None:
    names = metrics_of_the_dashboard()
    assert len(names) > 15
    ours = {name for name in names if name.startswith("vllm_rast:")}
    others = {"http_requests_total", "process_resident_memory_bytes"}  # FastAPI's instrumentation, and the client's own
    assert names - ours - others <= vllm_samples()


def test_panels_ask_the_chosen_source_and_servers() -> None:
    assert [variable["name"] for variable in BOARD["templating"]["list"]] == ["datasource", "job", "instance"]
    for panel in PANELS:
        assert panel["title"] and panel["description"]
        for asked in (panel, *panel["targets"]):
            assert asked["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    for query in QUERIES:
        assert query.count("(") == query.count(")")
        assert query.count("{") == query.count('{job=~"$job",instance=~"$instance"}')


def test_panels_have_a_place_each() -> None:
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])
    places = [panel["gridPos"] for panel in BOARD["panels"]]
    assert all(place["x"] >= 0 and place["x"] + place["w"] <= 24 for place in places)
    for a, b in combinations(places, 2):
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        above = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert beside or above
