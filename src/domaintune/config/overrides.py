"""What a person types as `key=value`, and what it means: the same for train, for its sweeps and for other commands.

The value of a setting that holds text is read by the rules of `read_text`. All other values follow Hydra's grammar;
what that grammar can't parse is text.
"""

import os
import re
import sys
import typing
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString, Sweep
from hydra.errors import HydraException
from omegaconf import OmegaConf

from domaintune.config.checks import PARTS, no_such_setting
from domaintune.config.help import list_groups, list_settings
from domaintune.config.own_leaves import take_folder
from domaintune.config.programs import program
from domaintune.config.schema import Config
from domaintune.errors import UsageError

MAKE_DICT = "make_dict"  # the resolver of a dict whose keys Hydra's grammar can't read
OPENING, CLOSING, QUOTES = "([{", ")]}", "'\""
FOLDERS = ("hydra.run.dir", "hydra.sweep.dir")  # have no schema, and are made before a config is checked
OFF = {"scheduler": "constant", "peft": "none", "logger": "none"}  # {group: its choice that is empty}
WITHOUT_SCHEMA = ("experiment", "hydra", "launcher", "sweep")
ALONE = ("callbacks", "experiment")  # groups that have none, and can be left out
PREFIX = re.compile(r"\+{0,2}")
CHOICE = re.compile(r"\s*choice\s*\((.*)\)\s*", re.DOTALL)
KINDS: dict[Any, str] = {
    str: "text",
    str | None: "text",
    list[str]: "texts",
    list[str] | None: "texts",
    dict[str, str]: "dict",
    dict[str, str] | None: "dict",
}
Value = str | list[str] | dict[str, str] | None

_typed_arguments: list[str] | None = None


def hand_to_hydra() -> None:
    """Rewrites `sys.argv` so that Hydra reads every value as it was typed. Options may stand anywhere in the line."""
    global _typed_arguments
    _typed_arguments = list(sys.argv)
    sys.argv = [sys.argv[0], *to_hydra(take_folder(sys.argv[1:]))]


def typed_arguments() -> list[str]:
    """The arguments of this process as a person typed them, the name of the program first."""
    return _typed_arguments or list(sys.argv)


def to_hydra(arguments: list[str]) -> list[str]:
    """A command line of train in Hydra's own grammar, overrides before options."""
    known = get_args_parser().parse_intermixed_args(arguments)
    if known.multirun and (known.cfg or known.info):
        raise UsageError("--cfg and --info show one config: leave -m out, and what is varied")
    overrides, options = list(known.overrides), list(arguments)
    _tell_of_repeated(overrides)
    for override in overrides:
        options.remove(override)
    return [*(_rewrite(override, sweeps=known.multirun) for override in _gather_dicts(overrides)), *options]


def _tell_of_repeated(overrides: list[str]) -> None:
    """Prints which settings are typed twice with different values: the last one is taken, as Hydra does."""
    typed: dict[str, str] = {}
    for override in overrides:
        key, _, value = override.partition("=")
        key = PREFIX.sub("", key, count=1)
        if typed.setdefault(key, value) != value:
            listed = f"; a list is typed '{key}=[{typed[key]},{value}]'" if "texts" in (kind_of(key) or "") else ""
            print(f"note: {key} is typed twice: {value} is taken, and {typed[key]} is not{listed}", file=sys.stderr)
            typed[key] = value


def _gather_dicts(overrides: list[str]) -> list[str]:
    """Members of a dict that is null unless it is set, as one override: Hydra has no keys there to override."""
    gathered: dict[str, dict[str, str]] = {}
    kept = []
    for override in overrides:
        key, _, value = override.partition("=")
        parent, _, name = key.rpartition(".")
        if kind_of(parent) == "dict" and _default_of(parent) is None:
            gathered.setdefault(parent, {})[name] = _read_element(value)
        else:
            kept.append(override)
    return [*kept, *(f"{parent}={_write_dict(members)}" for parent, members in gathered.items())]


