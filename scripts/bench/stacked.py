"""Two whole models of one architecture as one forward with stacked weights, against two forwards.

    python scripts/bench/stacked.py --smalls qwen2-tiny,qwen2-11m,qwen2-39m,qwen2-164m --dtype float32

Either form reads both models' weights once, so that only work for each operation can be gained. Layers of random
weights decode one token for each row in plain torch, without vLLM around it: norms, projections, rotary embedding,
attention over a short context, MLP. "two" runs the models one after the other, each product as the engine makes it on
this machine; "stacked" runs [2, rows, width] with torch.bmm and everything else on both at once; "base" is the large
model's layers.
Columns: two / stacked of the small layers alone, and of the whole mix, (base + two) / (base + stacked).
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from common import machine as bench
from common.models import SHAPES, Shape, describe_shapes, shape_list
from torch import nn
from torch.nn.functional import rms_norm, scaled_dot_product_attention, silu
from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm

from vllm_rast.engine.heads import multiplies_wide
from vllm_rast.kernels.linear import wide_linear

SAMPLE_SECONDS = 0.05  # a sample repeats its call for about this long
Product = Callable[[torch.Tensor], torch.Tensor]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=f"{__doc__}\nShapes:\n{describe_shapes()}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", default="qwen2-390m", choices=SHAPES, help="(default: %(default)s)")
    parser.add_argument("--smalls", type=shape_list, default=["qwen2-39m"], help="(default: qwen2-39m)")
    parser.add_argument("--rows", type=bench.positive, nargs="+", default=[1, 8, 32, 64], metavar="N")
    parser.add_argument("--context", type=bench.positive, default=64, help="tokens in the caches (default: 64)")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="float32", help="(default: float32)")
    parser.add_argument(
        "--threads", type=bench.positive, help="torch's threads; of 1 it measures processor time (default: torch's own)"
    )
    parser.add_argument("--repeats", type=bench.positive, default=9, help="turns (default: 9)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure here, too")
    return parser.parse_args()


def product_of(weight: torch.Tensor) -> Product:
    """What the engine multiplies a weight [outputs, inputs] with: vLLM's choice, or ours if that is torch's own."""
    layer: Any = nn.Module()
    layer.weight = nn.Parameter(weight, requires_grad=False)
    dispatch_cpu_unquantized_gemm(layer, remove_weight=False)
    if layer.cpu_linear is torch.nn.functional.linear and multiplies_wide(weight):
        return lambda x: wide_linear(x, weight, rounds=True)
    return lambda x: layer.cpu_linear(x, layer.weight, None)


def stacked_product(weight: torch.Tensor) -> Product:
    """The product with both models' weights, [2, outputs, inputs]: [2, rows, inputs] to [2, rows, outputs]."""
    columns = weight.mT.contiguous()
    return lambda x: torch.bmm(x, columns)


