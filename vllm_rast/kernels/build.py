"""Builds the kernel from its sources with the system's own compiler, once for each torch, in the user's cache."""

from __future__ import annotations

import atexit
import hashlib
import importlib.util
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import torch

from vllm_rast.kernels.trust import UntrustedError, make_folder, open_file, open_folder

PACKAGE = Path(__file__).parents[1]
PRIVATE = "VLLM_RAST_PRIVATE_CACHE"  # of a run whose cache others can write, for the processes that it starts
LOCK_TIMEOUT = 180.0  # seconds; a build takes 3 on an idle machine
COMMAND_TIMEOUT = 150.0  # seconds
PORTABLE_TIMEOUT = 1800.0  # seconds; the code for seven kinds of GPUs takes a minute on an idle machine
STALE_AFTER = 30 * 86400.0  # seconds; a library that nobody used for so long makes room when another one is built
DIGEST_BYTES = hashlib.sha256().digest_size

COMPILE = ["-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-DTORCH_TARGET_VERSION=0x020a000000000000"]
# linear_amx.cpp says in itself what it needs of the compiler, and is empty if that is too old.
BINDINGS = {
    "cpu": (
        "binding_cpu.cpp",
        "binding_draw_cpu.cpp",
        "binding_linear_cpu.cpp",
        "binding_truncate_cpu.cpp",
        "linear_amx.cpp",
    ),
    "cuda": ("binding_cuda.cpp",),
}
AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mprefer-vector-width=512"]
INSTRUCTION_SETS = {"baseline": [], "avx2": ["-mavx2", "-mfma", "-mf16c"], "avx512": AVX512}
LINEAR_SETS = {**INSTRUCTION_SETS, "avx512bf16": [*AVX512, "-DVLLM_RAST_DOTS"]}
# The CPU's kernels, each compiled once for each instruction set.
# linear: fused multiply-add, which doubles its speed. The others: none, so that every implementation gives the same
# bits, combine_logits those of torch, at no cost where memory is the limit; and nobody reads the processor's
# floating-point flags, whose guarding kept GCC 12 from vectorising float16.
CPU_KERNELS = {
    "combine_logits_cpu.cpp": (["-ffp-contract=off", "-fno-trapping-math"], INSTRUCTION_SETS),
    "draw_cpu.cpp": (["-ffp-contract=off", "-fno-trapping-math"], INSTRUCTION_SETS),
    "truncate_cpu.cpp": (["-ffp-contract=off", "-fno-trapping-math"], INSTRUCTION_SETS),
    "linear_cpu.cpp": (["-ffp-contract=fast"], LINEAR_SETS),
}
# What a wheel carries: machine code for A100 to Blackwell, and an intermediate form for what comes after.
PACKAGED_GPUS = [
    argument
    for number in (80, 86, 89, 90, 100, 120)
    for argument in ("-gencode", f"arch=compute_{number},code=sm_{number}")
] + ["-gencode", "arch=compute_120,code=compute_120"]
NEEDED_CUDA = ["-Xlinker", "--no-as-needed", "-ltorch_cuda"]  # named although nothing of its stub is used
OLDEST_GLIBC = "2.28"  # that a packaged library runs on: manylinux_2_28, RHEL 8 and later
# Machine code for A100 and H100, and an intermediate form that the driver translates for later GPUs.
GPUS = ["-gencode", "arch=compute_80,code=[sm_80,compute_80]", "-gencode", "arch=compute_90,code=sm_90"]


class BuildError(Exception):
    """Why there is no library, in one line."""


def source_folder() -> Path:
    """The kernel's sources: inside an installed package, or beside it in a checkout."""
    for folder in (PACKAGE / "csrc", PACKAGE.parent / "csrc"):
        if (folder / "combine_logits.h").is_file():
            return folder
    raise BuildError("the kernel's sources are missing from this installation")


def cache_folder() -> Path:
    """VLLM_RAST_CACHE, or `vllm-rast` in the user's cache folder."""
    named = os.environ.get("VLLM_RAST_CACHE")
    if named:
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "vllm-rast"


