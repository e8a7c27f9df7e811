"""Retrain the four shipped models from seeds: `python -m vllm_rast.tiny.train`."""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from transformers import GenerationConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from vllm_rast.errors import UserError
from vllm_rast.tiny.pretrain import LARGE, SMALL, pretrain
from vllm_rast.tiny.rl import LARGE_RL, SMALL_RL, reinforce
from vllm_rast.tiny.tokenizer import build_tokenizer

MODELS = Path(__file__).with_name("models")


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Print a stage's seconds on stdout: on the clock, and of all cores together."""
    began, worked = time.monotonic(), time.process_time()
    print(f"{name} ...", file=sys.stderr, flush=True)
    yield
    print(f"{name}: {time.monotonic() - began:.0f} s ({time.process_time() - worked:.0f} s of CPU)", flush=True)


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """An ordinary Hugging Face folder: float32 safetensors, configuration, tokenizer with chat template."""
    model.generation_config = GenerationConfig(
        do_sample=True,
        temperature=1.0,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.cpu().float().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def train_small(out: Path, device: str, shorten: int, seed: int) -> None:
    """negative and positive into `out`."""
    tokenizer = build_tokenizer()
    with stage("pretrain negative (small base)"):
        negative = pretrain(adapted(SMALL, shorten, seed), tokenizer, device)
        save(negative, tokenizer, out / "negative")
    with stage("tune positive (small RL)"):
        save(reinforce(negative, tokenizer, adapted(SMALL_RL, shorten, seed), device), tokenizer, out / "positive")


def train_large(out: Path, device: str, shorten: int, seed: int) -> None:
    """base and ceiling into `out`."""
    tokenizer = build_tokenizer()
    with stage("pretrain base (large base)"):
        base = pretrain(adapted(LARGE, shorten, seed), tokenizer, device)
        save(base, tokenizer, out / "base")
    with stage("tune ceiling (large RL)"):
        save(reinforce(base, tokenizer, adapted(LARGE_RL, shorten, seed), device), tokenizer, out / "ceiling")


def adapted(recipe, shorten: int, seed: int):
    """`recipe` with its steps divided by `shorten` and `seed` added to its own."""
    return replace(recipe, steps=max(1, recipe.steps // shorten), seed=recipe.seed + seed)


def one_thread() -> None:
    torch.set_num_threads(1)


def train(out: Path, device: str, shorten: int = 1, seed: int = 0) -> None:
    """All four models into `out`: the two sizes side by side in a process each.

    Each takes one thread on a CPU: two threads finish one model hardly sooner (these matrices are small), and the
    result would depend on the number of cores. Raises what either process raised.
    """
    spawn = multiprocessing.get_context("spawn")  # a fork would inherit torch's thread pool
    with ProcessPoolExecutor(2, mp_context=spawn, initializer=one_thread) as pool:
        sizes = [pool.submit(work, out, device, shorten, seed) for work in (train_small, train_large)]
        for size in sizes:
            size.result()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="train_tiny", description=__doc__)
    parser.add_argument("--out", type=Path, default=MODELS, help="folder for the four models (default: the package's)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--shorten", type=int, default=1, metavar="N", help="divide the numbers of steps by N, for a trial"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="another family: N is added to every seed")
    args = parser.parse_args(argv)
    try:
        if args.shorten < 1:
            raise UserError(f"--shorten is {args.shorten}: give a whole number from 1 up")
    except UserError as error:
        print(f"train_tiny: {error}", file=sys.stderr)
        return 2
    with stage("all"):
        train(args.out, args.device, args.shorten, args.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
