"""How a server ends: an API key guards it, SIGTERM lets streams finish, a dead engine ends it with an error."""

from __future__ import annotations

import signal
import sys
import threading
import time
import urllib.error
from pathlib import Path
from typing import Any

import forked
import openai
import pytest
from commands import refused
from serving import Server, free_port, serving

PROMPT = [5] * 20
KEY = "secret"


def stream(server: Server, client: openai.OpenAI, begun: threading.Event, **options: Any) -> dict[str, Any]:
    """The text of a long stream and how it finished."""
    got: dict[str, Any] = {"text": "", "finish": None}
    events = client.completions.create(
        model="tiny:base", prompt=PROMPT, temperature=0, stream=True, extra_body={"ignore_eos": True}, **options
    )
    for event in events:
        begun.set()
        got["text"] += event.choices[0].text
        got["finish"] = event.choices[0].finish_reason or got["finish"]
    return got


def in_thread(results: list[Any], task: Any, *args: Any, **kwargs: Any) -> threading.Thread:
    def work() -> None:
        try:
            results.append(task(*args, **kwargs))
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_sigterm_lets_streams_finish(tmp_path: Path) -> None:
    with serving(tmp_path, "--api-key", KEY, "--shutdown-timeout", "60", popen=forked.Popen) as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0)
        assert server.post("/v1/completions", {"prompt": "Hi", "alpha": "nonsense"})[0] == 401, "the key comes first"
        undisturbed = stream(server, client, threading.Event(), max_tokens=400)
        assert undisturbed["finish"] == "length"
        begun, results, finished = [threading.Event() for _ in range(3)], [], []  # type: ignore[var-annotated]

        def streams(first: threading.Event) -> openai.APIError:
            """One after the other until one is refused: so some are under way whenever the server is asked to stop."""
            event = first
            while True:
                try:
                    finished.append(stream(server, client, event, max_tokens=400))
                except openai.APIError as error:
                    assert not event.is_set(), "a stream was cut"
                    return error
                event = threading.Event()

        threads = [in_thread(results, streams, event) for event in begun]
        assert all(event.wait(60) for event in begun)
        server.process.send_signal(signal.SIGTERM)
        turned_away = wait_for_status(server, 503)
        for thread in threads:
            thread.join(120)
        assert len(results) == 3 and all(isinstance(one, openai.APIError) for one in results), results
        assert finished == [undisturbed] * len(finished) and len(finished) >= 3
        assert "shutting down" in turned_away
        assert server.wait() == 0
    assert server.last_words() == "vllm-rast: stopped"


def wait_for_status(server: Server, wanted: int) -> str:
    """The answer of the first health check with this status."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            server.get("/health", timeout=5)
        except urllib.error.HTTPError as error:
            if error.code == wanted:
                return error.read().decode()
        time.sleep(0.02)
    raise AssertionError(f"no status {wanted}")


def test_a_dead_engine_ends_the_server_with_an_error(tmp_path: Path) -> None:
    with serving(tmp_path, popen=forked.Popen) as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
        begun, results, engine = threading.Event(), [], server.engine()  # type: ignore[var-annotated]

        def streams() -> dict[str, Any]:
            """The first stream that did not finish: one may have finished just before the engine was killed."""
            while (got := stream(server, client, begun, max_tokens=450))["finish"] == "length":
                pass
            return got

        thread = in_thread(results, streams)
        assert begun.wait(60)
        engine.kill()
        thread.join(60)
        (got,) = results
        assert isinstance(got, openai.APIError) or got["finish"] is None
        assert server.wait() == 1
        assert server.last_words().startswith("vllm-rast: error: the engine died")
        assert not server.processes_left(), "processes of the dead server live on"


def test_a_mix_that_does_not_fit_is_refused_before_it_loads() -> None:
    command = [sys.executable, "-m", "vllm_rast", "serve", "--max-model-len", "4096", "--port", str(free_port())]
    done = forked.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("vllm-rast: ")]
    assert said.startswith("vllm-rast: error: ") and "max_model_len (4096)" in said
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["tiny:base"], "--positive: name what to mix"),
        (["tiny:base", "--positive", "./none"], "positive: there is no folder './none'"),
        (["tiny:base", "--model", "tiny:positive"], "--model tiny:positive: the base is named already"),
        (["--prot", "80"], "unknown option --prot; did you mean --port?"),
        (["--port", "high"], "--port: "),
        (["--expose", "bse"], "--expose bse: alpha: 'bse' is neither a number nor a model"),
        (["--expose", "base,base"], "--expose base: the name 'base' occurs twice"),
        (["--expose", "alpha=much"], "--expose alpha=much: 'much' is no number"),
        (["--expose", "alpha=1/2"], "--expose alpha=1/2: alpha: 2 values for 1 pairs"),
        (["--expose", "late={"], "--expose late={: not JSON"),
        (["--expose", "=1"], "--expose =1: expected base, positive"),
        (["--api-server-count", "2"], "--api-server-count 2: "),
        (["--grpc"], "--grpc: not supported by vllm-rast serve"),
        (["--headless"], "--headless: not supported by vllm-rast serve"),
        (["--enable-auto-tool-choice"], "--enable-auto-tool-choice requires --tool-call-parser"),
        (["--tool-call-parser", "nonsense", "--enable-auto-tool-choice"], "invalid tool call parser: nonsense"),
        (["--host", "192.0.2.1"], "see --host"),
    ],
)
def test_wrong_commands_get_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")  # put back afterwards
    port = [] if "--port" in arguments else ["--port", str(free_port())]
    assert said in refused(capsys, ["serve", *arguments, *port])
