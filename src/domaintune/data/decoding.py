"""Bytes of a file -> text, and what a person is told where they are in another encoding than was thought."""

import codecs
import encodings.aliases
import gzip
import io
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import IO, TYPE_CHECKING, Any

from domaintune.config import UsageError, nearest

if TYPE_CHECKING:
    from domaintune.data.finding import Source

# The longer ones first: UTF-32's mark of little-endian text begins with UTF-16's.
MARKS = {
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
OTHERWISE = {"utf-8-sig": "utf-8", "utf-16": "utf-16-le", "utf-32": "utf-32-le"}  # codecs that look for a mark: without
ESCAPES = ("idna", "punycode", "undefined", "unicode-escape", "raw-unicode-escape")  # codecs, but of no files
KNOWN = "utf-8, utf-16, windows-1252, windows-1251, big5, gbk, shift_jis, euc-kr"
CHUNK = 1 << 20

WESTERN = "“”„‘’‚«»‹›–—…€°§·•™®© "
HIRAGANA = "".join(map(chr, range(0x3041, 0x3094)))
KATAKANA = "".join(map(chr, range(0x30A1, 0x30FD)))
WIDE = "，。、！？：；「」『』（）《》“”…—"
# By language, the letters and signs beyond ASCII that its texts are mostly made of.
LATIN = {
    "German": "äöüß" + WESTERN,
    "French": "éèêëàâùûîïôçœ" + WESTERN,
    "Spanish and Portuguese": "áéíóúñüãõâêôçà¿¡ºª" + WESTERN,
    "Italian": "àèéìòù" + WESTERN,
    "Nordic": "åäöæøé" + WESTERN,
    "Polish": "ąćęłńóśźż" + WESTERN,
    "Czech and Slovak": "áčďéěíňóřšťúůýžľĺôä" + WESTERN,
    "Hungarian": "áéíóöőúüű" + WESTERN,
    "Romanian": "ăâîșțşţ" + WESTERN,
    "Turkish": "çğıöşüâ" + WESTERN,
    "Baltic": "āčēģīķļņšūžąęėįųõäöü" + WESTERN,
}
ALPHABETS = {
    "Russian": "оеаинтсрвлкмі",
    "Greek": "αοιετνσηυρκπςά",
    "Hebrew": "יוהלאמתרבנש",
    "Arabic": "الينومرتبةكسعفد",
    "Thai": "านรกอเงยมลวดทสต่ัี้",
}
LETTERS = {
    **LATIN,
    **ALPHABETS,
    "Traditional Chinese": WIDE
    + "的一是不了在人有我他這個們中來上大為和國地到以說時要就出會可也你對生能而子那得於著下自之年過發後作"
    "裡用道行所然家種事成方多經麼去法學如都同現當沒動面起看定天分還進好小部其些主樣理心她本前開但因只從想實"
    "日者意無力它與長把機十民第公此已工使情明性知全三又關點正業外將兩高間由問很最重新市今",
    "Simplified Chinese": WIDE
    + "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过发后作"
    "里用道行所然家种事成方多经么去法学如都同现当没动面起看定天分还进好小部其些主样理心她本前开但因只从想实"
    "日者意无力它与长把机十民第公此已工使情明性知全三又关点正业外将两高间由问很最重新市今",
    "Japanese": WIDE + HIRAGANA + KATAKANA + "日一人年大国本中会生上行出分前時今見学気",
    "Korean": "이다는을가에의고하지도를은기사로어서나대리한자그시라인아있해것부정수일들제과장전안원니게만적스구보상"
    "여요으조소동들면오선주성우무비마연개신세계공미관경유용방없너까말내았었습니며든년때간생반거모날와",
}
# The share of a text's signs beyond ASCII that these make up, where it isn't nearly all of them.
SHARES = {"Traditional Chinese": 0.4, "Simplified Chinese": 0.4, "Japanese": 0.7, "Korean": 0.6}
SHARES |= dict.fromkeys(ALPHABETS, 0.7)
WEST = ("German", "French", "Spanish and Portuguese", "Italian", "Nordic")
# What text that isn't UTF-8 mostly is in. Of equals the first is named.
USUAL: dict[str, tuple[str, ...]] = {
    "windows-1252": WEST,
    "windows-1250": ("Polish", "Czech and Slovak", "Hungarian", "Romanian", "German"),
    "windows-1251": ("Russian",),
    "windows-1253": ("Greek",),
    "windows-1254": ("Turkish",),
    "windows-1255": ("Hebrew",),
    "windows-1256": ("Arabic",),
    "windows-1257": ("Baltic",),
    "cp874": ("Thai",),
    "koi8-r": ("Russian",),
    "iso-8859-2": ("Polish", "Czech and Slovak", "Hungarian", "Romanian"),
    "cp850": WEST,
    "mac-roman": WEST,
    "big5": ("Traditional Chinese",),
    "cp950": ("Traditional Chinese",),
    "big5hkscs": ("Traditional Chinese",),
    "gbk": ("Simplified Chinese", "Traditional Chinese"),
    "gb18030": ("Simplified Chinese", "Traditional Chinese"),
    "shift_jis": ("Japanese",),
    "cp932": ("Japanese",),
    "euc-jp": ("Japanese",),
    "euc-kr": ("Korean",),
    "cp949": ("Korean",),
    "utf-16-le": tuple(LETTERS),
    "utf-16-be": tuple(LETTERS),
    "utf-8": tuple(LETTERS),
}
SAMPLE = 20_000  # characters that are looked at
NAMED = 3  # encodings that a message names
SURE = 5  # characters beyond ASCII that aren't UTF-8 by chance
PLAUSIBLE = 0.4  # the least fit of one that is named
NOT_ASCII = re.compile(r"[^\x00-\x7f]")
RUN = re.compile(r"[A-Za-z]?[^\x00-\x7f]+[A-Za-z]?")
MANY = re.compile(r"[^\x00-\x7f]{5,}")  # in no word of a language that is written in Latin letters


def find_codec(encoding: str) -> str:
    """What Python calls an encoding.

    Raises:
        UsageError: it knows none of that name, or one that is not for text.
    """
    name = _codec_of_text(encoding)
    if name is None:
        aliases = {alias for pair in encodings.aliases.aliases.items() for alias in pair}
        known = sorted(alias.replace("_", "-") for alias in aliases if _codec_of_text(alias))
        hint = nearest(encoding.lower().replace("_", "-"), known)
        raise UsageError(f"data.encoding={encoding}: no encoding of text has this name{hint}; usual are {KNOWN}")
    return name


def _codec_of_text(encoding: str) -> str | None:
    try:
        name = codecs.lookup(encoding).name
        io.TextIOWrapper(io.BytesIO(), encoding=name).close()  # raises for codecs that make no text, as base64
    except (LookupError, ValueError):
        return None
    return None if name.replace("_", "-") in ESCAPES else name


@contextmanager
def opened(source: "Source") -> Iterator[IO[str]]:
    """A stream of text: any line ends, unpacked where it is gzipped, without a byte order mark."""
    try:
        with _binary(source) as raw:
            codec = _codec(source, raw)
            with io.TextIOWrapper(raw, encoding=codec) as stream:
                try:
                    yield stream
                except UnicodeError as error:
                    raise UsageError(_undecodable(source, codec)) from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UsageError(f"{source.name}: not a whole gzip file ({error})") from error
    except OSError as error:
        raise UsageError(f"{source.name}: can't be read ({error.strerror or error})") from error


def _binary(source: "Source") -> Any:
    return gzip.open(source.name, "rb") if source.gzipped else open(source.name, "rb")


def _codec(source: "Source", raw: Any) -> str:
    """The codec of what stands in a file behind its byte order mark, which is skipped."""
    head = raw.peek(4)
    mark = next((mark for mark in MARKS if head.startswith(mark)), b"")
    given = OTHERWISE.get(source.encoding or "utf-8", source.encoding or "utf-8")
    if not mark:
        if source.encoding is not None and given != "utf-8" and _begins_as_utf8(head):
            source.note(f"its beginning is UTF-8 as well, and data.encoding={source.encoding} reads it otherwise")
        return given
    raw.read(len(mark))
    codec = MARKS[mark]
    if codec != given:
        source.note(f"read as {codec.upper()}, as its byte order mark says")
    return codec


def is_utf8(source: "Source") -> bool:
    """Whether the whole of a file is UTF-8, or has a byte order mark."""
    if _length_of_mark(source):
        return True
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        return all("\0" not in decoder.decode(chunk, final=not chunk) for chunk in _chunks(source))
    except UnicodeDecodeError:
        return False
    except (OSError, EOFError, zlib.error):
        return True  # told with its reason when it is read


def _begins_as_utf8(head: bytes) -> bool:
    """Whether bytes are UTF-8 and not ASCII alone; a character may be cut at their end."""
    try:
        return not codecs.getincrementaldecoder("utf-8")().decode(head).isascii()
    except UnicodeDecodeError:
        return False


def _chunks(source: "Source") -> Iterator[bytes]:
    """The bytes behind a byte order mark; an empty chunk is the last."""
    with _binary(source) as raw:
        head = raw.peek(4)
        raw.read(next((len(mark) for mark in MARKS if head.startswith(mark)), 0))
        yield from chain(iter(lambda: raw.read(CHUNK), b""), [b""])


def _undecodable(source: "Source", codec: str) -> str:
    """Where the first bytes stand that a codec can't decode: a stream's own error counts from a buffer's beginning."""
    name = codec.upper()
    if not os.path.isfile(source.name):
        return f"{source.name}: not {name}"  # a pipe can't be read a second time
    decoder, lines, decoded = codecs.getincrementaldecoder(codec)(), 1, 0
    done = _length_of_mark(source)
    for chunk in _chunks(source):
        kept = len(decoder.getstate()[0])  # of a character that the last chunk cut
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            before = error.object[: error.start].decode(codec, "replace")
            line, byte = lines + _line_ends(before), error.object[error.start]
            packed = " of what is packed in it" if source.gzipped else ""
            where = f"{source.name}, line {line}: not {name} at byte {done - kept + error.start}{packed} (0x{byte:02x})"
            if codec != "utf-8" or decoded + len(NOT_ASCII.findall(before)) < SURE:
                return where + _way_out(source)
            reason = "this byte is damaged, or of another encoding" if chunk else "the file ends within a character"
            return f"{where}, though what stands before it is; {reason}"
        lines += _line_ends(text)
        decoded += len(NOT_ASCII.findall(text))
        done += len(chunk)
    return f"{source.name}: not {name} when it was first read; it changes meanwhile"


def _length_of_mark(source: "Source") -> int:
    with _binary(source) as raw:
        head = raw.peek(4)
    return next((len(mark) for mark in MARKS if head.startswith(mark)), 0)


def _line_ends(text: str) -> int:
    return text.count("\n") + text.count("\r") - text.count("\r\n")


def _way_out(source: "Source") -> str:
    """What to type for a file that is in another encoding."""
    fitting = fitting_encodings(_chunks(source))
    if not fitting:
        return (
            "; none of the usual encodings reads it as text. If it is text, data.encoding=NAME says in which encoding"
        )
    if fitting[0] == "utf-8":
        return "; it is UTF-8, so leave data.encoding out"
    others = f" (or {' or '.join(fitting[1:])})" if fitting[1:] else ""
    return f"; data.encoding={fitting[0]} would read it{others}"


def told_of_nul(source: "Source", line: int) -> UsageError:
    """A text that holds a NUL character is none, unless two bytes make a character."""
    wide = [name for name in fitting_encodings(_chunks(source)) if name.startswith("utf-16")]
    hint = f"; data.encoding={wide[0]} would read it" if wide and source.encoding is None else ""
    return UsageError(f"{source.name}, line {line}: a NUL character; this is no text, or not in UTF-8{hint}")


# Which encoding it is.


def fitting_encodings(chunks: Iterable[bytes]) -> list[str]:
    """The usual encodings that decode the whole of a file and make likely text of it, the likeliest first.

    Args:
        chunks: its bytes; an empty chunk is the last.
    """
    decoders = {name: codecs.getincrementaldecoder(name)() for name in USUAL}
    samples = dict.fromkeys(decoders, "")
    for chunk in chunks:
        for name, decoder in list(decoders.items()):
            try:
                text = decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError:
                del decoders[name]
                continue
            samples[name] += _sample(text, SAMPLE - len(samples[name]))
    fits = {name: max(_fit(samples[name], language) for language in USUAL[name]) for name in decoders}
    ranked = sorted(fits, key=lambda name: -fits[name])  # equals stay in their order
    best = max(fits.values(), default=0.0)
    likely = [name for name in ranked if fits[name] >= max(PLAUSIBLE, best * 0.8)]
    first_of = {samples[name]: name for name in reversed(likely)}  # of those that say the same
    return [name for name in likely if first_of[samples[name]] == name][:NAMED]


def _sample(text: str, size: int) -> str:
    """A part of a text from its first character on that tells encodings apart."""
    first = NOT_ASCII.search(text) or re.search("\0", text)
    if first is None:
        return ""
    start = max(0, first.start() - 2)
    return text[start : start + size]


def _fit(sample: str, language: str) -> float:
    """How much a text looks like one of this language, from 0 to 1."""
    if "\0" in sample:
        return 0.0
    signs = len(NOT_ASCII.findall(sample))
    if not signs:
        return 1.0
    if language in LATIN:
        sample = MANY.sub("", sample)
    elif language in ALPHABETS:
        # No word of another alphabet holds Latin letters.
        sample = " ".join(run for run in RUN.findall(sample) if not (run[0].isascii() or run[-1].isascii()))
    usual = sum(sign in LETTERS[language] for sign in NOT_ASCII.findall(sample.lower()))
    return min(1.0, usual / signs / SHARES.get(language, 1.0))
