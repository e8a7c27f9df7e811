"""What it costs to round the heads' logits before they are combined: KL(oracle || mix) in nats.

    python scripts/bench/rounding.py --json scripts/results/rounding.json

The oracle takes the same bfloat16 hidden states and head weights, and does everything after that in float64. Beside it:
logits summed and combined in float32 (what the engine does), logits rounded to bfloat16 by the heads and combined in
float32 (what heads give that know no better), and a mix whose every step is rounded to bfloat16.

The heads have the size of Qwen2.5's vocabulary and random weights; the hidden states are made so that logits look like
a language model's: a bulk of standard deviation 2.5 around 0, and a few candidates from about 20 down. The positive is
the negative with its candidates moved by 0.5 on average, and its head by 1 % of its weights. A table goes to stdout,
progress to stderr.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from common.machine import describe, describe_line, say, table, write_json

from vllm_rast.kernels.combine import combine_logits
from vllm_rast.kernels.linear import wide_linear

VOCAB = 151_936
WIDTHS = {"base": 896, "positive": 512, "negative": 512}
CANDIDATES = 6  # tokens that stand out of the bulk
TOP = 20.0  # the first one's logit
BULK = 2.5  # standard deviation of the others
CHUNK = 16  # rows at a time: a float64 matrix of them takes 19 MB
WAYS = ("float32", "heads rounded to bfloat16", "all in bfloat16")


@dataclass
class Head:
    """weight: [VOCAB, width]. hidden: [rows, width]. Both in bfloat16, as a model keeps them."""

    weight: torch.Tensor
    hidden: torch.Tensor

    def logits(self, rows: slice, way: str) -> torch.Tensor:
        """[rows, VOCAB] in float64, float32 or bfloat16."""
        if way == "oracle":
            return exact_product(self.hidden[rows], self.weight)
        return wide_linear(self.hidden[rows], self.weight, rounds=way != "float32")


def exact_product(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """x @ weight.T in float64, a part of the weights at a time."""
    return torch.cat([x.double() @ part.double().t() for part in weight.split(8192)], dim=1)


def random_weight(width: int, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(VOCAB, width, generator=generator) * width**-0.5


def hidden_for(weight: torch.Tensor, ids: torch.Tensor, wanted: torch.Tensor, generator: torch.Generator) -> Any:
    """Hidden states, [rows, width] in bfloat16, whose logits are near `wanted` at `ids` (both [rows, candidates]).

    A sum of the candidates' own head rows, and noise that fills the bulk up to its standard deviation.
    """
    rows = weight[ids].float()
    towards = (rows * (wanted / rows.square().sum(-1)).unsqueeze(-1)).sum(1)
    missing = (BULK**2 - towards.square().sum(-1, keepdim=True) / weight.shape[1]).clamp(min=0).sqrt()
    return (towards + missing * torch.randn(towards.shape, generator=generator)).bfloat16()


def make_heads(rows: int, seed: int) -> list[Head]:
    """Base, positive and negative, with the same candidates in each row."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(VOCAB, (rows, CANDIDATES), generator=generator)
    gaps = torch.rand(rows, CANDIDATES, generator=generator) * 3
    wanted = TOP + 2 * torch.randn(rows, 1, generator=generator) - gaps.cumsum(1)
    base = random_weight(WIDTHS["base"], generator).bfloat16()
    small = random_weight(WIDTHS["negative"], generator)
    tuned = (small + 0.01 * random_weight(WIDTHS["positive"], generator)).bfloat16()
    small = small.bfloat16()
    of_small = wanted + torch.randn(wanted.shape, generator=generator)
    of_tuned = of_small + 0.5 * torch.randn(wanted.shape, generator=generator)
    noise = generator.get_state()
    negative = hidden_for(small, ids, of_small, generator)
    generator.set_state(noise)  # the same noise: what a pair agrees on
    positive = hidden_for(tuned, ids, of_tuned, generator)
    return [Head(base, hidden_for(base, ids, wanted, generator)), Head(tuned, positive), Head(small, negative)]


