"""A C++ compiler that compiles each of the kernel's files once in a test run: a build of the library costs 15 s of CPU.

Six tests build it into caches of their own. Linking is done every time, and all else that a build does.
"""

from __future__ import annotations

from pathlib import Path

from vllm_rast.kernels import build

SCRIPT = """#!/bin/sh
case " $* " in *" -c "*) ;; *) exec {compiler} "$@" ;; esac
for target; do :; done
key=$({{ echo "$*" | sed 's/ -o [^ ]*$//'; cat '{sources}'/*; }} | sha256sum | cut -c1-32)
kept='{folder}'/$key.o
if [ ! -f "$kept" ]; then
    {compiler} "$@" || exit
    cp "$target" "$kept.$$" && mv "$kept.$$" "$kept"
fi
cp "$kept" "$target"
"""


def make_quick_compiler(folder: Path) -> str:
    """Write it into a folder, where it keeps what it compiled. Raises BuildError if there is no compiler."""
    path = folder / "quick-c++"
    text = SCRIPT.format(compiler=" ".join(build.cxx()), sources=build.source_folder(), folder=folder)
    path.write_text(text)
    path.chmod(0o755)
    return str(path)
