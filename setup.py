"""What pyproject.toml cannot say: the kernel's sources travel inside the package.

Nothing is compiled here, so installing needs no compiler and no torch; the first use compiles (vllm_rast/build.py).
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithSources(build_py):
    def run(self) -> None:
        super().run()
        if not self.editable_mode:  # a checkout has them beside the package
            shutil.copytree("csrc", Path(self.build_lib) / "vllm_rast" / "csrc", dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithSources})
