"""Pictures for TensorBoard."""

import functools
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from lightning.pytorch.loggers import TensorBoardLogger

from domaintune.config.wording import escaped, shortened

WRITTEN = 12  # rows of a matrix up to which the numbers are written into it
NAMED = 60  # and up to which rows and columns are named
LONGEST = 24  # letters of a name that a picture has room for
NO_LETTERS = ("lastresort", "last resort", "color emoji", "adobe blank")  # fonts whose glyphs are boxes, or bitmaps


def add_matrix(
    trainer: Any, tag: str, table: npt.NDArray[np.float64], rows: Sequence[str], columns: Sequence[str]
) -> None:
    """Draws a table of counts, each row's shares as shades: a confusion matrix, what is true by what was given.

    A name that can't be drawn is a number there; which is which stands in TensorBoard's Text tab, under the same tag.
    """
    loggers = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
    if not loggers or not trainer.is_global_zero:
        return
    from matplotlib import rc_context
    from matplotlib.figure import Figure  # without pyplot, which would look for a display

    numbers = {name: number for names in (columns, rows) for number, name in enumerate(names, start=1)}
    sign = "#" if any(name.isdecimal() for name in numbers) else ""
    shown = {name: _shown(name, f"{sign}{number}") for name, number in numbers.items()}
    families = sorted({family for text in shown.values() for family in fonts_for(text) or ()})
    legend = [f"{shown[name]}: {escaped(name)}" for name in rows if shown[name] != escaped(name)]
    legend = legend if len(rows) <= NAMED else []
    size = min(12.0, 3.5 + 0.4 * len(rows))
    # A $ in a name is a $; each character is drawn in the first of the fonts that has it.
    with rc_context({"text.parse_math": False, "font.family": ["DejaVu Sans", *families]}):
        figure = Figure(figsize=(size, size), layout="constrained")
        axes = figure.add_subplot()
        axes.imshow(table / np.maximum(table.sum(1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1, aspect="auto")
        if len(rows) <= NAMED:
            axes.set_yticks(range(len(rows)), [shown[name] for name in rows])
            axes.set_xticks(range(len(columns)), [shown[name] for name in columns], rotation=45, ha="right")
        axes.set_ylabel("true")
        axes.set_xlabel("given" + "\n(the tab Text has the whole names)" * bool(legend))
        if len(rows) <= WRITTEN:
            for (row, column), count in np.ndenumerate(table):
                axes.text(column, row, f"{count:.0f}", ha="center", va="center")
        for logger in loggers:
            logger.experiment.add_figure(tag, figure, trainer.global_step)
    for logger in loggers if legend else ():
        # Indented, it is shown as it is: TensorBoard reads Markdown.
        logger.experiment.add_text(tag, "\n".join(f"    {line}" for line in legend), trainer.global_step)


def _shown(name: str, number: str) -> str:
    """A name as a picture can have it: shortened and escaped, or where no font has its letters its number."""
    text = escaped(name)
    if fonts_for(text) is None or not text.strip():
        return number
    return text if len(text) <= LONGEST else f"{number}: {shortened(text, LONGEST - 4)}"


@functools.cache
def fonts_for(text: str) -> tuple[str, ...] | None:
    """The families of fonts on this machine that have the characters which matplotlib's own font lacks.

    Returns:
        None where they can't be drawn: there is none, or their letters have to be joined by a library that matplotlib
        is not built with.
    """
    from matplotlib import ft2font

    if not hasattr(ft2font, "__libraqm_version__") and any(map(_is_joined, text)):
        return None
    lacking = {ord(character) for character in text if character not in "\u200c\u200d"} - _characters_of_own_font()
    found = []
    for family, characters in _other_fonts() if lacking else ():
        if characters & lacking:
            found.append(family)
            lacking -= characters
    return None if lacking else tuple(found)


def _is_joined(character: str) -> bool:
    """Whether it is written from right to left, or stands above, below or around another one."""
    return unicodedata.bidirectional(character) in ("R", "AL") or unicodedata.category(character)[0] == "M"


@functools.cache
def _characters_of_own_font() -> frozenset[int]:
    from matplotlib.font_manager import findfont, get_font

    return frozenset(get_font(findfont("DejaVu Sans")).get_charmap())


@functools.cache
def _other_fonts() -> list[tuple[str, frozenset[int]]]:
    """(family, its characters) of each font on this machine, once for each family."""
    from matplotlib.font_manager import fontManager, get_font

    found: dict[str, frozenset[int]] = {}
    for entry in sorted(fontManager.ttflist, key=lambda entry: (entry.name, abs(int(entry.weight) - 400))):
        if entry.name in found or entry.style != "normal" or any(word in entry.name.lower() for word in NO_LETTERS):
            continue
        try:
            found[entry.name] = frozenset(get_font(entry.fname).get_charmap())
        except (OSError, RuntimeError):  # it was removed, or is damaged
            continue
    return list(found.items())
