"""Tiny random models with one tokenizer, for tests that need models and no training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

NUM_TOKENS = 90
WORDS = ["<pad>", "<eos>", "<unk>"] + [f"w{i}" for i in range(NUM_TOKENS - 3)]


ARCHITECTURES: dict[str, tuple[Any, Any]] = {
    "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM),
    "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
    "gpt2": (transformers.GPT2Config, transformers.GPT2LMHeadModel),
    "qwen3": (transformers.Qwen3Config, transformers.Qwen3ForCausalLM),
    "qwen3_moe": (transformers.Qwen3MoeConfig, transformers.Qwen3MoeForCausalLM),
    "olmo3": (transformers.Olmo3Config, transformers.Olmo3ForCausalLM),
    "gemma3": (transformers.Gemma3TextConfig, transformers.Gemma3ForCausalLM),
}


def make_tokenizer(words: list[str] = WORDS) -> PreTrainedTokenizerFast:
    """A word-level tokenizer; ids in the order of the words.

    transformers reads it back only beside a `llama` model: for `qwen2` it insists on Qwen's own way of splitting text.
    """
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<eos>", pad_token="<pad>", unk_token="<unk>"
    )
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    return tokenizer


def make_model(
    folder: Path,
    seed: int,
    *,
    architecture: str = "qwen2",
    layers: int = 2,
    width: int = 64,
    heads: int = 2,
    kv_heads: int = 2,
    vocab: int = 128,
    context: int = 1024,
    words: list[str] = WORDS,
    spread: float = 0.7,
    tied: bool = False,
    **config: Any,
) -> str:
    """Write a random model and its tokenizer into a folder and return the folder's name.

    spread: standard deviation of the head's weights; large enough that greedy answers vary and logits rarely tie.
    """
    torch.manual_seed(seed)
    config_class, model_class = ARCHITECTURES[architecture]
    grouped = {} if architecture == "gpt2" else {"num_key_value_heads": kv_heads, "intermediate_size": 2 * width}
    model_config = config_class(
        vocab_size=vocab,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=context,
        **grouped,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
        tie_word_embeddings=tied,
        **config,
    )
    model = model_class(model_config).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, 0.15)
        model.get_input_embeddings().weight.normal_(0.0, 1.0)
        model.get_output_embeddings().weight.normal_(0.0, spread)
    model.save_pretrained(folder)
    make_tokenizer(words).save_pretrained(folder)
    return str(folder)


needs_int8 = pytest.mark.skipif(
    torch.cpu._is_amx_tile_supported(), reason="vLLM's 8-bit product takes no float32 on a processor with AMX"
)


def quantise(folder: str) -> str:
    """Turn a model's projections into 8-bit integers in place (compressed-tensors, W8A8); the head stays as it is."""
    path = Path(folder)
    tensors = {}
    for name, tensor in load_file(path / "model.safetensors").items():
        if name.endswith("_proj.weight"):
            scale = tensor.abs().amax(1, keepdim=True) / 127
            tensors[name] = (tensor / scale).round().to(torch.int8)
            tensors[f"{name}_scale"] = scale
        else:
            tensors[name] = tensor
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    eight_bits = {"num_bits": 8, "type": "int", "symmetric": True}
    group = {
        "targets": ["Linear"],
        "weights": {**eight_bits, "strategy": "channel", "dynamic": False},
        "input_activations": {**eight_bits, "strategy": "token", "dynamic": True},
    }
    config = json.loads((path / "config.json").read_text())
    config["quantization_config"] = {
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "quantization_status": "compressed",
        "ignore": ["lm_head"],
        "config_groups": {"group_0": group},
    }
    (path / "config.json").write_text(json.dumps(config))
    return folder
