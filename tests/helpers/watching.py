"""Watch a run while it goes on, and do something in the middle of it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

LOOK_S = 0.02


def lines(run: Path) -> Counter[bytes]:
    """The samples of a run folder, each with how often it is there."""
    path = run / "samples.jsonl"
    return Counter(path.read_bytes().split(b"\n")[:-1]) if path.exists() else Counter()


def command_of(process: psutil.Process) -> str:
    """A process's command; nothing of one that has ended, or is still to be collected."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def wait_for(what: Callable[[], Any], limit_s: float = 120) -> Any:
    deadline = time.monotonic() + limit_s
    while not (found := what()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(LOOK_S)
    return found


def meanwhile(action: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=action)
    thread.start()
    return thread


def after(run: Path, samples: int, action: Callable[[], object]) -> threading.Thread:
    """Do something once a run has so many samples."""

    def wait_and_act() -> None:
        wait_for(lambda: lines(run).total() >= samples)
        action()

    return meanwhile(wait_and_act)
