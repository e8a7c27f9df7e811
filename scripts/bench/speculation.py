"""Speculation by the mix's own positive against the mix without, the base alone, and a second copy of the drafter.

    python scripts/bench/speculation.py --folder MODELS --dtype float32 --accepted 0.8 --batches 1,8 --drafts 2,4

Every figure is a ratio of times for each token, in one run and in turns: how many times as fast as an opponent is the
mix with K drafts (the engine "ours", each request with its own K), or with "auto"?

    (a) over mix            the same mix without speculation
    (b) over base           the base alone in stock vLLM, in the same dtype
    (b') over base, ours    the base alone with this project's products, so that only the method differs
    (c) over second copy    the mix with vLLM's own draft-model speculation, which loads the positive once more

How often drafts are accepted is set: see scripts/bench/common/agreeing.py. The share that was met while decoding is
reported beside the share that was asked for; with --shipped the models are those of the package, which answer the
package's own questions and agree as they do. Prefill is left out. A table of its own shows what K + 1 rows cost against
1 row in each linear layer of one layer of the base, and in its head: on a CPU that decides everything.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import machine as bench
from common.agreeing import make_agreeing
from common.turns import Engine, work

PROMPT = 32  # tokens
ROWS = (1, 2, 3, 4, 5, 6, 7, 8, 16, 32, 64)
MOST = 6  # drafts of the engine "ours"; each request says how many it wants
OPPONENTS = {"mix": "(a) over mix", "base": "(b) over base", "ours alone": "(b') over base, ours"}
COPY = "second copy"
ENGINES = (*OPPONENTS, COPY, "ours", "auto")


def numbers(text: str) -> list[int]:
    """`1,2,4`."""
    return [bench.positive(part) for part in text.split(",")]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="qwen2-390m", help="the base's (default: %(default)s)")
    parser.add_argument(
        "--small-layers", type=bench.positive, default=3, help="the small models' (default: 3, a fifth of its cost)"
    )
    parser.add_argument(
        "--accepted",
        type=lambda text: [float(part) for part in text.split(",")],
        default=[0.6, 0.7, 0.8, 0.9],
        help="shares of accepted drafts (default: 0.6,0.7,0.8,0.9)",
    )
    parser.add_argument("--shipped", action="store_true", help="measure the shipped models; --folder is not used")
    parser.add_argument("--batches", type=numbers, default=[1, 2, 4, 8, 32], help="(default: 1,2,4,8,32)")
    parser.add_argument("--drafts", type=numbers, default=[1, 2, 3, 4, 5, 6], help="(default: 1,2,3,4,5,6)")
    parser.add_argument(
        "--temperatures",
        type=lambda text: [float(part) for part in text.split(",")],
        default=[0.0, 1.0],
        help="(default: 0,1)",
    )
    parser.add_argument("--new", type=bench.positive, default=64, help="new tokens of each request (default: 64)")
    parser.add_argument(
        "--engines",
        type=lambda text: [name for name in ENGINES if name in text.split(",") or name == "mix"],
        default=list(ENGINES),
        help=f"fewer need less memory (default: {','.join(ENGINES)})",
    )
    parser.add_argument("--copy-drafts", type=numbers, default=[3], help="drafts of the second copy (default: 3)")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    bench.add_common(parser)
    return parser.parse_args()


def build(job: dict[str, Any]) -> Callable[[Any], Any]:
    """The other side of an Engine: seconds and drafts for a request, or the table of rows."""
    from vllm import LLM, SamplingParams

    from vllm_rast import RastLLM

    options = {
        "dtype": job["dtype"],
        "enforce_eager": True,
        "skip_tokenizer_init": not job["shipped"],
        "max_model_len": 512,
        "block_size": 32,
        "max_num_seqs": 32,
        "enable_prefix_caching": False,
        "kv_cache_memory_bytes": 1 << 28,
        "disable_log_stats": False,
    }
    name, small = job["name"], {"positive": job["positive"], "negative": job["negative"]}
    if name == "base":
        llm: Any = LLM(job["base"], **options)
    elif name == "ours alone":
        llm = RastLLM(job["base"], **options)
    elif name.startswith(COPY):
        drafter = {"method": "draft_model", "model": job["positive"], "num_speculative_tokens": job["copy_drafts"]}
        llm = RastLLM(job["base"], **small, speculative_config=drafter, **options)
    else:
        speculate = {"mix": 0, "ours": MOST, "auto": "auto"}[name]
        llm = RastLLM(job["base"], **small, speculate=speculate, **options)

    def drafts() -> list[list[float]]:
        """[drafts so far at each place, accepted ones]."""
        found = {metric.name: metric for metric in llm.get_metrics()}
        if "vllm:spec_decode_num_drafts" not in found:
            return [[], []]
        accepted = list(found["vllm:spec_decode_num_accepted_tokens_per_pos"].values)
        return [[found["vllm:spec_decode_num_draft_tokens"].value], accepted]

    def respond(question: Any) -> Any:
        if question == "rows":
            return llm.apply_model(seconds_of_rows)[0]
        batch, new, temperature, drafted, seed = question
        ids = shipped_prompts(batch, seed) if job["shipped"] else random_prompts(batch, seed)
        extra = None if drafted is None else {"speculate": drafted}
        params = SamplingParams(
            temperature=temperature, seed=seed, max_tokens=new, ignore_eos=True, detokenize=False, extra_args=extra
        )
        before = drafts()
        outputs = llm.generate([{"prompt_token_ids": some} for some in ids], params, use_tqdm=False)
        assert all(len(output.outputs[0].token_ids) == new for output in outputs)
        # From the step that gave the last of the first tokens on: prefill varies by more than many drafts cost.
        stats = [output.metrics for output in outputs]
        seconds = max(one.last_token_ts for one in stats) - max(one.first_token_ts for one in stats)
        counted = [[b - a for a, b in zip(*both, strict=True)] for both in zip(before, drafts(), strict=True)]
        return {"seconds": seconds, "drafted": sum(counted[0]), "accepted": sum(counted[1])}

    return respond


def random_prompts(batch: int, seed: int) -> list[list[int]]:
    """Ids, [batch, PROMPT]."""
    import torch

    return torch.randint(1, 1000, (batch, PROMPT), generator=torch.Generator().manual_seed(seed)).tolist()


def shipped_models() -> Any:
    """The folders of base, positive and negative."""
    from vllm_rast.mix.model_names import resolve_model

    return tuple(resolve_model(f"tiny:{name}") for name in ("base", "positive", "negative"))


def shipped_prompts(batch: int, seed: int) -> list[list[int]]:
    """The ids of questions of the shipped benchmark, others for each seed."""
    from transformers import AutoTokenizer

    from vllm_rast.evaluation.tasks.benchmark import load_benchmark
    from vllm_rast.evaluation.tasks.prompts import PAPER

    encode = AutoTokenizer.from_pretrained(shipped_models()[0]).encode
    problems = load_benchmark("tiny").problems()[seed * batch : (seed + 1) * batch]
    return [encode(PAPER.render(problem.question)) for problem in problems]


def seconds_of_rows(model: Any) -> dict[str, dict[int, float]]:
    """Seconds of each linear layer of the base's first layer, and of its head, for numbers of rows."""
    import torch

    base = getattr(model, "members", [model])[0]
    layer = base.model.layers[0]
    parts = {
        "qkv": layer.self_attn.qkv_proj,
        "o": layer.self_attn.o_proj,
        "gate and up": layer.mlp.gate_up_proj,
        "down": layer.mlp.down_proj,
        "head": base.compute_logits,
    }
    found: dict[str, dict[int, float]] = {}
    with torch.inference_mode():
        for name, part in parts.items():
            width = part.input_size_per_partition if name != "head" else base.config.hidden_size
            found[name] = {}
            for rows in ROWS:
                x = torch.randn(rows, width, dtype=next(base.parameters()).dtype)
                times = []
                for _ in range(15):
                    began = time.perf_counter()
                    part(x)
                    times.append(time.perf_counter() - began)
                found[name][rows] = sorted(times)[len(times) // 2]
    return found


def measure(engines: list[Engine], case: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """One case: milliseconds for each token of every engine in each turn, and the share of accepted drafts."""
    ways = [(engine, None) for engine in engines if engine.name != "ours"]
    ways += [(engine, drafts) for engine in engines if engine.name == "ours" for drafts in options.drafts]
    times: dict[str, list[float]] = {}
    counts: dict[str, list[float]] = {}
    for turn in range(-1, options.repeats):
        bench.say(f"{case}, {'warming up' if turn < 0 else f'turn {turn + 1} of {options.repeats}'}")
        for engine, drafts in ways:
            name = engine.name if drafts is None else f"{drafts}"
            answer = engine.ask([case["batch"], options.new, case["temperature"], drafts, turn + 1])
            if turn >= 0:
                times.setdefault(name, []).append(1e3 * answer["seconds"] / (options.new - 1))
                count = counts.setdefault(name, [0, 0])
                count[0] += answer["drafted"]
                count[1] += answer["accepted"]
    return {**case, "ms_per_token": times, "drafted_and_accepted": {k: v for k, v in counts.items() if v[0]}}


def over(result: dict[str, Any], name: str, opponent: str) -> dict[str, float]:
    """How many times as fast `name` is, over the turns."""
    times = result["ms_per_token"]
    return bench.spread([theirs / ours for theirs, ours in zip(times[opponent], times[name], strict=True)])


def print_tables(results: list[dict[str, Any]], rows: dict[str, dict[str, float]]) -> None:
    print("\nRows against 1 row, times its seconds\n")
    header = ["rows", *rows]
    print(bench.table(header, [[str(n), *(f"{p[str(n)] / p['1']:.2f}" for p in rows.values())] for n in ROWS]))
    columns = {name: title for name, title in OPPONENTS.items() if name in results[0]["ms_per_token"]}
    columns |= {name: f"(c) over {name}" for name in results[0]["ms_per_token"] if name.startswith(COPY)}
    lines = []
    for result in results:
        for name in result["ms_per_token"]:
            if name in columns:
                continue
            drafted, accepted = result["drafted_and_accepted"].get(name, (0, 0))
            lines.append(
                [
                    f"{result['accepted'] or 'shipped'}, T {result['temperature']:g}, batch {result['batch']}",
                    name,
                    f"{accepted / drafted:.2f}" if drafted else "",
                    *(bench.cell(over(result, name, opponent)) for opponent in columns),
                ]
            )
    print("\nTimes as fast\n")
    print(bench.table(["accepted, temperature, batch", "drafts", "accepted of drafted", *columns.values()], lines))


def main() -> None:
    options = parse()
    if options.worker:
        return work(options.worker, build)
    dtype = options.dtype or bench.default_dtype()
    bench.prepare_engines(options.threads)
    machine = bench.describe()
    shape = {"shipped": True} if options.shipped else {"shape": options.shape, "small_layers": options.small_layers}
    setup = {**shape, "dtype": dtype, "new": options.new}
    results: list[dict[str, Any]] = []
    rows: dict[str, dict[str, float]] = {}
    for accepted in [None] if options.shipped else options.accepted:
        for temperature in options.temperatures:
            if accepted is None:
                places, reached = shipped_models(), None
            else:
                places, reached = make_agreeing(
                    options.shape, options.small_layers, accepted, temperature, Path(options.folder)
                )
            job: dict[str, Any] = {"dtype": dtype, "threads": options.threads, "shipped": options.shipped}
            job |= dict(zip(("base", "positive", "negative"), map(str, places), strict=True))
            engines = []
            for name in options.engines:
                for drafts in options.copy_drafts if name == COPY else [0]:
                    bench.say(f"starting {name}")
                    called = f"{COPY}, {drafts}" if drafts else name
                    engines.append(Engine(__file__, called, {**job, "copy_drafts": drafts}))
            try:
                rows = rows or engines[0].ask("rows")
                for batch in options.batches:
                    case = {"accepted": accepted, "on_texts": reached, "temperature": temperature, "batch": batch}
                    results.append(measure(engines, case, options))
                    bench.write_json(
                        options.json, "speculation", machine, setup=setup, seconds_of_rows=rows, results=results
                    )
            finally:
                for engine in engines:
                    engine.stop()
    print(bench.describe_line(machine))
    print_tables(results, rows)


if __name__ == "__main__":
    main()
