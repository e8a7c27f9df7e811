"""Starting more than one engine in a process that has loaded llvmlite, as the tests and the benchmarks do."""

from __future__ import annotations

from typing import Any


def let_engines_start_again() -> None:
    """vLLM 0.32 asks every object of every loaded module for its `__dict__` when a CPU worker starts.

    llvmlite's library wrapper answers with a foreign function, and a process that has loaded it starts no engine.
    """
    try:
        from llvmlite.binding import ffi
    except ImportError:
        return
    wrapper = type(ffi.lib)
    look_up = wrapper.__getattr__

    def look_up_functions(self: Any, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return look_up(self, name)

    wrapper.__getattr__ = look_up_functions
