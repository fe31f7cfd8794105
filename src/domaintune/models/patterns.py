"""Names of parameters and modules by pattern; a pattern that matches nothing is an error."""

import difflib
from collections.abc import Iterable
from fnmatch import fnmatchcase

from domaintune.errors import UsageError

SHOWN = 4  # of the nearest names


def matching(setting: str, patterns: Iterable[str], names: Iterable[str]) -> set[str]:
    """The names that any of the patterns matches as a whole.

    Args:
        setting: what the patterns were given as, for messages.
        patterns: as of files: `*` stands for anything, dots too, `?` for one character, `[0-5]` for one of several.

    Raises:
        UsageError: a pattern matches nothing; says which names come nearest.
    """
    known, found = list(names), set()
    for pattern in patterns:
        matched = {name for name in known if fnmatchcase(name, pattern)}
        if not matched:
            raise UsageError(f"{setting}: {pattern} matches nothing; nearest are {', '.join(_nearest(pattern, known))}")
        found |= matched
    return found


def _nearest(pattern: str, names: list[str]) -> list[str]:
    """Names like the pattern: in whole or, where that ends in a wildcard, in their first parts."""
    depth = pattern.count(".") + 1
    like = {name if "*" not in pattern else ".".join(name.split(".")[:depth]): name for name in reversed(names)}
    return [like[close] for close in difflib.get_close_matches(pattern, like, n=SHOWN, cutoff=0.0)]
