"""Names of classes: which spellings of different writers are one class, their order, and what is odd about them."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import combinations

Key = tuple[str, object]

NUMBER = re.compile(r"[-+]?[0-9]{1,300}(\.[0-9]*)?([eE][-+]?[0-9]{1,3})?")
LARGEST = 10**15  # of floats: beyond, neighbours are one
TRUTH = ("true", "false")
MISSING_WORDS = ("none", "na", "n/a", "#n/a", "nan", "null", "<na>", "nil")
SEPARATORS = ",;|/+&"
RATINGS, CLASSES = 5, 20  # more different numbers than these are a scale: with fractions, and without
FEW_TEXTS = 2  # a class: where classes have fewer on average, they may be no classes
FEW_CLASSES = 5  # of which that says nothing


def class_names(found: Collection[str], known: Sequence[str] = ()) -> dict[str, str]:
    """{label as rows have it: the name of its class}.

    The same value from different writers is one class: 1 and 1.0, True and true. Numbers are taken by their value only
    where every number of the set is written as programs write numbers: beside 1.10 or 007, which are versions or
    codes, 1 and 1.0 stay two. Classes of whole numbers are called 1, and 1.0 where others have fractions.

    Args:
        known: names of a trained head's classes, which are kept.
    """
    key_of = _keys({*found, *known})
    members: dict[Key, list[str]] = defaultdict(list)
    for name in sorted(found):
        members[key_of[name]].append(name)
    fractions = any(kind == "number" and not _is_whole(value) for kind, value in members)
    names: dict[str, str] = {}
    for key, spellings in members.items():
        heads = [name for name in known if key_of[name] == key]
        common = heads[0] if len(heads) == 1 else _name(key, spellings, fractions)
        names |= {name: name if name in heads else common for name in spellings}
    return names


def _keys(names: Iterable[str]) -> dict[str, Key]:
    """What is the same of names that are one class."""
    names = list(names)
    written = {name: _written_number(name) for name in names if NUMBER.fullmatch(name)}
    by_value = None not in written.values()
    keys: dict[str, Key] = {}
    for name in names:
        if name.lower() in TRUTH:
            keys[name] = ("truth", name.lower())
        elif by_value and name in written:
            keys[name] = ("number", written[name])
        else:
            keys[name] = ("name", name)
    return keys


def _written_number(name: str) -> int | float | None:
    """The value of a number that is spelt as a program writes an int or a float."""
    if name.removeprefix("-").isdecimal():
        return int(name) if name == str(int(name)) else None
    value = float(name)
    if name != repr(value) or abs(value) >= LARGEST:
        return None
    return int(value) if value.is_integer() else value


def _is_whole(value: object) -> bool:
    return isinstance(value, int)


def _name(key: Key, spellings: list[str], fractions: bool) -> str:
    kind, value = key
    if kind == "number" and _is_whole(value):
        return f"{value}.0" if fractions else str(value)
    return str(value) if kind == "truth" and len(spellings) > 1 else spellings[0]


def in_order(name: str) -> tuple[bool, float, str]:
    """Numbers by their size before words: what to sort by."""
    value = number_of(name)
    return value is None, 0 if value is None else value, name


def number_of(name: str) -> int | float | None:
    """The value of a name that looks like a number, however it is written."""
    if not NUMBER.fullmatch(name):
        return None
    return int(name) if name.removeprefix("-").isdecimal() else float(name)


# What is odd about them.


def spelt_alike(names: Iterable[str]) -> list[list[str]]:
    """Names that differ in case, white space, Unicode form, invisible signs or the digits of a number alone."""
    groups: dict[object, list[str]] = defaultdict(list)
    for name in names:
        groups[_folded(name)].append(name)
    return [group for group in groups.values() if len(group) > 1]


def _folded(name: str) -> object:
    plain = unicodedata.normalize("NFKC", name).casefold()
    visible = "".join(sign for sign in plain if unicodedata.category(sign) != "Cf")
    text = " ".join(unicodedata.normalize("NFKC", visible).split())
    value = number_of(text)
    return text if value is None else value


def told_apart(name: str, group: Sequence[str]) -> str:
    """A name in quotes; where another of the group looks the same, with its letters by their numbers."""
    looks = [unicodedata.normalize("NFC", other) for other in group]
    return ascii(name) if looks.count(unicodedata.normalize("NFC", name)) > 1 else repr(name)


def missing_words(names: Iterable[str]) -> list[str]:
    """Names that may mean that there is no label."""
    return [name for name in names if name.casefold() in MISSING_WORDS]


def on_a_scale(names: Collection[str]) -> bool:
    """Whether these are numbers, and so many that they are sizes rather than classes."""
    values = [number_of(name) for name in names]
    fractions = any(value is not None and not float(value).is_integer() for value in values)
    return None not in values and len(names) > (RATINGS if fractions else CLASSES)


def as_many_as(names: Collection[str], texts: int) -> bool:
    """Whether there are nearly as many classes as texts."""
    return len(names) > FEW_CLASSES and len(names) * FEW_TEXTS > texts


def parted_by(counts: Mapping[str, int]) -> tuple[str, str] | None:
    """(a name, the sign in it) that look like several labels in one string, as parts of it are labels too."""
    for sign in SEPARATORS:
        parts = {name: [part.strip() for part in name.split(sign)] for name in counts if sign in name}
        for name, its in parts.items():
            alone = [part in counts for part in its if part]
            # In words a slash or an ampersand are common, so one part alone says little.
            if len(alone) > 1 and (all(alone) or (any(alone) and sign in SEPARATORS[:3])):
                return name, sign
        if any({*one} == {*other} for one, other in combinations(list(parts.values())[:100], 2)):
            return next(iter(parts)), sign
    return None
