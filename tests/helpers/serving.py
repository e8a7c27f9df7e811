"""A `vllm-rast serve` of the shipped models for a test module, and plain HTTP to talk to it."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

START_LIMIT_S = 500  # 12 s on a quiet machine
STOP_LIMIT_S = 90
TINY = ("tiny:base", "--positive", "tiny:positive", "--negative", "tiny:negative")
# What the shared server offers: label of the alias, and the same said as a request's alpha.
LATE = {"alpha": 1, "warmup": 6}
EXPOSED: dict[str, Any] = {
    "base": "base",
    "positive": "positive",
    "negative": "negative",
    "alpha=0.3": 0.3,
    "alpha=-1": [-1],
    "late": LATE,
}
LABELS = ["base,positive,negative", "alpha=0.3,alpha=-1", f"late={json.dumps(LATE)}"]
SHARED = [argument for labels in LABELS for argument in ("--expose", labels)]
SHARED += ["--enable-auto-tool-choice", "--tool-call-parser", "hermes", "--ui", "--trace"]


class Server:
    """A running server: its address, its process and its log."""

    def __init__(self, url: str, process: subprocess.Popen[bytes], log: Path, trust: ssl.SSLContext | None) -> None:
        self.url, self.process, self.log, self.trust = url, process, log, trust

    def get(self, path: str, timeout: float = 60) -> str:
        with urllib.request.urlopen(self.url + path, timeout=timeout, context=self.trust) as response:
            return response.read().decode()

    def post(self, path: str, body: Any, timeout: float = 120, **headers: str) -> tuple[int, dict[str, Any]]:
        """Status and JSON answer; body is sent as it is if it is bytes."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"} | headers)
        try:
            with urllib.request.urlopen(request, timeout=timeout, context=self.trust) as response:
                return response.status, json.loads(response.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def complete(self, prompt: Any, **body: Any) -> dict[str, Any]:
        """The JSON answer to a greedy completion."""
        body = {"model": "tiny:base", "prompt": prompt, "temperature": 0, "max_tokens": 24, **body}
        status, answer = self.post("/v1/completions", body)
        assert status == 200, answer
        return answer

    def tokens(self, prompt: Any, **body: Any) -> list[int]:
        """The token ids of a greedy completion."""
        return self.complete(prompt, return_token_ids=True, **body)["choices"][0]["token_ids"]

    def metric(self, name: str) -> float:
        """The sum of a metric's samples."""
        lines = [line for line in self.get("/metrics").splitlines() if line.startswith((f"{name}{{", f"{name} "))]
        assert lines, f"no metric {name}"
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    def processes(self) -> list[psutil.Process]:
        """The server, the engine and its workers."""
        own = psutil.Process(self.process.pid)
        return [own, *own.children(recursive=True)]

    def engine(self) -> psutil.Process:
        """The engine's process."""
        return next(process for process in self.processes() if "EngineCore" in " ".join(process.cmdline()))

    def rss(self) -> int:
        """Resident bytes of all processes."""
        return sum(process.memory_info().rss for process in self.processes())

    def last_words(self) -> str:
        """The last line of our own in the log; libraries may complain after it."""
        return [line for line in self.log.read_text().splitlines() if line.startswith("vllm-rast: ")][-1]

    def processes_left(self) -> list[psutil.Process]:
        """Processes of the server's session that still live, once it has ended; they get some seconds to go."""
        deadline = time.monotonic() + 20
        while True:
            left = living(self.process.pid)
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(0.2)

    def wait(self, limit_s: float = STOP_LIMIT_S) -> int:
        """The exit code, once the server has ended."""
        return self.process.wait(timeout=limit_s)


def living(session: int) -> list[psutil.Process]:
    """The processes of a session that have not ended, whether anybody has asked how or not."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextmanager
def serving(
    folder: Path,
    *arguments: str,
    models: tuple[str, ...] = TINY,
    trust: ssl.SSLContext | None = None,
    popen: type[subprocess.Popen[Any]] = subprocess.Popen,
    **env: str,
) -> Iterator[Server]:
    """Start a server, wait until it answers, and end it and its children afterwards, whatever happened.

    trust: the certificates to trust, of a server that speaks TLS. popen: forked.Popen for a quick start.
    """
    port = free_port()
    command = [sys.executable, "-m", "vllm_rast", "serve", *models, "--host", "127.0.0.1", "--port", str(port)]
    log = folder / f"log-{port}"
    with log.open("w") as output:
        process = popen(
            [*command, *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | env,
            start_new_session=True,
        )
    server = Server(f"{'https' if trust else 'http'}://127.0.0.1:{port}", process, log, trust)
    try:
        wait_until_up(server)
        yield server
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout=STOP_LIMIT_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def wait_until_up(server: Server) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while True:
        assert server.process.poll() is None and time.monotonic() < deadline, server.log.read_text()[-4000:]
        try:
            server.get("/health", timeout=5)
            return
        except OSError:
            time.sleep(0.3)
