import pytest

from domaintune.wording import escaped, escaped_lines, shortened


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("data formats", "data formats"),
        ("[/x] $y$ :smile:", "[/x] $y$ :smile:"),
        ("正面 नकारात्मक 👩\u200d👧", "正面 नकारात्मक 👩\u200d👧"),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("a\u2028b\u202ec", r"a\u2028b\u202ec"),
        ("", ""),
    ],
)
def test_a_name_is_shown_on_one_line_and_does_nothing(name: str, shown: str) -> None:
    assert escaped(name) == shown


def test_a_message_keeps_its_lines() -> None:
    assert escaped_lines("a:\n  - b\x1b") == "a:\n  - b\\x1b"


@pytest.mark.parametrize("length", [5, 6, 60])
def test_what_is_too_long_keeps_its_ends(length: int) -> None:
    text = "beginning and end"
    short = shortened(text, length)
    assert len(short) == min(length, len(text))
    assert (short[:2], short[-2:]) == ("be", "nd")
