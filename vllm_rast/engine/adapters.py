"""PEFT adapters, merged into their foundation's weights while those stream from disk into vLLM.

That is before vLLM fuses, shards or quantises anything, so that nothing behind it knows of adapters, and each sum is
made once, in float32, and rounded once, to the dtype of the layer that it goes to. In float32 it is what PEFT's
`merge_and_unload` makes, to the last bit. One case is different on purpose: if embeddings and head share a weight and
the adapter changes one of them, PEFT merges into both; here the model gets a head of its own and works as in training.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn
from vllm.config import ModelConfig
from vllm.config.load import LoadConfig
from vllm.model_executor.model_loader import get_model_loader
from vllm.model_executor.model_loader.base_loader import BaseModelLoader
from vllm.model_executor.model_loader.default_loader import DefaultModelLoader

from vllm_rast.engine.stored import EMBEDDING, FLOAT_DTYPES, HEAD, Stored, file_tensors
from vllm_rast.errors import UserError
from vllm_rast.mix.adapter import WEIGHTS
from vllm_rast.mix.model_names import ModelSource, adapter_config

PREFIX = "base_model.model."
# How PEFT's names end, and what stands there: factors [rank, in] and [out, rank], those of an embedding
# [rank, vocabulary] and [width, rank], magnitudes [out], and what is added to a bias [out]. Anything else is WHOLE: a
# weight of the foundation that was trained itself (modules_to_save, biases, embeddings beside their factors).
PARTS = {
    "lora_A.weight": "A",
    "lora_B.weight": "B",
    "lora_B.bias": "bias",
    "lora_embedding_A": "embedding_A",
    "lora_embedding_B": "embedding_B",
    "lora_magnitude_vector": "magnitude",
}
WHOLE = "whole"
FACTORS = (("A", "B"), ("embedding_A", "embedding_B"))


class Adapter:
    """Which weights of its foundation an adapter changes, and how.

    Raises UserError if there are no weights, or some that mean nothing here.
    """

    def __init__(self, source: ModelSource):
        assert source.adapter is not None
        config = adapter_config(source)
        assert config is not None
        self.foundation, self.name, self.config = source.path, source.adapter.name, config
        self.file = weights_file(source.adapter)
        # {weight of the foundation: {part: name in the file}}
        self.changes: dict[str, dict[str, str]] = {}
        self.stored = file_tensors(self.file)
        for key in self.stored:
            weight, part = place(key)
            self.changes.setdefault(weight, {})[part] = key

    def error(self, reason: str) -> UserError:
        return UserError(f"model {self.foundation!r}: the adapter {self.name!r} does not fit, because {reason}")

    def give_own_head(self, model_config: ModelConfig) -> None:
        """Untie a model's head from its embeddings if the adapter changes one of them."""
        if not self.changes.keys() & {EMBEDDING, HEAD}:
            return
        model_config.hf_config.tie_word_embeddings = False
        model_config.hf_config.get_text_config().tie_word_embeddings = False

    def check(self, model_config: ModelConfig, weights: dict[str, Stored]) -> None:
        """Raises UserError if the adapter cannot be merged. weights: the foundation's; {} if they are not known."""
        if getattr(model_config.hf_config, "quantization_config", None):
            raise self.error("its foundation is quantised; name the unquantised model, as MODEL+ADAPTER")
        for weight, keys in self.changes.items():
            self.check_complete(keys)
            found = weights.get(weight) or (weights.get(EMBEDDING) if weight == HEAD else None)
            if weights and found is None:
                key = next(iter(keys.values()))
                raise self.error(f"{key} belongs to no weight of it; name the model that it was trained on")
            if found is not None:
                self.check_shapes(weight, keys, found)

    def check_complete(self, keys: dict[str, str]) -> None:
        """Both factors of a product, and magnitudes if and only if it is DoRA."""
        for first, second in FACTORS:
            if (first in keys) != (second in keys):
                raise self.error(f"{next(iter(keys.values()))} has no partner; save the adapter again")
        product = any(first in keys for first, _ in FACTORS)
        if ("magnitude" in keys) != (product and self.config.dora):
            raise self.error(f"{next(iter(keys.values()))} and use_dora contradict each other; save the adapter again")

    def check_shapes(self, weight: str, keys: dict[str, str], found: Stored) -> None:
        if found.dtype not in FLOAT_DTYPES:
            raise self.error(f"{weight} is stored as {found.dtype}; name the unquantised model, as MODEL+ADAPTER")
        columns = self.config.transposed or "embedding_A" in keys
        wanted = shapes(found.shape, self.config.rank_of(module_of(weight)), columns)
        for part, key in keys.items():
            if self.stored[key].shape != wanted.get(part):
                raise self.error(f"{key} is {list(self.stored[key].shape)}, not {list(wanted.get(part) or ())}")

    def merge(self, weights: Iterable[tuple[str, torch.Tensor]], tied: bool) -> Iterator[tuple[str, torch.Tensor]]:
        """The foundation's weights by their names, merged with the adapter's.

        tied: whether the head is the embeddings' own weight, and so none is asked for. Raises UserError at the end if
        a weight to be changed did not come by.
        """
        from safetensors import safe_open

        left = dict(self.changes)
        embedding: torch.Tensor | None = None
        with safe_open(self.file, framework="pt") as opened:

            def merged(name: str, weight: torch.Tensor) -> torch.Tensor:
                keys = left.pop(name, None)
                if keys is None:
                    return weight
                parts = {part: opened.get_tensor(key).float() for part, key in keys.items()}
                return sum_of(weight, parts, self.config.scale(module_of(name)), self.config.transposed)

            owns_head = tied or not self.changes.keys() & {EMBEDDING, HEAD}
            for name, weight in weights:
                owns_head |= name == HEAD
                if name == EMBEDDING and not owns_head:
                    embedding = weight.clone()
                yield name, merged(name, weight)
            if not owns_head and embedding is not None:
                yield HEAD, merged(HEAD, embedding)
        if left:
            raise self.error(f"there is no {next(iter(left))} in it; name the model that it was trained on")


