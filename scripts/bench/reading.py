"""What it costs to read given answers with all models: tokens per second, and memory while the logits are reduced.

    python scripts/bench/reading.py --folder MODELS --json scripts/results/reading-2-cores.json

Three ways to read the same answers, in turns, each in a process of its own: a token trace (all models' numbers), vLLM's
own prompt_logprobs of the mix (one number a token), and the prefill alone. Memory is the largest resident size while
answers are read above that before, after a first answer has warmed everything up. A table goes to stdout, progress to
stderr.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from common.machine import (
    add_common,
    cell,
    describe,
    describe_line,
    positive,
    prepare_engines,
    say,
    spread,
    table,
    write_json,
)
from common.models import SHAPES, add_mix, make_models

WAYS = ("token trace", "prompt_logprobs", "prefill alone")
PROMPT = 16  # tokens before each answer
MIB = 1 << 20


class Peak(threading.Thread):
    """The largest resident size of this process between `start` and `stop`, in bytes."""

    def __init__(self) -> None:
        import psutil

        super().__init__(daemon=True)
        self.process, self.ended = psutil.Process(), threading.Event()
        self.before = self.largest = self.process.memory_info().rss

    def run(self) -> None:
        while not self.ended.wait(0.002):
            self.largest = max(self.largest, self.process.memory_info().rss)

    def stop(self) -> int:
        self.ended.set()
        self.join()
        return self.largest - self.before


def measure(way: str, folders: list[str], answers: int, tokens: int, dtype: str) -> dict[str, float]:
    """Tokens of answers per second, and bytes of memory, in this process."""
    from vllm import SamplingParams

    from vllm_rast import RastLLM
    from vllm_rast.llm import Answer

    base, positive_model, negative = folders
    llm = RastLLM(
        base,
        positive=positive_model,
        negative=negative,
        token_traces=way == WAYS[0],
        check_tokenizers=False,
        skip_tokenizer_init=True,
        dtype=dtype,
        enforce_eager=True,
        max_model_len=PROMPT + tokens,
        max_num_batched_tokens=PROMPT + tokens,
        max_num_seqs=4,
        enable_prefix_caching=False,
        kv_cache_memory_bytes=1 << 29,
    )
    rng = random.Random(0)
    vocab = llm.llm_engine.vllm_config.model_config.get_vocab_size()
    every = [[rng.randrange(3, vocab) for _ in range(PROMPT + tokens)] for _ in range(1 + answers)]

    def read(some: list[list[int]]) -> None:
        if way == WAYS[0]:
            assert len(list(llm.trace_answers(Answer(ids[:PROMPT], ids[PROMPT:]) for ids in some))) == len(some)
            return
        logprobs = 0 if way == WAYS[1] else None
        params = SamplingParams(max_tokens=1, temperature=0, detokenize=False, prompt_logprobs=logprobs)
        llm.generate([{"prompt_token_ids": ids[:-1]} for ids in some], params, use_tqdm=False)

    read(every[:1])
    peak, begin = Peak(), time.perf_counter()
    peak.start()
    read(every[1:])
    seconds = time.perf_counter() - begin
    return {"tokens_per_s": answers * tokens / seconds, "peak_bytes": peak.stop()}


def in_a_process(way: str, options: argparse.Namespace, folders: list[Path]) -> dict[str, float]:
    command = [sys.executable, __file__, "--way", way, "--folder", str(options.folder), "--dtype", options.dtype]
    command += ["--answers", str(options.answers), "--tokens", str(options.tokens), "--made", *map(str, folders)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr[-4000:])
    return json.loads(done.stdout.splitlines()[-1])


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common(parser, repeats=3)
    add_mix(parser)
    parser.add_argument("--answers", type=positive, default=4, help="answers read each time (default: 4)")
    parser.add_argument("--tokens", type=positive, default=1024, help="tokens of each answer (default: 1024)")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--made", nargs=3, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    options = parse()
    prepare_engines(options.threads)
    options.dtype = options.dtype or "float32"
    if options.way:
        print(json.dumps(measure(options.way, options.made, options.answers, options.tokens, options.dtype)))
        return
    machine = describe()
    folders = make_models(options.models, options.folder, dtype=options.dtype)
    measured: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    for number in range(options.repeats):
        for way in WAYS:
            measured[way].append(in_a_process(way, options, folders))
            say(f"{number + 1} of {options.repeats}, {way}: {measured[way][-1]}")
    results = {
        way: {name: spread([one[name] for one in some]) for name in ("tokens_per_s", "peak_bytes")}
        for way, some in measured.items()
    }
    print(describe_line(machine))
    lines = [
        [way, cell(one["tokens_per_s"], 0), cell({k: v / MIB for k, v in one["peak_bytes"].items()}, 0)]
        for way, one in results.items()
    ]
    print(table(["", "tokens/s", "MiB more"], lines))
    sizes = {
        "models": options.models,
        "vocab": [SHAPES[name].vocab for name in options.models],
        "answers": options.answers,
        "tokens": options.tokens,
        "dtype": options.dtype,
    }
    write_json(options.json, "reading", machine, sizes=sizes, results=results)


if __name__ == "__main__":
    main()
