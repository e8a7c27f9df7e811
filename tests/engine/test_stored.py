"""Headers of safetensors files: read once as long as they stay, and nothing else is taken for one."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from vllm_rast import UserError
from vllm_rast.engine import stored
from vllm_rast.engine.stored import Stored, file_tensors, stored_tensors


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each file was opened to read its header."""
    counts: Counter[str] = Counter()

    def counting(file: str, *args: Any, **kwargs: Any) -> Any:
        counts[file] += 1
        return open(file, *args, **kwargs)

    monkeypatch.setattr(stored, "open", counting, raising=False)
    return counts


def test_a_file_is_read_once_until_it_changes(tmp_path: Path, opened: Counter[str]) -> None:
    file = str(tmp_path / "model.safetensors")
    save_file({"a": torch.zeros(2, 3)}, file)
    for _ in range(3):
        assert file_tensors(file) == {"a": Stored("F32", (2, 3))} == stored_tensors(str(tmp_path))
    assert opened == {file: 1}
    save_file({"a": torch.zeros(3, 2)}, file)  # of the same size, as a checkpoint that training wrote again
    assert file_tensors(file) == {"a": Stored("F32", (3, 2))} and opened == {file: 2}


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


LENGTH = b"\x08\0\0\0\0\0\0\0"


@pytest.mark.parametrize(
    "content", [b"", b"123", POINTER, LENGTH + b"[ 1, 2 ]..", LENGTH + b'{"a": 1}..', LENGTH + b"{}"]
)
def test_what_is_no_such_file(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)
    with pytest.raises(UserError, match="not a safetensors file") as caught:
        stored_tensors(str(tmp_path))
    assert str(caught.value).startswith(f"{file}: ") and "\n" not in str(caught.value)


def cached_model(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of owner/model in a cache of the hub's that is empty but for it."""
    folder = cache / "models--owner--model"
    snapshot = folder / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    stored.hub_tensors.cache_clear()
    return snapshot


def test_a_model_of_the_hub_that_was_downloaded_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = cached_model(tmp_path, monkeypatch)
    save_file({"a": torch.zeros(2)}, snapshot / "model-1.safetensors")
    (snapshot / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}})
    )
    assert stored_tensors("owner/model") == {}, "a part of it says nothing"
    save_file({"b": torch.zeros(3)}, snapshot / "model-2.safetensors")
    stored.hub_tensors.cache_clear()
    assert stored_tensors("owner/model") == {"a": Stored("F32", (2,)), "b": Stored("F32", (3,))}
    assert stored_tensors("owner/none") == {}
