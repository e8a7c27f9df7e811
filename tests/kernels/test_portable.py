"""What a packaged library may ask of the system it is loaded on: nothing newer than glibc 2.28 and GCC 8 bring."""

import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from vllm_rast.kernels import build

STREAM = """
#include <sstream>
#include <string>
extern "C" const char* text(double x) {
  static std::string kept;
  std::ostringstream out;
  out << x;
  kept = out.str();
  return kept.c_str();
}
"""


def newest(symbols: str, name: str) -> tuple[int, ...]:
    """The newest version of a library's symbols in a listing; () if there is none."""
    found = re.findall(rf"\b{name}_([\d.]+)", symbols)
    return max((tuple(map(int, version.split("."))) for version in found), default=())


@pytest.mark.skipif(shutil.which("objdump") is None, reason="objdump (binutils) lists the symbols")
def test_streams_ask_for_no_newer_libstdcxx(tmp_path: Path) -> None:
    (tmp_path / "stream.cpp").write_text(STREAM)
    older = ["-include", str(build.source_folder() / "portable.h")]
    library = tmp_path / "stream.so"
    build.run(
        [*build.cxx(), *build.COMPILE, *older, "-O0", "-shared", str(tmp_path / "stream.cpp"), "-o", str(library)]
    )
    symbols = subprocess.run(["objdump", "-T", str(library)], capture_output=True, text=True, check=True).stdout
    assert newest(symbols, "GLIBCXX") <= (3, 4, 25)  # the newest of GCC 8, which manylinux_2_28 may count on
    assert newest(symbols, "GLIBC") <= (2, 28)


@pytest.fixture
def compiler(tmp_path: Path) -> Path:
    """An nvcc that only says where its libraries are."""
    path = tmp_path / "nvcc"
    path.write_text(
        "#!/bin/sh\necho '#$ _SPACE_= ' >&2\necho '#$ LIBRARIES=  \"-L/cuda/lib/stubs\" \"-L/cuda/lib\"' >&2\n"
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_zig_links_against_an_older_glibc(compiler: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    link = build.portable_cuda_link(str(compiler), tmp_path, ["kernel.o"], tmp_path / "library.so")
    assert link[:4] == [sys.executable, "-m", "ziglang", "cc"]
    assert link[5].endswith("-linux-gnu.2.28")
    assert {"-L/cuda/lib", "-lcudart_static", "kernel.o", "-ltorch_cuda"} <= set(link)
    assert all(Path(argument).is_file() for argument in link if argument.endswith((".so.6", ".so.1")))


def test_without_zig_nvcc_links(compiler: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    link = build.portable_cuda_link(str(compiler), tmp_path, ["kernel.o"], tmp_path / "library.so")
    assert link[:4] == [str(compiler), "-shared", "-cudart", "static"]


def test_something_else_that_is_called_nvcc(tmp_path: Path) -> None:
    other = tmp_path / "nvcc"
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    with pytest.raises(build.BuildError, match="is it CUDA's nvcc"):
        build.cuda_library_folders(str(other))
