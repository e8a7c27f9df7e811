"""A compiler for the tests that build the library into caches of their own."""

from __future__ import annotations

import pytest
from quick_compiler import make_quick_compiler

from vllm_rast.kernels import build


@pytest.fixture(scope="session")
def quick_compiler(tmp_path_factory: pytest.TempPathFactory) -> str:
    """$CXX; where there is no compiler, one that is not there."""
    try:
        return make_quick_compiler(tmp_path_factory.mktemp("compiled"))
    except build.BuildError:
        return "no-such-compiler"


@pytest.fixture
def compiles_once(quick_compiler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process and those that it starts compile with it."""
    monkeypatch.setenv("CXX", quick_compiler)
