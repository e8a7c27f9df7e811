"""Tiny models with random weights of four or eight bits, stored as GPTQ, AWQ and FP8 checkpoints store them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

GROUP = 32
CONFIGS: dict[str, dict[str, Any]] = {
    "gptq": {"bits": 4, "group_size": GROUP, "desc_act": False, "sym": True, "checkpoint_format": "gptq"},
    "awq": {
        "bits": 4,
        "group_size": GROUP,
        "zero_point": True,
        "version": "gemm",
        "modules_to_not_convert": ["lm_head"],
    },
    "fp8": {"activation_scheme": "dynamic", "ignored_layers": ["lm_head"]},
}


def words(*shape: int) -> torch.Tensor:
    """Random words of eight values of four bits."""
    return torch.randint(-(2**31), 2**31 - 1, shape, dtype=torch.int64).to(torch.int32)


def stored(kind: str, out: int, into: int) -> dict[str, torch.Tensor]:
    """What stands for a weight [out, into], by the end of its name."""
    if kind == "fp8":
        weight = torch.randn(out, into).clamp(-3, 3).to(torch.float8_e4m3fn)
        return {"weight": weight, "weight_scale": torch.tensor(0.1)}
    scales = torch.full((into // GROUP, out), 0.03, dtype=torch.float16)
    if kind == "awq":
        return {"qweight": words(into, out // 8), "qzeros": words(into // GROUP, out // 8) & 0, "scales": scales}
    zeros = torch.full((into // GROUP, out // 8), 0x77777777, dtype=torch.int32)  # 8 in every place, less 1
    places = torch.arange(into, dtype=torch.int32) // GROUP
    return {"qweight": words(into // 8, out), "qzeros": zeros, "scales": scales, "g_idx": places}


def quantise_randomly(folder: str, kind: str, seed: int = 0) -> str:
    """Replace a model's projections in place."""
    path = Path(folder)
    torch.manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in load_file(path / "model.safetensors").items():
        if name.endswith("_proj.weight"):
            module = name.removesuffix("weight")
            tensors |= {f"{module}{end}": value for end, value in stored(kind, *tensor.shape).items()}
        else:
            tensors[name] = tensor
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((path / "config.json").read_text())
    config["quantization_config"] = {"quant_method": kind, **CONFIGS[kind]}
    (path / "config.json").write_text(json.dumps(config))
    return folder
