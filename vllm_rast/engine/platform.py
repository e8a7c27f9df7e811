"""What vLLM found on this machine."""

from __future__ import annotations

from vllm.platforms import current_platform
from vllm.triton_utils import HAS_TRITON


def device_name() -> str:
    """The device that vLLM runs on."""
    return current_platform.device_name or current_platform.device_type


def has_triton() -> bool:
    """Whether there is a Triton with a back end for it."""
    return bool(HAS_TRITON)
