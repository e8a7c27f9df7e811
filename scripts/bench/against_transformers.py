"""Samples per second of RastLLM against the same formula in batched transformers, prompts and answers of mixed length.

    python scripts/bench/against_transformers.py --folder MODELS --models qwen2-0.5b,qwen2-91m,qwen2-91m

Both sides decode the same prompts to the same answer lengths with the same models in the same dtype, and sample at
temperature 1. The other side (common/batched_transformers.py) is measured twice: with static batches that go on until
their longest answer has ended, as transformers' own generate() does, and with batches that ended rows leave. Its batch
size is the best of --rows, chosen by a run of the whole workload with each. After that all sides take turns.

Then the same at batch 1: one request after the other. A table goes to stdout, progress to stderr. Full size is meant
for a GPU; with few cores use small models and fewer prompts, whose lengths spread alike:

    python scripts/bench/against_transformers.py --folder MODELS --models qwen2-39m,qwen2-11m,qwen2-11m \\
        --prompts 16 --single 2
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

from common.machine import (
    add_common,
    cell,
    default_device,
    default_dtype,
    describe,
    describe_line,
    positive,
    prepare_engines,
    say,
    spread,
    table,
    write_json,
)
from common.models import SHAPES, add_mix, describe_shapes, make_models
from common.workload import Workload, make_workload

TEMPERATURE = 1.0
ALPHA = 1.0
LONGEST = 512  # tokens, of prompts and of answers
OURS = "RastLLM"
STATIC = "static batches"
DROPPED = "static batches, ended rows dropped"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=f"{__doc__}\nShapes for --models:\n{describe_shapes()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_common(parser)
    add_mix(parser)
    parser.add_argument("--prompts", type=positive, default=64, help="(default: 64)")
    parser.add_argument("--n", type=positive, default=8, help="answers to each prompt (default: 8)")
    parser.add_argument("--single", type=positive, default=4, help="requests at batch 1 (default: 4)")
    parser.add_argument("--longest", type=positive, default=LONGEST, help="tokens of the longest prompt and answer")
    parser.add_argument(
        "--rows", type=positive, nargs="+", default=[32, 64, 128], help="batch sizes for transformers to choose from"
    )
    parser.add_argument("--max-num-seqs", type=positive, default=128, help="most requests at a time in vLLM")
    parser.add_argument("--enforce-eager", action="store_true", help="vLLM without torch.compile")
    parser.add_argument(
        "--their-dtype",
        choices=("bfloat16", "float16", "float32"),
        help="dtype of transformers alone, if another than --dtype is its best (default: the same)",
    )
    parser.add_argument(
        "--attention", choices=("sdpa_grouped", "sdpa"), default="sdpa_grouped", help="transformers' attention"
    )
    return parser.parse_args()


class Ours:
    """RastLLM, fed with single samples so that each can have its own length."""

    def __init__(self, folders: Sequence[str], options: argparse.Namespace) -> None:
        from vllm_rast import RastLLM

        base, positive_model, negative = folders
        self.llm = RastLLM(
            base,
            positive=positive_model,
            negative=negative,
            alpha=ALPHA,
            dtype=options.dtype,
            skip_tokenizer_init=True,
            enforce_eager=options.enforce_eager,
            max_model_len=2 * options.longest + 64,
            max_num_seqs=options.max_num_seqs,
            seed=0,
        )

    def run(self, work: Workload) -> int:
        """Decode everything; returns the number of answer tokens."""
        from vllm import SamplingParams

        self.llm.reset_prefix_cache()  # or a second run would find its prompts read
        prompts, params = [], []
        for prompt, lengths in zip(work.prompts, work.lengths, strict=True):
            for length in lengths:
                prompts.append({"prompt_token_ids": prompt})
                params.append(
                    SamplingParams(
                        max_tokens=length,
                        min_tokens=length,
                        ignore_eos=True,
                        temperature=TEMPERATURE,
                        detokenize=False,
                    )
                )
        outputs = self.llm.generate(prompts, params, use_tqdm=False)
        return sum(len(output.outputs[0].token_ids) for output in outputs)


class Theirs:
    """Batched transformers. rows and drop_ended: as in BatchedTransformers.generate."""

    def __init__(self, folders: Sequence[str], options: argparse.Namespace) -> None:
        from common.batched_transformers import BatchedTransformers

        from vllm_rast import RastConfig

        base, positive_model, negative = folders
        config = RastConfig.build(base, positive_model, negative, ALPHA)
        self.llm = BatchedTransformers(config, options.their_dtype, default_device(), attention=options.attention)

    def run(self, work: Workload, rows: int, drop_ended: bool) -> int:
        answers = self.llm.generate(
            work.prompts, work.lengths, rows=rows, temperature=TEMPERATURE, drop_ended=drop_ended
        )
        return sum(len(answer) for some in answers for answer in some)


def timed(name: str, work: Workload, run: Callable[[Workload], int]) -> dict[str, float]:
    """Wall and processor seconds of one run, which must have made every token it was asked for."""
    start, processor = time.perf_counter(), time.process_time()
    tokens = run(work)
    taken = {"seconds": time.perf_counter() - start, "processor_seconds": time.process_time() - processor}
    assert tokens == work.answer_tokens, f"{name}: {tokens} answer tokens instead of {work.answer_tokens}"
    say(f"  {name}: {taken['seconds']:.1f} s ({taken['processor_seconds']:.1f} s of processor)")
    return taken


def choose_rows(theirs: Theirs, work: Workload, candidates: Sequence[int]) -> dict[str, dict[str, Any]]:
    """For each way of batching the batch size that was quickest, and what all took. Also the warm-up."""
    chosen = {}
    for name, drop_ended in ((STATIC, False), (DROPPED, True)):
        tried = {}
        for rows in candidates:

            def run(work: Workload, rows: int = rows, drop_ended: bool = drop_ended) -> int:
                return theirs.run(work, rows, drop_ended)

            tried[rows] = timed(f"{name} of {rows}", work, run)["seconds"]
            if rows >= work.samples:
                break  # larger ones are the same
        chosen[name] = {"rows": min(tried, key=lambda rows: tried[rows]), "tried_seconds": tried}
    return chosen


def compare(name: str, work: Workload, sides: dict[str, Callable[[Workload], int]], repeats: int) -> dict[str, Any]:
    """All sides in turns, `repeats` times."""
    times: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for repeat in range(repeats):
        say(f"{name}, repeat {repeat + 1} of {repeats}")
        for side, run in sides.items():
            times[side].append(timed(side, work, run))
    seconds = {side: [one["seconds"] for one in every] for side, every in times.items()}
    return {
        "name": name,
        "workload": str(work),
        "samples": work.samples,
        "answer_tokens": work.answer_tokens,
        "prompt_tokens": work.prompt_tokens,
        "samples_per_second": {side: spread([work.samples / one for one in some]) for side, some in seconds.items()},
        "ratio": {
            side: spread([other / ours for other, ours in zip(some, seconds[OURS], strict=True)])
            for side, some in seconds.items()
            if side != OURS
        },
        "times": times,
    }


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    folders = [str(folder) for folder in make_models(options.models, options.folder, dtype=options.dtype)]
    vocab = min(SHAPES[name].vocab for name in options.models)
    limits = {"prompt_range": (16, options.longest), "answer_range": (16, options.longest)}
    batched = make_workload(options.prompts, options.n, vocab, **limits)
    single = make_workload(options.single, 1, vocab, **limits)
    say(f"models {', '.join(options.models)} in {options.dtype}; {batched}")
    ours, theirs = Ours(folders, options), Theirs(folders, options)
    say("warm-up, and the batch size for transformers")
    timed(OURS, batched, ours.run)
    chosen = choose_rows(theirs, batched, options.rows)
    sides: dict[str, Callable[[Workload], int]] = {
        OURS: ours.run,
        STATIC: lambda work: theirs.run(work, chosen[STATIC]["rows"], False),
        DROPPED: lambda work: theirs.run(work, chosen[DROPPED]["rows"], True),
    }
    results = [compare("batched", batched, sides, options.repeats)]
    results[0]["rows"] = chosen

    def one_by_one(work: Workload) -> int:
        parts = (Workload([p], [ends]) for p, ends in zip(work.prompts, work.lengths, strict=True))
        return sum(map(ours.run, parts))

    sides = {OURS: one_by_one, "one at a time": lambda work: theirs.run(work, 1, False)}
    return [*results, compare("batch 1", single, sides, options.repeats)]


def main() -> None:
    options = parse()
    prepare_engines(options.threads)
    options.dtype = options.dtype or default_dtype()
    options.their_dtype = options.their_dtype or options.dtype
    machine = describe()
    results = measure(options)
    machine["threads"] = describe()["threads"]  # as the engine has left them
    print(describe_line(machine))
    mode = "eager" if options.enforce_eager else "compiled"
    print(f"models {', '.join(options.models)}; vLLM {mode}, {options.dtype}; transformers {options.their_dtype}\n")
    rows = []
    for one in results:
        print(f"- {one['name']}: {one['workload']}")
        speeds = one["samples_per_second"]
        for side, ratio in one["ratio"].items():
            batch = f" (of {one['rows'][side]['rows']})" if "rows" in one else ""
            rows.append((f"{one['name']}, {side}{batch}", cell(speeds[OURS]), cell(speeds[side]), cell(ratio)))
    print()
    print(table(("against transformers", "RastLLM, samples/s", "transformers, samples/s", "ratio"), rows))
    settings = {name: str(value) for name, value in vars(options).items() if name not in ("json", "folder")}
    write_json(options.json, "transformers", machine, settings=settings, results=results)


if __name__ == "__main__":
    main()
