"""Prove that samples drawn with speculation follow the mix: the first three tokens of many answers, chi-square.

    python scripts/prove_speculation.py --json scripts/results/speculation-distribution.json
    python scripts/prove_speculation.py --v2 --json scripts/results/speculation-distribution-v2.json

The exact probability of every beginning of an answer comes from `vllm_rast.reference`, the counts from the engine with
the shipped models at temperature 1, for several alphas and values of top-p. After a whole question the shipped models
know too well what comes, so the prompts are two where they do not, and disagree: the first tokens of a question, and a
question backwards. p is the chance of a chi-square as large if the samples follow the distribution. Over all cases it
is uniform between 0 and 1, so of 16 the smallest is below 0.01 about once in seven runs; one below 0.0001 is an error
(exit code 1).

With --v2: the first token alone, drawn from the reference's logits as the V2 runner draws it, with the noise of vLLM's
Triton kernel. Triton's interpreter runs it, 12 minutes for each of two alphas. That V2's samples are these draws,
tests/engine/test_v2_speculation.py shows.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path += [str(ROOT / "tests" / "helpers"), str(ROOT / "scripts" / "bench")]

from common import machine as bench  # noqa: E402

ALPHAS: tuple[Any, ...] = (0.5, 1, 2, "positive")
V2_ALPHAS = (0.5, 2)
TOP_PS = (1.0, 0.9)
LEAST_P = 1e-4
MOST_SAMPLES = 10_000  # of one request; vLLM allows 16,384


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=bench.positive, default=20_000, help="for each case (default: %(default)s)")
    parser.add_argument("--speculate", type=bench.positive, default=3, help="drafts (default: %(default)s)")
    parser.add_argument("--v2", action="store_true", help="draws of the V2 runner, in Triton's interpreter")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure here, too")
    return parser.parse_args()


def measure(engine: Any, reference: Any, case: dict[str, Any], prompt: list[int], options: Any) -> dict[str, Any]:
    """One case: drafted and accepted tokens, the number of cells, chi-square and p."""
    from exact import cells, chi_square
    from v1 import drafts
    from vllm import SamplingParams

    # vLLM counts the seeds of a request's samples up from the request's own; no two samples here share one.
    starts = range(0, options.samples, MOST_SAMPLES)
    every = [
        SamplingParams(
            n=min(MOST_SAMPLES, options.samples - start),
            seed=case["seed"] + start,
            temperature=1,
            top_p=case["top_p"],
            max_tokens=4,  # so that the first three may be drafted
            detokenize=False,
            extra_args={"alpha": case["alpha"]},
        )
        for start in starts
    ]
    before = drafts(engine)
    outputs = engine.generate([{"prompt_token_ids": prompt}] * len(every), every, use_tqdm=False)
    drafted, accepted = (drafts(engine) - before).sum(1).tolist()
    wanted = cells(reference, prompt, case["alpha"], options.samples, top_p=case["top_p"])
    found = chi_square([sample.token_ids for output in outputs for sample in output.outputs], wanted)
    return {**case, "drafted": drafted, "accepted": accepted, **found}


def measure_v2(reference: Any, case: dict[str, Any], prompt: list[int], options: Any) -> dict[str, Any]:
    """One case, of one token and without top-p."""
    from exact import cells, chi_square
    from interpreting import HELPERS, run_interpreted

    p, q = (reference.logits(prompt, alpha)[-1].tolist() for alpha in (case["alpha"], "positive"))
    with tempfile.TemporaryDirectory() as folder:
        job = {"p": p, "q": q, "seed": case["seed"], "number": options.samples}
        drawn = run_interpreted(HELPERS / "v2_draws.py", Path(folder), job, subprocess.Popen)
    accepted = sum(token == draft for token, draft in zip(drawn["tokens"], drawn["drafts"], strict=True))
    wanted = cells(reference, prompt, case["alpha"], options.samples, depth=1)
    found = chi_square([[token] for token in drawn["tokens"]], wanted, depth=1)
    return {**case, "drafted": options.samples, "accepted": accepted, **found}


def main() -> int:
    options = parse()
    bench.prepare_engines(threads=1)
    from vllm_rast import RastConfig
    from vllm_rast.reference import ReferenceLLM
    from vllm_rast.tiny.benchmark import test_questions

    reference = ReferenceLLM(RastConfig.build("tiny:base", "tiny:positive", "tiny:negative"))
    question = reference.tokenizer(test_questions()[0].prompt)["input_ids"]
    prompts = {"first tokens": question[:3], "backwards": question[::-1]}
    results = prove_v2(reference, prompts, options) if options.v2 else prove(reference, prompts, options)
    print_table(results)
    return int(any(one["p"] < LEAST_P for one in results))


def prove_v2(reference: Any, prompts: dict[str, list[int]], options: Any) -> list[dict[str, Any]]:
    machine = bench.describe()
    results: list[dict[str, Any]] = []
    for seed, alpha in enumerate(V2_ALPHAS):
        case = {"prompt": "first tokens", "alpha": alpha, "top_p": 1.0, "seed": seed}
        results.append(measure_v2(reference, case, prompts["first tokens"], options))
        bench.say(str(results[-1]))
        setup = {"models": "tiny", "samples": options.samples}
        bench.write_json(options.json, "speculation-distribution-v2", machine, setup=setup, results=results)
    return results


def prove(reference: Any, prompts: dict[str, list[int]], options: Any) -> list[dict[str, Any]]:
    from vllm_rast import RastLLM
    from vllm_rast.engine.launch import TINY_ENGINE

    machine = bench.describe()
    engine = RastLLM(
        "tiny:base",
        positive="tiny:positive",
        negative="tiny:negative",
        speculate=options.speculate,
        **TINY_ENGINE,
    )
    results: list[dict[str, Any]] = []
    for name, prompt in prompts.items():
        for alpha in ALPHAS:
            for top_p in TOP_PS:
                seed = len(results) * options.samples
                case = {"prompt": name, "alpha": alpha, "top_p": top_p, "seed": seed}
                results.append(measure(engine, reference, case, prompt, options))
                bench.say(str(results[-1]))
                setup = {"models": "tiny", "samples": options.samples, "speculate": options.speculate}
                bench.write_json(options.json, "speculation-distribution", machine, setup=setup, results=results)
    return results


def print_table(results: list[dict[str, Any]]) -> None:
    header = ["prompt", "alpha", "top-p", "accepted", "cells", "chi-square", "p"]
    rows = [
        [
            one["prompt"],
            str(one["alpha"]),
            str(one["top_p"]),
            f"{one['accepted'] / one['drafted']:.3f}",
            str(one["cells"]),
            f"{one['statistic']:.1f}",
            f"{one['p']:.4f}",
        ]
        for one in results
    ]
    print(bench.table(header, rows))


if __name__ == "__main__":
    sys.exit(main())
