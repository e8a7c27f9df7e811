"""How near combine_logits comes to the machine's own copy bandwidth, and how it compares with plain torch.

    python scripts/bench/kernel.py --threads 8 --json scripts/results/kernel_cpu.json

Each case takes turns with a copy of the same size, with plain torch, and with a trace of every row, so that all meet
the same moments of a machine. A table goes to stdout, progress to stderr.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from common.machine import cell, describe, describe_line, say, spread, table, write_json
from common.samples import sample

from vllm_rast.kernels.combine import TRACE_COLUMNS, combine_logits, combine_with_torch

COLUMNS = 151_936  # the vocabulary rows of Qwen2.5
MODELS = 3  # base, positive, negative
ROWS = (1, 8, 64, 256)
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, help="torch's threads (default: torch's own choice)")
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS, metavar="N")
    parser.add_argument("--repeats", type=int, default=9, help="samples of each (default: 9)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything here, too")
    return parser.parse_args()


def measure(rows: int, dtype: str, in_place: bool, repeats: int, device: str) -> dict[str, Any]:
    """One line of the table. Bytes: what has to be read and written once, the copy's likewise."""
    logits = [torch.randn(rows, COLUMNS, device=device).to(DTYPES[dtype]) for _ in range(MODELS)]
    weights = torch.tensor([1.0, 0.5, -0.5], device=device).repeat(rows, 1)
    if in_place:
        weights[:, 0] = 0.5  # the base stays finite however often it is overwritten
        weights[:, 1:] = 0.25
    out = logits[0] if in_place else torch.empty(rows, COLUMNS, device=device)
    moved = rows * COLUMNS * (MODELS * logits[0].element_size() + 4)
    # As many bytes as the sum moves, half of them read and half written.
    trace = torch.empty(rows, len(TRACE_COLUMNS), device=device)
    source = torch.ones(moved // 2, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    times = sample(
        {
            "kernel": lambda: combine_logits(logits, weights, out),
            "torch": lambda: combine_with_torch(logits, weights, out),
            "copy": lambda: target.copy_(source),
            "traced": lambda: combine_logits(logits, weights, out, trace),
        },
        repeats,
        device,
    )
    turns = list(zip(*(times[name] for name in ("kernel", "torch", "copy", "traced")), strict=True))
    return {
        "rows": rows,
        "dtype": dtype,
        "in_place": in_place,
        "kernel_ms": spread([1e3 * one for one in times["kernel"]]),
        "bandwidth_gb_per_s": spread([moved / one / 1e9 for one in times["kernel"]]),
        "over_copy": spread([copy / kernel for kernel, _, copy, _ in turns]),
        "times_torch": spread([plain / kernel for kernel, plain, _, _ in turns]),
        "traced_over_kernel": spread([traced / kernel for kernel, _, _, traced in turns]),
        "seconds": times,
    }


def all_cases(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for rows in options.rows:
        for dtype, in_place in (("bf16", False), ("fp32", False), ("fp32", True)):
            say(f"{rows} rows, {dtype}{', in place' if in_place else ''}")
            yield measure(rows, dtype, in_place, options.repeats, options.device)


def main() -> None:
    options = parse()
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("--device cuda: torch sees no GPU here; leave the option out to measure the CPU")
    if options.threads:
        torch.set_num_threads(options.threads)
    machine = describe(options.device) | {"columns": COLUMNS, "models": MODELS}
    results = list(all_cases(options))
    figures = {
        "ms": "kernel_ms",
        "GB/s": "bandwidth_gb_per_s",
        "over copy bandwidth": "over_copy",
        "times plain torch": "times_torch",
        "traced, times plain": "traced_over_kernel",
    }
    lines = []
    for one in results:
        name = f"{one['rows']} x {one['dtype']}" + (", in place" if one["in_place"] else "")
        lines.append([name, *(cell(one[figure]) for figure in figures.values())])
    print(describe_line(machine))
    print()
    print(table(["rows x logits", *figures], lines))
    write_json(options.json, "kernel", machine, results=results)


if __name__ == "__main__":
    main()
