"""Our metrics: counted from vLLM's own front-end state, and on /metrics of a real server."""

from __future__ import annotations

import asyncio
import re
from types import SimpleNamespace
from typing import Any

import pytest
from dashboard import metrics_of_the_dashboard
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client import REGISTRY
from serving import Server
from vllm import SamplingParams
from vllm.v1.engine import EngineCoreOutput, EngineCoreRequest, FinishReason
from vllm.v1.engine.output_processor import OutputProcessor
from vllm.v1.engine.parallel_sampling import ParentRequest

from vllm_rast import ModelPair, RastConfig
from vllm_rast.serving import metrics

PAIR = {"positive": "some/positive", "negative": "some/negative"}
TWO_PAIRS = RastConfig("some/base", (ModelPair(**PAIR), ModelPair("other/positive", alpha=-0.5)), trace=True)


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


class Change:
    """How much a metric grew since this was made; tests share one registry."""

    def __init__(self) -> None:
        self.before = {(s.name, *sorted(s.labels.items())): s.value for m in REGISTRY.collect() for s in m.samples}

    def __call__(self, name: str, **labels: str) -> float:
        return value(name, **labels) - self.before.get((name, *sorted(labels.items())), 0.0)


class FakeEngine:
    """The front end's state as vLLM keeps it, and an engine that knows nothing but its sums of KL."""

    def __init__(self) -> None:
        self.output_processor = OutputProcessor(None, log_stats=False)
        self.numbers = iter(range(100))
        self.kl_nats, self.rows = 0.0, 0
        self.answers = asyncio.Event()
        self.answers.set()

    async def collective_rpc(self, method: str, args: tuple) -> list[dict[str, float]]:
        assert (method, args) == ("rast_trace", (True,))
        await self.answers.wait()
        sums, self.kl_nats, self.rows = {"kl_nats": self.kl_nats, "rows": self.rows}, 0.0, 0
        return [sums, sums]  # two ranks

    def request(self, alpha: Any = None, n: int = 1) -> EngineCoreRequest:
        name = f"request-{next(self.numbers)}"
        params = SamplingParams(n=n, detokenize=False, extra_args=None if alpha is None else {"alpha": alpha})
        return EngineCoreRequest(
            request_id=name,
            prompt_token_ids=[1, 2],
            mm_features=None,
            sampling_params=params,
            pooling_params=None,
            arrival_time=0.0,
            lora_request=None,
            cache_salt=None,
            data_parallel_rank=None,
            external_req_id=name,
        )

    def add(self, alpha: Any = None) -> str:
        request = self.request(alpha)
        self.output_processor.add_request(request, "a prompt")
        return request.request_id

    def decode(self, tokens: dict[str, int], finished: bool = False) -> None:
        reason = FinishReason.LENGTH if finished else None
        self.output_processor.process_outputs(
            [EngineCoreOutput(name, [7] * count, finish_reason=reason) for name, count in tokens.items()]
        )


@pytest.fixture
def engine() -> FakeEngine:
    engine = FakeEngine()
    metrics.start(engine, TWO_PAIRS)
    return engine


def test_requests_and_tokens_by_kind(engine: FakeEngine) -> None:
    change = Change()
    alphas = [None, 0.5, "base", "positive:1", "positive:2", {"alpha": 1, "warmup": 3}, "[[0, 1], [5, 0]]", "[1, 2]"]
    running = [engine.add(alpha) for alpha in alphas]
    engine.decode({name: 1 + place for place, name in enumerate(running)})
    engine.decode({"unknown": 1000, running[1]: 100}, finished=True)
    assert running[1] not in engine.output_processor.request_states
    assert change("vllm_rast:generated_tokens_total", kind="mix") == 1 + 2 + 8 + 100
    assert change("vllm_rast:generated_tokens_total", kind="schedule") == 6 + 7
    requests = {"mix": 3, "base": 1, "positive": 1, "positive:2": 1, "schedule": 2}
    for kind, number in requests.items():
        assert change("vllm_rast:requests_total", kind=kind) == number, kind
    for kind, tokens in (("base", 3), ("positive", 4), ("positive:2", 5)):
        assert change("vllm_rast:generated_tokens_total", kind=kind) == tokens


def test_alphas_of_constants(engine: FakeEngine) -> None:
    change = Change()
    for alpha in (None, 0, [0.25, -4], "[0.3, 0.3]", "positive", {"alpha": 9, "until": 3}):
        engine.add(alpha)
    assert change("vllm_rast:alpha_count") == 4
    assert change("vllm_rast:alpha_sum") == pytest.approx(1 + 0 + 4 + 0.3)
    assert change("vllm_rast:alpha_bucket", le="0.0") == 1
    assert change("vllm_rast:alpha_bucket", le="0.3") == 2
    assert change("vllm_rast:alpha_bucket", le="3.0") == 3


def test_samples_of_one_request_count_once(engine: FakeEngine) -> None:
    change, whole = Change(), engine.request(2, n=3)
    parent = ParentRequest(whole)
    for index in range(3):
        child = engine.request(2)
        child.request_id, child.sampling_params = parent.get_child_info(index)
        engine.output_processor.add_request(child, "a prompt", parent, index, None)
        engine.decode({child.request_id: 5})
    assert change("vllm_rast:requests_total", kind="mix") == 1
    assert change("vllm_rast:generated_tokens_total", kind="mix") == 15


