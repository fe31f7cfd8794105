"""What encoding the bytes of a file are in: given by name, by a mark, or guessed for a message."""

import codecs
from pathlib import Path

import pytest

from domaintune.data.charsets import find_codec, fitting_encodings
from domaintune.data.decoding import MARKS, is_utf8, opened
from domaintune.data.finding import Source
from domaintune.errors import UsageError

# One text of each kind that people have: a report of the weather, or what one does in it.
TEXTS = [
    (
        "big5",
        "新北市政府今天表示，由於颱風即將來襲，各級學校將於明日停止上課。市民應儘早做好防颱準備，並留意最新的氣象報告。"
        "我們在這裡等你，請不要忘記帶雨傘。",
    ),
    (
        "gbk",
        "北京市政府今天表示，由于台风即将来袭，各级学校将于明日停止上课。市民应尽早做好防台准备，并留意最新的气象报告。"
        "我们在这里等你，请不要忘记带雨伞。",
    ),
    (
        "shift_jis",
        "今日は天気がとても良いので、公園まで散歩に行きました。桜の花が咲いていて、たくさんの人が写真を撮っていました。"
        "カメラを持ってくればよかったと思います。",
    ),
    (
        "euc-jp",
        "今日は天気がとても良いので、公園まで散歩に行きました。桜の花が咲いていて、たくさんの人が写真を撮っていました。"
        "カメラを持ってくればよかったと思います。",
    ),
    (
        "euc-kr",
        "오늘은 날씨가 아주 좋아서 공원까지 산책을 갔습니다. 벚꽃이 피어 있고 많은 사람들이 사진을 찍고 있었습니다.",
    ),
    (
        "windows-1252",
        "Der Müller öffnete die Tür und grüßte die Gäste höflich. Über den Straßen hing Nebel.",
    ),
    (
        "windows-1252",
        "L’été dernier, nous avons visité le château près de la forêt. Le déjeuner était délicieux.",
    ),
    (
        "windows-1251",
        "Сегодня была очень хорошая погода, поэтому мы пошли гулять в парк. Там было много людей, которые "
        "фотографировали цветущую вишню.",
    ),
    (
        "koi8-r",
        "Сегодня была очень хорошая погода, поэтому мы пошли гулять в парк. Там было много людей, которые "
        "фотографировали цветущую вишню.",
    ),
    (
        "windows-1250",
        "Zażółć gęślą jaźń. Dzisiaj była bardzo ładna pogoda, więc poszliśmy na spacer do parku. Było tam "
        "wielu ludzi, którzy robili zdjęcia.",
    ),
    (
        "windows-1253",
        "Σήμερα ο καιρός ήταν πολύ καλός, γι' αυτό πήγαμε μια βόλτα στο πάρκο. Υπήρχαν πολλοί άνθρωποι που "
        "έβγαζαν φωτογραφίες.",
    ),
    (
        "windows-1254",
        "Bugün hava çok güzeldi, bu yüzden parka yürüyüşe gittik. Çiçek açan kiraz ağaçlarının fotoğrafını "
        "çeken birçok insan vardı. Işık güçlüydü.",
    ),
    ("windows-1255", "היום היה מזג אוויר יפה מאוד, ולכן הלכנו לטייל בפארק. היו שם הרבה אנשים שצילמו את פריחת הדובדבן."),
    (
        "windows-1256",
        "كان الطقس اليوم جميلا جدا، لذلك ذهبنا للتنزه في الحديقة. كان هناك الكثير من الناس يلتقطون الصور.",
    ),
    ("cp874", "วันนี้อากาศดีมาก เราจึงไปเดินเล่นที่สวนสาธารณะ มีคนมากมายถ่ายรูปดอกซากุระที่กำลังบาน"),
]


def write(file: Path, content: bytes) -> Source:
    file.write_bytes(content)
    return Source(str(file), file.suffix)


@pytest.mark.parametrize(("encoding", "text"), TEXTS)
@pytest.mark.parametrize("size", [20, 60, 1000])
def test_the_right_encoding_is_among_those_that_are_named(encoding: str, text: str, size: int) -> None:
    raw = f"text,label\n{(text * 20)[:size]},x\n".encode(encoding, "replace")
    found = fitting_encodings([raw[:7], raw[7:], b""])
    assert len(found) <= 3
    assert raw.decode(found[0]) == raw.decode(encoding)


