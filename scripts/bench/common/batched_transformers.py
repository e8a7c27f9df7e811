"""The mix decoded in static batches with plain transformers: what one writes without vLLM, with care.

What makes it quick: prompts of similar length share a batch, a prompt is read once for all of its answers, every model
keeps its KV cache, the head runs on the last position alone, scaled_dot_product_attention without copies of shared
keys, one call for the whole batch in each step, nothing copied to the host before the batch ends, and, if wanted, rows
that have ended leave it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, AutoModelForCausalLM, DynamicCache
from transformers.masking_utils import sdpa_mask

from vllm_rast.mix.alpha import weight_row
from vllm_rast.mix.config import RastConfig

GROUPED = "sdpa_grouped"
ATTENTIONS = (GROUPED, "sdpa")
DROP_SHARE = 0.25  # ended rows leave once they are this share of the batch; each time the caches are copied


@dataclass(frozen=True)
class Group:
    """A prompt and the lengths of its answers, all in tokens. place: which prompt of the caller's it is."""

    place: int
    prompt: Sequence[int]
    lengths: Sequence[int]


class BatchedTransformers:
    """base + sum of alpha * (positive - negative) with Hugging Face models, in batches.

    num_ids: how many ids the tokenizer has; ids beyond are padding rows, which a small model must not vote for.
    attention: "sdpa_grouped", or "sdpa" as transformers ships it. That copies every key and value once for each query
        head that shares it, wherever a batch has padding: on a CPU half of all time (8 query heads on 2).
    """

    def __init__(
        self, config: RastConfig, dtype: str, device: str, *, num_ids: int | None = None, attention: str = GROUPED
    ) -> None:
        AttentionInterface.register(GROUPED, grouped_attention)
        AttentionMaskInterface.register(GROUPED, sdpa_mask)
        self.device = device
        self.models: list[Any] = [
            AutoModelForCausalLM.from_pretrained(
                source.path, revision=source.revision, dtype=getattr(torch, dtype), attn_implementation=attention
            )
            .to(device)
            .eval()
            for source in config.sources
        ]
        self.weights = weight_row(config, None)
        self.num_ids = num_ids

    @torch.inference_mode()
    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        lengths: Sequence[Sequence[int]],
        *,
        rows: int,
        temperature: float = 0.0,
        drop_ended: bool = False,
    ) -> list[list[list[int]]]:
        """Answers, [num_prompts, n, length]; lengths [num_prompts, n] says where each of them ends.

        rows: most answers in a batch; whole prompts go into it, at least one. temperature 0 is greedy.
        """
        groups = [Group(i, prompt, ends) for i, (prompt, ends) in enumerate(zip(prompts, lengths, strict=True))]
        groups.sort(key=lambda group: -len(group.prompt))  # the longest first: memory runs out at once or never
        size = max(1, rows // max(len(group.lengths) for group in groups))
        answers: list[list[list[int]]] = [[] for _ in groups]
        for start in range(0, len(groups), size):
            batch = groups[start : start + size]
            for group, some in zip(batch, self.run_batch(batch, temperature, drop_ended), strict=True):
                answers[group.place] = some
        return answers

    def run_batch(self, batch: Sequence[Group], temperature: float, drop_ended: bool) -> list[list[list[int]]]:
        """The answers of one batch, [num_prompts, n, length]."""
        samples = len(batch[0].lengths)
        lengths = [length for group in batch for length in group.lengths]
        state = self.read_prompts([group.prompt for group in batch], samples)
        tokens = torch.zeros(len(lengths), max(lengths), dtype=torch.long, device=self.device)
        for step in range(max(lengths)):
            if drop_ended:
                state.drop_ended(lengths, step)
            # If none are dropped, rows that have ended go on, unread, until the longest has ended.
            chosen = choose(state.logits, temperature)
            tokens[state.rows, step] = chosen
            if step + 1 < max(lengths):
                self.advance(state, chosen)
        every = [row[:length] for row, length in zip(tokens.tolist(), lengths, strict=True)]
        return [every[start : start + samples] for start in range(0, len(every), samples)]

    def read_prompts(self, prompts: Sequence[Sequence[int]], samples: int) -> State:
        """Run the prompts, padded on the left, through all models, then repeat everything for each sample."""
        longest = max(map(len, prompts))
        ids = torch.tensor([[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts], device=self.device)
        starts = torch.tensor([longest - len(prompt) for prompt in prompts], device=self.device)
        columns = torch.arange(longest, device=self.device)
        mask = (columns >= starts[:, None]).long()
        state = State(
            caches=[DynamicCache(config=model.config) if weight else None for model, weight in self.used()],
            # Without padding no mask: attention then needs no repeated keys if query heads share them.
            mask=mask if int(starts.max()) else None,
            positions=(columns - starts[:, None]).clamp(min=0),
        )
        state.logits = self.logits(ids, state)
        state.positions = state.positions[:, -1:]
        if samples > 1:
            state.repeat(samples)
        return state

    def advance(self, state: State, chosen: torch.Tensor) -> None:
        """One more token for every row."""
        state.positions = state.positions + 1
        if state.mask is not None:
            state.mask = torch.cat([state.mask, state.mask.new_ones(len(chosen), 1)], dim=1)
        state.logits = self.logits(chosen[:, None], state)

    def used(self) -> list[tuple[Any, float]]:
        return list(zip(self.models, self.weights, strict=True))

    def logits(self, ids: torch.Tensor, state: State) -> torch.Tensor:
        """The mixed logits after the last of ids [rows, tokens], [rows, vocab_base] in float32."""
        total: torch.Tensor | None = None
        for column, (model, weight) in enumerate(self.used()):
            if weight == 0:
                continue
            last = model.get_input_embeddings().weight.shape[0] - 1
            output = model(
                input_ids=ids if column == 0 else ids.clamp(max=last),
                attention_mask=state.mask,
                position_ids=state.positions,
                past_key_values=state.caches[column],
                use_cache=True,
                logits_to_keep=1,
            )
            logits = output.logits[:, -1].float()
            if total is None:
                vocab = self.models[0].get_output_embeddings().weight.shape[0]
                total = logits if column == 0 else logits.new_zeros(len(ids), vocab)
                if column == 0:
                    total = total if weight == 1 else total.mul_(weight)
                    continue
            size = min(logits.shape[1], self.num_ids or logits.shape[1], total.shape[1])
            total[:, :size].add_(logits[:, :size], alpha=weight)
            total[:, size:] = float("-inf")
        assert total is not None
        return total


class State:
    """Where a batch is: a KV cache for each model, mask and positions [rows, ...], the next token's logits, and which
    of the batch's rows these are."""

    def __init__(self, caches: list[Any], mask: torch.Tensor | None, positions: torch.Tensor) -> None:
        self.caches = caches
        self.mask = mask
        self.positions = positions
        self.logits = torch.empty(0)
        self.places = list(range(len(positions)))
        self.rows = torch.arange(len(positions), device=positions.device)

    def repeat(self, samples: int) -> None:
        """Every row `samples` times in a row."""
        for cache in self.caches:
            if cache is not None:
                cache.batch_repeat_interleave(samples)
        self.mask = None if self.mask is None else self.mask.repeat_interleave(samples, dim=0)
        self.positions = self.positions.repeat_interleave(samples, dim=0)
        self.logits = self.logits.repeat_interleave(samples, dim=0)
        self.places = list(range(len(self.positions)))
        self.rows = torch.arange(len(self.positions), device=self.positions.device)

    def drop_ended(self, lengths: Sequence[int], step: int) -> None:
        """Let the rows go whose answers have `step` tokens at most, once they are enough to be worth a copy."""
        left = [i for i, row in enumerate(self.places) if lengths[row] > step]
        if len(self.places) - len(left) < max(1, DROP_SHARE * len(self.places)):
            return
        index = torch.tensor(left, device=self.rows.device)
        for cache in self.caches:
            if cache is not None:
                cache.batch_select_indices(index)
        self.mask = None if self.mask is None else self.mask[index]
        self.positions = self.positions[index]
        self.logits = self.logits[index]
        self.places = [self.places[i] for i in left]
        self.rows = self.rows[index]


def grouped_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **unused: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' interface to attention, on keys that several query heads share, [rows, tokens, heads, width]."""
    causal = attention_mask is None and query.shape[2] > 1
    output = scaled_dot_product_attention(
        query, key, value, attn_mask=attention_mask, is_causal=causal, scale=scaling, enable_gqa=True
    )
    return output.transpose(1, 2).contiguous(), None


def choose(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """A token for each row, [rows]: greedy at temperature 0, else a sample of softmax(logits / temperature).

    The largest of p / e with exponential e is a sample of p, and asks nothing of the host (as vLLM does it).
    """
    if temperature == 0:
        return logits.argmax(dim=-1)
    probabilities = torch.softmax(logits / temperature, dim=-1)
    return probabilities.div_(torch.empty_like(probabilities).exponential_()).argmax(dim=-1)
