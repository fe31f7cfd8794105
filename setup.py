"""Puts conf/ into a wheel, as domaintune/conf; all else stands in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConf(build_py):
    """In a clone, and where a clone is installed as editable, conf/ is read where it lies."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            shutil.copytree("conf", Path(self.build_lib) / "domaintune" / "conf", dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithConf})
