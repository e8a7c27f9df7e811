"""How large a model is, from the numbers of its configuration: parameters, and keys and values of a token."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from vllm_rast.errors import UserError
from vllm_rast.mix.model_names import ModelSource

KNOWN = Path(__file__).with_name("shapes.json")


@dataclass(frozen=True)
class ModelShape:
    """A dense decoder with gated layers, as Llama, Qwen and Olmo have them; biases and norms are left out."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    tie_word_embeddings: bool

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> ModelShape:
        """From config.json. Raises KeyError for a model of another kind."""
        heads = config["num_attention_heads"]
        return cls(
            hidden_size=config["hidden_size"],
            intermediate_size=config["intermediate_size"],
            num_hidden_layers=config["num_hidden_layers"],
            num_attention_heads=heads,
            num_key_value_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or config["hidden_size"] // heads,
            vocab_size=config["vocab_size"],
            tie_word_embeddings=bool(config.get("tie_word_embeddings", False)),
        )

    @property
    def parameters(self) -> int:
        """How many weights."""
        attention = 2 * self.hidden_size * self.head_dim * (self.num_attention_heads + self.num_key_value_heads)
        layer = attention + 3 * self.hidden_size * self.intermediate_size
        heads = 1 if self.tie_word_embeddings else 2
        return heads * self.vocab_size * self.hidden_size + self.num_hidden_layers * layer

    @property
    def kv_values(self) -> int:
        """Keys and values of one token, over all layers; those with a window keep fewer tokens."""
        return 2 * self.num_hidden_layers * self.num_key_value_heads * self.head_dim


def shape_of(source: ModelSource) -> ModelShape | None:
    """The shape of a model that is a folder, or whose shape is known; else None. An adapter changes none."""
    try:
        said = json.loads((Path(source.path) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        said = known_shapes().get(source.path)
    try:
        return None if said is None else ModelShape.of(said)
    except KeyError:
        return None


@cache
def known_shapes() -> dict[str, dict[str, Any]]:
    """What config.json says of models that recipes name, by hub id."""
    said = json.loads(KNOWN.read_text(encoding="utf-8"))
    shapes = {name: dict(zip(said["columns"], row, strict=True)) for name, row in said["shapes"].items()}
    unknown = set(said["models"].values()) - shapes.keys()
    if unknown:
        raise UserError(f"{KNOWN}: no shape {unknown.pop()!r}; add it")
    return {model: shapes[name] for model, name in said["models"].items()}