def cxx() -> list[str]:
    """The C++ compiler, as the start of a command: $CXX, else c++, g++ or clang++."""
    named = shlex.split(os.environ.get("CXX", ""))
    for command in [named] if named else [["c++"], ["g++"], ["clang++"]]:
        if shutil.which(command[0]):
            return command
    raise BuildError("no C++ compiler found; install g++ or set CXX")


def nvcc() -> str:
    """CUDA's compiler, of the same major version as torch's CUDA."""
    if torch.version.cuda is None:
        raise BuildError("torch is built without CUDA")
    found = any_nvcc()
    wanted = torch.version.cuda.split(".")[0]
    said = subprocess.run([found, "--version"], capture_output=True, text=True, timeout=COMMAND_TIMEOUT).stdout
    if f"release {wanted}." not in said:
        raise BuildError(f"{found} is not of CUDA {wanted}, which torch is built for; set CUDA_HOME")
    return found


def any_nvcc() -> str:
    """CUDA's compiler: on the path, in CUDA_HOME, or from its pip packages."""
    home = os.environ.get("CUDA_HOME") or "/usr/local/cuda"
    pip = [str(path.parent) for path in Path(torch.__file__).parents[1].glob("nvidia/*/bin/nvcc")]
    found = shutil.which("nvcc") or shutil.which("nvcc", path=os.pathsep.join([os.path.join(home, "bin"), *pip]))
    if found is None:
        raise BuildError("no nvcc found; install the CUDA toolkit, or set CUDA_HOME")
    return found


def instruction_sets(known: dict[str, list[str]] = INSTRUCTION_SETS) -> dict[str, list[str]]:
    """Which of those a CPU kernel is compiled for on this kind of machine; the first is always there."""
    return known if platform.machine() in ("x86_64", "AMD64") else {"baseline": []}


def commands(kind: str, folder: Path, target: Path, portable: bool = False) -> tuple[list[list[str]], list[str]]:
    """The compilations of a library, which may run side by side, and the link that follows them.

    portable: for other machines than this, with every GPU's code, an older glibc and no torch of CUDA at hand.
    """
    source, torch_folder = source_folder(), Path(torch.__file__).parent
    older = ["-include", str(source / "portable.h")] if portable else []
    if portable:  # a message of an error names its source file, and not the place where a release was built
        older += [f"-ffile-prefix-map={folder}={name}" for folder, name in ((source, "csrc"), (torch_folder, "torch"))]
    binding = [*cxx(), *COMPILE, *older, f"-I{source}", "-isystem", str(torch_folder / "include")]
    compilations = [[*binding, "-c", str(source / name), "-o", str(folder / f"{name}.o")] for name in BINDINGS[kind]]
    if portable:
        compilations.append([*binding, "-c", str(source / "portable.cpp"), "-o", str(folder / "portable.o")])
    libraries = [f"-L{torch_folder / 'lib'}", "-ltorch_cpu", *([] if portable else ["-lc10"])]
    if kind == "cuda":
        compiler = any_nvcc() if portable else nvcc()
        gpus = PACKAGED_GPUS if portable else GPUS
        kernel = [compiler, "-std=c++17", "-O3", "-Xcompiler", "-fPIC,-fvisibility=hidden", *gpus]
        compilations.append([*kernel, "-c", str(source / "combine_logits_cuda.cu"), "-o", str(folder / "kernel.o")])
        objects = [command[-1] for command in compilations]
        if portable:
            return compilations, portable_cuda_link(compiler, folder, [*objects, *libraries], target)
        return compilations, [
            compiler,
            "-shared",
            "-cudart",
            "static",
            *objects,
            *libraries,
            "-ltorch_cuda",
            "-o",
            str(target),
        ]
    for name, (options, known) in CPU_KERNELS.items():
        for isa, flags in instruction_sets(known).items():
            kernel = [*cxx(), *COMPILE, *older, *options, *flags, f"-DISA={isa}", "-c", str(source / name)]
            compilations.append([*kernel, "-o", str(folder / f"{name}.{isa}.o")])
    objects = [command[-1] for command in compilations]
    return compilations, [*cxx(), "-shared", *objects, *libraries, "-o", str(target)]


