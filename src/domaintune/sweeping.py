"""How a sweep's trials are named. Imported before Hydra composes, since its config asks for the names."""

import sys
from collections.abc import Iterable

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf


def trial_name(overrides: Iterable[str], typed: list[str]) -> str:
    """`optim.lr=5e-05,model=gpt2`: what varies between trials, which is what was not typed with one value.

    Args:
        overrides: of one trial, as Hydra's sweeper made them.
        typed: the arguments of the command, as in `-m optim.lr=1e-5,5e-5 seed=1`.
    """
    parser = OverridesParser.create()
    parsed = parser.parse_overrides([argument for argument in typed if not argument.startswith("-")])
    same = {override.get_key_element() for override in parsed if not override.is_sweep_override()}
    varied = [text for text in overrides if parser.parse_override(text).get_key_element() not in same]
    return ",".join(varied).replace("/", "_") or "single"


def register_resolver() -> None:
    """Makes `${trial_name:...}` known to configs."""
    OmegaConf.register_new_resolver("trial_name", lambda overrides: trial_name(overrides, sys.argv[1:]), replace=True)
