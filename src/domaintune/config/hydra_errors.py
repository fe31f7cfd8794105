"""What Hydra can't compose, in words that name what was probably meant."""

import os

from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from domaintune.config.checks import no_such_setting
from domaintune.config.hints import nearest
from domaintune.config.overrides import explain, unknown_settings
from domaintune.config.programs import program


def told_by_hydra(error: HydraException) -> str:
    """Hydra's message; for unknown settings all of them, each with the one that was probably meant."""
    message = str(error).strip()
    if isinstance(error, OverrideParseException):
        return explain(error.override)
    cause = error.__cause__
    if isinstance(error, ConfigCompositionException) and isinstance(cause, OmegaConfBaseException) and cause.full_key:
        key = cause.full_key
        if message.startswith("Could not override"):
            wrong = dict.fromkeys([no_such_setting(key), *map(no_such_setting, unknown_settings())])
            return "\n".join(wrong) + f" ({program('train')} --cfg job shows them all)"
        return f"{key}: {str(cause).splitlines()[0]}"
    if isinstance(error, MissingConfigException) and error.options and error.missing_cfg_file:
        return "\n".join([_no_such_choice(error), *map(no_such_setting, unknown_settings())])
    return message


def _no_such_choice(error: MissingConfigException) -> str:
    missing = str(error.missing_cfg_file)
    group, _, choice = missing.rpartition("/") if missing.startswith("hydra/") else missing.partition("/")
    choices = [name for name in error.options or () if not name.startswith("_")]  # _base.yaml is no choice
    meant = nearest(choice.lower(), choices) or "."
    if group == "data" and (os.path.lexists(os.path.expanduser(choice)) or "/" in choice):
        meant = f"; did you mean data.path={choice}?"
    if group == "model" and "/" in choice:
        meant = f"; did you mean model.checkpoint={choice}?"
    return f"{group}={choice}: there is no such choice{meant} There are {', '.join(choices)}"
