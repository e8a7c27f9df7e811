"""Lockstep efficiency: base, positive and negative each alone in stock vLLM, against all three in one engine.

    python scripts/bench/lockstep.py --folder MODELS --dtype bfloat16 --cases 1x32+48,8x32+48

efficiency = (time of the base alone + of the positive alone + of the negative alone) / time of the mix, for the same
prompts and the same numbers of tokens, prefill and decoding apart. 1 means that the mix costs what its models cost one
after the other; more means that sharing one scheduler, one sampler and one step of Python pays. Two more columns divide
it: the mix with VLLM_RAST_KERNEL=torch, without the project's own kernels, and the mix's time over the base's alone.

Four or five engines wait in processes of their own and take turns, so that a change of the machine's load meets all.
A case is BATCHxPROMPT+NEW: prompts, tokens of each, new tokens of each. Prefill is the time to one new token; decoding
is the rest, per step. Sampling at temperature 1, random ids, no prefix cache.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import machine as bench
from common.models import add_mix, describe_shapes, make_models
from common.turns import TIMED_ENGINE, Engine, timed, work

ENGINES = ("base", "positive", "negative", "mix", "mix in torch")


def parse_case(text: str) -> tuple[int, int, int]:
    """`BATCHxPROMPT+NEW`."""
    batch, _, lengths = text.partition("x")
    prompt, _, new = lengths.partition("+")
    if not all(part.isdigit() and int(part) > 0 for part in (batch, prompt, new)) or int(new) < 2:
        raise argparse.ArgumentTypeError(f"{text!r} is not BATCHxPROMPT+NEW, with at least 2 new tokens")
    return int(batch), int(prompt), int(new)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=f"{__doc__}\nShapes:\n{describe_shapes()}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_mix(parser)
    parser.add_argument(
        "--cases",
        type=lambda text: [parse_case(case) for case in text.split(",")],
        default=[(1, 32, 48), (8, 32, 48), (32, 32, 48), (64, 32, 48)],
        metavar="CASE,...",
        help="(default: 1x32+48,8x32+48,32x32+48,64x32+48)",
    )
    parser.add_argument("--compile", action="store_true", help="with torch.compile (default: eager)")
    parser.add_argument("--without-torch", action="store_true", help="leave the mix without kernels out")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    bench.add_common(parser)
    return parser.parse_args()


def build(job: dict[str, Any]) -> Callable[[Any], float]:
    """The other side of an Engine: seconds for [batch, prompt, new]."""
    from vllm import LLM

    from vllm_rast import RastLLM

    options = {
        **TIMED_ENGINE,
        "dtype": job["dtype"],
        "enforce_eager": not job["compile"],
        "max_model_len": 1024,
        "kv_cache_memory_bytes": 1 << 30,
    }
    if job["name"].startswith("mix"):
        llm = RastLLM(job["base"], positive=job["positive"], negative=job["negative"], **options)
    else:
        llm = LLM(job[job["name"]], **options)
    seconds = timed(llm)
    return lambda question: seconds(*question)


def measure(engines: list[Engine], case: tuple[int, int, int], repeats: int) -> dict[str, Any]:
    """One case: [repeats] seconds of each engine, and the ratios of each turn."""
    batch, prompt, new = case
    prefill: dict[str, list[float]] = {engine.name: [] for engine in engines}
    step: dict[str, list[float]] = {engine.name: [] for engine in engines}
    for turn in range(-1, repeats):
        bench.say(f"{batch} x {prompt} + {new}, {'warming up' if turn < 0 else f'turn {turn + 1} of {repeats}'}")
        for engine in engines:
            first = engine.ask([batch, prompt, 1])
            whole = engine.ask([batch, prompt, new])
            if turn >= 0:
                prefill[engine.name].append(first)
                step[engine.name].append((whole - first) / (new - 1))
    return {
        "batch": batch,
        "prompt": prompt,
        "new": new,
        "prefill": ratios(prefill),
        "decode": ratios(step),
        "seconds": {"prefill": prefill, "step": step},
    }


def ratios(times: dict[str, list[float]]) -> dict[str, Any]:
    alone = [sum(turn) for turn in zip(*(times[name] for name in ENGINES[:3]), strict=True)]
    found = {
        "efficiency": bench.spread([one / mix for one, mix in zip(alone, times["mix"], strict=True)]),
        "over_base": bench.spread([mix / base for mix, base in zip(times["mix"], times["base"], strict=True)]),
        "mix_ms": bench.spread([1e3 * mix for mix in times["mix"]]),
    }
    if "mix in torch" in times:
        found["efficiency_in_torch"] = bench.spread(
            [one / mix for one, mix in zip(alone, times["mix in torch"], strict=True)]
        )
    return found


def print_table(results: list[dict[str, Any]]) -> None:
    header = ["case", "phase", "efficiency", "without our kernels", "mix over base alone", "mix, ms"]
    rows = []
    for result in results:
        for phase, unit in (("decode", "a step"), ("prefill", "in all")):
            found = result[phase]
            plain = found.get("efficiency_in_torch")
            rows.append(
                [
                    f"{result['batch']} x {result['prompt']} + {result['new']}",
                    phase,
                    bench.cell(found["efficiency"]),
                    bench.cell(plain) if plain else "",
                    bench.cell(found["over_base"]),
                    f"{found['mix_ms']['median']:.0f} {unit}",
                ]
            )
    print(bench.table(header, rows))


def main() -> None:
    options = parse()
    if options.worker:
        return work(options.worker, build)
    dtype = options.dtype or bench.default_dtype()
    bench.prepare_engines(options.threads)
    places = make_models(options.models, Path(options.folder), dtype=dtype)
    job = {"dtype": dtype, "compile": options.compile, "threads": options.threads}
    job |= dict(zip(("base", "positive", "negative"), map(str, places), strict=True))
    machine = bench.describe()
    engines = []
    for name in ENGINES[: 4 if options.without_torch else 5]:
        bench.say(f"starting {name}")
        torch_alone = {"VLLM_RAST_KERNEL": "torch"} if name == "mix in torch" else None
        engines.append(Engine(__file__, name, job, torch_alone))
    setup = {"models": options.models, "dtype": dtype, "compile": options.compile}
    results: list[dict[str, Any]] = []
    try:
        for case in options.cases:
            results.append(measure(engines, case, options.repeats))
            bench.write_json(options.json, "lockstep", machine, setup=setup, results=results)
    finally:
        for engine in engines:
            engine.stop()
    print(bench.describe_line(machine))
    print(f"\n{', '.join(options.models)}, {dtype}, {'compiled' if options.compile else 'eager'}\n")
    print_table(results)


if __name__ == "__main__":
    main()
