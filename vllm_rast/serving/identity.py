"""What this server decodes with, so that a run can check that it would get its own samples here."""

from __future__ import annotations

import functools
import socket
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from starlette.responses import JSONResponse

from vllm_rast.evaluation.runs.served_mix import PATH, served_mix

if TYPE_CHECKING:
    from vllm_rast.mix.config import RastConfig


def mount(app: FastAPI, engine_client: Any, config: RastConfig, asked: tuple[dict[str, Any], list[str]]) -> None:
    """Add GET /v1/rast, which an API key guards, to vLLM's app.

    asked: the engine's options as the command line left them, and the names of those that are not vLLM's defaults.
    """
    vllm_config = engine_client.vllm_config
    engines = vllm_config.parallel_config.data_parallel_size

    @functools.cache  # the weights' fingerprints are read once, at the first request
    def identity() -> dict[str, Any]:
        return served_mix(config, *asked) | {
            "name": app.state.openai_serving_models.base_model_paths[0].name,
            "device": f"{socket.gethostname()}: {vllm_config.device_config.device_type}",
            "max_num_seqs": engines * vllm_config.scheduler_config.max_num_seqs,  # that the server decodes at a time
            "max_model_len": engine_client.model_config.max_model_len,
        }

    def answer() -> JSONResponse:  # not async: FastAPI runs it beside the event loop
        return JSONResponse(identity())

    app.add_api_route(f"/v1{PATH}", answer, methods=["GET"], response_model=None)
