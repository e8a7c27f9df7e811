"""How the cost of a token grows with the number of requests, the length of their context, and the number of pairs.

    python scripts/bench/growth.py --folder MODELS --base qwen2-0.5b --small qwen2-91m

Times are of decoding steps alone: the time of answers of STEPS + 1 tokens less the time of answers of one, over STEPS,
with prompts that the prefix cache holds. Each of the three grows while the others keep their --fixed-... value. Engines
with 0, 1, 2, ... pairs, and stock vLLM with the base alone, live side by side; in each repeat every case has its turn,
so that every ratio is between neighbours in time.

Last, memory: the bytes that a token of context takes according to the plan that is printed when an engine starts,
against what vLLM then allocated for its KV cache, over the tokens that it says fit in.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from common.machine import (
    add_common,
    cell,
    default_dtype,
    describe,
    describe_line,
    positive,
    prepare_engines,
    say,
    spread,
    stop_engines,
    table,
    write_json,
)
from common.models import SHAPES, describe_shapes, make_model, shape_list

BLOCK = 32  # tokens; the least that vLLM's attention on a CPU takes
ITEM_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
STOCK = "stock vLLM"


@dataclass(frozen=True)
class Case:
    """One point of a curve. engine: number of pairs, or STOCK."""

    kind: str
    engine: int | str
    requests: int
    context: int  # tokens
    value: int | str  # what stands on the curve's axis


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=f"{__doc__}\nShapes for --base and --small:\n{describe_shapes()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_common(parser)
    parser.add_argument("--base", type=shape_list, default=["qwen2-0.5b"], help="shape (default: qwen2-0.5b)")
    parser.add_argument(
        "--small", type=shape_list, default=["qwen2-91m"], help="of both of a pair (default: qwen2-91m)"
    )
    parser.add_argument("--requests", type=positive, nargs="+", default=[1, 2, 4, 8, 16, 32, 64], metavar="N")
    parser.add_argument("--contexts", type=positive, nargs="+", default=[64, 256, 1024, 2048], metavar="TOKENS")
    parser.add_argument("--pairs", type=positive, default=3, help="most pairs (default: 3)")
    parser.add_argument("--fixed-requests", type=positive, default=8, help="while other things grow (default: 8)")
    parser.add_argument("--fixed-context", type=positive, default=128, help="tokens, while others grow (default: 128)")
    parser.add_argument("--steps", type=positive, default=32, help="decoding steps that are timed (default: 32)")
    parser.add_argument("--enforce-eager", action="store_true", help="vLLM without torch.compile")
    return parser.parse_args()


def all_cases(options: argparse.Namespace) -> list[Case]:
    """The points of the three curves; each curve's first point is what the others are compared with."""
    fixed, context = options.fixed_requests, options.fixed_context
    cases = [Case("requests", 1, n, context, n) for n in options.requests]
    cases += [Case("context", 1, fixed, length, length) for length in options.contexts]
    cases.append(Case("pairs", STOCK, fixed, context, STOCK))
    return cases + [Case("pairs", pairs, fixed, context, pairs) for pairs in range(options.pairs + 1)]


class PlanReader:
    """Reads the memory plan where it is logged: vLLM sets up logging again with every engine, and drops handlers."""

    def __init__(self) -> None:
        from vllm_rast.engine.checks import logger

        self.bytes_per_token: int | None = None
        logger.info = self.read  # type: ignore[method-assign]

    def read(self, message: str, *values: Any) -> None:
        found = re.search(r"KV cache: .*?(\d+) bytes/token", message % values)
        if found:
            self.bytes_per_token = int(found[1])


