"""A health check that decodes a token: the engine's process may live and still make none."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from vllm_rast.serving.error_responses import bad_request, unavailable

PATH = "/health/decode"
TIMEOUT_S = 30.0
MAX_TIMEOUT_S = 600.0


class DecodeCheck:
    """GET /health/decode[?timeout=SECONDS]: 200 once the mix has decoded one token, 503 if it does not in time.

    Checks that come while one is running wait for its token: any number of them costs the engine one request.
    """

    def __init__(self, engine_client: Any) -> None:
        self.engine_client = engine_client
        self.number = 0
        self.running: asyncio.Task[float] | None = None

    async def __call__(self, request: Request) -> Response:
        try:
            timeout = float(request.query_params.get("timeout", TIMEOUT_S))
        except ValueError:
            timeout = 0.0
        if not 0 < timeout <= MAX_TIMEOUT_S:
            return bad_request(f"timeout: expected seconds, above 0 and at most {MAX_TIMEOUT_S:g}", "timeout")
        if self.running is None or self.running.done():
            self.running = asyncio.create_task(self.decode())
        try:
            seconds = await asyncio.wait_for(asyncio.shield(self.running), timeout)
        except TimeoutError:
            return unavailable(f"no token within {timeout:g} s")
        except Exception as error:  # whatever it is, no token came
            return unavailable(f"no token: {str(error) or type(error).__name__}")
        return JSONResponse({"status": "ok", "seconds": round(seconds, 3)})

    async def decode(self) -> float:
        """Decode one token after a prompt of one; seconds it took. Raises whatever kept it from coming."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        began = time.monotonic()
        self.number += 1
        params = SamplingParams(
            max_tokens=1, temperature=0.0, detokenize=False, output_kind=RequestOutputKind.FINAL_ONLY
        )
        tokens = 0
        request_id = f"health-{self.number}"
        async for output in self.engine_client.generate({"prompt_token_ids": [0]}, params, request_id):
            tokens += len(output.outputs[0].token_ids)
        if tokens != 1:
            raise RuntimeError(f"the engine answered with {tokens} tokens instead of 1")
        return time.monotonic() - began


def mount(app: FastAPI, engine_client: Any) -> None:
    """Add the route to vLLM's app."""
    app.add_api_route(PATH, DecodeCheck(engine_client).__call__, methods=["GET"], response_model=None)
