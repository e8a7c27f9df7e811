"""`vllm-rast serve` beside stock `vllm serve` on the base: throughput and time to first token; then a soak test.

    python scripts/bench/serve.py                        # the shipped models
    python scripts/bench/serve.py --shapes qwen2-39m,qwen2-11m,qwen2-11m --folder MODELS

Both servers run at the same time on loopback, and take turns at being measured by vLLM's own `vllm bench serve`: for
every number of concurrent clients stock, mix, and the mix's server asked for the base alone (what the server costs
in which no small model runs). The soak test sends thousands of short requests with weights of all kinds and lets many
clients hang up: every request must end exactly once, and memory must not grow. Results go to stdout as markdown and
with --json to a file.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from common import machine as machine_info
from common.machine import cell, positive, say, spread
from common.models import make_models, shape_list

START_LIMIT_S = 600
NAME = "model"
ROWS = {"stock": NAME, "mix": NAME, "mix, base alone": f"{NAME}:base"}
ALPHAS: list[Any] = [None, 0, 0.5, 2, "base", "positive", "negative", [1], {"alpha": 1, "warmup": 4}]
PROMPT_TOKENS, ANSWER_TOKENS = 64, 64  # of the load test
CANCELLED = 0.3  # share of the soak test's clients that hang up
SOAK_CLIENTS = 64
MAX_GROWTH_MIB = 100  # of all of a server's processes, from the first fifth of the soak test to its end
RECEIVED, ENDED = "vllm_rast:requests_total", "vllm:request_success_total"  # the latter without those hung up on


class Server:
    """A server's process, and what it says about itself."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self.port = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = log
        with log.open("w") as output:
            self.process = subprocess.Popen(
                [*command, "--host", "127.0.0.1", "--port", str(self.port)], stdout=output, stderr=subprocess.STDOUT
            )

    def wait_until_up(self) -> None:
        deadline = time.monotonic() + START_LIMIT_S
        while self.process.poll() is None and time.monotonic() < deadline:
            try:
                urllib.request.urlopen(self.url + "/health", timeout=5)
                return
            except OSError:
                time.sleep(0.5)
        sys.exit(f"the server did not start; the end of its log:\n{self.log.read_text()[-3000:]}")

    def metrics(self) -> dict[str, float]:
        """{name{labels}: value} of /metrics."""
        with urllib.request.urlopen(self.url + "/metrics", timeout=60) as response:
            lines = response.read().decode().splitlines()
        samples = (line.rpartition(" ") for line in lines if line.startswith("vllm"))
        return {name: float(value) for name, _, value in samples}

    def total(self, name: str) -> float:
        """A metric summed over its labels."""
        return sum(value for key, value in self.metrics().items() if key.partition("{")[0] == name)

    def rss(self) -> int:
        """Resident bytes of the server, the engine and its workers."""
        import psutil

        own = psutil.Process(self.process.pid)
        return sum(process.memory_info().rss for process in (own, *own.children(recursive=True)))


@contextlib.contextmanager
def servers(options: argparse.Namespace, models: list[str], folder: Path) -> Iterator[tuple[Server, Server]]:
    """Stock `vllm serve` on the base and `vllm-rast serve` on the mix, with the same options for the engine."""
    common = ["--served-model-name", NAME, "--dtype", options.dtype, "--max-model-len", "512", "--block-size", "32"]
    common += ["--max-num-seqs", "256", "--enforce-eager", "--disable-uvicorn-access-log"]
    kv_bytes = ["--kv-cache-memory-bytes", str(options.kv_mib << 20)]
    base, plain_base = models[0], resolve(models[0])
    stock = [sys.executable, "-m", "vllm.entrypoints.launchers.api_server.entry", "--model", plain_base]
    mix = [sys.executable, "-m", "vllm_rast", "serve", base, "--positive", models[1], "--negative", models[2]]
    started = [
        Server([*stock, *common, *kv_bytes], folder / "stock.log"),
        Server([*mix, *common, *kv_bytes, "--expose", "base,positive,negative"], folder / "mix.log"),
    ]
    try:
        for server in started:
            server.wait_until_up()
        yield started[0], started[1]
    finally:
        for server in started:
            server.process.terminate()
        for server in started:
            server.process.wait(timeout=120)


def resolve(model: str) -> str:
    from vllm_rast.mix.model_names import resolve_model

    return resolve_model(model)


