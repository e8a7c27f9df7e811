"""Engines in processes of their own that take turns, so that a change of the machine's load meets all alike."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from common.machine import prepare_engines


class Engine:
    """`SCRIPT --worker JOB` in a process of its own, asked over its standard streams; ready once it is made.

    Its answers are lines of JSON (see `answer`). Ends the benchmark if the process ends.
    """

    def __init__(self, script: str, name: str, job: dict[str, Any], environment: Mapping[str, str] | None = None):
        command = [sys.executable, script, "--folder", ".", "--worker", json.dumps({**job, "name": name})]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        self.name = name
        self.read()

    def read(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"the engine of {self.name} ended with {self.process.wait()}; its messages are above")
        return json.loads(line)

    def ask(self, question: Any) -> Any:
        """One line there, one back."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        return self.read()

    def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


# Of an engine whose requests are timed: random ids, and every prompt is read.
TIMED_ENGINE = {"skip_tokenizer_init": True, "block_size": 32, "max_num_seqs": 64, "enable_prefix_caching": False}


def timed(llm: Any) -> Callable[[int, int, int], float]:
    """Seconds for a batch of random prompts, for their numbers of tokens and of new ones; at temperature 1."""
    import torch
    from vllm import SamplingParams

    generator = torch.Generator().manual_seed(0)

    def seconds(batch: int, prompt: int, new: int) -> float:
        ids = torch.randint(1000, (batch, prompt), generator=generator).tolist()
        params = SamplingParams(temperature=1.0, max_tokens=new, ignore_eos=True, detokenize=False)
        began = time.perf_counter()
        outputs = llm.generate([{"prompt_token_ids": some} for some in ids], params, use_tqdm=False)
        took = time.perf_counter() - began
        assert all(len(output.outputs[0].token_ids) == new for output in outputs)
        return took

    return seconds


def work(job: str, build: Callable[[dict[str, Any]], Callable[[Any], Any]]) -> None:
    """The worker's whole side: from an Engine's job, as JSON, to its answers."""
    told = json.loads(job)
    prepare_engines(told["threads"])
    answer(lambda: build(told))


def answer(make: Callable[[], Callable[[Any], Any]]) -> None:
    """The worker's side: make the engine, then answer every line of stdin until it is closed."""
    answers = os.dup(1)
    os.dup2(2, 1)  # whatever else prints goes to stderr
    respond = make()
    os.write(answers, b'"ready"\n')
    for line in sys.stdin:
        os.write(answers, (json.dumps(respond(json.loads(line))) + "\n").encode())
