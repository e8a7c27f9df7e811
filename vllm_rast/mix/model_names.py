"""Model names: the shipped `tiny:*` family, folders, hub ids, and `NAME@REVISION`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from vllm_rast.errors import UserError

TINY_PREFIX = "tiny:"
TINY_FOLDER = Path(__file__).parents[1] / "tiny" / "models"
TINY_MODELS = ("base", "positive", "negative", "ceiling")


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from: a folder or hub id, and a hub revision (None: the hub's default)."""

    path: str
    revision: str | None = None


def resolve_model(name: str) -> str:
    """Return the folder of a shipped model (`tiny:base`), or the name itself.

    Raises UserError for an unknown `tiny:` name.
    """
    if not name.startswith(TINY_PREFIX):
        return name
    short = name.removeprefix(TINY_PREFIX)
    if short not in TINY_MODELS:
        known = ", ".join(TINY_PREFIX + model for model in TINY_MODELS)
        raise UserError(f"model {name!r}: no such shipped model; choose one of {known}")
    return str(TINY_FOLDER / short)


def parse_model(name: str, option: str) -> ModelSource:
    """Split `NAME[@REVISION]`; an existing folder is never split.

    Raises UserError, naming `option`, if the name is empty or a local path that does not exist.
    """
    if not isinstance(name, str) or not name.strip():
        raise UserError(f"{option}: expected the name or the folder of a model, got {name!r}")
    path = resolve_model(name)
    if os.path.isdir(path):
        if not os.path.isfile(os.path.join(path, "config.json")):
            raise UserError(f"{option}: {path!r} holds no config.json; point to a Hugging Face model folder")
        return ModelSource(path)
    path, _, revision = path.partition("@")
    if looks_local(path):
        raise UserError(f"{option}: there is no folder {path!r}; give an existing folder or a hub id OWNER/NAME")
    return ModelSource(path, revision or None)


def looks_local(path: str) -> bool:
    """Whether a name that is no folder was meant as one: hub ids have at most one slash and no leading dot."""
    return path.startswith((".", "/", "~")) or path.count("/") > 1 or path.endswith("/")