def bench(server: Server, model: str, tokenizer: str, clients: int, requests: int, seed: int) -> dict[str, Any]:
    """One run of `vllm bench serve`."""
    from vllm.benchmarks.serve import add_cli_args, main_async
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = FlexibleArgumentParser()
    add_cli_args(parser)
    arguments = ["--backend", "openai", "--base-url", server.url, "--model", model, "--tokenizer", tokenizer]
    arguments += ["--dataset-name", "random", "--random-input-len", str(PROMPT_TOKENS)]
    arguments += ["--random-output-len", str(ANSWER_TOKENS), "--ignore-eos", "--temperature", "1", "--seed", str(seed)]
    arguments += ["--max-concurrency", str(clients), "--num-prompts", str(requests), "--disable-tqdm"]
    with contextlib.redirect_stdout(io.StringIO()):
        result = asyncio.run(main_async(parser.parse_args(arguments)))
    if result["completed"] != requests:
        sys.exit(f"{model}: {result['completed']} of {requests} requests were answered")
    return {key: result[key] for key in ("output_throughput", "median_ttft_ms", "p99_ttft_ms", "median_tpot_ms")}


def load_test(options: argparse.Namespace, stock: Server, mix: Server, tokenizer: str) -> list[dict[str, Any]]:
    """Every row at every number of clients, the rows taking turns within a repeat."""
    runs: list[dict[str, Any]] = []
    for clients in options.clients:
        requests = max(options.requests, 2 * clients)
        for repeat in range(-1, options.repeats):  # the first one warms up
            for row, model in ROWS.items():
                server = stock if row == "stock" else mix
                result = bench(server, model, tokenizer, clients, requests, seed=repeat + 1)
                say(f"{clients} clients, {row}: {result['output_throughput']:.0f} tokens/s")
                if repeat >= 0:
                    runs.append({"clients": clients, "row": row, "repeat": repeat, **result})
    return runs


def summary(runs: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], str]:
    """Medians with ranges and the ratio of each repeat to stock's, and their table."""
    lines = []
    for clients, row in dict.fromkeys((run["clients"], run["row"]) for run in runs):
        own = [run for run in runs if (run["clients"], run["row"]) == (clients, row)]
        theirs = [run for run in runs if (run["clients"], run["row"]) == (clients, "stock")]
        ratios = [o["output_throughput"] / t["output_throughput"] for o, t in zip(own, theirs, strict=True)]
        line: dict[str, Any] = {"clients": clients, "row": row, "ratio": spread(ratios)}
        line |= {key: spread([run[key] for run in own]) for key in ("output_throughput", "median_ttft_ms")}
        lines.append(line)
    cells = [
        [
            line["row"],
            str(line["clients"]),
            cell(line["output_throughput"], 0),
            cell(line["ratio"]),
            cell(line["median_ttft_ms"], 0),
        ]
        for line in lines
    ]
    header = ["row", "clients", "tokens/s", "to stock", "time to first token, ms"]
    return lines, machine_info.table(header, cells)


