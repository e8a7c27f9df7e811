"""A server's start, which takes minutes with large models, can be ended at any moment."""

from __future__ import annotations

import _thread
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from vllm_rast.cli.exit_codes import INTERRUPTED, TERMINATED, Terminated, fail

GRACE_S = 10.0  # vLLM gives the engine's processes 5 to end
CODES = {signal.SIGTERM: TERMINATED, signal.SIGINT: INTERRUPTED}


class Ended(SystemExit):
    """A signal ended a start.

    asyncio passes a SystemExit on from wherever it is, as it does a KeyboardInterrupt, which vLLM 0.32 swallows while
    it waits for its engine (`zmq_socket_ctx`), and goes on.
    """


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and Ctrl-C end this process while it starts a server; the server, once up, has handlers of its own.

    They raise Terminated or KeyboardInterrupt here, and end the process GRACE_S later whatever became of that. With a
    handler for Ctrl-C in its place asyncio sets none, which would wait until the coroutine that loads the models waits.
    """
    before = {number: signal.signal(number, end) for number in CODES}
    try:
        yield
    except Ended as ended:
        raise Terminated if ended.code == TERMINATED else KeyboardInterrupt from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end(number: int, frame: FrameType | None) -> None:
    """A handler of signals."""
    code = CODES[signal.Signals(number)]
    # Not by threading: the main thread may be holding its lock.
    _thread.start_new_thread(end_later, (code,))
    raise Ended(code)


def end_later(code: int) -> None:
    time.sleep(GRACE_S)
    fail(code, "ended while it was starting", "")
    os._exit(code)
