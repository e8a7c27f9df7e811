"""Time to the first token, cold and warm, with and without compilation, and the time that `import vllm_rast` takes.

    python scripts/bench/startup.py --folder MODELS --models qwen2-0.5b,qwen2-91m,qwen2-91m

Every start is a new Python process. Its clock runs from before the process exists to the first token of the first
request, and is read on the way: once vLLM is imported, and once the engine is ready. "cold" starts with the models on
disk alone, not in the operating system's cache, and with an empty cache of compiled code (vLLM's and torch's); "warm"
with what the cold start before has left. Python's own files stay where they are. Each start of the mix has a start of
stock vLLM with the base alone beside it, and the ratio of the two is what the mix costs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from itertools import product
from pathlib import Path
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
    table,
    write_json,
)
from common.models import add_mix, describe_shapes, make_models

PROMPT = list(range(1, 33))
MARK = "started "  # before the line that a child process answers with
IMPORT = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"
SIDES = ("stock vLLM, base alone", "mix")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=f"{__doc__}\nShapes for --models:\n{describe_shapes()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_common(parser)
    add_mix(parser)
    parser.add_argument(
        "--modes",
        nargs="+",
        choices=("eager", "compiled"),
        default=["eager", "compiled"],
        help="without and with torch.compile (default: both)",
    )
    parser.add_argument("--max-model-len", type=positive, default=1024, help="(default: 1024)")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # what a child process is to do, as JSON
    return parser.parse_args()


def start_once(task: dict[str, Any]) -> None:
    """In a child process: start an engine, decode a token, and print when what was done."""
    clock = {}
    import vllm

    from vllm_rast import RastLLM

    clock["imported"] = time.time()
    base, positive_model, negative = task["folders"]
    if task["side"] == SIDES[0]:
        llm = vllm.LLM(base, **task["engine"])
    else:
        llm = RastLLM(base, positive=positive_model, negative=negative, **task["engine"])
    clock["ready"] = time.time()
    params = vllm.SamplingParams(max_tokens=1, temperature=0, ignore_eos=True, detokenize=False)
    llm.generate([{"prompt_token_ids": PROMPT}], params, use_tqdm=False)
    clock["first_token"] = time.time()
    print(MARK + json.dumps(clock), flush=True)


def forget_files(folders: Iterable[str]) -> None:
    """Ask the operating system to drop the models from its cache of files, if it can be asked."""
    if not hasattr(os, "posix_fadvise"):
        return
    for folder in folders:
        for path in Path(folder).glob("*.safetensors"):
            file = os.open(path, os.O_RDONLY)
            os.fsync(file)  # what was never written cannot be dropped
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)


def start(task: dict[str, Any], cache: Path) -> dict[str, float]:
    """Seconds from the start of a new process to each of its marks. cache: where compiled code is kept.

    Raises SystemExit with the child's last lines if it fails.
    """
    environment = {
        **os.environ,
        "VLLM_CACHE_ROOT": str(cache / "vllm"),
        "TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor"),
        "TRITON_CACHE_DIR": str(cache / "triton"),
    }
    begun = time.time()
    command = [sys.executable, __file__, "--folder", ".", "--one", json.dumps(task)]
    child = subprocess.run(command, env=environment, capture_output=True, text=True)
    lines = [line for line in child.stdout.splitlines() if line.startswith(MARK)]
    if child.returncode or not lines:
        sys.exit(f"{task['side']} did not start:\n" + "\n".join(child.stderr.splitlines()[-15:]))
    return {name: at - begun for name, at in json.loads(lines[0].removeprefix(MARK)).items()}


def all_starts(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Every start there is to measure, the two sides next to each other."""
    folders = [str(folder.absolute()) for folder in make_models(options.models, options.folder, dtype=options.dtype)]
    engine = {
        "dtype": options.dtype,
        "skip_tokenizer_init": True,
        "max_model_len": options.max_model_len,
        "max_num_seqs": 16,
        "kv_cache_memory_bytes": 1 << 28,
    }
    every = product(range(options.repeats), options.modes, ("cold", "warm"), enumerate(SIDES))
    with tempfile.TemporaryDirectory() as scratch:
        for repeat, mode, warmth, (number, side) in every:
            if warmth == "cold":
                forget_files(folders)
            task = {"folders": folders, "side": side, "engine": {**engine, "enforce_eager": mode == "eager"}}
            taken = start(task, Path(scratch) / f"{mode}-{repeat}-{number}")
            say(f"repeat {repeat + 1}, {mode}, {warmth}, {side}: {taken['first_token']:.1f} s")
            yield {"mode": mode, "warmth": warmth, "side": side, "repeat": repeat, **taken}


def summarise(starts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One line for each mode and warmth: both sides' times and their ratio."""
    results = []
    for mode, warmth in dict.fromkeys((one["mode"], one["warmth"]) for one in starts):
        some = [one for one in starts if (one["mode"], one["warmth"]) == (mode, warmth)]
        stock, mix = ([one for one in some if one["side"] == side] for side in SIDES)
        results.append(
            {
                "mode": mode,
                "warmth": warmth,
                "mix_seconds": spread([one["first_token"] for one in mix]),
                "stock_seconds": spread([one["first_token"] for one in stock]),
                "ratio": spread([b["first_token"] / a["first_token"] for a, b in zip(stock, mix, strict=True)]),
                "mix_import_seconds": spread([one["imported"] for one in mix]),
                "mix_ready_seconds": spread([one["ready"] for one in mix]),
                "mix_after_ready_seconds": spread([one["first_token"] - one["ready"] for one in mix]),
            }
        )
    return results


def import_seconds(module: str, repeats: int) -> list[float]:
    """How long `import module` takes in a new process, [repeats], after one that fills the caches."""
    command = [sys.executable, "-c", IMPORT.format(module)]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(repeats + 1)]
    return [float(one.split()[-1]) for one in runs[1:]]


def measure_imports(repeats: int) -> dict[str, Any]:
    """`import vllm_rast` beside `import torch`, which it must not cause."""
    times = {module: import_seconds(module, repeats) for module in ("vllm_rast", "torch")}
    return {
        "seconds": times,
        "vllm_rast": spread(times["vllm_rast"]),
        "torch": spread(times["torch"]),
        "ratio": spread([a / b for a, b in zip(times["vllm_rast"], times["torch"], strict=True)]),
    }


def main() -> None:
    options = parse()
    prepare_engines(options.threads)
    if options.one:
        start_once(json.loads(options.one))
        return
    options.dtype = options.dtype or default_dtype()
    machine = describe()
    imports = measure_imports(options.repeats)
    say(f"import vllm_rast: {imports['vllm_rast']['median']:.3f} s")
    starts = list(all_starts(options))
    results = summarise(starts)
    print(describe_line(machine))
    print(f"models {', '.join(options.models)}, {options.dtype}\n")
    rows = [
        (f"{one['mode']}, {one['warmth']}", *(cell(one[key]) for key in ("mix_seconds", "stock_seconds", "ratio")))
        for one in results
    ]
    print(table(("first token after a process's start", "mix, s", "stock vLLM with the base, s", "ratio"), rows))
    print()
    row = (cell(imports["vllm_rast"], 3), cell(imports["torch"], 3), cell(imports["ratio"], 3))
    print(table(("import", "vllm_rast, s", "torch, s", "ratio"), [("", *row)]))
    settings = {name: str(value) for name, value in vars(options).items() if name not in ("json", "folder", "one")}
    write_json(options.json, "startup", machine, settings=settings, results=results, imports=imports, starts=starts)


if __name__ == "__main__":
    main()