async def soak_test(server: Server, requests: int, seed: int) -> dict[str, Any]:
    """Short requests of all kinds, many cut off by their clients; what became of them."""
    import aiohttp

    rng = random.Random(seed)
    ends: Counter[str] = Counter()
    ids: Counter[str] = Counter()
    sizes: list[int] = []
    waiting = asyncio.Semaphore(SOAK_CLIENTS)
    before = {name: server.total(name) for name in (RECEIVED, ENDED)}

    async def one(session: aiohttp.ClientSession, number: int, alpha: Any, length: int, hang_up: int | None) -> None:
        await ask(session, number, alpha, length, hang_up)
        if sum(ends.values()) in (requests // 5, requests // 2):
            sizes.append(server.rss())

    async def ask(session: aiohttp.ClientSession, number: int, alpha: Any, length: int, hang_up: int | None) -> None:
        body = {"model": NAME, "prompt": [5 + number % 50] * (1 + number % 40), "max_tokens": length, "stream": True}
        body |= {"ignore_eos": True, "seed": number} | ({} if alpha is None else {"vllm_xargs": {"alpha": alpha}})
        async with waiting:
            finished = chunks = 0
            async with session.post(f"{server.url}/v1/completions", json=body) as response:
                if response.status != 200:
                    ends[f"status {response.status}"] += 1
                    return
                async for line in response.content:
                    if not line.startswith(b"data: {"):
                        continue
                    chunk = json.loads(line[6:])
                    chunks += 1
                    finished += chunk["choices"][0]["finish_reason"] is not None
                    if chunks == 1:
                        ids[chunk["id"]] += 1
                    if hang_up is not None and chunks >= hang_up:
                        ends["hung up"] += 1
                        return
            ends["finished" if finished == 1 else f"finished {finished} times"] += 1

    began = time.monotonic()
    timeout = aiohttp.ClientTimeout(total=None)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        tasks = []
        for number in range(requests):
            length = rng.randint(1, 24)
            hang_up = rng.randint(1, length) if rng.random() < CANCELLED else None
            tasks.append(asyncio.create_task(one(session, number, rng.choice(ALPHAS), length, hang_up)))
        await asyncio.gather(*tasks)
    seconds = time.monotonic() - began
    while server.total("vllm:num_requests_running") + server.total("vllm:num_requests_waiting"):
        await asyncio.sleep(0.2)
    await asyncio.sleep(1)
    sizes.append(server.rss())
    return {
        "requests": requests,
        "seconds": round(seconds, 1),
        "clients": SOAK_CLIENTS,
        "ends": dict(ends),
        "lost": requests - sum(ends.values()),
        "answers_with_one_id": max(ids.values()),
        "received_by_the_engine": int(server.total(RECEIVED) - before[RECEIVED]),
        "ended_in_the_engine": int(server.total(ENDED) - before[ENDED]),
        "kv_cache_usage_after": server.total("vllm:kv_cache_usage_perc"),
        "rss_mib": [size >> 20 for size in sizes],
    }


def soak_problems(soak: dict[str, Any]) -> list[str]:
    """What a soak test must not show."""
    wrong = [end for end in soak["ends"] if end not in ("finished", "hung up")]
    checks = {
        f"requests that ended as {wrong}": bool(wrong),
        "lost requests": soak["lost"] != 0,
        "two answers with one id": soak["answers_with_one_id"] != 1,
        "requests that the engine has not got once": soak["received_by_the_engine"] != soak["requests"],
        "answers that the engine knows nothing of": soak["ended_in_the_engine"] < soak["ends"].get("finished", 0),
        "blocks that stay in use": soak["kv_cache_usage_after"] > 0,
        "memory that grows": soak["rss_mib"][-1] - soak["rss_mib"][0] > MAX_GROWTH_MIB,
    }
    return [problem for problem, there in checks.items() if there]


def models_of(options: argparse.Namespace) -> tuple[list[str], str]:
    """Base, positive and negative, and the folder of their tokenizer."""
    tokenizer = Path(resolve("tiny:base"))
    if not options.shapes:
        return ["tiny:base", "tiny:positive", "tiny:negative"], str(tokenizer)
    folders = make_models(options.shapes, options.folder, dtype=options.dtype)
    for folder in folders:  # text must be made of tokens somehow; which, does not matter
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            if (tokenizer / name).exists():
                shutil.copy(tokenizer / name, folder)
    return [str(folder) for folder in folders], str(tokenizer)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", type=shape_list, metavar="BASE,POSITIVE,NEGATIVE", help="see common/models.py")
    parser.add_argument("--folder", type=Path, help="where models of --shapes are made, and found again later")
    parser.add_argument("--dtype", default="float32", help="(default: %(default)s)")
    parser.add_argument("--kv-mib", type=positive, default=512, help="KV cache of each server (default: %(default)s)")
    parser.add_argument("--clients", type=positive, nargs="+", default=[1, 8, 32], help="(default: 1 8 32)")
    parser.add_argument("--requests", type=positive, default=32, help="of each run, at least (default: %(default)s)")
    parser.add_argument("--repeats", type=positive, default=5, help="(default: %(default)s)")
    parser.add_argument("--soak", type=int, default=5000, help="requests of the soak test (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure here, too")
    options = parser.parse_args()
    if options.shapes and (len(options.shapes) != 3 or not options.folder):
        parser.error("--shapes: name three, and a --folder for them")
    return options


def main() -> int:
    options = parse()
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    machine = machine_info.describe()
    models, tokenizer = models_of(options)
    with tempfile.TemporaryDirectory() as folder, servers(options, models, Path(folder)) as (stock, mix):
        lines, text = summary(runs := load_test(options, stock, mix, tokenizer))
        print(machine_info.describe_line(machine))
        print(
            f"\nmodels {', '.join(options.shapes or models)}; {PROMPT_TOKENS} prompt and {ANSWER_TOKENS} answer tokens"
        )
        print(f"\n{text}\n", flush=True)
        soak = asyncio.run(soak_test(mix, options.soak, seed=0)) if options.soak else {}
        problems = soak_problems(soak) if soak else []
        print(f"soak: {json.dumps(soak)}")
        print("\n".join(f"PROBLEM: {problem}" for problem in problems))
    machine_info.write_json(options.json, "serve", machine, models=models, lines=lines, runs=runs, soak=soak)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
