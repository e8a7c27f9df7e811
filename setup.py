"""What pyproject.toml cannot say: the kernel's sources travel inside the package.

Nothing is compiled here, so installing needs no compiler and no torch; the first use compiles, in
vllm_rast/kernels/build.py.
For machines without a compiler, a wheel may carry the libraries, which serve every torch from 2.10 on:

    VLLM_RAST_PACKAGE_KERNELS=cpu,cuda pip wheel --no-deps --no-build-isolation .      (make wheel)
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

KINDS = [kind for kind in os.environ.get("VLLM_RAST_PACKAGE_KERNELS", "").split(",") if kind]
OLDEST = (2, 28)  # of glibc, as in vllm_rast/kernels/build.py, whose packaged libraries ask for no newer one


def newest_glibc(library: Path) -> tuple[int, int]:
    """The oldest system that has all that a library asks for, at least OLDEST; libstdc++'s versions as in PEP 600."""
    listed = subprocess.run(["objdump", "-T", str(library)], capture_output=True, text=True, check=True).stdout
    found = [OLDEST, *((2, int(minor)) for minor in re.findall(r"GLIBC_2\.(\d+)", listed))]
    for minor in map(int, re.findall(r"GLIBCXX_3\.4\.(\d+)", listed)):
        found += [(2, 31)] * (minor > 25) + [(2, 34)] * (minor > 28)
    return max(found)


class BuildWithSources(build_py):
    def run(self) -> None:
        super().run()
        if self.editable_mode:  # a checkout has the sources beside the package, and builds what changes
            return
        package = Path(self.build_lib) / "vllm_rast"
        shutil.copytree("csrc", package / "csrc", dirs_exist_ok=True)
        if KINDS:
            sys.path.insert(0, str(Path(__file__).parent))
            from vllm_rast.kernels.build import compile_library, library_name

            (package / "lib").mkdir(exist_ok=True)
            for kind in KINDS:
                compile_library(kind, package / "lib" / library_name(kind), portable=True)


class AnyPython(bdist_wheel):
    """The library knows the processor and torch, but no Python."""

    def get_tag(self) -> tuple[str, str, str]:
        platform = super().get_tag()[2]
        libraries = list((Path(self.bdist_dir) / "vllm_rast" / "lib").glob("*.so")) if self.bdist_dir else []
        if libraries and platform == "linux_x86_64":
            newest = max(map(newest_glibc, libraries))
            platform = f"manylinux_{newest[0]}_{newest[1]}_x86_64"
        return "py3", "none", platform


class WithLibrary(Distribution):
    def has_ext_modules(self) -> bool:
        return bool(KINDS)


setup(cmdclass={"build_py": BuildWithSources, "bdist_wheel": AnyPython}, distclass=WithLibrary)