def _rewrite(override: str, sweeps: bool) -> str:
    """One override in Hydra's grammar; what isn't `key=value` is left to Hydra."""
    key, equals, value = override.partition("=")
    if not equals or key.startswith("~"):
        return override
    setting = PREFIX.sub("", key, count=1)
    if setting.startswith("hydra/sweeper"):
        raise UsageError(f"{override}: sweeps are chosen by sweep=grid, sweep=random or sweep=optuna_tpe")
    if is_group(setting) or setting in (*PARTS, "experiment"):
        value = _without_null(setting, value)
        if value == "null":
            return f"~{setting}"  # Hydra has no null for a group
    if is_group(setting) and _inside(value, "[]") is not None:
        several = ",".join(part.strip() for part in _parts(_inside(value, "[]") or ""))
        raise UsageError(
            f"{override}: {setting} has one choice; a sweep has several: {program('train')} -m {setting}={several}"
        )
    if setting in FOLDERS:
        value = os.path.expanduser(value)
    kind = kind_of(setting)
    if kind is None:
        if _is_in_schema(setting) and not _can_be_read(value):
            raise UsageError(f"{override}: {_unreadable(value)}; {_example(setting)}")
        if _is_in_schema(setting) and not sweeps and isinstance(_parse(value), Sweep):
            raise UsageError(
                f"{override}: several values at a comma are a sweep, which -m runs ({program('train')} -m ...); "
                f"a number has a point, and a list stands in brackets; {_example(setting)}"
            )
        return f"{key}={_by_hydra(value, sweeps)}"
    if sweeps and (varied := _varied(value)) is not None:
        return f"{key}={','.join(_write(read_text(part, kind)) for part in varied)}"
    return f"{key}={_write(read_text(value, kind))}"


def _without_null(group: str, value: str) -> str:
    """The choices of a group with the one that is empty in place of `null`; a group without such a choice can go alone.

    Raises:
        UsageError: no run is without the group.
    """
    choices = [part.strip() for part in value.split(",")]
    if "null" not in map(str.lower, choices):
        return value
    if group not in OFF and (group not in ALONE or len(choices) > 1):
        raise UsageError(f"{group}={value}: null is no choice here; without {group}= the usual one is taken")
    return ",".join(OFF.get(group, "null") if choice.lower() == "null" else choice for choice in choices)


# What a setting takes.


def is_group(key: str) -> bool:
    """Whether a key names a group of conf of which one leaf is chosen: of callbacks and loggers several may be."""
    return is_dataclass(typing.get_type_hints(Config).get(key))


def unknown_settings() -> list[str]:
    """The keys that were typed and that no setting has. What conf alone knows, as the parts of a group, is left out."""
    keys = [argument.partition("=")[0] for argument in typed_arguments()[1:] if "=" in argument]
    return [key for key in keys if re.fullmatch(r"[\w.-]+", key) and not key.startswith("-") and not _is_known(key)]


def _is_known(key: str) -> bool:
    """Whether the schema has a setting, or has no schema for where it stands."""
    settings: Any = Config
    for name in key.split("."):
        hints = typing.get_type_hints(settings)
        if name not in hints:
            return settings is Config and name in WITHOUT_SCHEMA
        settings = hints[name]
        if not is_dataclass(settings):
            return True
    return True


def kind_of(key: str, settings: Any = Config) -> str | None:
    """`text`, `texts` (a list of them), `text or texts` or `dict`: what a setting of a dataclass takes.

    None where its values follow Hydra's grammar: numbers, truth values, and what has no schema.
    """
    *groups, name = key.split(".")
    for place, group in enumerate(groups):
        found = typing.get_type_hints(settings).get(group)
        if KINDS.get(found) == "dict":
            return "text" if place == len(groups) - 1 else None
        if not is_dataclass(found):
            return None
        settings = found
    return _declared(settings, name) or KINDS.get(typing.get_type_hints(settings).get(name))


def _is_in_schema(key: str) -> bool:
    """Whether a setting has a type of its own, as a number has; what may hold anything has none."""
    settings: Any = Config
    *groups, name = key.split(".")
    for group in groups:
        settings = typing.get_type_hints(settings).get(group)
        if not is_dataclass(settings):
            return False
    found = typing.get_type_hints(settings).get(name, Any)
    return found is not Any and not is_dataclass(found) and typing.get_origin(found) is not dict


def _declared(settings: Any, name: str) -> str | None:
    """The kind that a field's metadata names, where its type can't say it."""
    return next((field.metadata.get("kind") for field in fields(settings) if field.name == name), None)


def read_text(typed: str, kind: str) -> Value:
    """What the text after `key=` means for a setting that holds text.

    In this order: of a quoted text its inside; `null` is None; a list in brackets, or a dict in braces, where the
    setting takes one; else the text itself, with all its commas and spaces. `${...}` is kept, to be resolved later.
    """
    quoted = _inside_of_quotes(typed)
    if kind == "dict":
        return quoted or _read_dict(typed)
    if quoted is not None:
        return [quoted] if kind == "texts" else quoted
    if typed.strip().lower() == "null":
        return None
    if "texts" in kind and (inside := _inside(typed, "[]")) is not None:
        parts = _parts(inside)
        return [_read_element(part) for part in (parts if parts and parts[-1].strip() else parts[:-1])]
    return [typed] if kind == "texts" and typed else typed


