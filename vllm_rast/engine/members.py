"""From vLLM's configuration to the models of the mix, and to vLLM's own description of each."""

from __future__ import annotations

import os
from typing import Any

from vllm.config import ModelConfig, VllmConfig
from vllm.platforms import current_platform

from vllm_rast.engine.adapters import adapter_of
from vllm_rast.errors import UserError, shown
from vllm_rast.mix.alpha import plain_alpha
from vllm_rast.mix.config import RastConfig
from vllm_rast.mix.model_names import ModelSource
from vllm_rast.mix.speculation import check_drafts


def rast_config(vllm_config: VllmConfig) -> RastConfig | None:
    """The mix that an engine was asked for in `additional_config["rast"]`, or None for a plain engine."""
    additional: Any = vllm_config.additional_config
    if not isinstance(additional, dict) or "rast" not in additional:
        return None
    return RastConfig.from_dict(base_name(vllm_config.model_config), additional["rast"])


def base_name(model_config: ModelConfig) -> str:
    """The base as RastConfig names it: `NAME` or `NAME@REVISION`."""
    return ModelSource(model_config.model, None if os.path.isdir(model_config.model) else model_config.revision).name


def skips_idle_models() -> bool:
    """Whether a step leaves out the models that none of its requests uses, and their keys and values with them.

    On a CPU that saves their whole time. On CUDA a graph holds the forward of all models, whose launches a step of a
    few requests hardly notices.
    """
    return current_platform.is_cpu()


def normalise_alpha(params: Any) -> Any:
    """What a request says about alpha, in plain Python, which is also put back: only that can be sent to an engine."""
    alpha = requested_alpha(params)
    if alpha is not None:
        alpha = plain_alpha(alpha)
        params.extra_args = {**params.extra_args, "alpha": alpha}
    return alpha


def requested_alpha(params: Any) -> Any:
    """What a request's sampling parameters say about alpha; None if they say nothing, or there are none.

    Raises UserError if `extra_args` is not a dictionary: vLLM 0.32 does not look.
    """
    extra = params.extra_args if params is not None else None
    if extra is not None and not isinstance(extra, dict):
        raise UserError(f'extra_args: alpha comes in a dictionary {{"alpha": ...}}, got {shown(extra)}')
    return (extra or {}).get("alpha")


def normalise_speculate(params: Any, most: int, fewer: bool = True) -> int:
    """How many drafts a request wants at most, `most` if it does not say, which is also put back as a plain integer.

    Raises UserError unless it is an integer from 0 to `most`, the engine's number, or that number itself if the engine
    makes no `fewer` for one request than for another.
    """
    wanted = (params.extra_args or {}).get("speculate")
    if wanted is None:
        return most
    if not most and wanted != 0:
        raise UserError("speculate: this engine makes no drafts; start it with speculate, or leave it out")
    drafts = check_drafts(wanted, "speculate", most)
    if drafts < most and not fewer:
        raise UserError(
            f"speculate: vLLM's V2 runner drafts {most} tokens for every request; leave it out, or start the engine"
            " with VLLM_USE_V2_MODEL_RUNNER=0"
        )
    params.extra_args = {**params.extra_args, "speculate": drafts}
    return drafts


def member_prefix(column: int) -> str:
    """The prefix of a model's layers inside the ensemble. The base's is empty, as in a plain engine."""
    return "" if column == 0 else f"rast{column}"


def member_model_configs(vllm_config: VllmConfig, config: RastConfig) -> list[ModelConfig]:
    """vLLM's ModelConfig of every model, [num_models], the base's first.

    A small model runs with the base's dtype and length; its architecture, size, quantisation and vocabulary are its
    own. Raises UserError, naming the model, if vLLM cannot read it or it is too short for max_model_len.
    """
    base = vllm_config.model_config
    members = [base] + [small_model_config(base, source.path, source.revision) for source in config.sources[1:]]
    for source, member in zip(config.sources, members, strict=True):
        if (adapter := adapter_of(source)) is not None:
            adapter.give_own_head(member)
    return members


def small_model_config(base: ModelConfig, path: str, revision: str | None) -> ModelConfig:
    """vLLM's ModelConfig of one small model."""
    try:
        model_config = ModelConfig(
            model=path,
            revision=revision,
            tokenizer=base.tokenizer,
            tokenizer_mode=base.tokenizer_mode,
            tokenizer_revision=base.tokenizer_revision,
            skip_tokenizer_init=True,
            trust_remote_code=base.trust_remote_code,
            dtype=base.dtype,
            seed=base.seed,
            enforce_eager=base.enforce_eager,
            max_logprobs=base.max_logprobs,
            config_format=base.config_format,
        )
    except Exception as error:  # vLLM, transformers and pydantic each raise their own
        raise UserError(f"model {path!r}: vLLM cannot read it: {first_line(error)}") from error
    longest = model_config.max_model_len
    if longest < base.max_model_len:
        raise UserError(
            f"max_model_len: {base.max_model_len} is longer than the context of {path!r}, {longest} tokens; "
            f"set max_model_len to at most {longest}"
        )
    model_config.max_model_len = base.max_model_len
    return model_config


def first_line(error: BaseException) -> str:
    """The first line of an error's text that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
