"""What the tests of drafts have in common."""

from __future__ import annotations

from typing import Any

import pytest

from vllm_rast import RastConfig


@pytest.fixture(scope="module")
def models(random_models: dict[str, str]) -> dict[str, Any]:
    """The models of a mix, as `RastLLM` calls them."""
    return {"model" if name == "base" else name: random_models[name] for name in ("base", "positive", "negative")}


@pytest.fixture(scope="module")
def reference(models: dict[str, Any]) -> Any:
    """The formula in plain torch, with these models."""
    from vllm_rast.reference import ReferenceLLM

    return ReferenceLLM(RastConfig.build(models["model"], models["positive"], models["negative"]))
