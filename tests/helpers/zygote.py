"""A process that has imported vLLM and forks for every Python program that a test starts, and for vLLM's own.

Importing vLLM costs 13 s of CPU, a fork 10 ms. Nothing but imports has happened here, in one thread, so that a forked
program has what a started one has: arguments, environment, folder, files and signals as it was started, and its starter
as its parent. It only need not import any more. What it spawns with multiprocessing is forked in the same way, from a
copy of it that has done nothing either. Libraries that LD_PRELOAD names are not loaded.

    python tests/helpers/zygote.py NUMBER_OF_A_SOCKET MODULE ...

`forked.Popen` starts one and sends it orders.
"""

from __future__ import annotations

import array
import atexit
import ctypes
import fcntl
import gc
import importlib
import json
import logging
import multiprocessing.util
import os
import random
import runpy
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from setproctitle import getproctitle

MESSAGE_BYTES = 1 << 20
FILES = 64  # at most, of an order
HIGH = 500  # the first number where an order's files wait until the low numbers are free
SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER


@dataclass
class Order:
    """What to fork for. arguments: those of a Python interpreter, from `-m`, `-c` or a script's path on.

    files: the numbers under which the files that come with the order have to be open; mask: of new files; blocked,
    ignored: signals. whole_end: end as the interpreter does, and so what it spawns, instead of as `leave` does.
    """

    arguments: list[str]
    folder: str
    environment: dict[str, str]
    files: list[int]
    new_session: bool = False
    whole_end: bool = False
    mask: int = field(default_factory=lambda: umask())
    blocked: list[int] = field(default_factory=list)
    ignored: list[int] = field(default_factory=list)


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def adopt() -> None:
    """What a zygote of this process forks becomes a child of this process, once the one in between has ended."""
    if ctypes.CDLL(None, use_errno=True).prctl(SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def send(connection: socket.socket, order: Order, files: Sequence[int]) -> int:
    """The process id of what was forked, a child of this process, which must have called `adopt`."""
    packed = array.array("i", files)
    connection.sendmsg([json.dumps(asdict(order)).encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, packed)])
    return int(connection.recv(MESSAGE_BYTES))


def serve(connection: socket.socket) -> tuple[Order, list[int]]:
    """Fork for each order; returns in the forked processes only, and ends this one with the other end's."""
    while True:
        message, files, _, _ = socket.recv_fds(connection, MESSAGE_BYTES, FILES)
        if not message:
            os._exit(0)
        order = Order(**json.loads(message))
        reader, writer = os.pipe()
        between = os.fork()
        if not between:
            between = os.getpid()
            if os.fork():
                os._exit(0)
            if order.new_session:
                os.setsid()  # before anybody knows the process
            os.write(writer, b"%d" % os.getpid())
            while os.getppid() == between:
                time.sleep(0.001)
            connection.detach()  # `become` closes it
            return order, files
        os.waitpid(between, 0)
        connection.send(os.read(reader, 20))
        for file in (reader, writer, *files):
            os.close(file)


def become(order: Order, files: list[int]) -> None:
    """Give this process what the order's program has to find: files, signals, folder and environment."""
    waiting = [fcntl.fcntl(file, fcntl.F_DUPFD, HIGH) for file in files]
    os.closerange(3, HIGH)
    for file, number in zip(waiting, order.files, strict=True):
        os.dup2(file, number)
    os.closerange(HIGH, max(waiting) + 1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for number in order.ignored:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, order.blocked)
    os.umask(order.mask)
    os.chdir(order.folder)
    os.environ.clear()
    os.environ.update(order.environment)
    random.seed()
    sys.modules["numpy"].random.seed()
    logger = logging.getLogger("vllm")  # whose level is read in an import
    for one in (logger, *logger.handlers):
        one.setLevel(order.environment.get("VLLM_LOGGING_LEVEL", "INFO"))


class Spawner:
    """Stands for `spawnv_passfds`, by which multiprocessing starts a new interpreter: has a zygote fork instead."""

    def __init__(self, connection: socket.socket, whole_end: bool = False) -> None:
        self.connection, self.start = connection, multiprocessing.util.spawnv_passfds
        self.whole_end = whole_end
        self.lock = threading.Lock()

    def __call__(self, program: Any, arguments: list[Any], files: Any) -> int:
        arguments = list(map(os.fsdecode, arguments))
        if "--multiprocessing-fork" not in arguments:  # the resource tracker, which imports next to nothing
            return self.start(program, arguments, files)
        numbers = [0, 1, 2, *sorted(map(int, files))]
        order = Order(
            arguments[arguments.index("-c") :], os.getcwd(), dict(os.environ), numbers, whole_end=self.whole_end
        )
        order.blocked = [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())]
        order.ignored = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) is signal.SIG_IGN]
        with self.lock:
            return send(self.connection, order, numbers)


def copy(path: list[str]) -> socket.socket:
    """A connection to a zygote that is a copy of this process, which has done nothing yet."""
    adopt()
    connection, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork():
        other.close()
        return connection
    connection.detach()
    os.closerange(3, other.fileno())  # a pipe's end that stayed open here would never be seen to close
    os.closerange(other.fileno() + 1, HIGH)
    for number in (signal.SIGINT, signal.SIGTERM):  # they come to every process of a terminal or a session
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    run(*serve(other), path)
    raise AssertionError("a program has returned")


def run(order: Order, files: list[int], path: list[str]) -> None:
    """Be the order's program, as `python` with its arguments would, and end as it ends. path: sys.path's end."""
    become(order, files)
    kind, *rest = order.arguments
    extra = [part for part in order.environment.get("PYTHONPATH", "").split(os.pathsep) if part]
    sys.path[:] = [*extra, *path]
    multiprocessing.util.spawnv_passfds = Spawner(copy(path), order.whole_end)  # type: ignore[attr-defined]
    code: Any = 0
    try:
        execute(kind, rest, order.folder)
    except SystemExit as end:
        code = end.code
    if order.whole_end:
        sys.exit(code)
    leave(code)


def execute(kind: str, rest: list[str], folder: str) -> None:
    if kind == "-c":
        code, *arguments = rest
        sys.argv[:], sys.path[:0] = ["-c", *arguments], [""]
        exec(code, sys.modules["__main__"].__dict__)
    elif kind == "-m":
        module, *arguments = rest
        sys.argv[:], sys.path[:0] = [module, *arguments], [folder]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    else:
        sys.argv[:], sys.path[:0] = [kind, *rest], [os.path.dirname(os.path.abspath(kind))]
        runpy.run_path(kind, run_name="__main__")


def leave(code: Any) -> None:
    """End as the interpreter does, but without taking apart all that was imported, which costs 2 s of CPU."""
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    with suppress(OSError, ValueError):
        sys.stderr.flush()
    os._exit(code or 0)


def main(number: int, modules: Sequence[str]) -> None:
    """Import, and fork from then on. Answers with the environment variables that the imports have set."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = socket.socket(fileno=number)
    before = dict(os.environ)
    extra = [part for part in before.get("PYTHONPATH", "").split(os.pathsep) if part]
    path = [part for part in sys.path[1:] if part not in extra]
    for name in modules:
        importlib.import_module(name)
    threads = os.listdir("/proc/self/task")
    assert len(threads) == 1, f"imports have started threads: {threads}, of which Python knows {threading.enumerate()}"
    getproctitle()  # finds the place for a title, which it cannot once the environment has changed
    gc.collect()  # here once, and not in each of them
    imported = {name: value for name, value in os.environ.items() if before.get(name) != value}
    connection.send(json.dumps(imported).encode())
    run(*serve(connection), path)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