def app_of(engine: FakeEngine) -> FastAPI:
    app = FastAPI()
    app.add_api_route("/metrics", lambda: value("vllm_rast:kl_nats_total"))
    app.add_api_route("/other", lambda: value("vllm_rast:kl_nats_total"))
    return app


def test_a_scrape_reads_the_engine(engine: FakeEngine) -> None:
    app, change = app_of(engine), Change()
    metrics.mount(app, engine, TWO_PAIRS)
    with TestClient(app) as client:
        before = client.get("/metrics").json()
        engine.kl_nats, engine.rows = 1.5, 4
        assert client.get("/other").json() == before
        assert client.get("/metrics").json() == before + 1.5
        assert client.get("/metrics").json() == before + 1.5
    assert change("vllm_rast:kl_rows_total") == 4


def test_a_scrape_does_not_wait_for_a_busy_engine(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "SCRAPE_WAIT_S", 0.01)
    app, change = app_of(engine), Change()
    metrics.mount(app, engine, TWO_PAIRS)
    engine.kl_nats, engine.rows = 2.0, 3
    engine.answers.clear()
    with TestClient(app) as client:
        for _ in range(3):
            assert client.get("/metrics").status_code == 200
        assert change("vllm_rast:kl_rows_total") == 0
        client.portal.call(engine.answers.set)  # type: ignore[union-attr]
        client.get("/metrics")
        client.get("/metrics")
    assert change("vllm_rast:kl_rows_total") == 3, "once, however many scrapes waited"


def test_a_scrape_survives_the_engine(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    async def gone(*args: Any, **options: Any) -> None:
        raise RuntimeError("the engine is gone")

    app = app_of(engine)
    monkeypatch.setattr(engine, "collective_rpc", gone)
    metrics.mount(app, engine, TWO_PAIRS)
    with TestClient(app) as client:
        assert client.get("/metrics").status_code == 200


def test_as_stock_middleware(engine: FakeEngine, random_models: dict[str, str]) -> None:
    """vLLM makes it from its class alone, before there is an engine."""
    small = {"positive": random_models["positive"], "trace": True}
    config: Any = SimpleNamespace(model=random_models["base"], revision=None)
    plain, mixing = FakeEngine(), FakeEngine()
    for fake, additional in ((plain, {}), (mixing, {"rast": small})):
        fake.vllm_config = SimpleNamespace(additional_config=additional, model_config=config)  # type: ignore[attr-defined]
        fake.rows = 5
        app, change = app_of(fake), Change()
        app.add_middleware(metrics.Metrics)
        app.state.engine_client = fake
        with TestClient(app) as client:
            client.get("/metrics")
        fake.add(0.5)
        mixes = fake is mixing
        assert change("vllm_rast:kl_rows_total") == 5 * mixes
        assert change("vllm_rast:requests_total", kind="mix") == mixes


def test_the_endpoint(server: Server) -> None:
    """Every name of the dashboard is there; requests, tokens and KL grow by those of three answers."""
    names = {name for name in metrics_of_the_dashboard() if name.startswith("vllm_rast:")}
    assert len(names) == 5
    names |= {"vllm:generation_tokens_total", "vllm_rast:alpha_sum"}
    before = {name: server.metric(name) for name in names} | by_kind(server)
    for body in ({"vllm_xargs": {"alpha": 0.5}}, {"model": "tiny:base:base"}, {"n": 3, "temperature": 1, "seed": 1}):
        server.complete("Question:", max_tokens=8, ignore_eos=True, **body)
    after = {name: server.metric(name) for name in names} | by_kind(server)
    grown = {name: after[name] - before.get(name, 0) for name in after}
    assert grown['vllm_rast:requests_total{kind="mix"}'] == 2
    assert grown['vllm_rast:requests_total{kind="base"}'] == 1
    assert grown['vllm_rast:generated_tokens_total{kind="mix"}'] == 32
    assert grown['vllm_rast:generated_tokens_total{kind="base"}'] == 8
    assert grown["vllm_rast:generated_tokens_total"] == grown["vllm:generation_tokens_total"] == 40
    assert grown["vllm_rast:alpha_sum"] == pytest.approx(1.5)
    assert grown["vllm_rast:kl_rows_total"] == 32
    assert grown["vllm_rast:kl_nats_total"] > 0


def by_kind(server: Server) -> dict[str, float]:
    """{name with its label: value} of our counters that have a kind."""
    lines = (line.rpartition(" ") for line in server.get("/metrics").splitlines() if "{kind=" in line)
    return {name: float(value) for name, _, value in lines}


def test_the_dashboard_asks_for_what_the_server_tells(server: Server) -> None:
    """After a few requests, every name of docs/grafana.json has a sample, but for drafts, which nobody makes here."""
    server.complete("Question:", max_tokens=4, stream=False)
    server.get("/v1/models")
    told = {re.split(r"[ {]", line)[0] for line in server.get("/metrics").splitlines()}
    assert {name for name in metrics_of_the_dashboard() - told if "spec_decode" not in name} == set()
