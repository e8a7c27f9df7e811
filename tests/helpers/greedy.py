"""Prompts, greedy requests and what they must answer: the plain loop of transformers, token for token."""

from __future__ import annotations

import random
from typing import Any

from random_models import NUM_TOKENS
from vllm import SamplingParams

from vllm_rast.reference import ReferenceLLM

MAX_TOKENS = 24
# Weights that change while drafts are accepted, and where a preempted request goes on.
# More in tests/engine/test_schedule_decoding.py.
SCHEDULES: list[Any] = [
    {"alpha": 8, "warmup": 5},
    {"alpha": 8, "until": 14},
    {"ramp": [[0, 0], [20, 8]]},
    [[0, 8], [7, 0], [13, 2]],
]
# Every condition of a gate, alone, together and with schedules; thresholds lie among the random models' divergences.
GATES: list[Any] = [
    {"alpha": 1, "gate": {"js": 0.5}},
    {"alpha": 0.5, "gate": {"kl": 2.5}},
    {"alpha": 1, "gate": {"top": 5}},
    {"alpha": 8, "warmup": 5, "gate": {"top": 0.05}},
    {"gate": {"random": 0.5}},
    {"ramp": [[0, 0], [12, 1]], "gate": {"js": 0.2, "kl": 0.5, "top": 40, "random": 0.8}},
]


def make_prompts(count: int, seed: int = 0, shortest: int = 3, longest: int = 40) -> list[list[int]]:
    rng = random.Random(seed)
    return [[rng.randrange(3, NUM_TOKENS) for _ in range(rng.randint(shortest, longest))] for _ in range(count)]


def params(alpha: Any = None, **options: Any) -> SamplingParams:
    options = {"temperature": 0, "max_tokens": MAX_TOKENS, **options}
    return SamplingParams(extra_args=None if alpha is None else {"alpha": alpha}, **options)


def decode(engine: Any, prompts: list[list[int]], alphas: list[Any], **options: Any) -> list[list[int]]:
    requests = [{"prompt_token_ids": prompt} for prompt in prompts]
    outputs = engine.generate(requests, [params(alpha, **options) for alpha in alphas], use_tqdm=False)
    return [list(output.outputs[0].token_ids) for output in outputs]


def expected(
    reference: ReferenceLLM, prompts: list[list[int]], alphas: list[Any], found: list[list[int]] | None = None
) -> list[list[int]]:
    """The reference's greedy answers.

    found: answers that are thought to be these. Each that one pass of every model confirms need not be decoded.
    """
    wanted = []
    for place, (prompt, alpha) in enumerate(zip(prompts, alphas, strict=True)):
        guess = found[place] if found and place < len(found) else []
        right = confirmed(reference, prompt, alpha, guess)
        wanted.append(guess if right else reference.generate(prompt, alpha, max_tokens=MAX_TOKENS))
    return wanted


def confirmed(reference: ReferenceLLM, prompt: list[int], alpha: Any, answer: list[int]) -> bool:
    """Whether each token of an answer is the likeliest after those before it, and it ends where it has to."""
    last = reference.tokenizer.eos_token_id
    if not answer or last in answer[:-1] or (len(answer) < MAX_TOKENS and answer[-1] != last):
        return False
    logits = reference.logits([*prompt, *answer[:-1]], alpha, num_prompt_tokens=len(prompt))
    return logits[len(prompt) - 1 :].argmax(dim=1).tolist() == answer
