"""Import this before vLLM, with TRITON_INTERPRET=1: vLLM's V2 runner then works on a CPU, in Triton's interpreter.

vLLM switches V2 off if Triton has no back end for the platform, so that one is named; no compiled kernel is needed.
"""

from __future__ import annotations

from types import SimpleNamespace

from triton.backends import backends

backends["cpu"] = SimpleNamespace(driver=SimpleNamespace(is_active=lambda: True), compiler=None)
