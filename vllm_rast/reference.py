"""The formula, and a plain decoding loop on it: the oracle that every faster path is tested against."""

from __future__ import annotations

import itertools
import math
from collections.abc import Generator, Sequence
from typing import Any

import numpy as np
import torch

from vllm_rast.errors import UserError
from vllm_rast.mix.alpha import Alpha, parse_alpha
from vllm_rast.mix.config import RastConfig
from vllm_rast.mix.gate import Gate, closed_at
from vllm_rast.mix.model_names import ModelSource
from vllm_rast.mix.schedule import Schedule


def mix(base: torch.Tensor, pairs: Sequence[tuple[float, torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """base + sum of alpha * (positive - negative), [..., vocab] (RAST, arXiv 2506.15710, equation 3)."""
    mixed = base
    for alpha, positive, negative in pairs:
        mixed = mixed + alpha * (positive - negative)
    return mixed


def weighted(logits: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """The same formula with one weight for each model: sum of weight * logits, [vocab_base].

    Models of weight 0 are left out. Ids that a model taking part does not have are -inf.
    """
    total = torch.zeros_like(logits[0])
    for weight, model_logits in zip(weights, logits, strict=True):
        if weight != 0:
            missing = total.new_full((max(0, len(total) - len(model_logits)),), float("-inf"))
            total = total + torch.cat([weight * model_logits[: len(total)], missing])
    return total


def gated(mixed: torch.Tensor, base: torch.Tensor, gate: Gate) -> torch.Tensor:
    """What is decoded from one row of mixed logits, [vocab], under a gate: the base's logits where it is closed.

    `gate.random` is left to the caller, who knows seed and position.
    """
    mixed, base = mixed.double(), base.double()
    if gate.top is not None:
        least = (
            base.topk(min(int(gate.top), len(base))).values[-1] if gate.top >= 1 else base.max() + math.log(gate.top)
        )
        inside = (base >= least) & (mixed[base >= least].logsumexp(0) > -math.inf)
        moved = mixed[inside] - mixed[inside].logsumexp(0) + base[inside].logsumexp(0)
        mixed = base.masked_scatter(inside, moved)
    p, q = mixed.softmax(0), base.softmax(0)
    middle = (p + q) / 2
    entropy = [-torch.xlogy(some, some).sum() for some in (p, q, middle)]
    js = entropy[2] - (entropy[0] + entropy[1]) / 2
    kl = torch.where(p > 0, p * (p.log() - q.log()), 0).sum()
    opens = (gate.js or 0) <= js and (gate.kl or 0) <= kl
    return (mixed if opens else base).float()


class ReferenceLLM:
    """transformers models decoded one request at a time, with their KV caches, in float32 by default.

    Slow and simple on purpose. `config` as for RastLLM. The weights' float arithmetic happens in `dtype`'s logits
    widened to float32.
    """

    def __init__(self, config: RastConfig, dtype: str = "float32", device: str | None = None) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.config = config
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        base = config.sources[0]
        self.tokenizer: Any = AutoTokenizer.from_pretrained(base.path, revision=base.revision)
        self.models = [
            merged(
                AutoModelForCausalLM.from_pretrained(
                    source.path, revision=source.revision, dtype=getattr(torch, dtype)
                ),
                source.adapter,
            )
            .to(self.device)
            .eval()
            for source in config.sources
        ]

    def vocab(self, model: int) -> int:
        """How many logits of a model count: a small model's rows beyond the tokenizer are padding."""
        rows = self.models[model].get_output_embeddings().weight.shape[0]
        return rows if model == 0 else min(rows, len(self.tokenizer))

    def inputs(self, model: int, token_ids: Sequence[int]) -> torch.Tensor:
        """Token ids for a model, [1, num_tokens]. The base's padding ids, which only the plain base can sample, become
        the model's last id, as in the engine."""
        last = self.models[model].get_input_embeddings().weight.shape[0] - 1
        return torch.tensor([list(token_ids)], device=self.device).clamp(max=last)

    @torch.inference_mode()
    def logits(
        self,
        token_ids: Sequence[int],
        alpha: Alpha | None = None,
        num_prompt_tokens: int | None = None,
        seed: int | None = None,
    ) -> torch.Tensor:
        """The mixed logits after every token, [num_tokens, vocab], in one forward pass of every model.

        The first num_prompt_tokens are the prompt (by default all of them), which a schedule's positions count from.
        seed: of the request, for a random gate.
        """
        every = [
            model(self.inputs(i, token_ids)).logits[0, :, : self.vocab(i)].float()
            for i, model in enumerate(self.models)
        ]
        prompt = len(token_ids) if num_prompt_tokens is None else num_prompt_tokens
        generated = np.maximum(np.arange(1, len(token_ids) + 1) - prompt, 0)
        schedule = parse_alpha(self.config, alpha)
        mixed = [
            decoded([logits[t] for logits in every], schedule, place, seed)
            for t, place in enumerate(generated.tolist())
        ]
        return torch.stack(mixed)

    @torch.inference_mode()
    def steps(
        self, token_ids: Sequence[int], alpha: Alpha | None = None, seed: int | None = None
    ) -> Generator[torch.Tensor, int, None]:
        """Yield the next token's logits, [vocab]; send() the token that was chosen to get on."""
        schedule = parse_alpha(self.config, alpha)
        caches: list[Any] = [None] * len(self.models)
        new = list(token_ids)
        for generated in itertools.count():
            every = []
            for i, model in enumerate(self.models):
                output = model(self.inputs(i, new), past_key_values=caches[i], use_cache=True)
                caches[i] = output.past_key_values
                every.append(output.logits[0, -1, : self.vocab(i)].float())
            new = [int((yield decoded(every, schedule, generated, seed)))]

    def generate(
        self,
        prompt_ids: Sequence[int],
        alpha: Alpha | None = None,
        *,
        max_tokens: int = 16,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
        stop_token_ids: Sequence[int] = (),
    ) -> list[int]:
        """Decode one answer and return its token ids, the stop token (if any) included.

        temperature 0 is greedy. stop_token_ids are those of the caller; the tokenizer's end of text always stops.
        """
        generator = torch.Generator(device=self.device)
        if seed is not None:
            generator.manual_seed(seed)
        stops = {*stop_token_ids, self.tokenizer.eos_token_id}
        steps = self.steps(prompt_ids, alpha, seed)
        logits = next(steps)
        answer: list[int] = []
        while len(answer) < max_tokens:
            token = choose(logits, temperature, top_p, generator)
            answer.append(token)
            if token in stops or len(answer) == max_tokens:
                break
            logits = steps.send(token)
        return answer


def merged(model: Any, adapter: ModelSource | None) -> Any:
    """A transformers model with PEFT's own sum of it and an adapter. Raises UserError if peft is not installed."""
    if adapter is None:
        return model
    try:
        from peft import PeftModel
    except ImportError as error:
        raise UserError(f"adapter {adapter.name!r}: transformers merges it with peft; pip install peft") from error
    return PeftModel.from_pretrained(model, adapter.path, revision=adapter.revision).merge_and_unload()


def decoded(logits: Sequence[torch.Tensor], schedule: Schedule, generated: int, seed: int | None) -> torch.Tensor:
    """One row of every model's logits, [vocab_m], as a request decodes it at a generated position, [vocab_base]."""
    place = np.array([generated])
    (row,) = schedule.rows_at(place).tolist()
    mixed, gate = weighted(logits, row), schedule.gate
    if gate is None:
        return mixed
    return logits[0] if closed_at(gate, seed, place)[0] else gated(mixed, logits[0], gate)


def choose(logits: torch.Tensor, temperature: float, top_p: float, generator: torch.Generator) -> int:
    """Greedy at temperature 0, else a sample of softmax(logits / temperature) cut to the nucleus top_p."""
    if temperature == 0:
        return int(logits.argmax())
    probabilities = torch.softmax(logits / temperature, dim=-1)
    if top_p < 1:
        ordered, order = probabilities.sort(descending=True)
        # Keep the smallest set whose mass reaches top_p: everything before a token must not have reached it yet.
        ordered[ordered.cumsum(0) - ordered >= top_p] = 0
        probabilities = torch.zeros_like(probabilities).scatter_(0, order, ordered)
    return int(torch.multinomial(probabilities, 1, generator=generator))
