"""An engine process that ends by itself is an error within seconds, and not a wait without an end.

vLLM notices that the process is gone, marks its client, and stops the thread that reads the engine's answers. A caller
that waits for one at that moment is told nothing.
"""

from __future__ import annotations

import functools
from typing import Any

from vllm.logger import init_logger
from vllm.v1.engine.core import EngineCoreProc
from vllm.v1.engine.core_client import SyncMPClient
from vllm.v1.engine.exceptions import EngineDeadError

__all__ = ["EngineDeadError", "tell_of_death"]

LOOK_EVERY_S = 0.5
CANCELLED = "cancelled"  # what a wait for a worker's answer raises when vLLM has seen that the worker is gone

logger = init_logger("vllm.rast")


def tell_of_death() -> None:
    """Wrap what the synchronous client waits in, and the engine's loop."""
    SyncMPClient.get_output = looking(SyncMPClient.get_output)  # type: ignore[method-assign]
    EngineCoreProc.run_busy_loop = one_line_for_workers(EngineCoreProc.run_busy_loop)  # type: ignore[method-assign]


def one_line_for_workers(run_busy_loop: Any) -> Any:
    """`run_busy_loop` that says in one line that a worker is gone, instead of two tracebacks of the wait for it."""

    @functools.wraps(run_busy_loop)
    def wrapped(self: EngineCoreProc) -> Any:
        try:
            return run_busy_loop(self)
        except RuntimeError as error:
            if str(error) != CANCELLED:
                raise
            logger.error("a worker process ended (killed, or out of memory)")
            self._send_engine_dead()
            raise SystemExit(1) from None

    return wrapped


def looking(get_output: Any) -> Any:
    """`get_output` that raises EngineDeadError if the engine's process ends before there is any."""

    @functools.wraps(get_output)
    def wrapped(self: SyncMPClient) -> Any:
        answers = self.outputs_queue
        with answers.not_empty:
            while not answers.queue:
                if self.resources.engine_dead:
                    raise EngineDeadError(suppress_context=True)
                answers.not_empty.wait(LOOK_EVERY_S)
        return get_output(self)

    return wrapped
