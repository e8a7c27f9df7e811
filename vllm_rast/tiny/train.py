"""Retrain the four shipped models from seeds: `python -m vllm_rast.tiny.train`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
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


def train(out: Path, device: str, shorten: int = 1) -> None:
    """All four models into `out`; `shorten` divides the numbers of steps, for a trial."""
    tokenizer = build_tokenizer()

    def fewer(recipe):
        return replace(recipe, steps=max(1, recipe.steps // shorten))

    with stage("pretrain negative (small base)"):
        negative = pretrain(fewer(SMALL), tokenizer, device)
        save(negative, tokenizer, out / "negative")
    with stage("tune positive (small RL)"):
        save(reinforce(negative, tokenizer, fewer(SMALL_RL), device), tokenizer, out / "positive")
    with stage("pretrain base (large base)"):
        base = pretrain(fewer(LARGE), tokenizer, device)
        save(base, tokenizer, out / "base")
    with stage("tune ceiling (large RL)"):
        save(reinforce(base, tokenizer, fewer(LARGE_RL), device), tokenizer, out / "ceiling")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="train_tiny", description=__doc__)
    parser.add_argument("--out", type=Path, default=MODELS, help="folder for the four models (default: the package's)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, help="torch threads on the CPU (default: torch's choice)")
    parser.add_argument(
        "--shorten", type=int, default=1, metavar="N", help="divide the numbers of steps by N, for a trial"
    )
    args = parser.parse_args(argv)
    try:
        if args.shorten < 1:
            raise UserError(f"--shorten is {args.shorten}: give a whole number from 1 up")
        if args.threads is not None:
            if args.threads < 1:
                raise UserError(f"--threads is {args.threads}: give a whole number from 1 up, or leave it out")
            torch.set_num_threads(args.threads)
    except UserError as error:
        print(f"train_tiny: {error}", file=sys.stderr)
        return 2
    with stage("all"):
        train(args.out, args.device, args.shorten)
    return 0


if __name__ == "__main__":
    sys.exit(main())
