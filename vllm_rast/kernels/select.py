"""Which implementation of `combine_logits` runs on which device, and why: the one place that decides.

A library in the package, else one built at first use, else torch with one line of warning. VLLM_RAST_KERNEL overrides:
`torch` uses no library, `cpu` and `cuda` use only that one, `auto` is the default.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import torch

from vllm_rast.kernels.build import PACKAGE, BuildError, built_library, library_name, open_whole

OVERRIDE = "VLLM_RAST_KERNEL"
KINDS = ("cpu", "cuda")
# What went wrong here, for the processes started from here: they neither try again nor warn again.
FAILED = "VLLM_RAST_KERNEL_FAILED"
PACKAGED = PACKAGE / "lib"

# torch.ops.vllm_rast.combine_logits: vllm_rast.kernels.combine implements it for every device, and a library, if there
# is one, for its own device before that. wide_linear: the same, in vllm_rast.kernels.linear. draw, draw_coupled
# and truncate are the CPU library's alone; vllm_rast.engine.coupling does without.
operation = torch.library.Library("vllm_rast", "FRAGMENT")
operation.define(
    "combine_logits(Tensor[] logits, Tensor weights, Tensor(a!) out) -> ()", tags=(torch.Tag.pt2_compliant_tag,)
)
operation.define(
    "combine_logits_traced(Tensor[] logits, Tensor weights, Tensor(a!) out, Tensor(b!) trace) -> ()",
    tags=(torch.Tag.pt2_compliant_tag,),
)
operation.define(
    "wide_linear(Tensor x, Tensor weight, Tensor? bias, bool rounds) -> Tensor", tags=(torch.Tag.pt2_compliant_tag,)
)
operation.define("draw(Tensor logits, Tensor? temperatures, Tensor seeds) -> Tensor")
operation.define(
    "draw_coupled(Tensor p, Tensor q, Tensor? rows, Tensor? temperatures, Tensor seeds, Tensor positions) -> Tensor"
)
operation.define("truncate(Tensor(a!) logits, Tensor? k, Tensor? p) -> ()")


@dataclass(frozen=True)
class Choice:
    """What runs on a device. implementation: "torch", or what the library was built for."""

    implementation: str
    reason: str
    library: Path | None = None


_choices: dict[str, Choice] = {}
_deciding = threading.RLock()


def wanted(kind: str) -> str | None:
    """None if a library should be used for this kind of device, else why not."""
    override = os.environ.get(OVERRIDE) or "auto"
    if override not in ("auto", "torch", *KINDS):
        return f"{OVERRIDE}={override} is not one of auto, torch, cpu, cuda"
    if override not in ("auto", kind):
        return f"{OVERRIDE}={override}"
    if kind not in KINDS:
        return f"there is no kernel for {kind}"
    if kind == "cuda" and torch.version.cuda is None:
        return "torch is built without CUDA"
    return os.environ.get(f"{FAILED}_{kind.upper()}") or None


def locate(kind: str) -> tuple[Path, str]:
    """The library and where it comes from. Raises BuildError."""
    packaged = PACKAGED / library_name(kind)
    if packaged.is_file():
        return packaged, "packaged library"
    path = built_library(kind)
    return path, f"built on this machine: {path}"


def give_up(kind: str, reason: str) -> Choice:
    """torch from here on, said once."""
    os.environ[f"{FAILED}_{kind.upper()}"] = reason
    print(f"vllm-rast: combine_logits runs in torch, which is slower: {reason}", file=sys.stderr)
    return Choice("torch", reason)


def prepare() -> None:
    """Build what this machine will need, before the processes start that use it. Cheap if that is done."""
    kind = "cpu" if torch.version.cuda is None else "cuda"
    with _deciding:
        if kind in _choices or wanted(kind) is not None:
            return
        try:
            locate(kind)
        except BuildError as error:
            _choices[kind] = give_up(kind, str(error))


def choose(kind: str) -> Choice:
    """What runs on this kind of device (a torch device type); decided, loaded and tried once for each process."""
    with _deciding:
        if kind not in _choices:
            reason = wanted(kind)
            _choices[kind] = Choice("torch", reason) if reason is not None else load(kind)
        return _choices[kind]


def load(kind: str) -> Choice:
    """Load a library and try it."""
    try:
        path, origin = locate(kind)
        library = load_checked(path)
        try_out(kind)
        name = f"cpu ({instruction_set(library)})" if kind == "cpu" else kind
    except Exception as error:  # a library is a convenience: whatever is wrong with it, torch can do the same
        return give_up(kind, (str(error) or type(error).__name__).splitlines()[0])
    return Choice(name, origin, path)


def load_checked(path: Path) -> ctypes.CDLL:
    """Load a library: of the cache the very file that was checked, of the package the one that was installed."""
    if path.parent == PACKAGED:
        return ctypes.CDLL(str(path))
    fd = open_whole(path)
    if fd is None:
        raise RuntimeError(f"{path} is damaged")
    # The descriptor stays open: the loader knows a library by its name, which must not come to mean another one.
    return ctypes.CDLL(f"/proc/self/fd/{fd}" if Path("/proc/self/fd").exists() else str(path))


def instruction_set(library: ctypes.CDLL | Path, wanted: str | None = None) -> str:
    """What the CPU library uses: the best this processor has, or the one wanted if it has that (for tests)."""
    loaded = ctypes.CDLL(str(library)) if isinstance(library, Path) else library
    function = loaded.vllm_rast_cpu_isa
    function.restype, function.argtypes = ctypes.c_char_p, [ctypes.c_char_p]
    return str(function(wanted and wanted.encode()).decode())


def try_out(kind: str) -> None:
    """Sums, products and samples with known results. Raises RuntimeError if one comes out wrong or not at all."""
    if kind == "cuda" and torch.cuda.is_current_stream_capturing():
        return  # looking at the result would break the graph
    base = torch.arange(100, dtype=torch.float32, device=kind).repeat(2, 1)
    positive = (2 * base[:, :99]).to(torch.bfloat16)
    weights = torch.tensor([[1.0, 0.5], [1.0, 0.0]], device=kind)
    out = torch.empty_like(base)
    torch.ops.vllm_rast.combine_logits([base, positive], weights, out)
    expected = base * torch.tensor([[2.0], [1.0]], device=kind)
    expected[0, 99] = float("-inf")
    if not torch.equal(out, expected):
        raise RuntimeError(f"the {kind} library gives wrong sums")
    if kind != "cpu":
        return
    for rows in (1, 5, 13):  # a loop for few rows, one or several groups of them, and another for more than 12
        x, weight = (torch.arange(n * 40).reshape(n, 40) % 7 - 3.0 for n in (rows, 20))  # small integers: exact
        out = torch.ops.vllm_rast.wide_linear(x.bfloat16(), weight.bfloat16(), None, False)
        if not torch.equal(out, x @ weight.T):
            raise RuntimeError("the cpu library gives wrong products")
    only = torch.full((1, 100), float("-inf")).index_fill_(1, torch.tensor([70]), 0.0)
    if torch.ops.vllm_rast.draw(only, torch.ones(1), torch.tensor([1])).item() != 70:
        raise RuntimeError("the cpu library gives wrong samples")
    cut = torch.tensor([[1.0, 3.0, 2.0]])
    torch.ops.vllm_rast.truncate(cut, torch.tensor([1]), None)
    if not torch.equal(cut, torch.tensor([[float("-inf"), 3.0, float("-inf")]])):
        raise RuntimeError("the cpu library keeps wrong ids")


@torch.compiler.assume_constant_result
def native(kind: str) -> bool:
    """Whether a library runs on this kind of device; a compiled graph keeps the answer."""
    choice = _choices.get(kind) or choose(kind)
    return choice.library is not None
