"""What it costs to choose tokens on a CPU: this project's kernels against vLLM's own functions.

    python scripts/bench/sampling.py --json scripts/results/sampling-2-cores.json

In turns, for logits of a long tail, as models give them: a draw of each row; top-p, top-k with top-p, and top-k; and a
draw by way of a drafter, which is what a sample costs with `speculate`, against the same in torch. How many times as
fast, and how near the bytes that are read (twice for top-k and top-p, which write too) come to a plain sum of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

from common import machine as bench
from common.samples import sample

COLUMNS = (32_768, 151_936)
ROWS = (1, 4, 32)
SUM = "a plain sum"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=bench.positive, help="torch's threads (default: as many as cores)")
    parser.add_argument("--repeats", type=bench.positive, default=9, help="samples of each (default: 9)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything here, too")
    return parser.parse_args()


def ways(rows: int, columns: int) -> dict[str, dict[str, Callable[[], Any]]]:
    """For each task our function and the other one; each leaves its logits as they were."""
    import torch
    from vllm.v1.sample.ops.topk_topp_sampler import apply_top_k_top_p_pytorch

    from vllm_rast.engine import coupling

    generator = torch.Generator().manual_seed(rows + columns)
    tail = torch.arange(columns) * 8 / columns
    p = torch.randn(rows, columns, generator=generator) * 3 - tail
    q = p + torch.randn(rows, columns, generator=generator) * 0.3
    room, seeds, positions, ones = torch.empty_like(p), torch.arange(rows), torch.arange(rows), torch.ones(rows)

    def truncating(k: int | None, share: float | None) -> dict[str, Callable[[], Any]]:
        ks = None if k is None else torch.full((rows,), k)
        ps = None if share is None else torch.full((rows,), share)
        return {
            "ours": lambda: torch.ops.vllm_rast.truncate(room.copy_(p), ks, ps),
            "theirs": lambda: apply_top_k_top_p_pytorch(room.copy_(p), ks, ps, allow_cpu_sync=True),
        }

    def coupled_in_torch() -> Any:
        with patch.object(coupling, "native", lambda kind: False):
            return coupling.draw_coupled(p, q, seeds, positions)

    return {
        "draw": {
            "ours": lambda: torch.ops.vllm_rast.draw(p, ones, seeds),
            "theirs": lambda: torch.ops._C.fused_gumbel_argmax(p, seeds),
        },
        "by way of the drafter": {
            "ours": lambda: coupling.draw_coupled(p, q, seeds, positions),
            "theirs": coupled_in_torch,
        },
        "top-p 0.95": truncating(None, 0.95),
        "top-k 20, top-p 0.8": truncating(20, 0.8),
        "top-k 20": truncating(20, None),
        SUM: {"ours": p.sum},
    }


def measure(rows: int, columns: int, repeats: int) -> list[dict[str, Any]]:
    """One line for each task: milliseconds of both sides in every turn."""
    tasks = ways(rows, columns)
    named = {f"{task}, {side}": function for task, sides in tasks.items() for side, function in sides.items()}
    times = {name: [1e3 * one for one in some] for name, some in sample(named, repeats).items()}
    found = []
    for task in [task for task in tasks if task != SUM]:
        ours, theirs = times[f"{task}, ours"], times[f"{task}, theirs"]
        faster = bench.spread([b / a for a, b in zip(ours, theirs, strict=True)])
        sums = bench.spread([a / b for a, b in zip(ours, times[f"{SUM}, ours"], strict=True)])
        found.append(
            {"rows": rows, "columns": columns, "task": task, "ours_ms": ours, "theirs_ms": theirs}
            | {"times_as_fast": faster, "plain_sums": sums}
        )
    return found


def main() -> None:
    options = parse()
    bench.prepare_engines(options.threads)
    import torch
    import vllm._custom_ops  # noqa: F401  (loads vLLM's functions)

    from vllm_rast.engine import coupling

    if not coupling.has_kernel(torch.empty(0)):
        raise SystemExit("there is no CPU library to measure; see vllm-rast doctor")
    machine = bench.describe("cpu")
    results = []
    for columns in COLUMNS:
        for rows in ROWS:
            bench.say(f"{rows} rows of {columns} ids")
            results += measure(rows, columns, options.repeats)
    bench.write_json(options.json, "sampling", machine, results=results)
    print(bench.describe_line(machine))
    lines = [
        [
            f"{one['rows']} x {one['columns']}",
            one["task"],
            f"{median(one['ours_ms']):.3f}",
            f"{median(one['theirs_ms']):.3f}",
            bench.cell(one["times_as_fast"], 1),
            bench.cell(one["plain_sums"], 1),
        ]
        for one in results
    ]
    print(bench.table(["rows x ids", "task", "ms", "ms, theirs", "times as fast", "plain sums"], lines))


if __name__ == "__main__":
    main()