def adapter_of(source: ModelSource) -> Adapter | None:
    """The adapter of a model, or None."""
    return None if source.adapter is None else Adapter(source)


def weights_file(source: ModelSource) -> str:
    """The file of an adapter's weights, from its folder or from the hub."""
    path = os.path.join(source.path, WEIGHTS)
    if not os.path.isdir(source.path):
        from huggingface_hub import hf_hub_download

        try:
            path = hf_hub_download(source.path, WEIGHTS, revision=source.revision)
        except Exception as error:  # whatever the hub's client raises
            reason = str(error).strip().partition("\n")[0]
            raise UserError(f"adapter {source.name!r}: no {WEIGHTS} on the hub ({reason})") from error
    if not os.path.isfile(path):
        raise UserError(f"adapter {source.name!r}: it holds no {WEIGHTS}; save it with peft as safetensors")
    return path


def place(key: str) -> tuple[str, str]:
    """(weight of the foundation, part) of a name in an adapter's file."""
    inner = key.removeprefix(PREFIX)
    for ending, part in PARTS.items():
        if inner.endswith(f".{ending}"):
            return f"{inner.removesuffix(ending)}{'bias' if part == 'bias' else 'weight'}", part
    return inner.replace(".base_layer.", "."), WHOLE


def module_of(weight: str) -> str:
    return weight.rpartition(".")[0]


def shapes(weight: tuple[int, ...], rank: int, columns: bool) -> dict[str, tuple[int, ...]]:
    """What shape each part has to have for a weight's. columns: whether the weight is stored [in, out]."""
    wanted = {WHOLE: weight}
    if len(weight) == 1:
        wanted["bias"] = weight
    elif len(weight) == 2:
        out, into = reversed(weight) if columns else weight
        wanted |= {"A": (rank, into), "B": (out, rank), "magnitude": (out,)}
        wanted |= {"embedding_A": (rank, into), "embedding_B": (out, rank)}
    return wanted


def sum_of(weight: torch.Tensor, parts: dict[str, torch.Tensor], scale: float, transposed: bool) -> torch.Tensor:
    """A weight with its changes, in float32, in the weight's own shape. scale: of the product of the factors.

    DoRA (arXiv 2402.09353) gives each row of the sum the length that its magnitude says; of weights stored [in, out]
    and of embeddings [vocabulary, width] those are the columns.
    """
    total = parts[WHOLE].reshape(weight.shape) if WHOLE in parts else weight.float()
    if "bias" in parts:
        return total + parts["bias"] * scale
    for first, second in FACTORS:
        if first in parts:
            columns = transposed or first != "A"
            product = parts[second] @ parts[first]
            total = total + (product.T if columns else product) * scale
            if "magnitude" in parts:
                lengths = torch.linalg.norm(total, dim=0 if columns else 1)
                factors = parts["magnitude"] / lengths
                total = total * (factors if columns else factors.unsqueeze(1))
    return total


class MergingLoader(DefaultModelLoader):
    """vLLM's own loader, with an adapter merged into what it reads."""

    def __init__(self, load_config: LoadConfig, adapter: Adapter):
        super().__init__(load_config)
        self.adapter = adapter

    def get_all_weights(self, model_config: ModelConfig, model: nn.Module) -> Any:
        tied = bool(getattr(model_config.hf_text_config, "tie_word_embeddings", False))
        return self.adapter.merge(super().get_all_weights(model_config, model), tied)


def loader_of(load_config: LoadConfig, source: ModelSource) -> BaseModelLoader:
    """vLLM's loader of a load format, which merges the source's adapter, if it has one.

    Raises UserError for a load format whose weights are not read by their names.
    """
    loader = get_model_loader(load_config)
    if source.adapter is None:
        return loader
    if type(loader) is not DefaultModelLoader:
        raise UserError(f"load_format {load_config.load_format}: adapters are not merged into it; leave it at auto")
    return MergingLoader(load_config, Adapter(source))
