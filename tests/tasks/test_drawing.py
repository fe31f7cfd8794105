"""Names of classes in a picture: as they are, or by numbers with a legend, and never a box or a warning."""

import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.text import Text

from domaintune.tasks import drawing
from domaintune.tasks.drawing import add_matrix


class Writer(TensorBoardLogger):
    """Draws what it is given, as TensorBoard's writer does, and keeps the names in it and the texts."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.texts: list[str] = []

    @property
    def experiment(self) -> Any:
        return SimpleNamespace(add_figure=self._draw, add_text=self._write)

    def _write(self, _tag: str, text: str, _step: int) -> None:
        self.texts.append(text)

    def _draw(self, _tag: str, figure: Any, _step: int) -> None:
        from torch.utils.tensorboard._utils import figure_to_image

        figure_to_image(figure)
        self.names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
        assert not any(text.get_parse_math() for text in figure.findobj(Text) if text.get_text())


def drawn(*names: str) -> Writer:
    writer: Any = Writer()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer = SimpleNamespace(loggers=[writer], is_global_zero=True, global_step=3)
        add_matrix(trainer, "val/confusion", np.ones((len(names), len(names))), names, names)
    return writer


@pytest.mark.parametrize(
    "names",
    [
        ("$0_to_$50", "$50_to_$200"),
        (r"$\frac{1}{2}$", "$x"),
        ("[open]", "[/wontfix]"),
        (":smile:", "<b>&amp;"),
        ("Ärger", "Смех"),
        ("إيجابي", "سلبي"),
        ("M" * 24, "W" * 24),
    ],
)
def test_names_are_drawn_as_they_are(names: tuple[str, ...]) -> None:
    writer = drawn(*names)
    assert writer.names == [*names]
    assert writer.texts == []


def test_names_that_no_font_has_are_numbers_with_a_legend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "_other_fonts", list)
    drawing.fonts_for.cache_clear()
    writer = drawn("正面", "neutral", "नकारात्मक", "👩\u200d👩\u200d👧")
    assert writer.names == ["1", "neutral", "3", "4"]
    assert writer.texts == ["    1: 正面\n    3: नकारात्मक\n    4: 👩\u200d👩\u200d👧"]
    assert drawn("ポジティブ", "neutral").names == ["1", "neutral"]
    assert drawn("正面", "1").names == ["#1", "1"], "told from a class of that name"
    drawing.fonts_for.cache_clear()


def test_a_font_of_this_machine_that_has_the_letters_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    fonts = [
        ("Latin", frozenset(range(256))),
        ("Han", frozenset(map(ord, "正面"))),
        ("Kana", frozenset(map(ord, "かな"))),
    ]
    monkeypatch.setattr(drawing, "_other_fonts", lambda: fonts)
    drawing.fonts_for.cache_clear()
    assert [drawing.fonts_for(text) for text in ("plain", "正面", "正か", "負")] == [
        (),
        ("Han",),
        ("Han", "Kana"),
        None,
    ]
    drawing.fonts_for.cache_clear()


@pytest.mark.parametrize("count", [2, 12, 60, 61])
def test_long_names_leave_room_for_the_picture(count: int) -> None:
    writer = drawn(*(f"{number} {'W' * 300} {number}" for number in range(count)))
    if count <= drawing.NAMED:
        assert len({*writer.names}) == count, "they can be told apart"
        assert max(map(len, writer.names)) <= drawing.LONGEST
        assert f"    1: 0 {'W' * 300} 0" in writer.texts[0].replace(writer.names[0], "1")


def test_control_characters_are_shown() -> None:
    assert drawn("a\nb", "\x1b[31mred", " ").names == [r"a\nb", r"\x1b[31mred", "3"]
