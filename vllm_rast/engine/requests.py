"""What a request may ask of a mix that vLLM cannot check: it knows only the base's vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vllm import SamplingParams
from vllm.config import VllmConfig
from vllm.sampling_params import RequestOutputKind
from vllm.tokenizers import cached_tokenizer_from_config

from vllm_rast.errors import UserError
from vllm_rast.mix.config import RastConfig


def check_allowed(config: RastConfig, vllm_config: VllmConfig, params: Any, used: Sequence[bool]) -> None:
    """Refuse `allowed_token_ids` of padding ids alone, which no row that mixes can give.

    Ids beyond the tokenizer's have the weight minus infinity wherever a small model takes part; a sampler that is
    allowed nothing else answers with some other id. used: which models take part anywhere, [num_models]. Raises
    UserError, naming the field.
    """
    allowed = getattr(params, "allowed_token_ids", None)
    if not allowed or not any(used[1:]) or vllm_config.model_config.skip_tokenizer_init:
        return
    num_ids = len(cached_tokenizer_from_config(vllm_config.model_config))
    if all(isinstance(token, int) and token >= num_ids for token in allowed):
        raise UserError(
            f"allowed_token_ids: a mix never gives the padding ids from {num_ids} on; allow an id of the tokenizer"
        )


def trace_params(key: int, start: int, last: int, alpha: Any, seed: int | None = None) -> SamplingParams:
    """Sampling parameters of a request for a token trace; see `vllm_rast.engine.token_traces.TraceRequest`."""
    asked = {"token_trace": {"key": key, "start": start, "last": last}}
    extra = asked if alpha is None else {"alpha": alpha, **asked}
    return final_only(temperature=0, max_tokens=1, detokenize=False, seed=seed, extra_args=extra)


def final_only(**options: Any) -> SamplingParams:
    """Sampling parameters of a request that is answered once, when it is finished."""
    return SamplingParams(output_kind=RequestOutputKind.FINAL_ONLY, **options)
