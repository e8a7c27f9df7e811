"""The functions of vLLM that are wrapped, because it offers no hook in their place.

They run in the front end only. For an engine without a mix they change nothing, except that its death is noticed.
`apply_patches` is called once, by the plug-in's `register`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vllm import SamplingParams
from vllm.config import VllmConfig
from vllm.engine.arg_utils import EngineArgs
from vllm.exceptions import VLLMValidationError
from vllm.v1.engine.input_processor import InputProcessor

from vllm_rast.engine.checks import check_engine
from vllm_rast.engine.dead_engine import tell_of_death
from vllm_rast.engine.decode_traces import check_decode_trace, wanted_trace
from vllm_rast.engine.members import normalise_alpha, normalise_speculate, rast_config, skips_idle_models
from vllm_rast.engine.names import LOAD_FORMAT, WORKER_CLS
from vllm_rast.engine.requests import check_allowed
from vllm_rast.engine.serialization import unwritable_field
from vllm_rast.engine.speculation import ask_for_drafts, check_scheduling, shares_drafter
from vllm_rast.engine.taken_traces import note_request
from vllm_rast.engine.token_traces import FIELD, check_trace
from vllm_rast.errors import UserError
from vllm_rast.kernels.select import prepare
from vllm_rast.mix.alpha import parse_alpha
from vllm_rast.mix.config import RastConfig, names_said
from vllm_rast.mix.model_names import look_up, parse_model
from vllm_rast.mix.speculation import check_speculate, most_drafts


class RequestError(VLLMValidationError, UserError):
    """A request's own mistake: vLLM's server answers with HTTP 400, and nobody else notices."""

    def __init__(self, message: str, parameter: str | None = None) -> None:
        VLLMValidationError.__init__(self, message, parameter=parameter)


def apply_patches() -> None:
    """Wrap the functions."""
    tell_of_death()
    EngineArgs.create_engine_config = checking_engine(EngineArgs.create_engine_config)  # type: ignore[method-assign]
    InputProcessor.process_inputs = checking_requests(InputProcessor.process_inputs)  # type: ignore[method-assign]
    SamplingParams._validate_spec_decode = checking_drafts(SamplingParams._validate_spec_decode)  # type: ignore[method-assign]


def checking_engine(create_engine_config: Any) -> Any:
    """vLLM 0.32 has no hook between its finished configuration and the start of its processes.

    Every way to start an engine (LLM, AsyncLLM, `vllm serve`) makes its configuration here, before weights load.
    """

    @functools.wraps(create_engine_config)
    def wrapped(self: EngineArgs, *args: Any, **kwargs: Any) -> VllmConfig:
        additional: Any = self.additional_config
        mixing = isinstance(additional, dict) and "rast" in additional
        if self.load_format == LOAD_FORMAT and not mixing:
            raise UserError('load_format rast: nothing to mix; add additional_config {"rast": {"positive": ...}}')
        if not mixing:
            return create_engine_config(self, *args, **kwargs)
        name_our_parts(self)
        with drafting(self) as speculates:
            vllm_config: VllmConfig = create_engine_config(self, *args, **kwargs)
        if speculates:
            check_scheduling(self, vllm_config)
        check_engine(vllm_config)
        prepare()
        return vllm_config

    return wrapped


def checking_drafts(validate: Any) -> Any:
    """vLLM refuses what does not work with its drafts (`min_p`, `logit_bias`); with the mix's own it does."""

    @functools.wraps(validate)
    def wrapped(self: SamplingParams, speculative_config: Any) -> None:
        if not shares_drafter(speculative_config):
            validate(self, speculative_config)

    return wrapped


def name_our_parts(engine_args: EngineArgs) -> None:
    """Set load_format and worker_cls if they were left alone; another load format becomes the members' own."""
    if engine_args.worker_cls not in ("auto", WORKER_CLS):
        raise UserError(f"worker_cls: a mix needs {WORKER_CLS}, got {engine_args.worker_cls!r}; leave the option out")
    engine_args.worker_cls = WORKER_CLS
    name_base_adapter(engine_args)
    if engine_args.load_format != LOAD_FORMAT:
        rast = {"load_format": engine_args.load_format, **engine_args.additional_config["rast"]}
        engine_args.additional_config = {**engine_args.additional_config, "rast": rast}
        engine_args.load_format = LOAD_FORMAT