@pytest.mark.parametrize(("encoding", "text"), TEXTS)
def test_of_eight_characters_it_is_one_of_three(encoding: str, text: str) -> None:
    raw = text[:8].encode(encoding, "replace") + b"\n"
    found = fitting_encodings([raw, b""])
    assert raw.decode("utf-8", "ignore") == raw.decode(encoding) or any(
        raw.decode(name) == raw.decode(encoding) for name in found
    )


def test_only_what_reads_the_whole_file_is_named() -> None:
    text = "我們在這裡等你，請不要忘記帶雨傘。\n"
    raw = text.encode("big5") * 2 + "恒生銀行\n".encode("cp950") + "咗\n".encode("big5hkscs")
    assert fitting_encodings([raw, b""]) == ["big5hkscs"]


def test_bytes_of_a_picture_are_in_no_encoding() -> None:
    assert fitting_encodings([b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0", b""]) == []


@pytest.mark.parametrize(
    "name", ["Big5", "BIG5", "gbk", "cp936", "shift-jis", "euc_kr", "Windows-1252", "utf8", "latin 1"]
)
def test_encodings_have_many_names(name: str) -> None:
    assert find_codec(name) == codecs.lookup(name).name


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("big-five", "did you mean big5"),
        ("window-1252", "did you mean windows-1252"),
        ("shift_jis_x", "did you mean shift-jis"),
        ("ansi", "usual are utf-8, "),
        ("", "usual are utf-8, "),
        ("base64", "no encoding of text"),
        ("rot13", "no encoding of text"),
        ("hex", "no encoding of text"),
        ("unicode_escape", "no encoding of text"),
        ("a\0b", "no encoding of text"),
    ],
)
def test_an_unknown_encoding_is_told(name: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        find_codec(name)


@pytest.mark.parametrize("mark", MARKS)
@pytest.mark.parametrize("given", [None, "utf-8", "windows-1252"])
def test_a_mark_decides(tmp_path: Path, mark: bytes, given: str | None) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(mark + "größer\n".encode(MARKS[mark]))
    source = Source(str(file), ".txt", encoding=given)
    with opened(source) as stream:
        assert stream.read() == "größer\n"
    as_thought = MARKS[mark] == "utf-8" and given != "windows-1252"
    assert source.notes == ([] if as_thought else [f"read as {MARKS[mark].upper()}, as its byte order mark says"])


def test_utf_8_that_is_read_otherwise_is_told(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes("größer\n".encode())
    source = Source(str(file), ".txt", encoding="cp1252")
    with opened(source) as stream:
        assert stream.read() == "grÃ¶ÃŸer\n"
    assert source.notes == ["it is UTF-8 as well, and data.encoding=cp1252 reads it otherwise"]


def test_utf_8_is_told_wherever_it_begins(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(b"plain\n" * 10_000 + "größer\n".encode())
    source = Source(str(file), ".txt", encoding="cp1252")
    with opened(source) as stream:
        stream.read()
    assert "it is UTF-8 as well" in source.notes[0]


@pytest.mark.parametrize(("encoding", "told"), [("latin-1", True), ("iso-8859-15", True), ("cp1252", False)])
def test_control_characters_in_latin_1_are_told(tmp_path: Path, encoding: str, told: bool) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes("„Größe“ – 5 €\n".encode("cp1252"))
    source = Source(str(file), ".txt", encoding=find_codec(encoding))
    with opened(source) as stream:
        stream.read()
    assert any("data.encoding=windows-1252 has quotes" in note for note in source.notes) is told


def test_whether_a_file_is_utf_8(tmp_path: Path) -> None:
    assert is_utf8(write(tmp_path / "a.txt", "größer".encode()))
    assert is_utf8(write(tmp_path / "b.txt", "größer".encode("utf-16")))
    assert not is_utf8(write(tmp_path / "c.txt", "größer".encode("latin-1")))
    assert not is_utf8(write(tmp_path / "d.txt", "plain".encode("utf-16-le")))