def portable_cuda_link(compiler: str, folder: Path, inputs: list[str], target: Path) -> list[str]:
    """The link of a packaged CUDA library, against glibc 2.28 if the package `ziglang` is here.

    CUDA's static runtime takes pthread_create and 45 more from wherever they are: since glibc 2.34 that is libc.so.6
    under a new version, so that a library linked on a new system does not load on an older one. Zig's linker brings
    every glibc's list of symbols. Without it the library asks for the system that it was linked on.
    """
    stub = folder / "libtorch_cuda.so"  # a torch without CUDA lacks this library: only its name is needed to link
    run([*cxx(), "-shared", "-x", "c++", os.devnull, "-Wl,-soname,libtorch_cuda.so", "-o", str(stub)])
    if importlib.util.find_spec("ziglang") is None:
        return [compiler, "-shared", "-cudart", "static", *inputs, f"-L{folder}", *NEEDED_CUDA, "-o", str(target)]
    zig = [sys.executable, "-m", "ziglang", "cc", "-target", f"{platform.machine()}-linux-gnu.{OLDEST_GLIBC}"]
    runtime = [*cuda_library_folders(compiler), "-lcudart_static", "-lpthread", "-ldl", "-lrt"]
    system = [shared_library(name) for name in ("libstdc++.so.6", "libgcc_s.so.1")]
    return [*zig, "-shared", "-s", *inputs, f"-L{folder}", *NEEDED_CUDA, *runtime, *system, "-o", str(target)]


def cuda_library_folders(compiler: str) -> list[str]:
    """Where nvcc looks for CUDA's libraries, as -L options: what its dry run calls LIBRARIES."""
    said = subprocess.run(
        [compiler, "--dryrun", "-x", "cu", os.devnull], capture_output=True, text=True, timeout=COMMAND_TIMEOUT
    ).stderr
    found = re.search(r"^#\$ LIBRARIES=(.*)$", said, re.MULTILINE)
    if found is None:
        raise BuildError(f"{compiler} --dryrun names no folder of libraries; is it CUDA's nvcc?")
    return shlex.split(found[1])


def shared_library(name: str) -> str:
    """The file that the C++ compiler would link for a library's name."""
    asked = [*cxx(), f"-print-file-name={name}"]
    return subprocess.run(asked, capture_output=True, text=True, check=True, timeout=COMMAND_TIMEOUT).stdout.strip()


def library_name(kind: str) -> str:
    return f"libvllm_rast_{kind}.so"


def cache_path(kind: str) -> Path:
    """Where the library lies: its folder's name changes with the sources, torch, the machine and the commands."""
    digest = hashlib.sha256(f"{torch.__version__} {platform.machine()}".encode())
    digest.update(repr(commands(kind, Path("objects"), Path("library"))).encode())
    for path in sorted(source_folder().iterdir()):
        digest.update(path.name.encode() + path.read_bytes())
    return cache_folder() / digest.hexdigest()[:16] / library_name(kind)


def is_whole(path: Path) -> bool:
    """Whether a built library is all there, and nobody else could have written it."""
    fd = open_whole(path)
    if fd is not None:
        os.close(fd)
    return fd is not None


def open_whole(path: Path) -> int | None:
    """A descriptor of a built library that is all there; None if it is not. Raises UntrustedError.

    Loading half a library can end the process, so each carries the hash of its own bytes at its end, where the
    system's loader does not look. What was checked is what is loaded: the open file.
    """
    try:
        folder = open_folder(path.parent)
    except OSError:
        return None
    try:
        fd = open_file(folder, path.name)
    except OSError:
        return None
    finally:
        os.close(folder)
    with open(fd, "rb", closefd=False) as file:
        content = file.read()
    if hashlib.sha256(content[:-DIGEST_BYTES]).digest() == content[-DIGEST_BYTES:]:
        return fd
    os.close(fd)
    return None


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One process at a time. The lock belongs to an open file, so the one a killed process left behind is free."""
    import fcntl

    deadline = time.monotonic() + LOCK_TIMEOUT
    # Not truncated, and no link followed: somebody might have put one in its place.
    fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(fd) as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise BuildError(
                        f"another process has been building in {folder} for {LOCK_TIMEOUT:.0f} s"
                    ) from None
                time.sleep(0.05)
        yield


def run(command: list[str], timeout: float = COMMAND_TIMEOUT) -> None:
    """Run a compiler; its first error line becomes the reason."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=timeout)
    except subprocess.TimeoutExpired:
        raise BuildError(f"{command[0]} took longer than {timeout:g} s; try again when the machine is idle") from None
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        first = next((line for line in lines if "error" in line), lines[0] if lines else f"exit {done.returncode}")
        raise BuildError(f"{command[0]} failed: {first}")