def exact_mix(logits: list[torch.Tensor], alpha: float) -> torch.Tensor:
    base, positive, negative = logits
    return base + alpha * (positive - negative)


def mix(logits: list[torch.Tensor], alpha: float, way: str) -> torch.Tensor:
    if way == "all in bfloat16":
        return exact_mix(logits, alpha)  # torch rounds every step to the operands' dtype
    weights = torch.tensor([[1.0, alpha, -alpha]]).repeat(len(logits[0]), 1)
    return combine_logits(logits, weights)


def compare(heads: list[Head], alphas: list[float]) -> Iterator[dict[str, Any]]:
    """Figures of every row: {alpha, way, kl, argmax_moved}, and KL(mix || base) of the oracle itself for scale."""
    for first in range(0, len(heads[0].hidden), CHUNK):
        rows = slice(first, first + CHUNK)
        say(f"rows {first} to {first + CHUNK}")
        oracle = [head.logits(rows, "oracle") for head in heads]
        base = oracle[0].log_softmax(1)
        exact = {alpha: exact_mix(oracle, alpha).log_softmax(1) for alpha in alphas}
        for alpha in alphas:
            yield {"alpha": alpha, "way": "moved", "kl": (exact[alpha].exp() * (exact[alpha] - base)).sum(1)}
        for way in WAYS:
            logits = [head.logits(rows, way) for head in heads]
            for alpha in alphas:
                mixed = mix(logits, alpha, way).double().log_softmax(1)
                kl = (exact[alpha].exp() * (exact[alpha] - mixed)).sum(1)
                yield {"alpha": alpha, "way": way, "kl": kl, "other": exact[alpha].argmax(1) != mixed.argmax(1)}


def summarise(parts: list[dict[str, Any]], alpha: float, way: str) -> dict[str, Any]:
    own = [part for part in parts if (part["alpha"], part["way"]) == (alpha, way)]
    kl = torch.cat([part["kl"] for part in own])
    figures = {"alpha": alpha, "way": way, "kl_mean": kl.mean().item(), "kl_max": kl.max().item()}
    if way != "moved":
        figures["argmax_differs"] = torch.cat([part["other"] for part in own]).double().mean().item()
    return figures


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=128, help="hidden states (default: 128)")
    parser.add_argument("--alphas", type=float, nargs="+", default=[0, 0.25, 0.5, 1, 2], metavar="A")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure here, too")
    return parser.parse_args()


def main() -> None:
    options = parse()
    machine = describe("cpu")
    heads = make_heads(options.rows, options.seed)
    logits = heads[0].logits(slice(0, CHUNK), "float32")
    shape = {
        "base_largest_logit": logits.amax(1).mean().item(),
        "base_logit_std": logits.std(1).mean().item(),
        "base_entropy_nats": torch.distributions.Categorical(logits=logits).entropy().mean().item(),
    }
    parts = list(compare(heads, options.alphas))
    results = [summarise(parts, alpha, way) for alpha in options.alphas for way in ("moved", *WAYS)]
    print(describe_line(machine))
    print(", ".join(f"{name} {value:.2f}" for name, value in shape.items()))
    print()
    lines = []
    for alpha in options.alphas:
        moved, *ways = [one for one in results if one["alpha"] == alpha]
        cells = [f"{one['kl_mean']:.1e} (max {one['kl_max']:.1e}), {100 * one['argmax_differs']:.1f} %" for one in ways]
        lines.append([f"{alpha:g}", f"{moved['kl_mean']:.3f}", *cells])
    print(table(["alpha", "KL(mix, base)", *WAYS], lines))
    sizes = {"vocab": VOCAB, "widths": WIDTHS, "rows": options.rows, "seed": options.seed}
    write_json(options.json, "rounding", machine, sizes=sizes, logits=shape, results=results)


if __name__ == "__main__":
    main()
