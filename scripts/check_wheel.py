"""Hold a wheel to what it says: its libraries, their GPUs, and that nothing newer than its tag is asked for.

    python scripts/check_wheel.py dist/vllm_rast-*.whl
    python scripts/check_wheel.py dist/vllm_rast-*.whl --expect cpu,cuda --beside OTHER/bin/python

--beside loads the libraries into another Python with its torch, such as one for CUDA; no GPU is needed for that.
Prints a short table. Exit code 1 if a library is missing, asks for a newer system, or for another library than it may.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import tempfile
import zipfile
from pathlib import Path

# PEP 600: the newest versions that a library may ask for, by the glibc in the wheel's tag.
NEWEST: dict[int, dict[str, tuple[int, ...]]] = {
    28: {"GLIBCXX": (3, 4, 25), "CXXABI": (1, 3, 11), "GCC": (7, 0, 0)},
    31: {"GLIBCXX": (3, 4, 28), "CXXABI": (1, 3, 12), "GCC": (9, 0, 0)},
    34: {"GLIBCXX": (3, 4, 29), "CXXABI": (1, 3, 13), "GCC": (11, 0, 0)},
}
SYSTEM = {
    "libc.so.6",
    "libm.so.6",
    "libstdc++.so.6",
    "libgcc_s.so.1",
    "libpthread.so.0",
    "libdl.so.2",
    "librt.so.1",
    "ld-linux-x86-64.so.2",
}
TORCH = {"libtorch_cpu.so", "libtorch_cuda.so"}  # loaded by torch before: found by their names
GPUS = {"sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120"}


def output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def problems(library: Path, newest: dict[str, tuple[int, ...]]) -> list[str]:
    """What a library asks for and must not."""
    found = []
    symbols = output("objdump", "-T", str(library))
    for name, version in sorted(set(re.findall(r"\(?(GLIBC|GLIBCXX|CXXABI|GCC)_([\d.]+)\)?", symbols))):
        if tuple(map(int, version.split("."))) > newest[name]:
            found.append(f"asks for {name}_{version}")
    needed = set(re.findall(r"NEEDED\s+(\S+)", output("objdump", "-p", str(library))))
    found += [f"needs {name}" for name in sorted(needed - SYSTEM - TORCH)]
    undefined = set(re.findall(r"\*UND\*\s+\S+\s+(?:\([^)]*\)\s+)?(\S+)", symbols))
    foreign = {name for name in undefined if name.startswith(("_ZN2at", "_ZN3c10", "_ZN5torch", "cuda", "cu"))}
    found += [f"has the undefined symbol {name}, which is in no stable interface" for name in sorted(foreign)]
    return found


def loads_beside(python: Path, libraries: list[Path]) -> str | None:
    """Load libraries into a Python after its torch, whose version is returned; None if one does not load."""
    program = "import ctypes, sys, torch; [ctypes.CDLL(path) for path in sys.argv[1:]]; print(torch.__version__)"
    done = subprocess.run([python, "-c", program, *map(str, libraries)], capture_output=True, text=True)
    if done.returncode:
        print(f"  {done.stderr.strip().splitlines()[-1]}")
        return None
    return done.stdout.strip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--expect", default="cpu", help="kinds of libraries that must be there (default: %(default)s)")
    parser.add_argument("--beside", type=Path, metavar="PYTHON", help="load the libraries after this Python's torch")
    options = parser.parse_args()
    bad = 0
    tag = re.search(r"manylinux_(\d+)_(\d+)_", options.wheel.name)
    minor = int(tag[2]) if tag else 0
    newest = NEWEST[max((known for known in NEWEST if known <= minor), default=28)] | {"GLIBC": (2, minor)}
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(options.wheel) as wheel:
        libraries = [name for name in wheel.namelist() if name.endswith(".so")]
        print(f"{options.wheel.name}: {options.wheel.stat().st_size / 1e6:.1f} MB, {len(libraries)} libraries")
        for kind in options.expect.split(","):
            if not any(f"_{kind}.so" in name for name in libraries):
                print(f"  there is no library for {kind}")
                bad += 1
        if any("cuda" in name for name in libraries) and not shutil.which("cuobjdump"):
            print("  the GPUs were not checked: there is no cuobjdump")
        for name in libraries:
            path = Path(wheel.extract(name, folder))
            found = problems(path, newest)
            if "cuda" in name and shutil.which("cuobjdump"):
                listed = output("cuobjdump", "--list-elf", "--list-ptx", str(path))
                gpus = set(re.findall(r"sm_\d+", listed))
                print(
                    f"  {path.name}: {', '.join(sorted(gpus, key=lambda g: int(g[3:])))}; PTX"
                    f" {'yes' if '.ptx' in listed else 'no'}"
                )
                found += [f"has no code for {gpu}" for gpu in sorted(GPUS - gpus)]
            fine = "asks for nothing newer than the wheel's tag, and of torch only its stable interface"
            print(f"  {path.name}: {'; '.join(found) or fine}")
            bad += len(found)
        if options.beside:
            version = loads_beside(options.beside, [Path(folder, name) for name in libraries])
            print(f"  {'they do not load' if version is None else 'all load'} beside torch {version or ''}".rstrip())
            bad += version is None
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
