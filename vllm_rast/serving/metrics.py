"""What a mix adds to vLLM's /metrics: requests and tokens by kind, their alphas, and how far the mix moves the base.

`vllm-rast serve` mounts it. Stock vLLM takes it by its own option: `vllm serve ... --middleware
vllm_rast.serving.metrics.Metrics`. Several server processes add up, as vLLM's own metrics do.

Touches vLLM's `AsyncLLM.output_processor`: `add_request` sees every request of the front end, `process_outputs` every
token that comes back. vLLM's own hook, a stat logger, is told neither the request's parameters nor its id.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from prometheus_client import Counter, Histogram
from starlette import middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from vllm_rast.errors import UserError
from vllm_rast.mix.alpha import Alpha, alphas_of, kind_of, read_text, single_models

if TYPE_CHECKING:
    from vllm_rast.mix.config import RastConfig

logger = logging.getLogger("vllm.rast")

PATH = "/metrics"
SCRAPE_WAIT_S = 2.0  # how long a scrape waits for the engine's sums; Prometheus gives up after 10
ALPHA_BUCKETS = (0, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10)


class Series:
    """The metrics themselves, one set for each process: a registry takes a name once."""

    def __init__(self) -> None:
        self.requests = Counter(
            "vllm_rast:requests",
            "Requests by what they decode with: a mix, a schedule, a gate or one model.",
            ["kind"],
        )
        self.tokens = Counter("vllm_rast:generated_tokens", "Tokens generated, by the kind of their request.", ["kind"])
        self.alpha = Histogram(
            "vllm_rast:alpha",
            "Size of alpha of requests with a constant one; of several pairs the largest.",
            buckets=ALPHA_BUCKETS,
        )
        self.kl_nats = Counter("vllm_rast:kl_nats", "Sum of KL(mix || base) over the rows of logits that were mixed.")
        self.kl_rows = Counter("vllm_rast:kl_rows", "Rows of logits that were mixed and have a KL.")


@functools.cache
def series() -> Series:
    return Series()


def mount(app: FastAPI, engine_client: Any, config: RastConfig) -> None:
    """Count what `engine_client` (vLLM's AsyncLLM) answers, and read the engine's sums at every scrape of `app`."""
    app.user_middleware.append(middleware.Middleware(Metrics, reader=start(engine_client, config)))
    app.middleware_stack = None  # built again by the next request, in case there was one before


def start(engine_client: Any, config: RastConfig) -> TraceReader:
    """Count from now on; what a scrape reads."""
    for kind in ("mix", "schedule", "gate", *{kind_of(config, name) for name in single_models(config)}):
        series().requests.labels(kind)
        series().tokens.labels(kind)
    count(engine_client.output_processor, config)
    return TraceReader(engine_client if config.trace else None)


def count(processor: Any, config: RastConfig) -> None:
    """Wrap two functions of an OutputProcessor, which keeps a state for each running request."""
    add_request, process_outputs = processor.add_request, processor.process_outputs

    @functools.wraps(add_request)
    def adding(request: Any, prompt: Any, parent_req: Any = None, request_index: int = 0, *args: Any, **kw: Any) -> Any:
        goes_on = processor.has_request(request.request_id)  # a session's next piece of input
        result = add_request(request, prompt, parent_req, request_index, *args, **kw)
        state = processor.request_states.get(request.request_id)
        if state is not None and request.sampling_params is not None:
            alpha = (request.sampling_params.extra_args or {}).get("alpha")
            state.rast_kind = kind_of(config, alpha)
            if not goes_on and request_index == 0:  # the samples of n > 1 are one request
                count_request(config, state.rast_kind, alpha)
        return result

    @functools.wraps(process_outputs)
    def processing(outputs: Any, *args: Any, **kw: Any) -> Any:
        for output in outputs:
            state = processor.request_states.get(output.request_id)
            if state is not None and output.new_token_ids:
                series().tokens.labels(state.rast_kind).inc(len(output.new_token_ids))
        return process_outputs(outputs, *args, **kw)

    processor.add_request, processor.process_outputs = adding, processing


def count_request(config: RastConfig, kind: str, alpha: Alpha | None) -> None:
    """One request more of this kind. `parse_alpha` has read its alpha before, so nothing here can fail."""
    series().requests.labels(kind).inc()
    if kind == "mix" and config.pairs:
        if isinstance(alpha, str):
            alpha = read_text(alpha)
        try:
            alphas = config.alphas if alpha is None else alphas_of(config, alpha)
        except UserError:
            return  # a schedule of one point is constant, too; the histogram leaves it out
        series().alpha.observe(max(abs(value) for value in alphas))


class TraceReader:
    """Takes the engine's sums of KL away and adds them to the counters."""

    def __init__(self, engine_client: Any | None) -> None:
        self.engine_client = engine_client  # None: the engine keeps no trace
        self.reading: asyncio.Task[None] | None = None

    async def read(self) -> None:
        """Return once the sums are in, or after SCRAPE_WAIT_S: then the next scrape has them."""
        if self.engine_client is None:
            return
        if self.reading is None or self.reading.done():
            self.reading = asyncio.create_task(self.take())
        await asyncio.wait({self.reading}, timeout=SCRAPE_WAIT_S)

    async def take(self) -> None:
        """Every rank has the same sums; the first one's count."""
        try:
            sums, *_ = await self.engine_client.collective_rpc("rast_trace", args=(True,))  # type: ignore[union-attr]
        except Exception as error:  # an engine that is gone is for others to report: a scrape must not fail
            logger.warning("vllm_rast:kl_nats: the engine gave no sums: %s", str(error) or type(error).__name__)
            return
        series().kl_nats.inc(sums["kl_nats"])
        series().kl_rows.inc(sums["rows"])


class Metrics:
    """ASGI middleware that completes the metrics before a scrape.

    reader: what `start` gave. Without it, in stock vLLM, counting starts with the first request, from the engine in
    the app's state; nothing happens if that decodes no mix.
    """

    def __init__(self, app: ASGIApp, reader: TraceReader | None = None) -> None:
        self.app, self.reader = app, reader

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            if self.reader is None:
                self.reader = self.find(scope["app"].state)
            if scope["path"].rstrip("/").endswith(PATH):
                await self.reader.read()
        await self.app(scope, receive, send)

    @staticmethod
    def find(state: Any) -> TraceReader:
        from vllm_rast.engine.members import rast_config

        engine_client = state.engine_client
        config = rast_config(engine_client.vllm_config)
        return TraceReader(None) if config is None else start(engine_client, config)
