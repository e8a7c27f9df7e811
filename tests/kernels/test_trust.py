"""A library that somebody else could have written is not loaded: somebody else's code would run in our process."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import forked
import pytest
from kernel_cases import needs_library
from paths import ROOT

from vllm_rast.kernels import build
from vllm_rast.kernels.trust import UntrustedError, make_folder, open_file, open_folder

NOBODY = 65534
needs_cc = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler named cc; install gcc")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")
SHOW = "from vllm_rast.kernels.select import choose; c = choose('cpu'); print(c.library); print(c.implementation)"


def choice(cache: Path) -> tuple[list[str], str]:
    """What a new process chooses with a cache folder, and what it says."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("VLLM_RAST_")}
    done = forked.run(
        [sys.executable, "-c", SHOW],
        forked.TorchPopen,
        env={**inherited, "VLLM_RAST_CACHE": str(cache), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), done.stderr


def test_our_own_folders_are_trusted(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    make_folder(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    (folder / "file").write_text("x")
    fd = open_folder(folder)
    os.close(open_file(fd, "file"))
    os.close(fd)


@pytest.mark.parametrize("mode", [0o777, 0o722, 0o702])
def test_a_folder_that_others_can_write_is_not(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "shared" / "below"
    make_folder(folder)
    folder.parent.chmod(mode)
    with pytest.raises(UntrustedError, match="can be written by others"):
        open_folder(folder)
    folder.parent.chmod(0o1777)  # as /tmp: others may add files, and not replace ours
    os.close(open_folder(folder))


def test_links_are_not_followed(tmp_path: Path) -> None:
    real = tmp_path / "real"
    make_folder(real)
    (tmp_path / "link").symlink_to(real)
    with pytest.raises(UntrustedError, match="symbolic link"):
        open_folder(tmp_path / "link")
    (real / "library").symlink_to("/etc/passwd")
    fd = open_folder(real)
    with pytest.raises(UntrustedError, match="symbolic link"):
        open_file(fd, "library")
    os.close(fd)


def test_a_link_in_place_of_the_lock_empties_nothing(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("kept")
    (tmp_path / "lock").symlink_to(precious)
    with pytest.raises(OSError), build.locked(tmp_path):
        pass
    assert precious.read_text() == "kept"


@pytest.mark.slow
@needs_library
@needs_root
@needs_cc
@pytest.mark.usefixtures("compiles_once")
def test_what_another_user_planted_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole library, with its hash, in the very place, in a folder that everybody can write."""
    cache = tmp_path / "scratch"
    monkeypatch.setenv("VLLM_RAST_CACHE", str(cache))
    planted = build.cache_path("cpu")
    make_folder(planted.parent)
    source = tmp_path / "evil.c"
    witness = tmp_path / "witness"
    source.write_text(
        f'#include <stdio.h>\n__attribute__((constructor)) void f(void) {{ fclose(fopen("{witness}", "w")); }}\n'
    )
    subprocess.run(["cc", "-shared", "-fPIC", str(source), "-o", str(planted)], check=True)
    content = planted.read_bytes()
    planted.write_bytes(content + hashlib.sha256(content).digest())
    os.chown(planted, NOBODY, NOBODY)
    os.chown(planted.parent, NOBODY, NOBODY)
    (library, implementation), said = choice(cache)
    assert not witness.exists() and implementation != "torch" and not library.startswith(str(cache))
    assert "for this run alone" in said and "belongs to another user" in said and len(said.splitlines()) == 1
    assert not Path(library).exists(), "the private folder is left behind"


@pytest.mark.slow
@needs_library
@needs_root
@pytest.mark.usefixtures("compiles_once")
def test_a_cache_in_a_folder_of_everybody_is_not_used() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        shared = Path(name)
        shared.chmod(0o777)
        (library, implementation), said = choice(shared / "cache")
        assert implementation != "torch" and "can be written by others" in said


@pytest.mark.slow
@needs_library
@pytest.mark.usefixtures("compiles_once")
def test_an_open_umask_leaves_our_own_library_ours(tmp_path: Path) -> None:
    """Made with umask 000, and found again by the next process."""
    before = os.umask(0)
    try:
        results = [choice(tmp_path / "cache") for _ in range(2)]
    finally:
        os.umask(before)
    for (library, implementation), said in results:
        assert implementation != "torch" and library.startswith(str(tmp_path)) and said == ""
    assert Path(results[0][0][0]).stat().st_mode & 0o077 == 0


def test_a_pipe_in_place_of_a_library_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "library")
    fd = open_folder(tmp_path)
    with pytest.raises(UntrustedError, match="not a regular file"):
        open_file(fd, "library")
    os.close(fd)


@needs_cc
def test_two_libraries_of_one_process_are_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loader knows a library by its name: a descriptor's number that is used again would give the first."""
    from vllm_rast.kernels import select

    for number in (1, 2):
        source = tmp_path / f"{number}.c"
        source.write_text(f"int number(void) {{ return {number}; }}\n")
        library = tmp_path / f"{number}.so"
        subprocess.run(["cc", "-shared", "-fPIC", str(source), "-o", str(library)], check=True)
        content = library.read_bytes()
        library.write_bytes(content + hashlib.sha256(content).digest())
        library.chmod(0o600)
    assert [select.load_checked(tmp_path / f"{number}.so").number() for number in (1, 2)] == [1, 2]
