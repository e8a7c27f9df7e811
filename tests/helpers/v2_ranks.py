"""A program: batches through an engine of the V2 runner with drafts and two ranks, each in a process of its own.

python v2_ranks.py JOB.json RESULT.json, in the environment of `v2_drafting` and with a job such as that one's, without
`keys` and `right`. The ranks import this file too, and so what lets V2 work in Triton's interpreter.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch._dynamo
from v2_drafting import run, start
from vllm.platforms import current_platform

from vllm_rast import RastConfig
from vllm_rast.reference import ReferenceLLM

# vLLM compiles the look for the rank that has a token, with a part of Triton that is not here.
torch._dynamo.config.disable = True
# Every rank of V2 samples, from logits that all of them gather on CUDA; on a CPU vLLM gives them to the first alone.
type(current_platform).use_all_gather = classmethod(lambda cls: True)


def kinds(worker: Any) -> list[str]:
    """What drafts and what verifies on a rank."""
    runner = worker.model_runner
    return [type(one).__name__ for one in (runner.speculator, runner.rejection_sampler)]


def main() -> None:
    with open(sys.argv[1]) as file:
        job = json.load(file)
    options = job["engine"]
    engine = start({**options, "tensor_parallel_size": 2}, job["asynchronous"])
    reference = ReferenceLLM(RastConfig.build(*(options[name] for name in ("model", "positive", "negative"))))
    results = [run(engine, None, reference, batch) for batch in job["batches"]]
    with open(sys.argv[2], "w") as file:
        json.dump({"batches": results, "kinds": engine.collective_rpc(kinds)}, file)


if __name__ == "__main__":
    main()
