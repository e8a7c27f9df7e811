"""The operation against float64, its implementations against one another, and the ways a library may fail to come."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import forked
import pytest
import torch
from kernel_cases import DECIDED, DTYPES, ODD_COLUMNS, assert_same_bits, needs_library, random_case, with_torch
from paths import ROOT

from vllm_rast.cli.doctor_findings import examine_kernel
from vllm_rast.kernels import build
from vllm_rast.kernels import select as kernels
from vllm_rast.kernels.combine import combine_logits

Capsys = pytest.CaptureFixture[str]


def ref_combine(logits: list[torch.Tensor], weights: torch.Tensor) -> torch.Tensor:
    """The docstring of combine_logits in float64, row by row."""
    out = torch.zeros(logits[0].shape, dtype=torch.float64)
    for row, row_weights in enumerate(weights.tolist()):
        taking_part = [(some[row], weight) for some, weight in zip(logits, row_weights, strict=True) if weight != 0]
        width = min([out.shape[1], *(len(some) for some, _ in taking_part)])
        for some, weight in taking_part:
            out[row, :width] += weight * some[:width].double()
        out[row, width:] = -torch.inf
    return out


@pytest.mark.parametrize("num_models", [1, 2, 3, 4])
@pytest.mark.parametrize("rows", [0, 1, 3, 257])
@pytest.mark.parametrize("columns", ODD_COLUMNS)
def test_against_float64(rows: int, columns: int, num_models: int) -> None:
    logits, weights = random_case(rows, columns, num_models, seed=rows + columns + num_models)
    got, wanted = combine_logits(logits, weights), ref_combine(logits, weights)
    torch.testing.assert_close(got.double(), wanted, rtol=1e-5, atol=1e-4)
    assert_same_bits(got, with_torch(logits, weights))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [151936, 152064])
def test_real_vocabularies(columns: int, dtype: torch.dtype) -> None:
    logits, weights = random_case(3, columns, 3, seed=columns, dtype=dtype)
    got = combine_logits(logits, weights)
    torch.testing.assert_close(got.double(), ref_combine(logits, weights), rtol=1e-5, atol=1e-4)
    assert_same_bits(got, with_torch(logits, weights))


@pytest.mark.parametrize("place", [0, 1])
def test_in_place(place: int) -> None:
    wide, weights = random_case(5, 4099, 3, seed=1, dtype=torch.float32)
    logits = [some[:, :4090] for some in wide]
    wanted = with_torch(logits, weights)
    assert combine_logits(logits, weights, out=logits[place]) is logits[place]
    assert_same_bits(logits[place], wanted)


def test_columns_that_lie_apart() -> None:
    logits, weights = random_case(6, 40, 3, seed=2, dtype=torch.float32)
    wanted = with_torch(logits, weights)
    apart = [some.t().contiguous().t() for some in logits]
    out = torch.empty(40, 6).t()
    assert_same_bits(combine_logits(apart, weights.t().contiguous().t()), wanted)
    assert combine_logits(apart, weights, out=out) is out
    assert_same_bits(out, wanted)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_number_of_16_bits_and_the_special_ones(dtype: torch.dtype) -> None:
    if dtype == torch.float32:
        special = torch.tensor([0.0, -0.0, torch.inf, -torch.inf, torch.nan, 1e-45, 3.4e38, -1.5])
        logits = special.repeat(1, 300)
    else:
        logits = torch.arange(65536, dtype=torch.int32).to(torch.int16).view(dtype)[None]
    assert_same_bits(combine_logits([logits], torch.ones(1, 1)), logits.float())
    every_weight = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, -1.0], [2.5, torch.nan], [torch.inf, 1.0], [0.0, 0.0]])
    pair = [logits.expand(6, -1), logits.flip(1).expand(6, -1)]
    assert_same_bits(combine_logits(pair, every_weight), with_torch(pair, every_weight))


@needs_library
def test_instruction_sets_agree() -> None:
    library = DECIDED.library
    assert library is not None
    best = kernels.instruction_set(library)
    logits, weights = random_case(9, 5003, 4, seed=3)
    wanted = with_torch(logits, weights)
    try:
        for name in build.instruction_sets():
            if kernels.instruction_set(library, name) == name:  # else this processor lacks it
                assert_same_bits(combine_logits(logits, weights), wanted)
        assert kernels.instruction_set(library, "baseline") == "baseline"
    finally:
        kernels.instruction_set(library, best)


@needs_library
def test_threads_agree() -> None:
    logits, weights = random_case(64, 20011, 3, seed=4)
    wanted, threads = with_torch(logits, weights), torch.get_num_threads()
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            assert_same_bits(combine_logits(logits, weights), wanted)
    finally:
        torch.set_num_threads(threads)


def test_opcheck() -> None:
    for dtype in DTYPES:
        logits, weights = random_case(3, 70, 3, seed=5, dtype=dtype)
        torch.library.opcheck(torch.ops.vllm_rast.combine_logits.default, (logits, weights, torch.empty(3, 70)))


def test_inside_a_compiled_graph() -> None:
    logits, weights = random_case(3, 70, 3, seed=6)
    compiled = torch.compile(lambda *some: combine_logits(some[1:], some[0]) + 1, backend="aot_eager", fullgraph=True)
    assert_same_bits(compiled(weights, *logits), with_torch(logits, weights) + 1)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("logits", ([], torch.ones(1, 0))),
        ("logits", ([torch.ones(3)], torch.ones(3, 1))),
        (r"logits\[1\]", ([torch.ones(2, 3), torch.ones(1, 3)], torch.ones(2, 2))),
        (r"logits\[0\]", ([torch.ones(2, 3, dtype=torch.float64)], torch.ones(2, 1))),
        ("weights", ([torch.ones(2, 3)], torch.ones(2, 2))),
        ("weights", ([torch.ones(2, 3)], torch.ones(2, 1, dtype=torch.bfloat16))),
        ("out", ([torch.ones(2, 3)], torch.ones(2, 1), torch.ones(2, 4))),
        ("out", ([torch.ones(2, 3)], torch.ones(2, 1), torch.ones(2, 3, dtype=torch.bfloat16))),
    ],
)
def test_what_does_not_fit(name: str, arguments: tuple) -> None:
    with pytest.raises(ValueError, match=f"^{name}: ") as caught:
        combine_logits(*arguments)
    assert "\n" not in str(caught.value)


@needs_library
def test_the_binding_refuses_what_would_read_beyond() -> None:
    run = torch.ops.vllm_rast.combine_logits
    for logits, weights in [
        (torch.ones(3, 2).t(), torch.ones(2, 1)),
        (torch.ones(1, 3), torch.ones(2, 1)),
        (torch.ones(2, 3), torch.ones(1, 1)),
        (torch.ones(2, 3).double(), torch.ones(2, 1)),
    ]:
        with pytest.raises(RuntimeError):
            run([logits], weights, torch.empty(2, 3))


@needs_library
@pytest.mark.skipif(shutil.which("objdump") is None, reason="needs objdump: apt-get install binutils")
@pytest.mark.skipif(len(build.instruction_sets()) == 1, reason="the registers' names are those of x86-64")
def test_every_build_is_vectorised() -> None:
    """Every loop of every build multiplies in registers of that build's full width."""
    listing = subprocess.run(
        ["objdump", "-d", "-C", "--no-show-raw-insn", str(DECIDED.library)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    registers = {"baseline": "xmm", "avx2": "ymm", "avx512": "zmm"}
    loops = dict.fromkeys(registers, 0)
    for body in listing.split("\n\n"):
        function = re.match(r"\w+ <(?:void )?vllm_rast::(\w+)::\(anonymous namespace\)::(add|trace_tile)\b(.*)>:", body)
        if function:
            build_name, name, types = function.groups()
            assert re.search(rf"\bv?mulps\b.*%{registers[build_name]}", body), f"{build_name}: {name}{types}"
            assert name == "add" or not re.search(r"\bv?mulss\b", body), "one exponential at a time"
            loops[build_name] += 1
    # 5 combinations of types with 1, 2 or 3 models each, 3 types added onto a sum, and the trace.
    assert loops == dict.fromkeys(registers, 19)


@pytest.fixture
def undecided(monkeypatch: pytest.MonkeyPatch, compiles_once: None, tmp_path: Path) -> Iterator[Path]:
    """This process as before its first choice, with an empty cache, which is given."""
    monkeypatch.setattr(kernels, "_choices", {})
    monkeypatch.setattr(torch.version, "cuda", None)  # one device, one line
    monkeypatch.setenv("VLLM_RAST_CACHE", str(tmp_path / "cache"))
    for name in (kernels.OVERRIDE, f"{kernels.FAILED}_CPU"):
        monkeypatch.setenv(name, "")  # so that what give_up writes is undone
    yield tmp_path / "cache"


def test_a_compiler_that_fails(undecided: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capsys) -> None:
    monkeypatch.setenv("CXX", "false")
    for _ in range(3):
        kernels.prepare()
        assert combine_logits([torch.ones(1, 3)] * 2, torch.ones(1, 2)).tolist() == [[2.0] * 3]
    assert kernels.choose("cpu").implementation == "torch"
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("vllm-rast: ") and "false failed: exit 1" in line


@pytest.mark.slow
def test_a_cache_that_cannot_be_written(undecided: Path, capsys: Capsys) -> None:
    undecided.write_text("a file stands where the folder should be")
    kernels.choose("cpu")  # built for this run alone, if there is a compiler
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert undecided.read_text() == "a file stands where the folder should be"


def test_a_library_of_another_torch(undecided: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capsys) -> None:
    monkeypatch.setattr(kernels, "PACKAGED", undecided)
    undecided.mkdir()
    (undecided / build.library_name("cpu")).write_text("no library at all")
    assert kernels.choose("cpu").implementation == "torch"
    assert len(capsys.readouterr().err.splitlines()) == 1


@needs_library
def test_a_packaged_library_comes_first(undecided: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capsys) -> None:
    assert DECIDED.library is not None
    monkeypatch.setattr(kernels, "PACKAGED", DECIDED.library.parent)
    monkeypatch.setenv("CXX", "no-such-compiler")
    kernels.prepare()
    assert kernels.choose("cpu").reason == "packaged library"
    finding, *_ = examine_kernel()
    assert (finding.value, finding.reason, finding.fine) == (DECIDED.implementation, "packaged library", True)
    assert not undecided.exists() and not capsys.readouterr().err


def test_override(undecided: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capsys) -> None:
    monkeypatch.setenv(kernels.OVERRIDE, "torch")
    kernels.prepare()
    assert kernels.choose("cpu") == kernels.Choice("torch", "VLLM_RAST_KERNEL=torch")
    assert not undecided.exists() and not capsys.readouterr().err
    monkeypatch.setenv(kernels.OVERRIDE, "cuda")
    assert kernels.wanted("cpu") == "VLLM_RAST_KERNEL=cuda"
    monkeypatch.setenv(kernels.OVERRIDE, "gpu")
    assert kernels.wanted("cpu") == "VLLM_RAST_KERNEL=gpu is not one of auto, torch, cpu, cuda"


def start(cache: Path, code: str, **environment: str) -> subprocess.Popen[str]:
    """A Python process with the cache of its own."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("VLLM_RAST_")}
    return forked.TorchPopen(
        [sys.executable, "-c", code],
        env={**inherited, "VLLM_RAST_CACHE": str(cache), "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_without_a_compiler_a_process_and_its_child_warn_once(tmp_path: Path) -> None:
    child = "from vllm_rast.kernels.select import choose; print(choose('cpu').implementation, flush=True)"
    parent = f"{child}\nimport subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    process = start(tmp_path, parent, CXX="no-such-compiler", VLLM_RAST_KERNEL="cpu")
    out, err = process.communicate(timeout=120)
    assert out == "torch\ntorch\n"
    assert len(err.splitlines()) == 1 and "no C++ compiler" in err and "set CXX" in err


@pytest.mark.slow
@needs_library
def test_two_build_at_once_then_half_a_file_and_a_lock_left_behind(
    undecided: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One cache for both, because a build costs seconds."""
    other = start(undecided, "from vllm_rast.kernels.select import choose; print(choose('cpu').library)")
    library = build.built_library("cpu")
    out, err = other.communicate(timeout=120)
    assert (out, err) == (f"{library}\n", "")
    whole = library.read_bytes()
    assert {path.name for path in library.parent.iterdir()} == {library.name, "lock"}

    library.write_bytes(whole[: len(whole) // 2])
    (library.parent / "lock").write_text("left behind by a process that is gone")
    (library.parent / "building-killed").mkdir()
    assert not build.is_whole(library)
    assert build.built_library("cpu") == library and build.is_whole(library)
    assert {path.name for path in library.parent.iterdir()} == {library.name, "lock"}


def test_stale_libraries_make_room(tmp_path: Path) -> None:
    old, used, named_by_others = (tmp_path / name for name in ("0123456789abcdef", "fedcba9876543210", "photographs"))
    for folder in (old, used, named_by_others):
        folder.mkdir()
        (folder / build.library_name("cpu")).touch()
        os.utime(folder, (0, 0))
    build.mark_used(used)
    build.remove_stale(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([used, named_by_others])


def test_a_lock_that_stays_held(undecided: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "LOCK_TIMEOUT", 0.1)
    build.cache_path("cpu").parent.mkdir(parents=True)
    with build.locked(build.cache_path("cpu").parent), pytest.raises(build.BuildError, match="another process"):
        build.built_library("cpu")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc: install the CUDA toolkit")
def test_cuda_compiles(tmp_path: Path) -> None:
    kernel = ["nvcc", "-std=c++17", "-O3", "-Xcompiler", "-fPIC,-fvisibility=hidden", *build.GPUS]
    build.run([*kernel, "-c", str(ROOT / "csrc/combine_logits_cuda.cu"), "-o", str(tmp_path / "kernel.o")])
    include = Path(torch.__file__).parent / "include"
    binding = [*build.cxx(), *build.COMPILE, f"-I{ROOT / 'csrc'}", "-isystem", str(include)]
    build.run([*binding, "-c", str(ROOT / "csrc/binding_cuda.cpp"), "-o", str(tmp_path / "binding.o")])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("columns", [*ODD_COLUMNS, 151936])
@pytest.mark.parametrize("rows", [0, 1, 3, 257])
def test_cuda(rows: int, columns: int) -> None:
    assert kernels.choose("cuda").library is not None, kernels.choose("cuda").reason
    for seed in range(4):
        logits, weights = random_case(rows, columns, 3, seed)
        on_gpu = []
        for some in logits:  # the whole matrix goes over: copying a part of it would close the gaps between its rows
            whole = (some if some._base is None else some._base).cuda()
            on_gpu.append(whole.as_strided(some.shape, some.stride(), some.storage_offset()))
        assert_same_bits(combine_logits(on_gpu, weights.cuda()).cpu(), with_torch(logits, weights))
