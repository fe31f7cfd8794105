"""Arguments of the scripts: `key=value`, split at the first `=`; a value means what it means in train."""

import functools
import sys
import typing
from collections.abc import Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

from domaintune.config.checks import find_run, no_such_setting, one_or_list
from domaintune.config.overrides import kind_of, read_text
from domaintune.config.programs import usage_of
from domaintune.config.schema import Config, PathsConfig
from domaintune.errors import UsageError

TRUTHS = {  # as Hydra reads them
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}


def split_arguments(arguments: list[str], usage: str) -> dict[str, str]:
    """{key: value}; `--help` prints `usage` and ends the process.

    Raises:
        UsageError: an argument without `=`, or a key twice.
    """
    if {"-h", "--help"} & set(arguments):
        print(usage_of(usage))
        raise SystemExit(0)
    settings: dict[str, str] = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals:
            raise UsageError(f"{argument}: arguments are key=value\n{usage_of(usage)}")
        if key in settings:
            raise UsageError(f"{key} is given twice")
        settings[key] = value
    return settings


def typed(settings: Any, given: Mapping[str, str]) -> None:
    """Sets fields of a (nested) dataclass instance by their dotted names; texts become what a field's type asks for.

    What a field takes that holds text is read by `overrides.read_text`; where its metadata says `literal`, it is taken
    as it is.

    Raises:
        UsageError: naming every unknown key and every value of the wrong type.
    """
    problems = []
    for key, value in given.items():
        *groups, name = key.split(".")
        group = functools.reduce(lambda node, part: getattr(node, part, None), groups, settings)
        kind = kind_of(key, type(settings))
        if isinstance(group, dict):
            group[name] = read_text(value, kind or "text")
            continue
        types = typing.get_type_hints(type(group)).get(name) if is_dataclass(group) else None
        if types is None or is_dataclass(types):
            problems.append(no_such_setting(key, settings))
            continue
        try:
            setattr(group, name, _convert(value, kind, types))
        except (ValueError, KeyError):
            problems.append(f"{key}={value}: must be {_words(types)}")
    if problems:
        raise UsageError(one_or_list("the arguments are wrong", problems))


def _convert(value: str, kind: str | None, types: Any) -> Any:
    kinds = typing.get_args(types) or (types,)
    if kind == "literal":
        return value
    if kind is not None:
        read = read_text(value, kind)
        if read is None and type(None) not in kinds and Any not in kinds:
            raise ValueError("null")
        return read
    if value.strip().lower() == "null" and type(None) in kinds:
        return None
    if bool in kinds:
        return TRUTHS[value.strip().lower()]
    return int(value) if int in kinds else float(value)


def _words(types: Any) -> str:
    kinds = typing.get_args(types) or (types,)
    if str in kinds:
        return "a text, not null; to say the word null, type it in quotes inside the shell's: '\"null\"'"
    return "true or false" if bool in kinds else "a whole number" if int in kinds else "a number"


def run_folder(run: str, paths: PathsConfig) -> Path:
    """The folder of a run by its name, of a sweep's trial by SWEEP/TRIAL, or of either by its path.

    Raises:
        UsageError: there is none.
    """
    try:
        return find_run(run, paths)
    except UsageError as error:
        raise UsageError(f"run={run}: {error}") from error


def sweep_folder(key: str, name: str, paths: PathsConfig) -> Path:
    """The folder of a sweep by its name or by its path.

    Args:
        key: what the name was given as.

    Raises:
        UsageError: there is none.
    """
    for folder in (Path(paths.sweeps) / name, Path(name).expanduser()):
        if folder.is_dir():
            return folder
    raise UsageError(f"{key}={name}: no sweep of this name in {paths.sweeps}, and no such folder")


def remind_of_chats(config: Config, export: Path, chat: bool) -> None:
    """Says that chat=true asks as training did, where a run may have learnt from chats."""
    if config.data.format == "instructions" and (export / "chat_template.jinja").exists() and not chat:
        print("note: of a run that learnt from chats, chat=true asks as its training did", file=sys.stderr)
