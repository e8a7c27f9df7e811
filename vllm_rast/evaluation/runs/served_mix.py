"""Whether a server serves the mix that a run asks for: it decodes the same samples, or it is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import vllm_rast
from vllm_rast.errors import UserError, shown
from vllm_rast.evaluation.runs.folder import without_speed
from vllm_rast.evaluation.runs.plan import Plan, plain, versions, weights_of
from vllm_rast.mix.config import RastConfig, model_names
from vllm_rast.mix.speculation import drafter_model

PATH = "/rast"  # below /v1, which an API key guards
# What a server's command line says in other options, or what does not change a sample.
NOT_COMPARED = frozenset(
    {"model", "tokenizer", "served_model_name", "revision", "load_format", "additional_config", "api_server_count"}
    | {"disable_log_stats", "max_logprobs", "hf_token", "worker_cls", "shutdown_timeout"}
)
SECRETS = frozenset({"hf_token"})


def served_mix(config: RastConfig, options: dict[str, Any], changed: list[str]) -> dict[str, Any]:
    """What a server says about itself, apart from its name, device and sizes.

    options: all options of its engine. changed: the names of those that are not vLLM's defaults.
    """
    return {
        "vllm_rast": vllm_rast.__version__,
        "versions": versions(),
        "models": model_names(config),
        "formula": formula_shape(config),
        "weights": weights_of(config),
        "drafter": drafter_place(config),
        "engine": {name: plain(value) for name, value in options.items() if name not in SECRETS},
        "changed": sorted(set(changed) - SECRETS),
    }


def formula_shape(config: RastConfig) -> list[list[bool]]:
    """Which sides each pair has, [num_pairs][2]."""
    return [[pair.positive is not None, pair.negative is not None] for pair in config.pairs]


def drafter_place(config: RastConfig) -> int | None:
    """The place of the model that drafts among `model_names`; None if nothing is drafted."""
    name = drafter_model(config)
    return None if name is None else model_names(config).index(name)


def check_served(plan: Plan, served: dict[str, Any], where: str) -> None:
    """Raises UserError, naming the first difference, unless a server decodes what `plan` asks for."""
    for what, here, there in differences(plan, served):
        raise UserError(
            f"{where}: {what} is {shown(there)} there, and {shown(here)} in this run; serve what the run asks for"
        )


def differences(plan: Plan, served: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """(what, in this run, on the server) for everything that would make other samples."""
    mine, here = plan.models, weights_of(plan.models)
    if formula_shape(mine) != served["formula"]:
        yield "the shape of the mix", formula_shape(mine), served["formula"]
        return
    for name, other in zip(model_names(mine), served["models"], strict=False):
        own, others = here.get(name), served["weights"].get(other)
        if own and others:
            if own != others:
                yield f"the weights of {name}", own, others
        elif name != other:
            yield "a model", name, other
    samples = any(plan.drafters().values())  # a greedy row does not depend on what drafts
    if samples and drafter_place(mine) != served["drafter"]:
        place = served["drafter"]
        yield "the model that drafts", drafter_model(mine), None if place is None else served["models"][place]
    asked, there = without_speed(plan.config_engine()), served["engine"]
    changed = without_speed({name: there.get(name) for name in served["changed"]})
    for name in sorted((asked.keys() | changed.keys()) - NOT_COMPARED):
        # What the run does not say has vLLM's default, and the server's is another.
        value = asked.get(name, "vLLM's default")
        if name not in asked or plain(value) != there.get(name):
            yield f"--{name.replace('_', '-')}", value, there.get(name)
