"""A program: samples of a mix by way of its drafter with V2's noise, in Triton's interpreter, and the drafts alone.

python v2_draws.py JOB.json RESULT.json, with TRITON_INTERPRET=1. The job has `p` and `q`, one row of logits of each,
and the `number` of draws, at as many positions of a `seed`.
"""

from __future__ import annotations

import json
import sys

import interpreted  # noqa: F401
import torch

from vllm_rast.engine import coupling


def main() -> None:
    with open(sys.argv[1]) as file:
        job = json.load(file)
    assert coupling.HAS_TRITON
    number = job["number"]
    p, q = (torch.tensor(job[name]).repeat(number, 1) for name in ("p", "q"))
    seeds, positions = torch.full((number,), job["seed"]), torch.arange(number)
    drafts = coupling.draw_drafts(q, seeds, positions)
    with open(sys.argv[2], "w") as file:
        json.dump({"drafts": drafts.tolist(), "tokens": coupling.draw_coupled(p, q, seeds, positions).tolist()}, file)


if __name__ == "__main__":
    main()
