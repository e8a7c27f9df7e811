"""What a checkpoint holds, read from the headers of its safetensors files: nothing is loaded."""

from __future__ import annotations

import glob
import json
import math
import os
from collections.abc import Mapping
from functools import cache, lru_cache
from types import MappingProxyType
from typing import NamedTuple

from vllm_rast.errors import UserError

# safetensors' names of the dtypes that vLLM converts to the model's own dtype while loading.
FLOAT_DTYPES = {"F64", "F32", "F16", "BF16"}
INDEX = "*.safetensors.index.json"  # of a model in several files
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
    return {name: tensor for file in files for name, tensor in file_tensors(file).items()}


def file_tensors(file: str) -> Mapping[str, Stored]:
    """Every tensor of a file by its name. The file is read once as long as nobody writes it anew.

    Raises UserError, naming it, if it is no safetensors file, or only a part of one.
    """
    now = os.stat(file)
    return read_header(file, (now.st_ino, now.st_mtime_ns, now.st_size))


@lru_cache(maxsize=4096)
def read_header(file: str, state: tuple[int, int, int]) -> Mapping[str, Stored]:
    """A safetensors file starts with the length of its JSON header, 8 bytes, little-endian.

    state: by what a file is told from one of the same name that was written later.
    """
    try:
        with open(file, "rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            if length > state[-1] - 8:
                raise ValueError(length)
            header = json.loads(opened.read(length))
        tensors = {name: one for name, one in header.items() if name != "__metadata__"}
        return MappingProxyType({name: Stored(one["dtype"], tuple(one["shape"])) for name, one in tensors.items()})
    except (ValueError, AttributeError, LookupError, TypeError):
        raise UserError(
            f"{file}: not a safetensors file, or a part of one (a Git LFS pointer?); download it again"
        ) from None


@cache
def hub_tensors(path: str, revision: str | None) -> dict[str, Stored]:
    from huggingface_hub import get_safetensors_metadata

    try:
        metadata = get_safetensors_metadata(path, revision=revision)
    except Exception:  # offline, gated, or no safetensors
        return cached_tensors(path, revision)
    return {
        name: Stored(tensor.dtype, tuple(tensor.shape))
        for file in metadata.files_metadata.values()
        for name, tensor in file.tensors.items()
    }


def cached_tensors(path: str, revision: str | None) -> dict[str, Stored]:
    """Every tensor of a model that was downloaded before; {} if a file is missing: nothing is known before loading."""
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(path, revision=revision, local_files_only=True)
    except Exception:  # whatever the hub's client raises
        return {}
    named = {name for index in glob.glob(os.path.join(folder, INDEX)) for name in files_of(index)}
    whole = all(os.path.isfile(os.path.join(folder, name)) for name in named)
    return stored_tensors(folder) if whole else {}


def files_of(index: str) -> set[str]:
    """The files that an index of a model's tensors names."""
    with open(index, encoding="utf-8") as opened:
        return set(json.load(opened)["weight_map"].values())
