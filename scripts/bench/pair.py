"""A pair whose positive is its negative and a LoRA adapter: one forward for both against two models.

    python scripts/bench/pair.py --folder MODELS --dtype float32 --smalls qwen2-91m,qwen2-164m --batches 1,8,32,64

For each small shape three engines wait in processes of their own and take turns: the base alone in stock vLLM, the mix
with `pair_forward="two"` (the adapter merged into a model of its own) and with "one". Columns: how many times as fast
is a decoded token of "one" as of "two", each over the base alone, and the ratio that the models' bytes give:

    (base + 2 small) / (base + small), each model's weights read once for each step

which is the limit as long as reading weights takes the time. Prefill is left out; temperature 1, random ids.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import machine as bench
from common.models import SHAPES, describe_shapes, make_model, shape_list
from common.turns import TIMED_ENGINE, Engine, timed, work

PROMPT = 32  # tokens
TARGETS = {
    "q_proj": ("self_attn", "width", "heads"),
    "k_proj": ("self_attn", "width", "kv_heads"),
    "v_proj": ("self_attn", "width", "kv_heads"),
    "o_proj": ("self_attn", "heads", "width"),
    "gate_proj": ("mlp", "width", "mlp_width"),
    "up_proj": ("mlp", "width", "mlp_width"),
    "down_proj": ("mlp", "mlp_width", "width"),
}
ENGINES = ("base", "two", "one")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=f"{__doc__}\nShapes:\n{describe_shapes()}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", default="qwen2-0.5b", choices=SHAPES, help="(default: %(default)s)")
    parser.add_argument("--smalls", type=shape_list, default=["qwen2-91m"], help="(default: qwen2-91m)")
    parser.add_argument("--rank", type=bench.positive, default=16, help="the adapter's (default: 16)")
    parser.add_argument(
        "--batches", type=lambda text: [bench.positive(n) for n in text.split(",")], default=[1, 8, 32, 64]
    )
    parser.add_argument("--new", type=bench.positive, default=48, help="new tokens of each request (default: 48)")
    parser.add_argument("--compile", action="store_true", help="with torch.compile (default: eager)")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    bench.add_common(parser)
    return parser.parse_args()


def make_adapter(shape_name: str, foundation: Path, rank: int, folder: Path) -> Path:
    """A LoRA adapter of all linear layers, in PEFT's files; small, so that both models say about the same."""
    import torch
    from safetensors.torch import save_file

    shape = SHAPES[shape_name]
    widths = {"width": shape.width, "mlp_width": shape.mlp_width}
    widths |= {"heads": shape.heads * shape.head_width, "kv_heads": shape.kv_heads * shape.head_width}
    generator = torch.Generator().manual_seed(7)
    tensors = {}
    for layer in range(shape.layers):
        for target, (block, inputs, outputs) in TARGETS.items():
            name = f"base_model.model.model.layers.{layer}.{block}.{target}"
            tensors[f"{name}.lora_A.weight"] = torch.randn(rank, widths[inputs], generator=generator) * 0.02
            tensors[f"{name}.lora_B.weight"] = torch.randn(widths[outputs], rank, generator=generator) * 0.02
    place = folder / f"{shape_name}-adapter-{rank}"
    place.mkdir(parents=True, exist_ok=True)
    save_file(tensors, place / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": 2 * rank,
        "target_modules": list(TARGETS),
        "base_model_name_or_path": str(foundation),
        "bias": "none",
    }
    (place / "adapter_config.json").write_text(json.dumps(config, indent=1) + "\n")
    return place


def build(job: dict[str, Any]) -> Callable[[Any], float]:
    """The other side of an Engine: seconds for [batch, new]."""
    from vllm import LLM

    from vllm_rast import RastLLM

    options = {
        **TIMED_ENGINE,
        "dtype": job["dtype"],
        "enforce_eager": not job["compile"],
        "max_model_len": 512,
        "kv_cache_memory_bytes": 1 << 29,
    }
    if job["name"] == "base":
        llm: Any = LLM(job["base"], **options)
    else:
        small = {"positive": job["positive"], "negative": job["negative"]}
        llm = RastLLM(job["base"], **small, pair_forward=job["name"], **options)
    seconds = timed(llm)
    return lambda question: seconds(question[0], PROMPT, question[1])


def measure(engines: list[Engine], batch: int, options: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds for each token of every engine in each turn."""
    times: dict[str, list[float]] = {engine.name: [] for engine in engines}
    for turn in range(-1, options.repeats):
        bench.say(f"batch {batch}, {'warming up' if turn < 0 else f'turn {turn + 1} of {options.repeats}'}")
        for engine in engines:
            first = engine.ask([batch, 1])
            whole = engine.ask([batch, options.new])
            if turn >= 0:
                times[engine.name].append(1e3 * (whole - first) / (options.new - 1))
    return {"batch": batch, "ms_per_token": times}


def ratio(result: dict[str, Any], over: str, under: str) -> str:
    times = result["ms_per_token"]
    return bench.cell(bench.spread([a / b for a, b in zip(times[over], times[under], strict=True)]))


def print_table(base: str, results: list[dict[str, Any]]) -> None:
    header = ["small", "batch", "two / one", "limit", "two over base", "one over base"]
    rows = []
    for result in results:
        whole, small = SHAPES[base].parameters, SHAPES[result["small"]].parameters
        limit = f"{(whole + 2 * small) / (whole + small):.2f}"
        ratios = [ratio(result, "two", "one"), limit, ratio(result, "two", "base"), ratio(result, "one", "base")]
        rows.append([result["small"], str(result["batch"]), *ratios])
    print(bench.table(header, rows))


def main() -> None:
    options = parse()
    if options.worker:
        return work(options.worker, build)
    dtype = options.dtype or bench.default_dtype()
    bench.prepare_engines(options.threads)
    machine = bench.describe()
    base = make_model(options.base, options.folder, dtype=dtype)
    setup = {"base": options.base, "dtype": dtype, "rank": options.rank, "compile": options.compile}
    results: list[dict[str, Any]] = []
    for small in options.smalls:
        negative = make_model(small, options.folder, seed=1, dtype=dtype)
        positive = make_adapter(small, negative, options.rank, options.folder)
        job = {"base": str(base), "positive": str(positive), "negative": str(negative)}
        job |= {"dtype": dtype, "threads": options.threads, "compile": options.compile}
        engines = []
        for name in ENGINES:
            bench.say(f"starting {name}")
            engines.append(Engine(__file__, name, job))
        try:
            for batch in options.batches:
                results.append({"small": small, **measure(engines, batch, options)})
                bench.write_json(options.json, "pair", machine, setup=setup, results=results)
        finally:
            for engine in engines:
                engine.stop()
    print(bench.describe_line(machine))
    print_table(options.base, results)


if __name__ == "__main__":
    main()
