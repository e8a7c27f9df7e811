"""Python programs as `subprocess` starts them, forked from a process that has imported vLLM already: see `zygote`.

What a user's own start does besides, it does in the tests that use `subprocess` and say so.
"""

from __future__ import annotations

import json
import multiprocessing.util
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from unittest.mock import patch

import zygote
from paths import ROOT

from vllm_rast.engine.launch import ENVIRONMENT

# What programs with an engine import sooner or later, and what those with the kernel do.
VLLM = (
    "vllm",
    "vllm.entrypoints.launchers.api_server.entry",
    "vllm.v1.engine.async_llm",
    "vllm.v1.engine.core",
    "vllm.v1.executor.multiproc_executor",
    "vllm.v1.worker.cpu_worker",
    "vllm.model_executor.models.llama",
    "vllm.model_executor.models.qwen2",
    "vllm_rast.cli.generate",
    "vllm_rast.cli.serve",
    "vllm_rast.engine.worker",
    "vllm_rast.llm",
)
TORCH = ("numpy", "torch", "vllm_rast.kernels.select", "vllm_rast.kernels.combine")
# Environment variables that a program may have otherwise than the zygote: none is read in an import, or our program
# sets them itself before it.
LATE = {
    *ENVIRONMENT,
    "CXX",
    "PYTEST_CURRENT_TEST",
    "PYTHONPATH",
    "VLLM_ALLOW_INSECURE_SERIALIZATION",
    "VLLM_CACHE_ROOT",
    "VLLM_ENABLE_V1_MULTIPROCESSING",
    "VLLM_RAST_CACHE",
    "VLLM_RAST_KERNEL",
    "VLLM_RAST_PRIVATE_CACHE",
    "VLLM_USE_V2_MODEL_RUNNER",
}
# What vLLM sets before it starts a process and because of the models, and what scikit-learn and our own commands set.
BY_OTHERS = {
    "KMP_DUPLICATE_LIB_OK",
    "KMP_INIT_AT_FORK",
    "RAY_USAGE_STATS_ENABLED",
    "TORCHINDUCTOR_CPP_DYNAMIC_THREADS",
    "TORCH_CPP_LOG_LEVEL",
    "LD_PRELOAD",
    "LOCAL_WORLD_SIZE",
    "NUMEXPR_MAX_THREADS",
    "VLLM_DISABLE_SHARED_EXPERTS_STREAM",
    "VLLM_DIST_IDENT",
    "VLLM_OBJECT_STORAGE_SHM_BUFFER_NAME",
    "VLLM_SSM_CONV_STATE_LAYOUT",
    "VLLM_WORKER_MULTIPROC_METHOD",
}
ONE_THREAD = {"JE_ARROW_MALLOC_CONF": "background_thread:false"}  # for the allocator in pyarrow, which imports load
START_ANEW = subprocess.Popen
START = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(ROOT)}  # of a process that has run no engine yet


class Zygote:
    """start: the environment that it was started with. imported: the variables in it that its imports have set."""

    def __init__(self, modules: tuple[str, ...], own: tuple[tuple[str, str], ...]) -> None:
        zygote.adopt()
        self.start = START | dict(own)
        self.connection, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, zygote.__file__, str(other.fileno()), *modules]
        self.process = START_ANEW(command, pass_fds=[other.fileno()], env=self.start | ONE_THREAD)
        other.close()
        answer = self.connection.recv(zygote.MESSAGE_BYTES)
        assert answer, "the zygote has ended"
        self.imported: dict[str, str] = json.loads(answer)

    def environment(self, wanted: dict[str, str]) -> dict[str, str] | None:
        """`wanted`, after the imports; None if a program with it might have imported something else."""
        names = {name for name in wanted.keys() | self.start.keys() if wanted.get(name) != self.start.get(name)}
        names -= LATE | BY_OTHERS
        if any(wanted.get(name) != self.imported.get(name, self.start.get(name)) for name in names):
            return None
        return {**wanted, **self.imported}


@cache
def one_zygote(modules: tuple[str, ...], own: tuple[tuple[str, str], ...] = ()) -> Zygote:
    """The one of this process, started for its first program. own: environment variables that its imports read."""
    return Zygote(modules, own)


class Popen(subprocess.Popen[Any]):
    """`subprocess.Popen` of a Python program; what else it would do to a process it refuses.

    It is started anew if its environment has something of its own that an import may read.
    """

    modules = VLLM
    own: tuple[tuple[str, str], ...] = ()
    whole_end = False

    def _execute_child(  # type: ignore[override]
        self, args: Any, executable: Any, preexec_fn: Any, close_fds: bool, pass_fds: Any, cwd: Any, env: Any,
        startupinfo: Any, creationflags: int, shell: bool, p2cread: int, p2cwrite: int, c2pread: int, c2pwrite: int,
        errread: int, errwrite: int, restore_signals: bool, gid: Any, gids: Any, uid: Any, umask: int,
        start_new_session: bool, *rest: Any,
    ) -> None:  # fmt: skip
        program, *arguments = map(os.fspath, args)
        assert program == sys.executable and close_fds and not (executable or preexec_fn or pass_fds or shell)
        parent = one_zygote(self.modules, self.own)
        environment = parent.environment(dict(os.environ if env is None else env))
        if environment is None:
            return super()._execute_child(  # type: ignore[misc]
                args, executable, preexec_fn, close_fds, pass_fds, cwd, env, startupinfo, creationflags, shell,
                p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite, restore_signals, gid, gids, uid, umask,
                start_new_session, *rest,
            )  # fmt: skip
        order = zygote.Order(
            arguments, os.fspath(cwd or os.getcwd()), environment, [0, 1, 2], start_new_session, self.whole_end
        )
        own = (p2cread, c2pwrite, errwrite)
        files = [number if file == -1 else file for number, file in enumerate(own)]
        self.pid = zygote.send(parent.connection, order, files)
        self._child_created = True
        self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)


@contextmanager
def spawning() -> Iterator[None]:
    """What vLLM spawns in this process is forked, unless the environment has something that an import may read."""
    parent = one_zygote(VLLM)
    if parent.environment(dict(os.environ)) is None:
        yield
        return
    with patch.object(multiprocessing.util, "spawnv_passfds", zygote.Spawner(parent.connection)):
        yield


class WholePopen(Popen):
    """Of a program whose end is tested, with whatever Python says while it takes itself apart."""

    whole_end = True


class TorchPopen(Popen):
    modules = TORCH


class InterpretedPopen(Popen):
    """Of a program that imports `interpreted`, found by PYTHONPATH, and then vLLM."""

    modules = ("interpreted", *VLLM, "vllm.v1.worker.gpu.model_runner", "vllm_rast.engine.v2_runner")
    own = (("TRITON_INTERPRET", "1"),)


def run(
    command: list[Any], popen: type[subprocess.Popen[Any]] = Popen, **options: Any
) -> subprocess.CompletedProcess[Any]:
    """`subprocess.run` of a Python program."""
    with patch.object(subprocess, "Popen", popen):
        return subprocess.run(command, **options)
