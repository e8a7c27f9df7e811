"""How an engine is started: environment variables, defaults of the shipped models, and what an error says."""

from __future__ import annotations

import logging
import os
import re
import warnings
from typing import TYPE_CHECKING, Any

from vllm_rast.mix.config import model_names
from vllm_rast.mix.model_names import is_shipped

if TYPE_CHECKING:
    from vllm_rast.mix.config import RastConfig

# The shipped models: answers are short, float32 is exact, and compiling would cost more than it saves. 32 is the
# least block that vLLM's attention on a CPU takes: the shorter the block, the more of a prompt the samples share.
TINY_ENGINE: dict[str, Any] = {
    "dtype": "float32",
    "max_model_len": 512,
    "block_size": 32,
    "enforce_eager": True,
    "max_num_seqs": 256,
    "max_num_batched_tokens": 8192,
    "use_tqdm_on_load": False,
}
TINY_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # a second process would cost more than the scheduling it takes over
    # Two threads that share their cores with other work wait for each other at every one of these small products: on a
    # busy machine with two cores 314 tokens/s, where one thread made 3,400.
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_LOGGING_LEVEL": "ERROR",  # what vLLM would advise for speed does not matter here
    "TORCH_CPP_LOG_LEVEL": "ERROR",
}
# vLLM logs to stdout unless told otherwise; here stdout is for results.
ENVIRONMENT = {
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
    "VLLM_LOGGING_LEVEL": "WARNING",
    # For the processes that are started from here: shared memory that a killed one left is cleaned up without a word,
    # and what vLLM itself says about Triton is no user's business.
    "PYTHONWARNINGS": "ignore:resource_tracker:UserWarning,ignore::FutureWarning:vllm.triton_utils.dispatcher",
}

ENGINES_HERE = "VLLM_RAST_ENGINES_HERE"  # set for engines of one run that share a machine's memory: how many they are


def engine_defaults(models: RastConfig) -> dict[str, Any]:
    """Engine options for the shipped models; none for others, whose options are vLLM's business."""
    return dict(TINY_ENGINE) if is_tiny(models) else {}


def is_tiny(models: RastConfig) -> bool:
    return all(is_shipped(name) for name in model_names(models))


def set_environment(models: RastConfig | None = None) -> None:
    """Environment variables that vLLM reads when it is imported; what the user has set stays."""
    tiny = TINY_ENVIRONMENT if models is not None and is_tiny(models) else {}
    for name, value in (ENVIRONMENT | tiny).items():
        os.environ.setdefault(name, value)
    # Two remarks of vLLM 0.32 about Triton, which a CPU does without, that no setting of its own reaches.
    logging.getLogger("vllm.triton_utils.importing").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"vllm\.triton_utils")


def reason_of(error: Exception) -> str:
    """The sentence that matters, on one line: pydantic wraps vLLM's own into several lines."""
    text = str(error)
    wrapped = re.search(r"(?:Value|Assertion) error, (.*?)\s*(?:\[type=|$)", text, re.DOTALL)
    return " ".join((wrapped[1] if wrapped else text.strip().partition("\n")[0]).split()) or type(error).__name__
