"""Names from a person's data or settings, as they are shown: on one line, and no longer than there is room for."""

import re
import shlex
import unicodedata

SPLIT = ("Cc", "Cs", "Zl", "Zp")  # categories of characters that control a terminal, or end a line
TURNS = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # the direction of what follows


def escaped(text: str) -> str:
    """The text with its control characters and line ends as Python writes them, so that they do nothing."""
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in SPLIT or character in TURNS
        else character
        for character in text
    )


def escaped_lines(text: str) -> str:
    """As `escaped`, but with the line ends of a message left."""
    return "\n".join(map(escaped, text.split("\n")))


def shortened(text: str, length: int) -> str:
    """The text, or where it is longer than `length` its beginning and its end."""
    if len(text) <= length:
        return text
    end = (length - 1) // 2
    return f"{text[: length - 1 - end]}…{text[len(text) - end :]}"


def for_shell(argument: str) -> str:
    """An argument as one types it into bash or zsh, on one line: control characters are escaped in `$'...'`."""
    if escaped(argument) == argument:
        return shlex.quote(argument)
    inside = argument.replace("\\", "\\\\").replace("'", "\\'")
    # To a shell \x85 is a byte, which is no character of UTF-8.
    inside = re.sub("[\x80-\x9f]", lambda found: f"\\u{ord(found[0]):04x}", inside)
    return f"$'{escaped(inside)}'"