def _read_element(typed: str) -> str:
    quoted = _inside_of_quotes(typed.strip())
    return typed.strip() if quoted is None else quoted


def _read_dict(typed: str) -> dict[str, str] | str | None:
    if (inside := _inside(typed, "{}")) is None:
        return None if typed.strip().lower() == "null" else typed
    return dict(_read_pair(part) for part in _parts(inside))


def _read_pair(typed: str) -> tuple[str, str]:
    colon = next((place for place, sign in _outside_of_quotes(typed) if sign == ":"), len(typed))
    return _read_element(typed[:colon]), _read_element(typed[colon + 1 :])


def _inside(typed: str, brackets: str) -> str | None:
    """What stands between a pair of brackets that are the first and the last sign and belong together."""
    text = typed.strip()
    if text[:1] != brackets[0] or text[-1:] != brackets[1]:
        return None
    depth = 0
    for place, sign in _outside_of_quotes(text):
        depth += (sign in OPENING) - (sign in CLOSING)
        if depth == 0 and place < len(text) - 1:
            return None
    return text[1:-1]


def _inside_of_quotes(typed: str) -> str | None:
    """The text in a pair of quotes, escaped quotes in it as they are meant; None where there is no such pair."""
    if len(typed) < 2 or typed[0] not in QUOTES or typed[-1] != typed[0]:
        return None
    try:
        parsed = _parse(typed)
    except HydraException:  # a quote inside, which doesn't end there
        return None
    return parsed.text if isinstance(parsed, QuotedString) else None


def _varied(typed: str) -> list[str] | None:
    """The values of a sweep: of a comma list or of choice(...); None where there is one value alone.

    Spaces behind a comma part values; those before it belong to a text.
    """
    match = CHOICE.fullmatch(typed)
    first, *others = _parts(match[1] if match else typed) or [typed]
    return [first, *(other.lstrip() for other in others)] if others or match else None


def _parts(text: str) -> list[str]:
    """Cuts a text at its commas, but not inside quotes or brackets. Brackets that don't match are plain signs."""
    if not text.strip():
        return []
    signs = list(_outside_of_quotes(text))
    nested = not _unmatched(sign for _, sign in signs)
    cuts, depth = [-1], 0
    for place, sign in signs:
        depth += nested * ((sign in OPENING) - (sign in CLOSING))
        if sign == "," and depth == 0:
            cuts.append(place)
    ends = [*cuts[1:], len(text)]
    return [text[start + 1 : end] for start, end in zip(cuts, ends, strict=True)]


def _unmatched(signs: Iterable[str]) -> str:
    """Which bracket has no partner, in words; empty where each has one."""
    open_: list[str] = []
    for sign in signs:
        if sign in OPENING:
            open_.append(sign)
        elif sign in CLOSING and (not open_ or CLOSING[OPENING.index(open_.pop())] != sign):
            return f"{sign!r} closes nothing"
    return f"{open_[-1]!r} is not closed by {CLOSING[OPENING.index(open_[-1])]!r}" if open_ else ""


def _outside_of_quotes(text: str) -> Iterator[tuple[int, str]]:
    """(place, sign) of a text without its quoted stretches. A quote opens one only where a value can begin."""
    place, begins = 0, True
    while place < len(text):
        sign = text[place]
        end = _end_of_quotes(text, place) if begins and sign in QUOTES else None
        if end is not None:
            place, begins = end, False
            continue
        yield place, sign
        begins = sign in "([{,:" or (begins and sign.isspace())
        place += 1


def _end_of_quotes(text: str, start: int) -> int | None:
    """Behind the quote that closes the one at `start`; None where a letter follows it, or there is none."""
    escaped = False
    for place in range(start + 1, len(text)):
        if text[place] == text[start] and not escaped:
            return place + 1 if text[place + 1 :].lstrip()[:1] in ("", *",:)]}") else None
        escaped = text[place] == "\\" and not escaped
    return None


# Hydra's grammar.


def _parse(value: str) -> Any:
    """What Hydra's grammar makes of a value; raises HydraException where it can't read it."""
    return OverridesParser.create().parse_rule(f"x={value}", "override")._value


def _by_hydra(value: str, sweeps: bool) -> str:
    """A value of no text setting: as it is where Hydra can read it, else its unreadable parts become text."""
    if _can_be_read(value):
        return value
    if (inside := _inside(value, "[]")) is not None:
        return "[" + ",".join(_by_hydra(part.strip(), False) for part in _parts(inside)) + "]"
    if sweeps and (varied := _varied(value)) is not None:
        return ",".join(_by_hydra(part.strip(), False) for part in varied)
    return _write(value)


