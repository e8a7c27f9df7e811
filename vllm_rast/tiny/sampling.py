"""Batched sampling from a weighted sum of models' logits, in plain torch: for the RL and the sweep."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

MAX_NEW_TOKENS = 96  # the longest answer of the world has 72 tokens


@torch.no_grad()
def sample(
    models: Sequence[PreTrainedModel],
    weights: Sequence[float],
    prompts: torch.Tensor,
    mask: torch.Tensor,
    eos: int,
    generator: torch.Generator,
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> torch.Tensor:
    """Continue `prompts` [batch, length], padded on the left where `mask` is 0, at temperature 1 with
    sum_m weights[m] * logits_m. Where models differ in vocabulary rows, the rows that all have are drawn from: the
    others are padding. Returns the new tokens [batch, new]; all tokens after the first `eos` are `eos`."""
    rows = min(model.config.vocab_size for model in models)
    caches: list = [None] * len(models)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    tokens, done, out = prompts, torch.zeros(len(prompts), dtype=torch.bool, device=prompts.device), []
    for _ in range(max_new_tokens):
        total: torch.Tensor | None = None
        for m, (model, weight) in enumerate(zip(models, weights, strict=True)):
            step = model(
                input_ids=tokens,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=caches[m],
                use_cache=True,
                logits_to_keep=1,
            )
            caches[m] = step.past_key_values
            logits = weight * step.logits[:, -1, :rows].float()
            total = logits if total is None else total + logits
        assert total is not None, "sample needs at least one model"
        drawn = torch.multinomial(total.softmax(-1), 1, generator=generator)
        drawn[done] = eos
        out.append(drawn)
        done = done | (drawn[:, 0] == eos)
        if bool(done.all()):
            break
        tokens, positions = drawn, positions[:, -1:] + 1
        mask = torch.cat([mask, torch.ones_like(drawn)], dim=1)
    return torch.cat(out, dim=1)


def encode_prompts(tokenizer: PreTrainedTokenizerFast, prompts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask [batch, length], padded on the left."""
    batch = tokenizer(list(prompts), padding=True, padding_side="left", return_tensors="pt")
    return batch["input_ids"], batch["attention_mask"]
