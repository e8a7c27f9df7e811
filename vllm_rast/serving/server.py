"""vLLM's own server with our names, weights, health check and graceful shutdown added to its app."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest.mock import patch

import uvloop
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.middleware import Middleware
from vllm.entrypoints.launchers.api_server import entry
from vllm.utils.system_utils import decorate_logs

from vllm_rast.engine.children import watched_children
from vllm_rast.engine.launch import reason_of
from vllm_rast.errors import UserError
from vllm_rast.mix.alpha import Alpha
from vllm_rast.serving import health, identity, metrics
from vllm_rast.serving.aliases import show_aliases, with_served_names
from vllm_rast.serving.drain import CountRequests, Drain
from vllm_rast.serving.error_responses import one_line_refusal, validator_refusal
from vllm_rast.serving.limits import MAX_SCHEMA_BYTES, BodyLimit, body_limit
from vllm_rast.serving.requests import RequestWeights, choosing_weights
from vllm_rast.serving.stream_errors import EarlyErrors
from vllm_rast.serving.traces import AnswerTraces, TracedEngine

if TYPE_CHECKING:
    from vllm_rast.mix.config import RastConfig


class ServerError(Exception):
    """The server could not start, or ended by itself. The message is one line; the log above says more."""


class Limits(NamedTuple):
    """Bytes that a body, and a schema in it, may have. None: as much as the context needs, and 4 MiB."""

    body_bytes: int | None = None
    schema_bytes: int = MAX_SCHEMA_BYTES


def run(
    args: argparse.Namespace,
    config: RastConfig,
    exposed: dict[str, Alpha],
    ui: bool = False,
    limits: Limits = Limits(),  # noqa: B008  (immutable)
    asked: tuple[dict[str, Any], list[str]] = ({}, []),  # noqa: B006  (read only)
) -> None:
    """Serve until SIGTERM or SIGINT, then let the running requests finish for at most `args.shutdown_timeout` s.
    While the engine starts the caller's handlers of signals stay.

    args: what vLLM's `make_arg_parser` returns, with the mix in `additional_config`. exposed: {label: alpha}, see
    `aliases`. asked: see `identity`. Raises UserError for what is refused before anything loads, ServerError if the
    engine does not start or dies.
    """
    drain = Drain()
    serve_http = entry.serve_http
    up = False

    async def serving(app: FastAPI, **options: Any) -> Any:
        nonlocal up
        up = True
        identity.mount(app, app.state.engine_client, config, asked)
        names = add_to(app, config, exposed, drain, ui, limits)
        say(f"serving {', '.join(names)}")
        return await serve_http(app, **options)

    try:
        with watched_children(), patch.object(entry, "serve_http", serving):
            uvloop.run(serve(args))
    except UserError:
        raise
    except OSError as error:
        if up:
            raise
        raise UserError(f"{reason_of(error)}; see --host, --port and the models' names") from error
    except (ValueError, TypeError, KeyError) as error:
        if up:
            raise
        raise UserError(f"vLLM's options: {reason_of(error)}") from error
    except RuntimeError as error:
        if up:
            raise
        raise ServerError(f"the engine did not start ({reason_of(error)}); the log above says why") from error
    if drain.engine_died:
        raise ServerError("the engine died, and the server with it; the log above says why, a restart may help")
    say("stopped")


async def serve(args: argparse.Namespace) -> None:
    """vLLM's own `run_server`, but for its handler of SIGTERM, in whose place the caller's stays."""
    decorate_logs("APIServer", skip_if_decorated=True)
    address, listening = entry.setup_server(args, reuse_port=False)
    await entry.run_server_worker(address, listening, args)


def add_to(
    app: FastAPI,
    config: RastConfig,
    exposed: dict[str, Alpha],
    drain: Drain,
    ui: bool = False,
    limits: Limits = Limits(),  # noqa: B008  (immutable)
) -> list[str]:
    """Add everything of ours to vLLM's finished app, before it starts; the names that it then serves."""
    engine_client, models = app.state.engine_client, app.state.openai_serving_models
    aliases = with_served_names([path.name for path in models.base_model_paths], exposed)
    show_aliases(models, aliases)
    health.mount(app, engine_client)
    metrics.mount(app, engine_client, config)
    if ui:
        from vllm_rast.serving import ui as page

        page.mount(app, engine_client, config)
    app.exception_handler(RequestValidationError)(one_line_refusal)
    for mistake in (AttributeError, LookupError):
        app.exception_handler(mistake)(validator_refusal)
    traced = TracedEngine(engine_client, config)
    engine_client.generate = choosing_weights(engine_client.generate)
    engine_client.shutdown = drain.shutting_down(engine_client)
    # At the end of the list: behind vLLM's own middleware, above all the one that asks for the API key.
    app.user_middleware += [
        Middleware(CountRequests, drain=drain),
        Middleware(EarlyErrors),
        Middleware(BodyLimit, limit=limits.body_bytes or body_limit(engine_client.model_config.max_model_len)),
        Middleware(
            RequestWeights,
            config=config,
            aliases=aliases,
            schema_bytes=limits.schema_bytes,
            most_likeliest=traced.most_likeliest,
        ),
        Middleware(AnswerTraces, engine=traced),
    ]
    app.middleware_stack = None  # built already by vLLM's part for SageMaker; the first request builds it again
    forget_http_metrics(app)
    return [path.name for path in models.base_model_paths]


def forget_http_metrics(app: FastAPI) -> None:
    """Take vLLM's HTTP metrics out of their registry, so that the stack's second build can put them in again.

    prometheus-fastapi-instrumentator 8.1 registers them whenever the stack is built, and records nothing, without a
    word, if it finds the names taken.
    """
    registries: set[Any] = {added.kwargs["registry"] for added in app.user_middleware if "registry" in added.kwargs}
    for registry in registries:
        taken = registry._collector_to_names.items()
        for collector in [collector for collector, names in taken if any(n.startswith("http_re") for n in names)]:
            registry.unregister(collector)


def say(text: str) -> None:
    print(f"vllm-rast: {text}", file=sys.stderr, flush=True)
