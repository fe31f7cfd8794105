"""--config-dir: a person's own folder of leaves, which stands before conf/: a leaf that has the name of ours wins.

Hydra itself puts that folder behind conf/, where such a leaf is never read.
"""

import os
from pathlib import Path

from hydra._internal.utils import get_args_parser
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from domaintune.config.programs import CONF
from domaintune.errors import UsageError

OPTIONS = ("--config-dir", "-cd")

_folder: str | None = None


class OwnLeavesFirst(SearchPathPlugin):
    """Puts the folder before conf/. Hydra calls it as it gathers where leaves are read."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        if _folder is not None:
            search_path.prepend(provider="command-line", path=f"file://{_folder}", anchor="main")


def folders() -> list[Path]:
    """Where leaves are read: conf/, and a person's own folder."""
    return [CONF, *([Path(_folder)] if _folder else [])]


def check_leaves(folder: Path) -> None:
    """Raises UsageError where a folder holds no leaf, or one of our groups that can't be read or builds on itself.

    Other files are none of ours: the folder may be a whole project.
    """
    if not any(next(folder.glob(pattern), None) for pattern in ("train.yaml", "*/*.yaml", "*/*/*.yaml")):
        raise UsageError(
            f"--config-dir {folder}: no leaf lies in it; a leaf is a file GROUP/NAME.yaml, as model/mine.yaml"
        )
    groups = [group.name for group in CONF.iterdir() if group.is_dir()]
    for leaf in (leaf for group in groups for leaf in folder.glob(f"{group}/*.yaml")):
        try:
            content = OmegaConf.to_container(OmegaConf.load(leaf))
        except (YAMLError, OmegaConfBaseException, OSError, UnicodeError) as error:
            raise UsageError(f"{leaf} can't be read: {' '.join(str(error).split())}") from error
        defaults = content.get("defaults") if isinstance(content, dict) else None
        if leaf.stem in (defaults or ()):
            raise UsageError(
                f"{leaf}: builds on itself, since it stands before the leaf of that name in conf/. Give it another name"
            )


def take_folder(arguments: list[str]) -> list[str]:
    """Remembers the folder that a command line names, for Hydra's search path.

    Returns:
        the line with the folder's absolute path: further processes of the run get it too.

    Raises:
        UsageError: there is no such folder, or two are named, or its leaves can't be read.
    """
    global _folder
    typed = get_args_parser().parse_intermixed_args(arguments).config_dir
    if typed is None:
        return arguments
    if sum(argument.partition("=")[0] in OPTIONS for argument in arguments) > 1:
        raise UsageError("--config-dir is given twice: leaves of your own lie in one folder")
    _folder = os.path.abspath(os.path.expanduser(typed))
    if not typed.strip() or not os.path.isdir(_folder):
        raise UsageError(f"--config-dir {typed or repr(typed)}: no such folder")
    check_leaves(Path(_folder))
    Plugins.instance().register(OwnLeavesFirst)
    behind = {number + 1 for number, argument in enumerate(arguments) if argument in OPTIONS}
    named = {number for number, argument in enumerate(arguments) if argument.partition("=")[0] in OPTIONS}
    others = [argument for number, argument in enumerate(arguments) if number not in behind | named]
    return [*others, "--config-dir", _folder]
