"""What torch compiles on a CPU needs Python's headers; without them nothing is compiled, instead of ending the engine.

Debian's Python has none unless python3-dev is installed. vLLM starts there if it compiles no model, and dies when it
first compiles a small function of its own: of a request that asks for logprobs, of two ranks that look for a token.
"""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_rast.errors import UserError

if TYPE_CHECKING:
    from vllm.config import VllmConfig

REMEDY = "install them (Debian, Ubuntu: apt-get install python3-dev)"


def has_headers() -> bool:
    return Path(sysconfig.get_path("include"), "Python.h").is_file()


def lacks_headers() -> bool:
    """Whether torch could compile for the CPU, but for Python.h."""
    from vllm.platforms import current_platform

    return current_platform.is_cpu() and not has_headers()


def check_compiling(vllm_config: VllmConfig) -> None:
    """Keep this process and those that it starts from compiling, if they cannot. Raises UserError if they have to."""
    if not lacks_headers():
        return
    import torch._dynamo
    from vllm.config import CompilationMode

    if vllm_config.compilation_config.mode != CompilationMode.NONE:
        raise UserError(f"enforce_eager: torch compiles no model without Python's headers; set it, or {REMEDY}")
    os.environ["TORCH_COMPILE_DISABLE"] = "1"
    torch._dynamo.config.disable = True
