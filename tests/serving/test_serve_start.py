"""A server that is still starting ends at the first SIGTERM or Ctrl-C, and its processes with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from serving import TINY, Server, free_port

pytestmark = pytest.mark.server

LIMIT_S = 500  # until a moment of the start has come, on a busy machine
END_S = 60  # 2 to 6 on a quiet one


def imports(process: psutil.Process) -> bool:
    """It has read vLLM's first files, which takes seconds more; LD_PRELOAD may have brought others of torch's."""
    return any("libtorch_cpu" in one.path for one in process.memory_maps())


def loads(process: psutil.Process) -> bool:
    """The engine's own process is there."""
    with suppress(psutil.Error):  # one that is just ending
        return any("EngineCore" in " ".join(child.cmdline()) for child in process.children(recursive=True))
    return False


@pytest.mark.parametrize(
    ("number", "code", "moment"),
    [
        (signal.SIGTERM, 128 + signal.SIGTERM, imports),
        (signal.SIGTERM, 128 + signal.SIGTERM, loads),
        (signal.SIGINT, 128 + signal.SIGINT, loads),
    ],
)
def test_one_signal_ends_a_start(
    tmp_path: Path, number: int, code: int, moment: Callable[[psutil.Process], bool]
) -> None:
    log = tmp_path / "log"
    command = [sys.executable, "-m", "vllm_rast", "serve", *TINY, "--port", str(free_port())]
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    server = Server("", process, log, None)
    try:
        deadline = time.monotonic() + LIMIT_S
        while not moment(psutil.Process(process.pid)):
            assert time.monotonic() < deadline and process.poll() is None, log.read_text()[-4000:]
            time.sleep(0.02)
        process.send_signal(number)
        assert server.wait(END_S) == code
        assert not server.processes_left(), "processes of the ended server live on"
        assert server.last_words().startswith("vllm-rast: terminated" if number == signal.SIGTERM else "vllm-rast: int")
        assert "Traceback" not in log.read_text()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
