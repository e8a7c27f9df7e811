"""Runs that are decoded by servers: the same samples, whatever happens to a server on the way."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import forked
import numpy as np
import pytest
from stub_server import TINY, StubServer, stub_servers
from watching import after, lines

from vllm_rast.cli.main import main
from vllm_rast.evaluation.runs import servers
from vllm_rast.evaluation.runs.folder import RunFolder
from vllm_rast.evaluation.runs.traces import FOLDER, read_parts
from vllm_rast.kernels.token_trace import likeliest_columns
from vllm_rast.mix.model_names import TINY_FOLDER

pytestmark = pytest.mark.skipif(not (TINY_FOLDER / "base").exists(), reason="the shipped models are not there")

SIZE = ["generate", "--n", "2", "--limit", "10"]  # 60 samples: three rows


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waits that only matter for machines."""
    monkeypatch.setattr(servers, "BACK_EVERY_S", 0.1)
    monkeypatch.setattr(servers, "HEALTH_EVERY_S", 0.1)
    monkeypatch.setattr(servers, "PATIENCE_S", 4.0)
    monkeypatch.setattr(servers, "RETRIES", 1)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture
def two() -> Iterator[list[StubServer]]:
    with stub_servers(2) as both:
        yield both


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.splitlines()[-1]


def test_one_and_two_servers(two: list[StubServer], tmp_path: Path) -> None:
    runs = []
    for urls in ([two[0].url], [two[0].url, f"{two[1].url}/v1/"]):
        runs.append(tmp_path / str(len(urls)))
        assert main([*SIZE, "--run", str(runs[-1]), "--servers", *urls]) == 0
    assert lines(runs[0]) == lines(runs[1]) and lines(runs[0]).total() == 60
    assert two[1].bodies and len(two[0].bodies) + len(two[1].bodies) == 120
    (sitting,) = RunFolder(runs[1]).config["sittings"]
    assert sitting["hosts"] == {server.url: "stub: cpu" for server in two}


def test_traces_come_with_the_answers(two: list[StubServer], tmp_path: Path) -> None:
    assert main([*SIZE, "--run", str(tmp_path), "--servers", two[0].url, two[1].url, "--trace", "2"]) == 0
    assert {body["vllm_xargs"]["trace"] for body in two[0].bodies + two[1].bodies} == {2}
    (folder,) = (tmp_path / FOLDER).iterdir()
    table = read_parts(folder)
    assert table.column_names[-20:] == likeliest_columns(TINY, 2) and table.num_rows == 60 * 7
    rows = table.select(["position", "token", *likeliest_columns(TINY, 2)]).to_pylist()
    for row in rows:
        place = row["position"]
        assert row["token"] == place
        assert [row[f"{name}_logprob"] for name in ("mix", "base", "positive", "negative")] == [
            -number - place / 4 for number in range(4)
        ]
        assert (row["positive_top1"], row["positive_top2"]) == (200 + place, 201 + place)
        assert (row["positive_top1_logprob"], row["positive_top2_logprob"]) == (-2, -math.inf)


def test_a_request_says_everything(two: list[StubServer], tmp_path: Path) -> None:
    rows = ["base,cool=0.5@0.25", 'late={"alpha": 2, "warmup": 9}']
    command = [*SIZE, "--rows", *rows, "--run", str(tmp_path / "run"), "--servers", two[0].url]
    assert main(command) == 0
    assert {json.dumps(body["vllm_xargs"]["alpha"]) for body in two[0].bodies} == {
        '"base"',
        "0.5",
        json.dumps('{"alpha": 2, "warmup": 9}'),
    }
    assert {body["temperature"] for body in two[0].bodies} == {1.0, 0.25}
    for body in two[0].bodies:
        assert (body["top_k"], body["min_p"], body["repetition_penalty"]) == (0, 0.0, 1.0)
        assert all(isinstance(token, int) for token in body["prompt"])
        assert body["max_tokens"] == 96 and body["model"] == "tiny:base"
    assert len({body["seed"] for body in two[0].bodies}) == 20, "one for each problem and sample, the same in every row"


