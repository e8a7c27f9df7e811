"""PEFT adapters: how one is recognised, what it stands on, and which of them can be merged into it."""

from __future__ import annotations

import json
import math
import os
import re
from dataclasses import dataclass
from typing import Any

from vllm_rast.errors import UserError, shown

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
# A folder that holds these too is a whole model, in which somebody left the description of an adapter.
WHOLE = re.compile(r"(?:model|pytorch_model)[^/]*\.(?:safetensors|bin)")
# What PEFT's LoRA may say and what is either read below or was over when training ended.
KNOWN = {
    "alpha_pattern",
    "auto_mapping",
    "base_model_name_or_path",
    "bias",
    "eva_config",
    "exclude_modules",
    "fan_in_fan_out",
    "inference_mode",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "lora_alpha",
    "lora_bias",
    "lora_dropout",
    "megatron_core",
    "modules_to_save",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "r",
    "rank_pattern",
    "revision",
    "runtime_config",
    "target_modules",
    "task_type",
    "use_dora",
    "use_rslora",
}
# Others, such as PiSSA, OLoRA, CorDA and LoftQ, change the model that the adapter stands on.
PLAIN_STARTS = ("gaussian", "eva", "orthogonal")


@dataclass(frozen=True)
class AdapterConfig:
    """What adapter_config.json says that matters once training is over (PEFT's LoraConfig).

    foundation, revision: the model that the adapter stands on. alpha, rank: of the whole adapter; the patterns, of
    (expression, number), overrule them for the modules they match. rank_stabilised: rsLoRA's scale. dora: each row has
    a magnitude of its own. transposed: the weights are stored [in, out], as GPT-2's.
    """

    foundation: str | None
    revision: str | None
    rank: int
    alpha: float
    rank_pattern: tuple[tuple[str, int], ...] = ()
    alpha_pattern: tuple[tuple[str, float], ...] = ()
    rank_stabilised: bool = False
    dora: bool = False
    transposed: bool = False

    def rank_of(self, module: str) -> int:
        return int(matching(self.rank_pattern, module, self.rank))

    def scale(self, module: str) -> float:
        """What the product of a module's two factors is multiplied by."""
        rank = self.rank_of(module)
        return matching(self.alpha_pattern, module, self.alpha) / (math.sqrt(rank) if self.rank_stabilised else rank)

    @property
    def kind(self) -> str:
        """What people call it."""
        return "DoRA" if self.dora else "rsLoRA" if self.rank_stabilised else "LoRA"

    @property
    def foundation_name(self) -> str | None:
        """What the adapter stands on as a model's name, `NAME` or `NAME@REVISION`."""
        if self.foundation is None or self.revision is None or os.path.isdir(self.foundation):
            return self.foundation
        return f"{self.foundation}@{self.revision}"


def matching(pattern: tuple[tuple[str, float], ...], module: str, default: float) -> float:
    """The number of the first expression that a module's name ends with, as PEFT finds it."""
    return next((value for key, value in pattern if re.match(rf"(.*\.)?({key})$", module)), default)


def find_config(path: str, revision: str | None) -> str | None:
    """The file adapter_config.json of an adapter's folder, or of a hub id as far as it was downloaded; else None."""
    if os.path.isdir(path):
        file = os.path.join(path, CONFIG)
        whole = os.path.isfile(os.path.join(path, "config.json")) and any(map(WHOLE.fullmatch, os.listdir(path)))
        return file if os.path.isfile(file) and not whole else None
    from huggingface_hub import try_to_load_from_cache

    try:
        found = try_to_load_from_cache(path, CONFIG, revision=revision)
    except ValueError:  # no hub id
        return None
    return found if isinstance(found, str) else None


def download_config(path: str, revision: str | None) -> None:
    """Ask the hub whether an id is an adapter; what it answers is kept in its cache, for `find_config`."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    try:
        if try_to_load_from_cache(path, CONFIG, revision=revision) is None:
            hf_hub_download(path, CONFIG, revision=revision)
    except Exception:  # offline, gated, no such id or no adapter: whoever loads the model will say
        return


def read_config(file: str, option: str, name: str) -> AdapterConfig:
    """Read adapter_config.json. Raises UserError, naming option and adapter, for what cannot be merged."""
    try:
        with open(file, encoding="utf-8") as opened:
            said = json.load(opened)
    except ValueError as error:
        raise UserError(f"{option}: {file} is not JSON ({error}); save the adapter again") from error
    reason = refusal(said) if isinstance(said, dict) else "its configuration is no dictionary"
    if reason:
        raise UserError(f"{option}: the adapter {name!r} cannot be merged, because {reason}; merge it with peft first")
    return AdapterConfig(
        foundation=said.get("base_model_name_or_path") or None,
        revision=said.get("revision") or None,
        rank=said["r"],
        alpha=said["lora_alpha"],
        rank_pattern=tuple((said.get("rank_pattern") or {}).items()),
        alpha_pattern=tuple((said.get("alpha_pattern") or {}).items()),
        rank_stabilised=bool(said.get("use_rslora")),
        dora=bool(said.get("use_dora")),
        transposed=bool(said.get("fan_in_fan_out")),
    )


def refusal(said: dict[str, Any]) -> str | None:
    """Why an adapter cannot be merged; None if it can."""
    if said.get("peft_type") != "LORA":
        return f"it is of the type {shown(said.get('peft_type'))}, not LORA"
    if not is_rank(said.get("r")) or not is_number(said.get("lora_alpha")):
        return f"its r is {shown(said.get('r'))} and its lora_alpha {shown(said.get('lora_alpha'))}"
    for pattern, fits in (("rank_pattern", is_rank), ("alpha_pattern", is_number)):
        values = said.get(pattern) or {}
        if not isinstance(values, dict) or not all(map(fits, values.values())):
            return f"its {pattern} is {shown(values)}"
    start = said.get("init_lora_weights", True)
    if isinstance(start, str) and start.lower() not in PLAIN_STARTS:
        return f"init_lora_weights {start!r} changes the model it stands on"
    # An option that is not known and is in use may mean anything.
    strange = sorted(key for key, value in said.items() if key not in KNOWN and value not in (None, False, "", [], {}))
    return f"it uses {strange[0]}" if strange else None


def is_rank(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