def compile_library(kind: str, target: Path, portable: bool = False) -> None:
    """Compile and link into `target`, which appears whole or not at all. Raises BuildError."""
    with tempfile.TemporaryDirectory(prefix="building-", dir=target.parent) as name:
        folder = Path(name)
        compilations, link = commands(kind, folder, folder / "library.so", portable)
        compiling = partial(run, timeout=PORTABLE_TIMEOUT if portable else COMMAND_TIMEOUT)
        with ThreadPoolExecutor(len(compilations)) as pool:
            list(pool.map(compiling, compilations))
        compiling(link)
        content = (folder / "library.so").read_bytes()
        finished = folder / "finished.so"
        finished.write_bytes(content + hashlib.sha256(content).digest())
        finished.chmod(0o644 if portable else 0o600)  # whatever the umask says, nobody else may write it
        os.replace(finished, target)


def mark_used(folder: Path) -> None:
    """Set the folder's time, which says when its library was last used. A cache that others own stays as it is."""
    with suppress(OSError):
        os.utime(folder)


def remove_stale(cache: Path) -> None:
    """Remove the libraries of sources and torches long gone. Whoever still runs one keeps it until it ends."""
    for folder in cache.iterdir():
        with suppress(OSError):
            named_by_us = re.fullmatch("[0-9a-f]{16}", folder.name) and not folder.is_symlink()
            if named_by_us and folder.stat().st_mtime < time.time() - STALE_AFTER:
                shutil.rmtree(folder, ignore_errors=True)


def built_library(kind: str) -> Path:
    """The library for "cpu" or "cuda" from the cache, built first if needed. Raises BuildError, nothing else.

    If others can write the cache, it is built into a private folder, which this process and those it starts share.
    """
    try:
        path = cache_path(kind)
        try:
            return cached_library(kind, path)
        except UntrustedError as error:
            folder = private_folder(str(error))
        return cached_library(kind, folder / path.parent.name / path.name)
    except BuildError:
        raise
    except Exception as error:  # a full disk, a read-only home, a compiler that hangs: none may stop decoding
        raise BuildError(str(error).splitlines()[0] if str(error) else type(error).__name__) from error


def cached_library(kind: str, path: Path) -> Path:
    """The library at a path, built if it is not there. Raises UntrustedError if others can write it."""
    if is_whole(path):
        mark_used(path.parent)
        return path
    make_folder(path.parent)
    os.close(open_folder(path.parent))
    with locked(path.parent):
        if not is_whole(path):
            for left_behind in path.parent.glob("building-*"):
                shutil.rmtree(left_behind, ignore_errors=True)
            compile_library(kind, path)
    mark_used(path.parent)
    remove_stale(path.parent.parent)
    return path


def private_folder(reason: str) -> Path:
    """A folder of our own for libraries, made once and removed by the process that made it; says why."""
    named = os.environ.get(PRIVATE)
    if named and Path(named).is_dir():
        return Path(named)
    folder = Path(tempfile.mkdtemp(prefix="vllm-rast-"))
    os.environ[PRIVATE] = str(folder)
    maker = os.getpid()

    def remove() -> None:
        if os.getpid() == maker:
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    print(
        f"vllm-rast: the kernel is built into {folder}, for this run alone: {reason}; name a folder of your own with "
        "VLLM_RAST_CACHE",
        file=sys.stderr,
        flush=True,
    )
    return folder
