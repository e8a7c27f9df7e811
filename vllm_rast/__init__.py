"""Logit arithmetic between language models inside vLLM: base + alpha * (positive - negative).

`RastLLM` decodes with it; `RastConfig` and `ModelPair` say what is mixed; `combine_logits` is the operation itself.
Importing this package starts nothing and loads neither vLLM nor torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vllm_rast.errors import UserError as UserError
    from vllm_rast.kernels.combine import combine_logits as combine_logits
    from vllm_rast.llm import RastLLM as RastLLM
    from vllm_rast.mix.config import ModelPair as ModelPair
    from vllm_rast.mix.config import RastConfig as RastConfig

__version__ = "0.2.0"

_HOMES = {
    "RastLLM": "vllm_rast.llm",
    "RastConfig": "vllm_rast.mix.config",
    "ModelPair": "vllm_rast.mix.config",
    "UserError": "vllm_rast.errors",
    "combine_logits": "vllm_rast.kernels.combine",
}

__all__ = ["ModelPair", "RastConfig", "RastLLM", "UserError", "combine_logits", "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