def _can_be_read(value: str) -> bool:
    try:
        _parse(value)
    except HydraException:
        return False
    return True


def _write(value: Value) -> str:
    """A value in Hydra's grammar. A text stays bare where Hydra reads it as it is."""
    if value is None:
        return "null"
    if isinstance(value, list):
        return "[" + ",".join(_write(each) or quote("") for each in value) + "]"
    if isinstance(value, dict):
        return _write_dict(value)
    try:
        bare = "," not in value and (not value or _parse(value) == value)
    except HydraException:
        bare = False
    return value if bare else quote(value)


def quote(text: str) -> str:
    """A text in quotes, as Hydra's grammar takes it whole."""
    return str(QuotedString(text, Quote.double).with_quotes())


def as_typed(override: str) -> str:
    """Turns Hydra's spelling of an override into the one that a person types: in a text, without backslashes."""
    key, _, value = override.partition("=")
    return override if kind_of(PREFIX.sub("", key, count=1)) is None else f"{key}={_write(_plain(_parse(value)))}"


def _plain(value: Any) -> Any:
    """What Hydra's grammar has read, with texts as texts."""
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {str(_plain(key)): _plain(each) for key, each in value.items()}
    return value.text if isinstance(value, QuotedString) else None if value is None else str(value)


def as_one_value(argument: str) -> str:
    """An argument of a single run as it means the same behind `-m`, where the commas of a text part values."""
    key, _, value = argument.partition("=")
    is_text = kind_of(key.lstrip("+")) in ("text", "text or texts")
    return f"{key}={quote(value)}" if is_text and _varied(value) else argument


def _write_dict(value: dict[str, str]) -> str:
    """Hydra's own form; where it can't read a key, an interpolation that makes the dict."""
    pairs = ", ".join(f"{key}: {_write(text) or quote(text)}" for key, text in value.items())
    if _can_be_read(f"{{{pairs}}}") and list(_parse(f"{{{pairs}}}")) == list(value):
        return f"{{{pairs}}}"
    words = (str(QuotedString(word, Quote.single).with_quotes()) for pair in value.items() for word in pair)
    return quote(f"${{{MAKE_DICT}:{','.join(words)}}}")


def register_resolvers() -> None:
    """Makes known to OmegaConf what configs and rewritten overrides refer to."""
    OmegaConf.register_new_resolver(MAKE_DICT, _make_dict, replace=True)
    OmegaConf.register_new_resolver("expand_user", os.path.expanduser, replace=True)
    OmegaConf.register_new_resolver("program", program, replace=True)
    OmegaConf.register_new_resolver("groups", list_groups, replace=True)
    OmegaConf.register_new_resolver("settings", list_settings, replace=True)


def _make_dict(*words: str) -> dict[str, str]:
    """Of keys and values in turn."""
    return dict(zip(words[::2], words[1::2], strict=True))


def _unreadable(value: str) -> str:
    """Which sign of a value Hydra's grammar stops at, in words."""
    if bracket := _unmatched(sign for _, sign in _outside_of_quotes(value)):
        return bracket
    readable = next(end for end in range(len(value), -1, -1) if _can_be_read(value[:end]))
    return f"{value[readable]!r} can't stand there"


def _default_of(key: str) -> Any:
    return OmegaConf.select(OmegaConf.structured(Config), key, throw_on_missing=False)


def _example(key: str) -> str:
    """A line that can be typed for a setting of the schema."""
    default = _default_of(key)
    if default is None:
        return "it takes a number or null"
    shown = f"[{','.join(map(str, default))}]" if OmegaConf.is_list(default) else str(default).lower()
    return f"type for example '{key}={shown}'"


def explain(override: str) -> str:
    """Why Hydra can't read an override, and what to type."""
    key, equals, value = override.partition("=")
    if not equals:
        return (
            f"{override}: arguments are KEY=VALUE, as data.path=notes.txt; with spaces in quotes: 'data.path=my notes'"
        )
    bare = PREFIX.sub("", key, count=1).removeprefix("~")
    odd = next((sign for sign in bare if not (sign.isascii() and (sign.isalnum() or sign in "._-/@$:"))), None)
    if odd is not None:
        return f"{override}: {odd!r} can't stand in the name of a setting; {no_such_setting(bare)}"
    if value.endswith(","):
        return f"{override}: a value ends in a comma; type no space behind the commas of a list: '{key}=A,B'"
    return f"{override}: {value!r} can't be read; a text with such signs is typed in quotes: '{key}={quote(value)}'"