def test_a_dead_servers_jobs_go_to_the_others(
    two: list[StubServer], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert main([*SIZE, "--run", str(whole), "--servers", two[0].url]) == 0
    for server in two:
        server.delay_s = 0.2
    thread = after(run, 5, two[1].stop)
    assert main([*SIZE, "--run", str(run), "--servers", *(server.url for server in two)]) == 0
    thread.join()
    assert lines(run) == lines(whole)
    assert f"{two[1].url} is lost: " in capsys.readouterr().err


def test_a_server_that_comes_back_is_used(
    two: list[StubServer], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two[0].delay_s = 0.2

    def restart() -> None:
        two[0].stop()
        time.sleep(2)  # longer than the client tries
        two[0].start()

    run = tmp_path / "run"
    thread = after(run, 5, restart)
    assert main([*SIZE, "--run", str(run), "--servers", two[0].url]) == 0
    thread.join()
    assert lines(run).total() == 60
    assert f"{two[0].url} is back" in capsys.readouterr().err


def test_without_servers_it_ends_and_goes_on_later(
    two: list[StubServer], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    two[0].delay_s = 0.2
    thread = after(run, 5, two[0].stop)
    assert main([*SIZE, "--run", str(run), "--servers", two[0].url]) == 1
    thread.join()
    assert f"no server is left, the last: {two[0].url}: " in last_line(capsys)
    assert main([*SIZE, "--run", str(run), "--servers", two[1].url]) == 0
    assert lines(run).total() == 60


def test_errors_that_pass_are_retried(two: list[StubServer], tmp_path: Path) -> None:
    two[0].errors = [500, 503, 429]
    run = tmp_path / "run"
    assert main([*SIZE, "--run", str(run), "--servers", two[0].url]) == 0
    assert lines(run).total() == 60 and len(two[0].bodies) >= 63


def test_a_sample_that_no_server_makes_is_given_up(
    two: list[StubServer], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    command = [*SIZE, "--rows", "base", "--run", str(run), "--servers", *(server.url for server in two)]
    assert main(command) == 0
    seeds = {json.loads(line)["seed"] for line in lines(run)}
    two[0].broken = two[1].broken = {min(seeds)}
    (run / "samples.jsonl").unlink()
    assert main(command) == 1
    assert "1 samples were given up" in last_line(capsys)
    assert len(lines(run)) == 19
    two[0].broken = two[1].broken = set()
    assert main([*command, "--retry-failed"]) == 0
    assert {json.loads(line)["seed"] for line in lines(run)} == seeds


def test_a_refusal_is_one_line(two: list[StubServer], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two[0].errors = [400]
    assert main([*SIZE, "--run", str(tmp_path / "run"), "--servers", two[0].url]) == 2
    assert last_line(capsys) == f"vllm-rast: error: --servers {two[0].url}: HTTP 400: so says error 400"


def test_who_is_there(
    two: list[StubServer], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [*SIZE, "--run", str(tmp_path / "run"), "--servers"]
    assert main([*command, "http://127.0.0.1:1"]) == 2
    assert "--servers http://127.0.0.1:1: no server there (" in last_line(capsys)
    two[0].key = "secret"
    assert main([*command, two[0].url]) == 2
    assert "HTTP 401" in (said := last_line(capsys)) and "set VLLM_API_KEY" in said
    monkeypatch.setenv("VLLM_API_KEY", "secret")
    assert main([*command, two[0].url]) == 0


def change(what: str) -> Callable[[dict[str, Any]], None]:
    def apply(identity: dict[str, Any]) -> None:
        if what == "weights":
            identity["weights"] = identity["weights"] | {"tiny:positive": "other"}
        elif what == "shape":
            identity["formula"] = [[True, False]]
        elif what == "model":
            identity["models"], identity["weights"] = ["org/base", *identity["models"][1:]], {}
        elif what == "drafter":
            identity["drafter"] = 1
        elif what == "dtype":
            identity["engine"] = identity["engine"] | {"dtype": "bfloat16"}
        else:
            identity["engine"] = identity["engine"] | {"quantization": "fp8"}
            identity["changed"] = [*identity["changed"], "quantization"]

    return apply


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("weights", "the weights of tiny:positive is 'other' there"),
        ("shape", "the shape of the mix is [[True, False]] there, and [[True, True]] in this run"),
        ("model", "a model is 'org/base' there, and 'tiny:base' in this run"),
        ("drafter", "the model that drafts is 'tiny:positive' there, and None in this run"),
        ("dtype", "--dtype is 'bfloat16' there, and 'float32' in this run"),
        ("quantization", "--quantization is 'fp8' there, and \"vLLM's default\" in this run"),
    ],
)
def test_another_mix_is_refused(
    two: list[StubServer], tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str, said: str
) -> None:
    change(what)(two[1].identity)
    assert main([*SIZE, "--run", str(tmp_path / "run"), "--servers", two[0].url, two[1].url]) == 2
    assert f"--servers {two[1].url}: {said}" in last_line(capsys)
    assert not two[0].bodies and not lines(tmp_path / "run")


def test_what_does_not_change_a_sample_may_differ(two: list[StubServer], tmp_path: Path) -> None:
    identity = two[0].identity
    identity["engine"] = identity["engine"] | {"max_num_seqs": 8, "tensor_parallel_size": 2}
    identity["changed"] = [*identity["changed"], "tensor_parallel_size"]
    identity["drafter"] = 1
    command = [*SIZE, "--temperature", "0", "--n", "1", "--run", str(tmp_path / "run"), "--servers", two[0].url]
    assert main(command) == 0, "greedy rows do not depend on what drafts"


@pytest.mark.timeout(2000)
def test_real_servers(server: Any, tmp_path: Path) -> None:
    """As in this process, token for token; one of two is killed in the middle."""
    from serving import serving

    options = [*SIZE, "--rows", "base,rast,positive", 'late={"alpha": 2, "warmup": 9}', "--trace", "1"]
    here, run = tmp_path / "here", tmp_path / "run"
    with serving(tmp_path, popen=forked.Popen) as other:
        thread = after(run, 10, lambda: os.killpg(other.process.pid, signal.SIGKILL))
        assert main([*options, "--run", str(run), "--servers", server.url, other.url]) == 0
        thread.join()
    forked.run([sys.executable, "-m", "vllm_rast", *options, "--run", str(here)], check=True, timeout=600)
    assert lines(run) == lines(here) and lines(here).total() == 80
    served, own = (traced(one) for one in (run, here))
    assert served.column_names == own.column_names and served.num_rows == own.num_rows
    for name in own.column_names:
        if name.endswith("_logprob"):
            np.testing.assert_allclose(served[name].to_numpy(), own[name].to_numpy(), atol=1e-3)
        elif "_top" not in name:
            assert served[name].equals(own[name]), name


def traced(run: Path) -> Any:
    """The traces of a run, in the order of their answers."""
    (folder,) = (run / FOLDER).iterdir()
    keys = [(name, "ascending") for name in ("benchmark", "row", "problem", "sample", "position")]
    return read_parts(folder).sort_by(keys).combine_chunks()
