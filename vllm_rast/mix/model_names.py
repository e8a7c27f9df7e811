"""Model names: the shipped `tiny:*` family, folders, hub ids, `NAME@REVISION`, adapters and `MODEL+ADAPTER`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from vllm_rast.errors import UserError
from vllm_rast.mix.adapter import AdapterConfig, download_config, find_config, read_config

TINY_PREFIX = "tiny:"
TINY_FOLDER = Path(__file__).parents[1] / "tiny" / "models"
TINY_MODELS = ("base", "positive", "negative", "ceiling")
PLUS = "+"
WEIGHT_FILES = (".safetensors", ".bin", ".pt")


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from: a folder or hub id, and a hub revision (None: the hub's default).

    adapter: the PEFT adapter that is merged into it while it loads, or None.
    """

    path: str
    revision: str | None = None
    adapter: ModelSource | None = None

    @property
    def name(self) -> str:
        """The source as a model's name, which `parse_model` reads back."""
        whole = self.path if self.revision is None else f"{self.path}@{self.revision}"
        return whole if self.adapter is None else f"{whole}{PLUS}{self.adapter.name}"


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
    """Read `NAME[@REVISION]`, which may be an adapter, or `MODEL+ADAPTER`; an existing folder is never split.

    An adapter by itself stands on the model that its configuration names. Raises UserError, naming `option`, if the
    name is empty, a folder that does not exist or is neither model nor adapter, or an adapter that cannot be merged.
    """
    if not isinstance(name, str) or not name.strip():
        raise UserError(f"{option}: expected the name or the folder of a model, got {name!r}")
    if PLUS in name and not os.path.isdir(name):
        return parse_sum(name, option)
    source = locate(name, option)
    file = find_config(source.path, source.revision)
    if file is None:
        if os.path.isdir(source.path):
            check_folder(source.path, option)
        return source
    foundation = read_config(file, option, name).foundation_name
    if foundation is None:
        raise UserError(f"{option}: the adapter {name!r} does not say what it stands on; write MODEL{PLUS}{name}")
    if not os.path.isdir(foundation) and looks_local(foundation):
        raise UserError(
            f"{option}: the adapter {name!r} stands on {foundation!r}, which is not here; write MODEL{PLUS}{name}"
        )
    return stacked(parse_model(foundation, option), source, option)


def parse_sum(name: str, option: str) -> ModelSource:
    """`MODEL+ADAPTER`."""
    model, adapter = sides(name)
    if not model or not adapter:
        raise UserError(f"{option}: expected MODEL{PLUS}ADAPTER or one name, got {name!r}; a side is missing")
    part = locate(adapter, option)
    file = find_config(part.path, part.revision)
    if file is not None:
        read_config(file, option, adapter)
    elif os.path.isdir(part.path):
        raise UserError(f"{option}: {adapter!r} is not a PEFT adapter; what stands after {PLUS} has to be one")
    return stacked(parse_model(model, option), part, option)


def sides(name: str) -> tuple[str, str]:
    """MODEL and ADAPTER of `MODEL+ADAPTER`: split where a folder ends, or at the first plus."""
    ends = [place for place, letter in enumerate(name) if letter == PLUS]
    end = next((place for place in ends if os.path.isdir(name[:place])), ends[0])
    return name[:end], name[end + 1 :]


def stacked(foundation: ModelSource, adapter: ModelSource, option: str) -> ModelSource:
    if foundation.adapter is not None:
        raise UserError(f"{option}: {adapter.name!r} stands on another adapter; merge that into its model with peft")
    return replace(foundation, adapter=adapter)


def locate(name: str, option: str) -> ModelSource:
    """Where a model or an adapter is, without looking into it."""
    path = resolve_model(name)
    if os.path.isdir(path):
        return ModelSource(path)
    path, _, revision = path.partition("@")
    refuse_gguf(path, option)
    if looks_local(path):
        raise UserError(f"{option}: there is no folder {path!r}; give an existing folder or a hub id OWNER/NAME")
    return ModelSource(path, revision or None)


def check_folder(path: str, option: str) -> None:
    """Raises UserError if a folder is no model's, or all the weights in it are in a format that vLLM does not read."""
    files = sorted(os.listdir(path))
    if not any(name.endswith(WEIGHT_FILES) for name in files):
        refuse_gguf(next(filter(is_gguf, files), ""), option)
    if not os.path.isfile(os.path.join(path, "config.json")):
        raise UserError(f"{option}: {path!r} holds no config.json; point to a Hugging Face model folder")


def is_gguf(path: str) -> bool:
    return path.lower().endswith(".gguf")


def refuse_gguf(path: str, option: str) -> None:
    """vLLM 0.32 reads no GGUF files. Raises UserError, with the conversion, if a path names one."""
    if is_gguf(path):
        raise UserError(
            f"{option}: {path!r} is a GGUF file, which vLLM does not read; make a model's folder of it with "
            "transformers' from_pretrained(FOLDER, gguf_file=FILE) and save_pretrained(NEW), as docs/questions.md shows"
        )


def foundation_name(name: str, option: str) -> str | None:
    """What an adapter stands on, as a model's name; None if the name is that of a whole model."""
    source = parse_model(name, option)
    if source.adapter is None:
        return None
    if PLUS in name and not os.path.isdir(name):
        return sides(name)[0]
    return replace(source, adapter=None).name


def adapter_config(source: ModelSource, option: str = "model") -> AdapterConfig | None:
    """The configuration of a source's adapter, or None if it has none. Raises UserError if it cannot be found."""
    if source.adapter is None:
        return None
    adapter = source.adapter
    file = find_config(adapter.path, adapter.revision)
    if file is None:
        raise UserError(f"{option}: {adapter.name!r} is not a PEFT adapter, or the hub cannot be reached")
    return read_config(file, option, adapter.name)


def look_up(names: Iterable[str | None]) -> None:
    """Ask the hub which of these names are adapters: without it, only those are known that were used before."""
    for name in filter(None, names):
        for part in [name] if os.path.isdir(name) or PLUS not in name else sides(name):
            path, _, revision = part.partition("@")
            if part.startswith(TINY_PREFIX) or os.path.isdir(part) or looks_local(path) or not path:
                continue
            download_config(path, revision or None)


def is_shipped(name: str) -> bool:
    """Whether a model is one of the shipped family, with an adapter or without."""
    try:
        source = parse_model(name, "model")
    except UserError:  # whoever reads it as an option's value names the option
        return False
    return Path(source.path).parent == TINY_FOLDER


def looks_local(path: str) -> bool:
    """Whether a name that is no folder was meant as one: hub ids have at most one slash and no leading dot."""
    return path.startswith((".", "/", "~")) or path.count("/") > 1 or path.endswith("/")
