"""What a checkpoint holds, read from the headers of its safetensors files: nothing is loaded."""

from __future__ import annotations

import glob
import json
import math
import os
import struct
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

# safetensors' names of the dtypes that vLLM converts to the model's own dtype while loading.
FLOAT_DTYPES = {"F64", "F32", "F16", "BF16"}
# What nearly every model calls the two weights that it may share.
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


class Stored(NamedTuple):
    """A stored tensor: its dtype by safetensors' name, and its shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def numel(self) -> int:
        return math.prod(self.shape)


def stored_tensors(path: str, revision: str | None = None) -> dict[str, Stored]:
    """Every tensor of a model by its name, from a folder or from the hub's headers; {} if there are none."""
    if not os.path.isdir(path):
        return hub_tensors(path, revision)
    files = sorted(glob.glob(os.path.join(path, "*.safetensors")))
    return {name: tensor for file in files for name, tensor in file_tensors(file)}


def file_tensors(file: str) -> Iterator[tuple[str, Stored]]:
    """Name and tensor. A safetensors file starts with the length of its JSON header, 8 bytes, little-endian."""
    with open(file, "rb") as opened:
        (length,) = struct.unpack("<Q", opened.read(8))
        header = json.loads(opened.read(length))
    for name, tensor in header.items():
        if name != "__metadata__":
            yield name, Stored(tensor["dtype"], tuple(tensor["shape"]))


@cache
def hub_tensors(path: str, revision: str | None) -> dict[str, Stored]:
    from huggingface_hub import get_safetensors_metadata

    try:
        metadata = get_safetensors_metadata(path, revision=revision)
    except Exception:  # offline, gated, or no safetensors: nothing is known before loading
        return {}
    return {
        name: Stored(tensor.dtype, tuple(tensor.shape))
        for file in metadata.files_metadata.values()
        for name, tensor in file.tensors.items()
    }
