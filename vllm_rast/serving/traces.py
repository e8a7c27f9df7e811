"""Token traces in a server's answers: each choice has what RastLLM's samples have, in a field `token_trace`.

`vllm-rast serve` takes `"trace": K` beside alpha. A stock vLLM takes `"vllm_xargs": {"trace": K}` with its own option
`--middleware vllm_rast.serving.traces.AnswerTraces`. vLLM's routes make their answers of what they know, so this stands
at both ends of them: `AsyncLLM.generate`, which all of them call, where a finished sample's trace is taken from the
engine, and the answer's bytes, into which it is written. Answers without a trace pass by untouched.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from starlette.types import ASGIApp, Receive, Scope, Send
from vllm.sampling_params import RequestOutputKind

from vllm_rast.engine.decode_traces import most_likeliest, wanted_trace
from vllm_rast.engine.members import rast_config
from vllm_rast.engine.patches import RequestError
from vllm_rast.engine.taken_traces import TAKE, taken, will_take
from vllm_rast.errors import UserError
from vllm_rast.kernels.token_trace import likeliest_columns
from vllm_rast.mix.trace import FIELD, check_likeliest
from vllm_rast.serving.traced_answer import AnswerWriter, TokenTexts, TracedChoice

if TYPE_CHECKING:
    from vllm_rast.mix.config import RastConfig

PATHS = ("/v1/completions", "/v1/chat/completions")
ONLY_HERE = f"{FIELD}: only {' and '.join(PATHS)} answer with it; leave it out"
# Of one HTTP request's answer: 16 MiB in the engine and some 80 MiB of JSON. 5 likeliest ids are 44 numbers a token.
MOST_NUMBERS = 4 << 20


def answers_with_traces(scope: Scope) -> bool:
    return scope["path"].removeprefix(scope.get("root_path") or "").rstrip("/") in PATHS


class Traces:
    """The traces of one HTTP request. prompts: how many it has so far. numbers: how many it may have.
    choices: those that are finished, by their index."""

    def __init__(self) -> None:
        self.prompts = self.numbers = 0
        self.choices: dict[int, TracedChoice] = {}

    def add_prompt(self, params: Any, columns: int) -> int:
        """The index of a prompt's first choice. Raises UserError if the answer would grow too large."""
        first = self.prompts * params.n
        self.prompts += 1
        self.numbers += params.n * params.max_tokens * columns
        if self.numbers > MOST_NUMBERS:
            raise UserError(
                f"{FIELD}: {self.prompts * params.n} samples of up to {params.max_tokens} tokens have more than "
                f"{MOST_NUMBERS:,} numbers; send a smaller {FIELD}, max_tokens or n"
            )
        return first


# What the request being answered wants to know; None on routes that cannot answer with it.
answering: ContextVar[Traces | None] = ContextVar("answering", default=None)


class TracedEngine:
    """`AsyncLLM.generate` that takes the traces of requests that ask, as soon as their samples are finished."""

    def __init__(self, engine_client: Any, config: RastConfig) -> None:
        self.engine_client, self.config = engine_client, config
        self.plain = engine_client.generate
        self.traced = will_take(engine_client.input_processor)
        self.most_likeliest = most_likeliest(engine_client.vllm_config)
        self.num_engines = engine_client.vllm_config.parallel_config.data_parallel_size
        self.dropping: set[asyncio.Task[None]] = set()  # a loop keeps no task alive
        engine_client.generate = self.generate

    def generate(self, prompt: Any, sampling_params: Any, request_id: str, **options: Any) -> Any:
        """Raises RequestError for a trace that there cannot be."""
        number = wanted_trace(sampling_params)
        if number is None:
            return self.plain(prompt, sampling_params, request_id, **options)
        traces = answering.get()
        try:
            if traces is None:
                raise UserError(ONLY_HERE)
            if self.num_engines > 1:
                raise UserError(f"{FIELD}: only one of the engines of data_parallel_size can be asked; leave it out")
            columns = likeliest_columns(self.config, check_likeliest(number, most=self.most_likeliest))
            first = traces.add_prompt(sampling_params, len(columns))
        except UserError as error:
            raise RequestError(str(error)) from None
        # Clients may give two requests one name (X-Request-Id); the engine's traces go by theirs.
        name = f"{request_id}-{uuid.uuid4().hex[:8]}"
        outputs = self.plain(prompt, sampling_params, name, **options)
        return self.taking(outputs, name, sampling_params, traces, first)

    async def taking(self, outputs: Any, name: str, params: Any, traces: Traces, first: int) -> AsyncGenerator[Any]:
        """The outputs, each passed on once the traces of the samples that it finishes are in `traces`.

        first: the index of the choice that the first sample is.
        """
        ids: dict[int, list[int]] = {index: [] for index in range(params.n)}
        running = {index: name if params.n == 1 else f"{index}_{name}" for index in ids}
        try:
            async with aclosing(outputs):
                async for output in outputs:
                    for sample in output.outputs:
                        if params.output_kind != RequestOutputKind.DELTA:
                            ids[sample.index].clear()
                        ids[sample.index] += sample.token_ids
                    ended = [one.index for one in output.outputs if one.finish_reason is not None]
                    places = {running.pop(index): index for index in ended if index in running}
                    for name_of_sample, columns in (await self.take(places, ids)).items():
                        index = places[name_of_sample]
                        traces.choices[first + index] = TracedChoice(ids[index], columns)
                    yield output
        finally:
            self.traced.discard(name)
            if running:
                self.drop(list(running.values()))

    async def take(self, places: dict[str, int], ids: dict[int, list[int]]) -> dict[str, Any]:
        """{the engine's name of a sample: its columns}. places: the samples of those names."""
        if not places:
            return {}
        found = taken(await self.engine_client.collective_rpc(TAKE, args=(list(places),)))
        if len(found) < len(places):
            raise RuntimeError(f"{FIELD}: the engine has kept {len(found)} of {len(places)} samples")
        return {one.request: one.columns(self.config, len(ids[places[one.request]])) for one in found}

    def drop(self, names: Sequence[str]) -> None:
        """Let the engine forget what it has of a request that ended early."""

        async def forget() -> None:
            with suppress(Exception):  # an engine that is gone has forgotten
                await self.engine_client.collective_rpc(TAKE, args=(list(names),))

        task = asyncio.get_running_loop().create_task(forget())
        self.dropping.add(task)
        task.add_done_callback(self.dropping.discard)


class AnswerTraces:
    """ASGI middleware that writes the traces into the answers of requests that asked for them.

    engine: whose traces they are. Without it, in stock vLLM, it is made at the first request from the engine in the
    app's state; nothing happens if that decodes no mix.
    """

    def __init__(self, app: ASGIApp, engine: TracedEngine | None = None) -> None:
        self.app, self.engine = app, engine
        self.looked = engine is not None
        self.texts: TokenTexts | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answering.set(None)
        if scope["type"] == "http" and scope["method"] == "POST" and answers_with_traces(scope):
            if not self.looked:
                self.engine, self.looked = find(scope["app"].state.engine_client), True
            if self.engine is not None:
                if self.texts is None:
                    self.texts = TokenTexts(self.engine.engine_client.renderer.tokenizer)
                traces = Traces()
                answering.set(traces)
                send = AnswerWriter(send, traces, self.texts)
        await self.app(scope, receive, send)


def find(engine_client: Any) -> TracedEngine | None:
    """The engine of a stock vLLM's app; None if it decodes no mix."""
    config = rast_config(engine_client.vllm_config)
    return None if config is None else TracedEngine(engine_client, config)
