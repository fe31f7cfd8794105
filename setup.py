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
            conf = Path(self.build_lib) / "domaintune" / "conf"
            shutil.rmtree(conf, ignore_errors=True)  # of an earlier build
            shutil.copytree("conf", conf)


setup(cmdclass={"build_py": BuildWithConf})
