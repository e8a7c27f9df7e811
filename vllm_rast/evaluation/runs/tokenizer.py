"""The base's tokenizer without the base, for what happens beside the engine."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from vllm_rast.evaluation.runs.plan import Plan
from vllm_rast.evaluation.tasks.prompts import prompt_encoder
from vllm_rast.mix.model_names import parse_model

LONGEST = 1 << 60


class BaseTokenizer:
    """The base's tokenizer, loaded when it is first needed."""

    def __init__(self, plan: Plan):
        self.plan = plan

    @cached_property
    def loaded(self) -> Any:
        """None if it cannot be had without more: the engine will say what is wrong."""
        from transformers import AutoTokenizer

        source = parse_model(self.plan.models.base, "model")
        trust = bool(self.plan.engine.get("trust_remote_code"))
        try:
            tokenizer = AutoTokenizer.from_pretrained(source.path, revision=source.revision, trust_remote_code=trust)
            tokenizer.model_max_length = LONGEST  # or it would warn of prompts that are too long
            return tokenizer
        except Exception:  # each tokenizer class raises its own
            return None

    def count(self, prompt: str) -> int:
        """Tokens of a prompt; 0 without a tokenizer."""
        return 0 if self.loaded is None else len(prompt_encoder(self.loaded)(prompt))
