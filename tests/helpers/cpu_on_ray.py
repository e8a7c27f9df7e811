"""A platform for vLLM that is its CPU, and that its Ray executor takes: a worker has what Ray calls a GPU.

vLLM finds it in every process whose PYTHONPATH has this folder and one with the entry point that `plug_in` writes.
"""

from __future__ import annotations

from pathlib import Path

from vllm.platforms.cpu import CpuPlatform


class CpuOnRay(CpuPlatform):
    ray_device_key = "GPU"


def platform() -> str:
    """What vLLM asks a plug-in: the name of its class."""
    return "cpu_on_ray.CpuOnRay"


def plug_in(folder: Path) -> str:
    """Make `folder` one that announces the platform, and return it."""
    described = folder / "cpu_on_ray-1.dist-info"
    described.mkdir(parents=True)
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: cpu_on_ray\nVersion: 1\n")
    (described / "entry_points.txt").write_text("[vllm.platform_plugins]\ncpu_on_ray = cpu_on_ray:platform\n")
    return str(folder)
