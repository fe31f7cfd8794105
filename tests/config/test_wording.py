import subprocess

import pytest

from domaintune.config.wording import escaped, escaped_lines, for_shell, shortened


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


@pytest.mark.parametrize(
    "text", ["a b", "it's", "2+2=\n", "a'b\\n\tc\r\n", "日記", "$HOME", "", "a\x1b[1m", "\u2028", "a\x85\\x85"]
)
def test_an_argument_comes_back_from_the_shell(text: str) -> None:
    typed = for_shell(text)
    assert "\n" not in typed
    done = subprocess.run(["bash", "-c", f"printf %s {typed}"], capture_output=True, check=True)
    assert done.stdout.decode() == text
