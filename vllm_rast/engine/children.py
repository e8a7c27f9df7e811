"""vLLM's processes and the one that started them: they end with it, and Ctrl-C is its business alone.

vLLM's engine and its workers outlive a parent that is killed, and hold the memory or the GPU. And a terminal sends
Ctrl-C to every process, so that each of them writes a traceback while their parent is about to end them in order.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any
from unittest.mock import patch

LOOK_EVERY_S = 1.0


def end_with_parent() -> None:
    """In a process that multiprocessing started: be killed within LOOK_EVERY_S seconds of the parent's end.

    A watched pipe and the parent's id, since neither alone is certain: other children may hold the pipe open, and a
    parent that ended before this was called has left its child to another. The kernel's own death signal follows the
    thread that started a process, not the process.
    """
    parent = multiprocessing.parent_process()
    if parent is None or any(thread.name == "vllm-rast-parent" for thread in threading.enumerate()):
        return

    def watch() -> None:
        while os.getppid() == parent.pid and not wait([parent.sentinel], timeout=LOOK_EVERY_S):
            pass
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="vllm-rast-parent", daemon=True).start()


class Watched:
    """What a process runs, once it watches its parent: vLLM loads plug-ins only after it has waited for its parent."""

    def __init__(self, target: Callable[..., Any]) -> None:
        self.target = target

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        end_with_parent()
        BaseProcess.start = starting(BaseProcess.start)  # type: ignore[method-assign]  # its own children, too
        return self.target(*args, **kwargs)


def starting(start: Any) -> Any:
    """`BaseProcess.start` of processes that watch their parent and do not get Ctrl-C: it stays blocked in them."""

    @functools.wraps(start)
    def wrapped(self: BaseProcess) -> Any:
        process: Any = self
        if process._target is not None and not isinstance(process._target, Watched):
            process._target = Watched(process._target)
        resource_tracker.ensure_running()  # which unblocks the signal once it has started its own process
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return start(self)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    return wrapped


@contextmanager
def watched_children() -> Iterator[None]:
    """Processes that start in this context, and theirs, end with this one, and do not get its Ctrl-C."""
    with patch.object(BaseProcess, "start", starting(BaseProcess.start)):
        yield
