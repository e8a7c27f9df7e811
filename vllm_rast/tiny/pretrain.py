"""Pretraining: a Llama model from nothing, on the answers that a writer gives to a stream of questions."""

from __future__ import annotations

import itertools
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, get_wsd_schedule

from vllm_rast.tiny.benchmark import test_keys
from vllm_rast.tiny.muon import Muon
from vllm_rast.tiny.tokenizer import EOS, PAD
from vllm_rast.tiny.world import KNOWN_ORDER, THINGS, Writer, questions

IGNORE = -100  # label of a token that carries no loss


@dataclass(frozen=True)
class Recipe:
    """Shape and pretraining of one base model."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    vocab_rows: int
    known: int  # prices that the writers of its text know
    steps: int
    school: float = 0.7  # share of the steps, at the start, whose answers are all step by step: saves half the time
    batch: int = 64  # questions per step
    lr: float = 3e-3
    muon_lr: float = 0.02
    home: float = 1.0  # share of questions about known things only
    seed: int = 0


LARGE = Recipe(hidden=128, layers=4, heads=4, kv_heads=2, vocab_rows=1088, known=600, steps=1000)
SMALL = Recipe(hidden=64, layers=2, heads=2, kv_heads=2, vocab_rows=1024, known=200, steps=2500, home=0.75)


def build_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """An untrained model of Qwen2's shape: biases on q, k and v; that on the output projection stays 0 in pretraining.

    Declared as Llama, since in a folder of model type qwen2 AutoTokenizer (transformers 5) splits text as Qwen does,
    whatever tokenizer.json says.
    """
    config = LlamaConfig(
        vocab_size=recipe.vocab_rows,
        hidden_size=recipe.hidden,
        intermediate_size=3 * recipe.hidden,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.kv_heads,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        attention_bias=True,
        bos_token_id=None,
        eos_token_id=tokenizer.convert_tokens_to_ids(EOS),
        pad_token_id=tokenizer.convert_tokens_to_ids(PAD),
        use_cache=True,
    )
    model = LlamaForCausalLM(config)
    for layer in model.model.layers:
        layer.self_attn.o_proj.bias.requires_grad_(False)
    return model


def documents(recipe: Recipe, rng: random.Random) -> Iterator[tuple[str, str]]:
    """An endless stream of (prompt, answer): first the school's, then the world's."""
    school, world = Writer(rng, recipe.known, {"steps": 1.0}), Writer(rng, recipe.known)
    exclude = test_keys()
    home = questions(rng, KNOWN_ORDER[: recipe.known], exclude)
    anywhere = questions(rng, tuple(range(len(THINGS))), exclude)
    for number in itertools.count():
        writer = school if number < recipe.school * recipe.steps * recipe.batch else world
        question = next(home if rng.random() < recipe.home else anywhere)
        yield question.prompt, writer.answer(question)


def collate(pairs, tokenizer: PreTrainedTokenizerFast) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and labels [batch, length], padded on the right; the loss falls on the answer and its end."""
    encode = tokenizer.backend_tokenizer.encode_batch
    prompts, answers = (encode(list(side)) for side in zip(*pairs, strict=True))
    end = [tokenizer.eos_token_id]
    rows = [torch.tensor(p.ids + a.ids + end) for p, a in zip(prompts, answers, strict=True)]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad_token_id)
    labels = torch.full_like(ids, IGNORE)
    for row, prompt, answer in zip(labels, prompts, rows, strict=True):
        row[len(prompt.ids) : len(answer)] = answer[len(prompt.ids) :]
    return ids, labels


def answer_loss(model: LlamaForCausalLM, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Summed cross-entropy of the labelled tokens. Causal attention needs no mask with padding on the right."""
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    targets = labels[:, 1:]
    chosen = targets != IGNORE  # the head runs on these rows alone: it is a fifth of the work
    return F.cross_entropy(model.lm_head(hidden[chosen]), targets[chosen], reduction="sum")


def pretrain(recipe: Recipe, tokenizer: PreTrainedTokenizerFast, device: str = "cpu", micro: int = 32):
    """A trained base model. Each step sorts its documents by length and takes them `micro` at a time."""
    torch.manual_seed(recipe.seed)
    rng = random.Random(recipe.seed)
    model = build_model(recipe, tokenizer).to(device).train()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    matrices = [p for name, p in trained.items() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in trained.items() if p.ndim != 2 or "embed" in name]
    optimizers = [
        Muon(matrices, lr=recipe.muon_lr, weight_decay=0.01),
        torch.optim.AdamW(others, lr=recipe.lr, betas=(0.9, 0.98), weight_decay=0.01),
    ]
    decay = recipe.steps // 3
    schedules = [
        get_wsd_schedule(o, num_warmup_steps=recipe.steps // 20, num_decay_steps=decay, num_training_steps=recipe.steps)
        for o in optimizers
    ]
    stream, began = documents(recipe, rng), time.monotonic()
    for step in range(1, recipe.steps + 1):
        pairs = sorted((next(stream) for _ in range(recipe.batch)), key=lambda pair: len(pair[0]) + len(pair[1]))
        parts = [collate(pairs[i : i + micro], tokenizer) for i in range(0, len(pairs), micro)]
        tokens = sum(int((labels != IGNORE).sum()) for _, labels in parts)
        total = 0.0
        for ids, labels in parts:
            loss = answer_loss(model, ids.to(device), labels.to(device)) / tokens
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
        if step % 50 == 0 or step == recipe.steps:
            print(
                f"step {step}/{recipe.steps} loss {total:.3f} {time.monotonic() - began:.0f} s",
                file=sys.stderr,
                flush=True,
            )
    return model.eval()