class Layers:
    """The layers of one model, or of two stacked ones, and caches that are as long as the context.

    models: [] for one, [2] for both: what stands before every other dimension. product: from weights
    [*models, outputs, inputs] to a function of [*models, rows, inputs].
    """

    def __init__(
        self, shape: Shape, models: Sequence[int], dtype: torch.dtype, product: Callable[[torch.Tensor], Product]
    ) -> None:
        self.shape, self.models = shape, list(models)
        heads, kept = shape.heads * shape.head_width, shape.kv_heads * shape.head_width
        sizes = [
            (heads + 2 * kept, shape.width),
            (shape.width, heads),
            (2 * shape.mlp_width, shape.width),
            (shape.width, shape.mlp_width),
        ]
        self.layers = [
            [product(torch.randn(*models, *size).mul_(0.02).to(dtype)) for size in sizes] for _ in range(shape.layers)
        ]
        self.norm = torch.ones(*models, 1, shape.width, dtype=dtype)
        self.parts = (heads, kept, kept)

    def caches(self, rows: int, context: int, dtype: torch.dtype) -> list[torch.Tensor]:
        """Keys and values of every layer, [2, models * rows, KV heads, context, head width]."""
        size = (2, math.prod(self.models) * rows, self.shape.kv_heads, context, self.shape.head_width)
        return [torch.randn(size).to(dtype) for _ in self.layers]

    def forward(self, x: torch.Tensor, caches: list[torch.Tensor], turn: tuple[torch.Tensor, torch.Tensor]) -> Any:
        """x: [*models, rows, width] to the same. turn: cosines and sines of the rotary embedding."""
        for (qkv, out, gate_up, down), (keys, values) in zip(self.layers, caches, strict=True):
            q, k, v = qkv(self.normed(x)).split(self.parts, dim=-1)
            q, k, v = (self.heads(part) for part in (q, k, v))
            q, k = rotated(q, turn), rotated(k, turn)
            keys[:, :, -1:], values[:, :, -1:] = k, v
            found = scaled_dot_product_attention(q, keys, values, enable_gqa=True)
            x = x + out(found.reshape(*x.shape[:-1], -1))
            gate, up = gate_up(self.normed(x)).chunk(2, dim=-1)
            x = x + down(silu(gate) * up)
        return x

    def normed(self, x: torch.Tensor) -> torch.Tensor:
        return rms_norm(x, (x.shape[-1],)) * self.norm

    def heads(self, part: torch.Tensor) -> torch.Tensor:
        """[*models, rows, heads * width] to [models * rows, heads, 1, width]."""
        return part.reshape(-1, part.shape[-1] // self.shape.head_width, 1, self.shape.head_width)


def rotated(x: torch.Tensor, turn: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * turn[0] + torch.cat([-second, first], dim=-1) * turn[1]


def call_of(models: list[Layers], rows: int, options: argparse.Namespace) -> Callable[[], None]:
    """One decoded token of every row through models that run one after the other."""
    dtype = getattr(torch, options.dtype)
    shape = models[0].shape
    turn = (torch.rand(shape.head_width).to(dtype), torch.rand(shape.head_width).to(dtype))
    inputs = [torch.randn(*model.models, rows, shape.width).to(dtype) for model in models]
    caches = [model.caches(rows, options.context, dtype) for model in models]

    def call() -> None:
        for model, x, cache in zip(models, inputs, caches, strict=True):
            model.forward(x, cache, turn)

    return call


def milliseconds(call: Callable[[], None]) -> float:
    """Of one call: the processor's time if there is one thread, which the machine's other load hardly changes."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    began, calls = clock(), 0
    while not calls or clock() - began < SAMPLE_SECONDS:
        call()
        calls += 1
    return 1e3 * (clock() - began) / calls


def measure(sides: dict[str, list[Layers]], rows: int, options: argparse.Namespace) -> dict[str, list[float]]:
    """Milliseconds of one decoded token of all rows, for each side in each turn."""
    calls = {name: call_of(models, rows, options) for name, models in sides.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(-1, options.repeats):
        for name, call in calls.items():
            took = milliseconds(call)
            if turn >= 0:
                times[name].append(took)
    return times


def print_table(results: list[dict[str, Any]]) -> None:
    rows = []
    for result in results:
        base, two, stacked = (result["ms"][name] for name in ("base", "two", "stacked"))
        alone = [a / b for a, b in zip(two, stacked, strict=True)]
        whole = [(c + a) / (c + b) for a, b, c in zip(two, stacked, base, strict=True)]
        ratios = [bench.cell(bench.spread(some)) for some in (alone, whole)]
        rows.append([result["small"], str(result["rows"]), *ratios])
    print(bench.table(["small", "rows", "two / stacked", "of the whole mix"], rows))


@torch.inference_mode()
def main() -> None:
    options = parse()
    if options.threads:
        torch.set_num_threads(options.threads)
    machine = bench.describe("cpu")
    dtype = getattr(torch, options.dtype)
    base = Layers(SHAPES[options.base], [], dtype, product_of)
    results = []
    for small in options.smalls:
        two = [Layers(SHAPES[small], [], dtype, product_of) for _ in range(2)]
        sides = {"base": [base], "two": two, "stacked": [Layers(SHAPES[small], [2], dtype, stacked_product)]}
        for rows in options.rows:
            bench.say(f"{small}, {rows} rows")
            results.append({"small": small, "rows": rows, "ms": measure(sides, rows, options)})
            setup = {"base": options.base, "dtype": options.dtype, "context": options.context}
            bench.write_json(options.json, "stacked", machine, setup=setup, results=results)
    print(bench.describe_line(machine))
    print_table(results)


if __name__ == "__main__":
    main()