class Engines:
    """An engine for each number of pairs that the cases need, and stock vLLM."""

    def __init__(self, cases: list[Case], options: argparse.Namespace) -> None:
        self.options = options
        # Twice what runs at a time, so that the prompts of all cases stay in the prefix cache.
        self.kv_tokens = 2 * max(case.requests * (case.context + options.steps + 2 * BLOCK) for case in cases)
        longest = max(case.context for case in cases) + options.steps + 2
        self.max_model_len = -(-longest // BLOCK) * BLOCK
        self.max_num_seqs = max(case.requests for case in cases)
        self.engines: dict[int | str, Any] = {}
        self.memory: list[dict[str, Any]] = []
        self.base = self.model(options.base[0], 0)
        plan = PlanReader()
        for name in dict.fromkeys(case.engine for case in cases):
            self.engines[name] = self.start(name)
            if name != STOCK:
                self.memory.append({"pairs": name, **self.compare_memory(self.engines[name], plan)})

    def model(self, shape: str, seed: int) -> str:
        return str(make_model(shape, self.options.folder, seed=seed, dtype=self.options.dtype))

    def start(self, name: int | str) -> Any:
        import vllm

        from vllm_rast import ModelPair, RastLLM

        say(f"starting {name if name == STOCK else f'an engine with {name} pairs'}")
        shapes = [self.options.base[0]]
        options = {
            "dtype": self.options.dtype,
            "skip_tokenizer_init": True,
            "enforce_eager": self.options.enforce_eager,
            "max_model_len": self.max_model_len,
            "max_num_seqs": self.max_num_seqs,
            "block_size": BLOCK,
            "seed": 0,
        }
        pairs = []
        for i in range(int(name) if name != STOCK else 0):
            shapes += [self.options.small[0]] * 2
            # Models of their own for every pair: one that occurs twice would run once.
            pairs.append(ModelPair(*(self.model(self.options.small[0], 2 * i + side) for side in (1, 2)), alpha=0.5))
        options["kv_cache_memory_bytes"] = self.kv_tokens * sum(map(self.kv_bytes, shapes))
        return vllm.LLM(self.base, **options) if name == STOCK else RastLLM(self.base, pairs=pairs, **options)

    def kv_bytes(self, shape: str) -> int:
        """Bytes of one token's keys and values."""
        one = SHAPES[shape]
        return 2 * one.layers * one.kv_heads * one.head_width * ITEM_BYTES[self.options.dtype]

    def compare_memory(self, llm: Any, plan: PlanReader) -> dict[str, Any]:
        """Bytes per token: as planned, and as allocated."""
        tokens = llm.llm_engine.vllm_config.cache_config.kv_cache_size_tokens
        allocated = llm.collective_rpc(allocated_kv_bytes)[0]
        assert plan.bytes_per_token is not None, "the engine printed no memory plan"
        return {
            "planned_bytes_per_token": plan.bytes_per_token,
            "allocated_bytes": allocated,
            "tokens_that_fit": tokens,
            "allocated_over_planned": allocated / tokens / plan.bytes_per_token,
        }

    def step_seconds(self, case: Case) -> float:
        """The time of one decoding step of a case."""
        one = self.decode(case, 1)
        return (self.decode(case, 1 + self.options.steps) - one) / self.options.steps

    def decode(self, case: Case, tokens: int) -> float:
        """Seconds for an answer of `tokens` tokens to each of the case's requests."""
        from vllm import SamplingParams

        vocab = min(SHAPES[self.options.base[0]].vocab, SHAPES[self.options.small[0]].vocab)
        # One token more than whole blocks: the prefix cache holds all but that.
        prompts = [
            {"prompt_token_ids": [(7 * place + 13 * request) % vocab for place in range(case.context + 1)]}
            for request in range(1, case.requests + 1)
        ]
        params = SamplingParams(max_tokens=tokens, min_tokens=tokens, ignore_eos=True, temperature=0, detokenize=False)
        start = time.perf_counter()
        self.engines[case.engine].generate(prompts, params, use_tqdm=False)
        return time.perf_counter() - start


def allocated_kv_bytes(worker: Any) -> int:
    """Bytes of the tensors that hold a worker's KV cache, each piece of memory once."""
    pieces: dict[int, int] = {}
    waiting = list(worker.model_runner.kv_caches)
    while waiting:
        one = waiting.pop()
        if isinstance(one, (list, tuple)):
            waiting += one
        else:
            storage = one.untyped_storage()
            pieces[storage.data_ptr()] = storage.nbytes()
    return sum(pieces.values())


def take_turns(cases: list[Case], seconds: Callable[[Case], float], repeats: int) -> dict[Case, list[float]]:
    """Step times of every case, [repeats] in seconds."""
    times: dict[Case, list[float]] = {case: [] for case in cases}
    for case in cases:
        say(f"warm-up: {case.kind} {case.value}, {1e3 * seconds(case):.1f} ms a step")
    for repeat in range(repeats):
        say(f"repeat {repeat + 1} of {repeats}")
        for case in cases:
            times[case].append(seconds(case))
    return times


def summarise(times: dict[Case, list[float]]) -> list[dict[str, Any]]:
    """One line for each case: step time, and cost of a token relative to the first case of its curve."""
    results = []
    first: dict[str, Case] = {}
    for case, some in times.items():
        start = first.setdefault(case.kind, case)
        per_token = [one / case.requests for one in some]
        first_per_token = [one / start.requests for one in times[start]]
        results.append(
            {
                "kind": case.kind,
                "value": case.value,
                "requests": case.requests,
                "context": case.context,
                "step_ms": spread([1e3 * one for one in some]),
                "token_ms": spread([1e3 * one for one in per_token]),
                "token_over_first": spread([a / b for a, b in zip(per_token, first_per_token, strict=True)]),
                "step_over_first": spread([a / b for a, b in zip(some, times[start], strict=True)]),
                "seconds": some,
            }
        )
    return results


def main() -> None:
    options = parse()
    prepare_engines(options.threads)
    options.dtype = options.dtype or default_dtype()
    machine = describe()
    from vllm_rast.engine.llvmlite_guard import let_engines_start_again

    let_engines_start_again()
    cases = all_cases(options)
    engines = Engines(cases, options)
    machine["threads"] = describe()["threads"]  # as the engines have left them
    results = summarise(take_turns(cases, engines.step_seconds, options.repeats))
    print(describe_line(machine))
    print(
        f"base {options.base[0]}, small {options.small[0]}, {options.dtype}, "
        f"{'eager' if options.enforce_eager else 'compiled'}; fixed: {options.fixed_requests} requests, context "
        f"{options.fixed_context}, 1 pair\n"
    )
    rows = [
        (f"{one['kind']} {one['value']}", cell(one["step_ms"]), cell(one["token_ms"]), cell(one["token_over_first"]))
        for one in results
    ]
    print(table(("what grows", "step, ms", "per token, ms", "token's cost relative to the curve's first"), rows))
    print()
    rows = [
        (str(one["pairs"]), str(one["planned_bytes_per_token"]), f"{one['allocated_over_planned']:.4f}")
        for one in engines.memory
    ]
    print(table(("pairs", "bytes per token of context, planned", "allocated / planned"), rows))
    settings = {name: str(value) for name, value in vars(options).items() if name not in ("json", "folder")}
    write_json(options.json, "growth", machine, settings=settings, results=results, memory=engines.memory)
    stop_engines(engines.engines.values())


if __name__ == "__main__":
    main()
