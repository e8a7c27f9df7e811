"""A compiler for the tests that build the library into caches of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kernel_cases import using
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


@pytest.fixture(params=build.INSTRUCTION_SETS)
def every_instruction_set(request: pytest.FixtureRequest) -> Iterator[None]:
    """The CPU library with each set of instructions that this processor has."""
    with using(request.param):
        yield
