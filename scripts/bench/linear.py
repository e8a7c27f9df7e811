"""The bfloat16 head's product on every instruction set that this processor has, against torch and against its limits.

    python scripts/bench/linear.py --shapes 32768x896,151936x896 --json scripts/results/linear_2-cores.json

For numbers of rows from 1 on, in turns: `wide_linear` by each instruction set, torch's product of the same matrices
(whose result is rounded to bfloat16), and reading as many bytes as the weight has. Two limits: the weight's bytes over
the bandwidth of that reading, and, for the best instruction set, the rate of torch's largest product.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common.machine import cell, describe, describe_line, positive, say, spread, table, write_json
from common.samples import sample

from vllm_rast.kernels import build, select
from vllm_rast.kernels.linear import wide_linear

ROWS = (1, 2, 3, 4, 5, 8, 16, 32, 64, 256)


def parse_shape(text: str) -> tuple[int, int]:
    """`WIDTHxDEPTH`."""
    width, _, depth = text.partition("x")
    return positive(width), positive(depth)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--shapes",
        type=lambda text: [parse_shape(shape) for shape in text.split(",")],
        default=[(151_936, 896)],
        metavar="WIDTHxDEPTH,...",
        help="of the weights (default: 151936x896, Qwen2.5-0.5B's head)",
    )
    parser.add_argument("--rows", type=positive, nargs="+", default=ROWS, metavar="N")
    parser.add_argument("--threads", type=positive, help="torch's threads (default: torch's own choice)")
    parser.add_argument("--repeats", type=positive, default=9, help="samples of each (default: 9)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything here, too")
    return parser.parse_args()


def instruction_sets() -> list[str]:
    """Those of this processor, the best first. Ends the program if there is no library."""
    library = select.choose("cpu").library
    if library is None:
        sys.exit(f"no kernel to measure: {select.choose('cpu').reason}")
    names = ("amx", *reversed(build.LINEAR_SETS))
    return [name for name in names if select.instruction_set(library, name) == name]


def with_set(name: str, x: torch.Tensor, weight: torch.Tensor) -> Callable[[], Any]:
    library = select.choose("cpu").library
    assert library is not None

    def run() -> Any:
        select.instruction_set(library, name)
        return wide_linear(x, weight)

    return run


def measure(rows: int, weight: torch.Tensor, repeats: int) -> dict[str, list[float]]:
    """Seconds of each way, [repeats], taken in turns."""
    x = torch.randn(rows, weight.shape[1]).bfloat16()
    words = weight.view(torch.int32)
    ways = {name: with_set(name, x, weight) for name in instruction_sets()}
    ways |= {"torch": lambda: torch.nn.functional.linear(x, weight), "reading": words.amax}
    return sample(ways, repeats)


def main() -> None:
    options = parse()
    if options.threads:
        torch.set_num_threads(options.threads)
    machine = describe("cpu")
    results = []
    for width, depth in options.shapes:
        weight = torch.randn(width, depth).bfloat16()
        for rows in options.rows:
            say(f"{width} x {depth}, {rows} rows")
            results.append(
                {"width": width, "depth": depth, "rows": rows, "seconds": measure(rows, weight, options.repeats)}
            )
            write_json(options.json, "linear", machine, results=results)
    print(describe_line(machine))
    names = instruction_sets()
    header = [
        "weight, rows",
        *(f"{name}, ms" for name in names),
        *(f"{name} / {names[0]}" for name in [*names[1:], "torch"]),
    ]
    lines = []
    for result in results:
        times = result["seconds"]
        ms = [f"{1e3 * spread(times[name])['median']:.2f}" for name in names]
        ratios = [
            cell(spread([other / best for other, best in zip(times[name], times[names[0]], strict=True)]))
            for name in [*names[1:], "torch"]
        ]
        lines.append([f"{result['width']} x {result['depth']}, {result['rows']}", *ms, *ratios])
    print(table(header, lines))


if __name__ == "__main__":
    main()
