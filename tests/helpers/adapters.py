"""PEFT's own adapters, trained for some steps on random tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from random_models import NUM_TOKENS

STEPS = 4
EVERY_LAYER = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def adapted(foundation: str, seed: int, **lora: Any) -> Any:
    """A peft model of a LoRA adapter on a foundation, trained for some steps so that greedy answers differ."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(foundation, dtype=torch.float32)
    lora = {"r": 4, "lora_alpha": 8, "target_modules": EVERY_LAYER, "task_type": "CAUSAL_LM", **lora}
    model = get_peft_model(model, LoraConfig(**lora))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=0.05)
    tokens = torch.randint(3, NUM_TOKENS, (4, 16))
    for _ in range(STEPS):
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    return model.eval()


def make_adapter(folder: Path, foundation: str, seed: int, **lora: Any) -> str:
    """Write an adapter into a folder and return the folder's name."""
    adapted(foundation, seed, **lora).save_pretrained(folder)
    return str(folder)