def name_base_adapter(engine_args: EngineArgs) -> None:
    """If the base is an adapter, vLLM is told of what it stands on, and the mix of the adapter."""
    look_up([engine_args.model, *names_said(engine_args.additional_config["rast"])])
    source = parse_model(engine_args.model, "model")
    if source.adapter is not None:
        rast: Any = {**engine_args.additional_config["rast"], "base_adapter": source.adapter.name}
        engine_args.additional_config = {**engine_args.additional_config, "rast": rast}
        engine_args.model, engine_args.revision = source.path, source.revision or engine_args.revision


@contextmanager
def drafting(engine_args: EngineArgs) -> Iterator[bool]:
    """While vLLM makes its configuration it is told of our drafts, if `speculate` asks for any; whether it does."""
    rast: Any = engine_args.additional_config["rast"]
    speculates = isinstance(rast, dict) and rast.get("speculate", 0) != 0
    if speculates:
        engine_args.speculative_config = ask_for_drafts(engine_args, most_drafts(check_speculate(rast["speculate"])))
    try:
        yield speculates
    finally:
        if speculates:
            engine_args.speculative_config = None  # the same arguments may be asked again


def checking_requests(process_inputs: Any) -> Any:
    """vLLM 0.32 checks unknown `extra_args` nowhere, and an exception in a worker ends the engine for everybody.

    Every request of every entry point passes here, before it is queued. If idle models are skipped, a request leaves
    no keys and values of the models it does not use at any position, so it must not share cached blocks with one that
    uses others: `cache_salt` is vLLM's own way to keep prefixes apart. Nothing else about alpha is in a block. For the
    same reason a session, whose later inputs may bring another alpha, has to use every model from the beginning.
    """

    @functools.wraps(process_inputs)
    def wrapped(self: InputProcessor, request_id: str, prompt: Any, params: Any, *args: Any, **kwargs: Any) -> Any:
        # Read once for each engine: reading looks at the models' folders.
        if not hasattr(self, "_rast_config"):
            self._rast_config = rast_config(self.vllm_config)  # type: ignore[attr-defined]
        config = self._rast_config  # type: ignore[attr-defined]
        if config is None or not isinstance(params, SamplingParams):
            return process_inputs(self, request_id, prompt, params, *args, **kwargs)
        used = models_of_request(config, self.vllm_config, params)
        traced = wanted_trace(params) is not None
        request = process_inputs(self, request_id, prompt, params, *args, **kwargs)
        if (field := unwritable_field(request)) is not None:
            raise RequestError(field, parameter=field.partition(":")[0])
        if FIELD in (params.extra_args or {}):
            try:
                vocab = self.vllm_config.model_config.get_vocab_size()
                check_trace(config, params, len(request.prompt_token_ids or ()), vocab)
            except UserError as error:
                raise RequestError(str(error)) from None
            # A cached block has no rows to read.
            request.sampling_params.skip_reading_prefix_cache = True
        if traced:
            try:
                note_request(self, request_id, request.resumable)
            except UserError as error:
                raise RequestError(str(error)) from None
        if skips_idle_models():
            if request.resumable and not all(used):
                raise RequestError(
                    "alpha: a session of streamed inputs must use every model; send a number other than 0"
                )
            names = "".join("1" if uses else "0" for uses in used)
            request.cache_salt = f"{request.cache_salt or ''}|models {names}"
        return request

    return wrapped


def models_of_request(config: RastConfig, vllm_config: VllmConfig, params: SamplingParams) -> tuple[bool, ...]:
    """Which models run for a request, [num_models]. Raises RequestError for what it may not ask."""
    try:
        schedule = parse_alpha(config, normalise_alpha(params))
        check_allowed(config, vllm_config, params, schedule.used)
        normalise_speculate(params, config.most_drafts, fewer=not vllm_config.use_v2_model_runner)
        traced = check_decode_trace(params, vllm_config)
    except UserError as error:
        raise RequestError(str(error)) from None
    return (True,) * len(schedule.used) if traced else schedule.used
