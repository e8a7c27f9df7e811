"""What vLLM found on this machine."""

from __future__ import annotations

import os

from vllm.platforms import current_platform
from vllm.triton_utils import HAS_TRITON


def device_name() -> str:
    """The device that vLLM runs on."""
    return current_platform.device_name or current_platform.device_type


def has_triton() -> bool:
    """Whether there is a Triton with a back end for it."""
    return bool(HAS_TRITON)


def gpus() -> tuple[str, list[str]] | None:
    """The environment variable that chooses GPUs, and the names of those that it lets this process see; None on a CPU.
    CUDA is not started in this process."""
    if current_platform.is_cpu():
        return None
    variable = current_platform.device_control_env_var
    named = [name.strip() for name in os.environ.get(variable, "").split(",") if name.strip()]
    return variable, named or [str(number) for number in range(current_platform.device_count())]
