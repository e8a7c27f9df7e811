"""Reinforcement learning on a verifiable reward: a group-relative policy gradient with a KL penalty to the base model.

The gradient is on-policy: every batch of samples is used for one update, so there is nothing to clip. Advantages are a
group's rewards less their mean, over their standard deviation (GRPO, arXiv 2402.03300, equation 4).
"""

from __future__ import annotations

import copy
import random
import re
import sys
import time
from dataclasses import dataclass

import torch
from torch.nn import functional as F
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from vllm_rast.tiny.benchmark import test_keys
from vllm_rast.tiny.sampling import encode_prompts, sample
from vllm_rast.tiny.world import KNOWN_ORDER, questions

BOXED = re.compile(r"\\boxed\{([^{}]*)\}")


@dataclass(frozen=True)
class RLRecipe:
    """Gentle on purpose: few small steps leave alone the tokens that the reward does not speak about, and only such a
    change carries over to another model."""

    known: int  # questions are about the first `known` things
    steps: int
    lr: float
    kl: float
    questions: int = 24
    samples: int = 8
    warmup: int = 5
    seed: int = 1


SMALL_RL = RLRecipe(known=200, steps=80, lr=3e-4, kl=0.2)
LARGE_RL = RLRecipe(known=600, steps=50, lr=2e-4, kl=0.1)


def reward(text: str, answer: int) -> float:
    """1 when the last box of `text` holds the answer, else 0."""
    boxes = BOXED.findall(text)
    return float(bool(boxes) and boxes[-1].strip() == str(answer))


def advantages(rewards: torch.Tensor) -> torch.Tensor:
    """Rewards [questions, samples] relative to their group; 0 if a whole group agrees."""
    centred = rewards - rewards.mean(1, keepdim=True)
    return centred / (rewards.std(1, keepdim=True) + 1e-4)


def reinforce(
    base: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, recipe: RLRecipe, device: str = "cpu"
) -> LlamaForCausalLM:
    """A copy of `base`, tuned. Prints the mean reward and KL of every tenth step on stderr."""
    generator = torch.Generator(device).manual_seed(recipe.seed)
    stream = questions(random.Random(recipe.seed), KNOWN_ORDER[: recipe.known], test_keys())
    base = base.to(device).eval()
    policy, eos = copy.deepcopy(base).requires_grad_(True), tokenizer.eos_token_id
    optimizer = torch.optim.AdamW(policy.parameters(), lr=recipe.lr, betas=(0.9, 0.98), weight_decay=0.0)
    began = time.monotonic()
    for step in range(recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * min(1.0, (step + 1) / recipe.warmup)
        asked = [next(stream) for _ in range(recipe.questions)]
        ids, mask = encode_prompts(tokenizer, [q.prompt for q in asked for _ in range(recipe.samples)])
        ids, mask = ids.to(device), mask.to(device)
        new = sample([policy], [1.0], ids, mask, eos, generator)
        texts = tokenizer.batch_decode(new, skip_special_tokens=True)
        golds = [q.answer for q in asked for _ in range(recipe.samples)]
        rewards = torch.tensor([reward(t, g) for t, g in zip(texts, golds, strict=True)], device=device)
        gain = advantages(rewards.view(recipe.questions, recipe.samples)).flatten()
        loss, kl = policy_loss(policy, base, ids, mask, new, gain, eos, recipe.kl)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        if step % 10 == 9 or step + 1 == recipe.steps:
            spent = time.monotonic() - began
            print(
                f"RL step {step + 1}/{recipe.steps} reward {rewards.mean():.3f} KL {kl:.4f} {spent:.0f} s",
                file=sys.stderr,
                flush=True,
            )
    return policy.eval()


def policy_loss(policy, base, ids, mask, new, gain, eos: int, kl_weight: float) -> tuple[torch.Tensor, float]:
    """-gain * log-probability + kl_weight * KL(policy || base), averaged over the sampled tokens, end included.

    ids, mask [batch, prompt]; new [batch, new]; gain [batch].
    """
    live = (new != eos).cumprod(1).roll(1, 1)  # 1 up to and including the first eos
    live[:, 0] = 1
    tokens = torch.cat([ids, new], 1)
    seen = torch.cat([mask, torch.ones_like(new)], 1)
    positions = (seen.cumsum(1) - 1).clamp(min=0)

    def log_probs(model) -> torch.Tensor:
        out = model(input_ids=tokens, attention_mask=seen, position_ids=positions, logits_to_keep=new.shape[1] + 1)
        return F.log_softmax(out.logits[:, :-1].float(), -1)

    ours = log_probs(policy)
    with torch.no_grad():
        theirs = log_probs(base)
    chosen = ours.gather(-1, new[..., None])[..., 0]
    kl = (ours.exp() * (ours - theirs)).sum(-1)
    count = live.sum()
    loss = ((-gain[:, None] * chosen + kl_weight * kl) * live).sum() / count
    return loss, float((kl.detach() * live).sum() / count)
