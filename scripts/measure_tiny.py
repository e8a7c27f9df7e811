"""Measure the shipped models on the tiny benchmark with plain torch: every row, alpha from 0 to 2, 95 % intervals."""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path

import torch
from transformers import AutoTokenizer, LlamaForCausalLM

import vllm_rast.tiny
from vllm_rast.tiny.benchmark import test_questions
from vllm_rast.tiny.rl import reward
from vllm_rast.tiny.sampling import encode_prompts, sample
from vllm_rast.tiny.world import FAMILIES

NAMES = ("base", "positive", "negative", "ceiling")
ROWS = {"base": (1, 0, 0, 0), "positive": (0, 1, 0, 0), "negative": (0, 0, 1, 0), "ceiling": (0, 0, 0, 1)}


def score(models, weights, questions, samples: int, tokenizer, seed: int, batch: int) -> torch.Tensor:
    """Rewards [questions, samples] at temperature 1; one seed gives every row the same random stream."""
    used = [(m, w) for m, w in zip(models, weights, strict=True) if w]
    device = used[0][0].device
    generator = torch.Generator(device).manual_seed(seed)
    jobs = sorted(((len(q.text), i) for i, q in enumerate(questions) for _ in range(samples)))
    order, scores = [i for _, i in jobs], []
    for begin in range(0, len(order), batch):
        asked = [questions[i] for i in order[begin : begin + batch]]
        ids, mask = encode_prompts(tokenizer, [q.prompt for q in asked])
        new = sample(*zip(*used, strict=True), ids.to(device), mask.to(device), tokenizer.eos_token_id, generator)
        texts = tokenizer.batch_decode(new, skip_special_tokens=True)
        scores += [reward(text, q.answer) for text, q in zip(texts, asked, strict=True)]
    table = torch.empty(len(questions), samples)
    filled = [0] * len(questions)
    for i, value in zip(order, scores, strict=True):
        table[i, filled[i]] = value
        filled[i] += 1
    return table


def interval(table: torch.Tensor) -> tuple[float, float]:
    """Mean and half-width of its 95 % interval in per cent; problems are the units drawn, not samples."""
    means = table.mean(1)
    return 100 * float(means.mean()), 196 * float(means.std()) / math.sqrt(len(means))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, default=Path(vllm_rast.tiny.__file__).with_name("models"))
    parser.add_argument("--samples", type=int, default=8, help="samples per problem")
    parser.add_argument("--limit", type=int, help="take this many problems of each family")
    parser.add_argument("--alphas", type=float, nargs="*", default=[0.1, 0.25, 0.5, 1.0, 1.5, 2.0])
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--batch", type=int, default=1000, help="samples decoded together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()

    tokenizer = AutoTokenizer.from_pretrained(args.models / "base")
    models = [LlamaForCausalLM.from_pretrained(args.models / name).to(args.device).eval() for name in NAMES]
    questions = test_questions()
    if args.limit:
        questions = [q for f in FAMILIES for q in [q for q in questions if q.family == f][: args.limit]]
    rows = {name: ROWS[name] for name in args.rows} | {f"alpha {a:g}": (1.0, a, -a, 0) for a in args.alphas}

    print(f"{'row':<12} {'avg %':>14} " + " ".join(f"{f:>14}" for f in FAMILIES))
    means = {}
    for name, weights in rows.items():
        began = time.monotonic()
        table = score(models, weights, questions, args.samples, tokenizer, args.seed, args.batch)
        parts = [interval(table)]
        for family in FAMILIES:
            parts.append(interval(table[[i for i, q in enumerate(questions) if q.family == family]]))
        means[name] = parts[0][0]
        print(f"{name:<12} " + " ".join(f"{mean:>8.1f} ±{half:>4.1f}" for mean, half in parts), flush=True)
        print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    if {"base", "ceiling"} <= means.keys():
        gap = means["ceiling"] - means["base"]
        for name in rows:
            if name.startswith("alpha"):
                print(f"recovery rate at {name}: {100 * (means[name] - means['base']) / gap:.1f} %")


if __name__ == "__main__":
    main()
