"""Models of realistic shape and random weights whose agreement is set: how often the mix accepts the positive's drafts.

The base's first layers are the positive's, embeddings, head and last norm too; its further layers write into the
residual stream with a factor. At 0 base and positive say the same; the larger, the less they agree. The factor is
searched until the share of drafts that the mix accepts is the one that was asked for, along answers of the positive.
The negative is the positive with a little noise in all matrices, so that the mix has something to add.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from common.models import RECIPE, SHAPES, Shape, qwen2_config

SPREAD = 0.04  # of all matrices but the embedding: layers then write about as much as they read
EMBEDDING_SPREAD = 0.02
LAST_NORM = 5.0  # with it the logits' standard deviation is about 3, as trained models' is
NOISE = 0.02  # of the negative's matrices, relative to their spread
PROMPT, ANSWER, ANSWERS = 16, 32, 4  # tokens, tokens, number: what the factor is searched on
STEPS = 9  # of the search
Models = tuple[Path, Path, Path]


def make_agreeing(
    shape_name: str, small_layers: int, share: float, temperature: float, folder: Path
) -> tuple[Models, float]:
    """(base, positive, negative), in bfloat16, and the share that was reached along the positive's answers."""
    recipe = {"shape": asdict(SHAPES[shape_name]), "small": small_layers, "share": share, "temperature": temperature}
    place = folder / f"{shape_name}-{small_layers}-layers-{share}-at-{temperature:g}"
    names = (place / "base", place / "positive", place / "negative")
    if (place / RECIPE).exists() and (found := json.loads((place / RECIPE).read_text()))["recipe"] == recipe:
        return names, found["reached"]
    import torch

    torch.manual_seed(0)
    base = random_model(SHAPES[shape_name])
    positive = random_model(replace(SHAPES[shape_name], layers=small_layers))
    positive.load_state_dict({name: base.state_dict()[name] for name in positive.state_dict()})
    negative = random_model(replace(SHAPES[shape_name], layers=small_layers))
    negative.load_state_dict(positive.state_dict())
    with torch.no_grad():
        for parameter in negative.parameters():
            if parameter.ndim > 1:
                parameter += torch.randn_like(parameter) * NOISE * parameter.std()
        reached = search(base, positive, negative, small_layers, share, temperature)
    for model, name in zip((base, positive, negative), names, strict=True):
        model.to(torch.bfloat16).save_pretrained(name)
    (place / RECIPE).write_text(json.dumps({"recipe": recipe, "reached": reached}, indent=1) + "\n")
    return names, reached


def random_model(shape: Shape) -> Any:
    """A Qwen2 model with tied embeddings and weights drawn anew."""
    import torch
    from transformers import Qwen2ForCausalLM

    model = Qwen2ForCausalLM(qwen2_config(shape)).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, SPREAD)
        model.get_input_embeddings().weight.normal_(0.0, EMBEDDING_SPREAD)
        model.model.norm.weight.fill_(LAST_NORM)
    return model


def search(base: Any, positive: Any, negative: Any, small_layers: int, share: float, temperature: float) -> float:
    """Set the factor in the base's further layers by bisection of its logarithm; returns the share that is reached."""
    import torch

    sampling = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {"do_sample": False}
    prompts = torch.randint(1, base.config.vocab_size, (ANSWERS, PROMPT))
    ids = positive.generate(prompts, max_new_tokens=ANSWER, min_new_tokens=ANSWER, **sampling)
    drafts = positive(ids).logits[:, PROMPT:]
    delta = drafts - negative(ids).logits[:, PROMPT:]
    written = [
        (linear.weight, linear.weight.clone())
        for layer in base.model.layers[small_layers:]
        for linear in (layer.self_attn.o_proj, layer.mlp.down_proj)
    ]
    low, high, reached = math.log(1e-3), math.log(4.0), 1.0
    for _ in range(STEPS):
        factor = (low + high) / 2
        for weight, whole in written:
            weight.copy_(whole * math.exp(factor))
        reached = accepted(base(ids).logits[:, PROMPT:] + delta, drafts, temperature)
        low, high = (factor, high) if reached > share else (low, factor)
    return reached


def accepted(mix: Any, drafts: Any, temperature: float) -> float:
    """The share of drafts that are accepted; mix, drafts: logits [answers, tokens, vocab]."""
    import torch

    if not temperature:
        return float((mix.argmax(-1) == drafts.argmax(-1)).float().mean())
    both = torch.minimum((mix / temperature).softmax(-1), (drafts / temperature).softmax(-1))
    return float(both.sum(-1).mean())
