"""Batched sampling from a weighted sum of models' logits, in plain torch: for the RL and the sweep."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.utils.rnn import pad_sequence
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
    sum_m weights[m] * logits_m. If models differ in vocabulary rows, the rows that all have are drawn from: the
    others are padding. Returns the new tokens [batch, new]; all tokens after the first `eos` are `eos`."""
    rows = min(model.config.vocab_size for model in models)
    out = torch.full((len(prompts), max_new_tokens), eos, device=prompts.device)
    alive = torch.arange(len(prompts), device=prompts.device)
    caches: list = [None] * len(models)
    tokens, positions = prompts, (mask.cumsum(1) - 1).clamp(min=0)
    for column in range(max_new_tokens):
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
        tokens = torch.multinomial(total.softmax(-1), 1, generator=generator)
        out[alive, column] = tokens[:, 0]
        mask, positions = torch.cat([mask, torch.ones_like(tokens)], dim=1), positions[:, -1:] + 1
        going = (tokens[:, 0] != eos).nonzero()[:, 0]
        if len(going) == 0:
            break
        if len(going) < len(alive):  # finished rows leave the batch: they are most of the base's time
            alive, tokens, mask, positions = alive[going], tokens[going], mask[going], positions[going]
            for cache in caches:
                cache.batch_select_indices(going)
    return out[:, : column + 1]


def encode_prompts(tokenizer: PreTrainedTokenizerFast, prompts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask [batch, length], padded on the left here: the tokenizer would keep, and save, a padding setting."""
    rows = [torch.tensor(ids) for ids in tokenizer(list(prompts))["input_ids"]]
    ids = pad_sequence(rows, True, tokenizer.pad_token_id, padding_side="left")
    mask = pad_sequence([torch.ones_like(row) for row in rows], True, 0, padding_side="left")
    return ids, mask
