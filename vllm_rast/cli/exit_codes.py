"""How a command ends: its exit code, and one line on stderr if it is not 0."""

from __future__ import annotations

import signal
import sys

ERROR = 1
USAGE = 2
TOO_MANY_ERRORS = 3  # of the grader
WARNED = 4  # a preflight that found something certainly wrong
BELOW = 100  # a row below its demanded accuracy
INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM


class Terminated(BaseException):
    """SIGTERM, which cluster schedulers send some seconds before they kill."""


def fail(code: int, message: str, prefix: str = "error: ") -> int:
    print(f"vllm-rast: {prefix}{message}", file=sys.stderr, flush=True)
    return code
