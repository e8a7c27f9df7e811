"""Heads and linear layers as a mix needs them: float32 logits, and our own products on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from vllm.model_executor.layers.linear import LinearBase, UnquantizedLinearMethod
from vllm.model_executor.layers.logits_processor import LogitsProcessor
from vllm.model_executor.layers.vocab_parallel_embedding import (
    ParallelLMHead,
    UnquantizedEmbeddingMethod,
    VocabParallelEmbedding,
)

from vllm_rast.kernels.linear import wide_linear
from vllm_rast.kernels.select import native


def head_of(model: nn.Module) -> VocabParallelEmbedding | None:
    """The layer that a model's logits come from, or None if it cannot be told, or is quantised."""
    named = getattr(model, "lm_head", None)
    embeddings = [m for m in model.modules() if isinstance(m, VocabParallelEmbedding)]
    head = named if isinstance(named, VocabParallelEmbedding) else embeddings[0] if len(embeddings) == 1 else None
    # A quantisation that leaves the head alone gives it the method of a linear layer.
    plain = head is not None and isinstance(head.quant_method, (UnquantizedEmbeddingMethod, UnquantizedLinearMethod))
    return head if plain else None


def processors_of(model: nn.Module) -> list[LogitsProcessor]:
    return [m for m in model.modules() if isinstance(m, LogitsProcessor)]


def use_float32_head(model: nn.Module) -> None:
    """Let a model's head give float32 logits that were never rounded to the model's dtype.

    On CUDA vLLM then multiplies bfloat16 by bfloat16 into float32. On a CPU it would widen the whole head in every
    step: there bfloat16 goes through our own product, and float16 keeps a widened head. A quantised head stays as it
    is.
    """
    head = head_of(model)
    if head is None or head.weight.dtype == torch.float32:
        return
    for processor in processors_of(model):
        processor.head_dtype = torch.float32
        if multiplies_wide(head.weight):
            processor._apply_head = apply_wide_head
    if multiplies_wide(head.weight):
        head.cpu_linear = None  # a packed copy of the weights, for the product that nobody calls any more
    elif not head.weight.is_cuda and isinstance(head, ParallelLMHead):
        head.weight = nn.Parameter(head.weight.float(), requires_grad=False)


def multiplies_wide(weight: torch.Tensor) -> bool:
    """Whether our own product takes these weights."""
    return weight.dtype == torch.bfloat16 and weight.device.type == "cpu" and native("cpu")


def apply_wide_head(head: Any, hidden: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """LogitsProcessor._apply_head in float32, from bfloat16 weights as they are."""
    return wide_linear(hidden, head.weight, None if bias is None else bias.float())


def use_wide_linears(model: nn.Module) -> None:
    """Our own product in the layers that vLLM leaves to torch's, as it does on a CPU if oneDNN has no bfloat16.

    Elsewhere vLLM has packed the weights for oneDNN and left nothing behind. Measured with one thread on AVX2, a layer
    of 9,728 x 896: 2.3 times torch's speed for 1 row, where it takes all that memory gives (22 GB/s), 4.7 times for 8,
    6.6 times for 64, 6.5 times for 512.
    """
    for layer in model.modules():
        if not isinstance(layer, LinearBase) or not isinstance(layer.quant_method, UnquantizedLinearMethod):
            continue
        left_to_torch = hasattr(layer, "cpu_linear") and layer.weight.dim() == 2 and layer.weight.numel() > 0
        if left_to_torch and multiplies_wide(layer.weight):
            layer.cpu_linear = wide_layer(layer)


def wide_layer(layer: Any) -> Any:
    """What vLLM calls for a layer's product; the bias is widened once."""
    wide_bias = layer.bias.detach().float() if getattr(layer, "bias", None) is not None else None

    def multiply(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        return wide_linear(x, weight, None if bias is None else wide_bias, rounds=True)

    return multiply
