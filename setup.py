"""What pyproject.toml cannot say: the kernel's sources travel inside the package.

Nothing is compiled here, so installing needs no compiler and no torch; the first use compiles, in
vllm_rast/kernels/build.py.
For machines without a compiler, a wheel may carry the CPU library, which serves every torch from 2.10 on:

    VLLM_RAST_PACKAGE_KERNEL=1 pip wheel --no-deps --no-build-isolation .
"""

import os
import shutil
import sys
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

WITH_LIBRARY = os.environ.get("VLLM_RAST_PACKAGE_KERNEL") == "1"


class BuildWithSources(build_py):
    def run(self) -> None:
        super().run()
        if self.editable_mode:  # a checkout has the sources beside the package, and builds what changes
            return
        package = Path(self.build_lib) / "vllm_rast"
        shutil.copytree("csrc", package / "csrc", dirs_exist_ok=True)
        if WITH_LIBRARY:
            sys.path.insert(0, str(Path(__file__).parent))
            from vllm_rast.kernels.build import compile_library, library_name

            (package / "lib").mkdir(exist_ok=True)
            compile_library("cpu", package / "lib" / library_name("cpu"))


class AnyPython(bdist_wheel):
    """The library knows the processor and torch, but no Python."""

    def get_tag(self) -> tuple[str, str, str]:
        platform = super().get_tag()[2]
        return "py3", "none", platform


class WithLibrary(Distribution):
    def has_ext_modules(self) -> bool:
        return WITH_LIBRARY


setup(cmdclass={"build_py": BuildWithSources, "bdist_wheel": AnyPython}, distclass=WithLibrary)
