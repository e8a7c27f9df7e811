"""What a server says about itself, without one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from fastapi import FastAPI
from fastapi.testclient import TestClient

from vllm_rast.engine.launch import TINY_ENGINE
from vllm_rast.mix.config import ModelPair, RastConfig
from vllm_rast.serving import identity


def test_how_many_requests_it_decodes_at_a_time() -> None:
    """Those of all its engines: a run that knew of one alone would leave the others idle."""
    parts: dict[str, Any] = {
        "parallel_config": SimpleNamespace(data_parallel_size=3),
        "scheduler_config": SimpleNamespace(max_num_seqs=16),
        "device_config": SimpleNamespace(device_type="cpu"),
    }
    engine = SimpleNamespace(vllm_config=SimpleNamespace(**parts), model_config=SimpleNamespace(max_model_len=512))
    app = FastAPI()
    app.state.openai_serving_models = SimpleNamespace(base_model_paths=[SimpleNamespace(name="mix")])
    config = RastConfig("tiny:base", (ModelPair("tiny:positive", "tiny:negative"),))
    identity.mount(app, engine, config, (TINY_ENGINE, list(TINY_ENGINE)))
    said = TestClient(app).get("/v1/rast").json()
    assert said["max_num_seqs"] == 48 and said["max_model_len"] == 512 and said["name"] == "mix"
