"""`load_format="rast"`: the base through the loader that the user wanted, then the small models beside it."""

from __future__ import annotations

import copy
import dataclasses
import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn
from vllm.compilation.backends import set_model_tag
from vllm.config import CompilationMode, ModelConfig, VllmConfig
from vllm.config.utils import replace
from vllm.model_executor.model_loader import get_model_loader
from vllm.model_executor.model_loader.base_loader import BaseModelLoader
from vllm.model_executor.models.utils import WeightsMapper

from vllm_rast.engine.adapters import adapter_of, loader_of
from vllm_rast.engine.ensemble import Ensemble
from vllm_rast.engine.members import member_model_configs, member_prefix, rast_config
from vllm_rast.engine.shared_model import SharedModel, SharingModel
from vllm_rast.engine.sharing import read_factors, sharing_columns
from vllm_rast.mix.config import RastConfig
from vllm_rast.mix.model_names import ModelSource


class RastModelLoader(BaseModelLoader):
    """Loads an ensemble. A draft model for speculative decoding comes by here too and is returned plain."""

    def load_model(self, vllm_config: VllmConfig, model_config: ModelConfig, prefix: str = "") -> nn.Module:
        config = rast_config(vllm_config)
        load_format = config.load_format if config is not None else "auto"
        plain = replace(vllm_config.load_config, load_format=load_format)
        # A shallow copy: vLLM's own replace() would complete all defaults of a finished configuration again.
        base_vllm_config = copy.copy(vllm_config)
        base_vllm_config.load_config = plain
        if config is None or prefix:
            return get_model_loader(plain).load_model(
                vllm_config=base_vllm_config, model_config=model_config, prefix=prefix
            )
        model_configs = [model_config, *member_model_configs(vllm_config, config)[1:]]
        with frozen_heap():
            members = load_members(base_vllm_config, config, model_configs)
        vocab_sizes = [member_config.get_vocab_size() for member_config in model_configs]
        widths = [member_config.get_hidden_size() for member_config in model_configs]
        return Ensemble(vllm_config, members=members, vocab_sizes=vocab_sizes, widths=widths, config=config)

    def download_model(self, model_config: ModelConfig) -> None:
        get_model_loader(replace(self.load_config, load_format="auto")).download_model(model_config)

    def load_weights(self, model: nn.Module, model_config: ModelConfig) -> None:
        # vLLM calls this to reload weights in place; which of the models is meant cannot be told here.
        raise ValueError("load_format rast: weights cannot be reloaded in place; start a new engine")


@contextmanager
def frozen_heap() -> Iterator[None]:
    """Hide what is in memory already from the garbage collector.

    vLLM collects garbage twice for each model, and looking through all that was imported takes 0.4 s each time. Once
    the models are loaded the heap stays as it is: vLLM freezes it anyway before it serves, until the engine's end.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    except BaseException:
        gc.unfreeze()
        raise


def load_members(vllm_config: VllmConfig, config: RastConfig, model_configs: Sequence[ModelConfig]) -> list[nn.Module]:
    """Every model of the mix; those that run as one forward are loaded once, without their adapters."""
    groups = sharing_columns(vllm_config, config, model_configs)
    first = {column: columns[0] for columns in groups for column in columns}
    members: list[Any] = [None] * len(model_configs)
    for column, (model_config, source) in enumerate(zip(model_configs, config.sources, strict=True)):
        if first.get(column, column) != column:
            continue
        plain = dataclasses.replace(source, adapter=None) if column in first else source
        members[column] = load_model(vllm_config, model_config, column, plain)
    for columns in groups:
        factors = [read_factors(adapter_of(config.sources[column])) for column in columns]
        prefixes = [member_prefix(column) for column in columns]
        compiled = vllm_config.compilation_config.mode != CompilationMode.NONE
        shared = SharedModel(members[columns[0]], vllm_config, prefixes, factors, every_time=compiled)
        for place, column in enumerate(columns):
            members[column] = SharingModel(shared, place)
    return members


def load_model(vllm_config: VllmConfig, model_config: ModelConfig, column: int, source: ModelSource) -> nn.Module:
    if column:
        return load_small_model(vllm_config, model_config, member_prefix(column), source)
    loader = loader_of(vllm_config.load_config, source)
    return loader.load_model(vllm_config=vllm_config, model_config=model_config, prefix="")


def load_small_model(vllm_config: VllmConfig, model_config: ModelConfig, prefix: str, source: ModelSource) -> nn.Module:
    """Load one small model so that its layers, its compiled code and its quantisation are its own."""
    small = replace(vllm_config, model_config=model_config, quant_config=None)
    if small.quant_config is not None:
        # Lists of layers to leave alone name them without our prefix.
        small.quant_config.apply_vllm_mapper(WeightsMapper(orig_to_new_prefix={"": f"{prefix}."}))
    with set_model_tag(prefix):
        loader = loader_of(small.load_config, source)
        return loader.load_model(vllm_config=small, model_config=model_config, prefix=prefix)
