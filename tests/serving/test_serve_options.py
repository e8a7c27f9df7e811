"""vLLM's own options under our server: two ranks, TLS, a key and a path in front of every address, all at once."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Iterator
from typing import Any

import forked
import pytest
import trustme
from questions import PROMPTS
from serving import Server, serving

from vllm_rast.engine.launch import TINY_ENGINE

KEY = {"Authorization": "Bearer secret"}
PREFIX = "/rast"
ALPHAS: tuple[Any, ...] = (None, "base", "positive", "negative", 0.3, [-1], {"alpha": 1, "warmup": 6})


@pytest.fixture(scope="module")
def guarded_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("serve")
    authority = trustme.CA()
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(folder / "cert.pem")
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    options = ["--tensor-parallel-size", "2", "--trace", "--expose", "base", "--api-key", "secret", "--ui"]
    options += ["--root-path", PREFIX, "--ssl-certfile", str(folder / "cert.pem")]
    with serving(
        folder, *options, "--ssl-keyfile", str(folder / "cert.pem"), trust=trust, popen=forked.Popen
    ) as server:
        yield server


def complete(server: Server, **body: Any) -> tuple[int, dict[str, Any]]:
    common = {"model": "tiny:base", "prompt": PROMPTS, "temperature": 0, "max_tokens": 24, "return_token_ids": True}
    return server.post("/v1/completions", {**common, **body}, **KEY)


def test_tokens_are_those_of_the_python_api(guarded_server: Server, start_engine: Callable[..., Any]) -> None:
    from vllm import SamplingParams

    llm = start_engine("tiny:base", positive="tiny:positive", negative="tiny:negative", **TINY_ENGINE)
    expected, answered = [], []
    for alpha in ALPHAS:
        extra = None if alpha is None else {"alpha": alpha}
        params = SamplingParams(temperature=0, max_tokens=24, extra_args=extra)
        outputs = llm.generate(PROMPTS, params, use_tqdm=False)
        expected.append([list(output.outputs[0].token_ids) for output in outputs])
        status, answer = complete(guarded_server, vllm_xargs=extra)
        assert status == 200, answer
        answered.append([choice["token_ids"] for choice in answer["choices"]])
    assert answered == expected
    assert len({str(tokens) for tokens in expected}) >= 5, "the weights made no difference"
    _, answer = complete(guarded_server, model="tiny:base:base")
    assert [choice["token_ids"] for choice in answer["choices"]] == expected[ALPHAS.index("base")]


def test_refusals_the_key_and_the_page_hold_below_a_path(guarded_server: Server) -> None:
    status, answer = complete(guarded_server, alpha="much")
    assert status == 400 and answer["error"]["param"] == "alpha"
    status, answer = complete(guarded_server, alpha="much", stream=True)
    assert status == 400 and answer["error"]["param"] == "alpha"
    assert guarded_server.post("/v1/completions", {"prompt": "Hi"})[0] == 401
    assert json.loads(guarded_server.get("/health/decode"))["status"] == "ok"
    assert "<html" in guarded_server.get("/")


def test_the_trace_counts_each_row_once(guarded_server: Server) -> None:
    before = guarded_server.metric("vllm_rast:kl_rows_total"), guarded_server.metric("vllm_rast:kl_nats_total")
    assert complete(guarded_server, prompt=PROMPTS[0], ignore_eos=True)[0] == 200
    assert guarded_server.metric("vllm_rast:kl_rows_total") - before[0] == 24
    assert guarded_server.metric("vllm_rast:kl_nats_total") > before[1]
