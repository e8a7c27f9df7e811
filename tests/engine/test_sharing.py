"""Which engines and sizes run models that differ by adapters as one forward: no engine is started."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from adapters import make_adapter
from random_models import make_model
from vllm.config import CompilationMode

from vllm_rast import RastConfig, UserError
from vllm_rast.engine import sharing
from vllm_rast.engine.adapters import adapter_of
from vllm_rast.engine.sharing import BYTES_FOR_A_WEIGHT, adapter_bytes, sharing_columns
from vllm_rast.engine.stored import Stored


@pytest.fixture(scope="module")
def names(random_models: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A base, and an adapter on a Llama."""
    root = tmp_path_factory.mktemp("sharing")
    foundation = make_model(root / "foundation", 8, architecture="llama", vocab=98, kv_heads=1)
    return random_models["base"], make_adapter(root / "adapter", foundation, 1)


def columns(names: tuple[str, str], mode: int = CompilationMode.NONE, **options: Any) -> list[list[int]]:
    """What runs as one, of (base, positive, negative)."""
    vllm_config: Any = SimpleNamespace(compilation_config=SimpleNamespace(mode=mode))
    member: Any = SimpleNamespace(architectures=["LlamaForCausalLM"], quantization=None, dtype=torch.bfloat16)
    return sharing_columns(vllm_config, RastConfig.build(*names, **options), [member] * 3)


def on(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = SimpleNamespace(is_cpu=lambda: platform == "cpu", is_cuda=lambda: platform == "cuda", device_type=platform)
    monkeypatch.setattr(sharing, "current_platform", fake)


def test_auto_asks_whether_it_pays(names: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Two bytes for each weight of the foundation, against so many for each weight that the adapter changes."""
    on("cpu", monkeypatch)
    assert columns(names) == [], "a tiny model"
    assert columns(names, pair_forward="one") == [[1, 2]]
    adapter = adapter_of(RastConfig.build(*names).sources[1])
    assert adapter is not None and len(adapter.changes) == 14
    enough = BYTES_FOR_A_WEIGHT * 14 + adapter_bytes(adapter)

    def auto(weights: int) -> list[list[int]]:
        monkeypatch.setattr(sharing, "stored_tensors", lambda *_: {"all": Stored("BF16", (weights,))})
        return columns(names)

    assert auto(enough // 2) == [[1, 2]] and auto(enough // 2 - 1) == []
    monkeypatch.setattr(sharing, "stored_tensors", lambda *_: {})
    assert columns(names) == [[1, 2]], "of unknown size"
    assert columns(names, pair_forward="two") == []


def test_on_cuda_it_has_to_be_asked_for(names: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    on("cuda", monkeypatch)
    monkeypatch.setattr(sharing, "stored_tensors", lambda *_: {})
    assert columns(names) == []
    assert columns(names, pair_forward="one") == [[1, 2]]
    assert columns(names, CompilationMode.VLLM_COMPILE) == []
    with pytest.raises(UserError, match="^pair_forward one: vLLM compiles no .*, so set enforce_eager, .*; leave it"):
        columns(names, CompilationMode.VLLM_COMPILE, pair_forward="one")


def test_nowhere_else(names: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    on("xpu", monkeypatch)
    with pytest.raises(UserError, match="it is for CPUs and CUDA, not for xpu"):
        columns(names, pair_forward="one")
