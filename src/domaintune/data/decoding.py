"""Bytes of a file -> text, and what is told where they are in another encoding than was thought."""

import codecs
import gzip
import io
import os
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import IO, Any

from domaintune.data.charsets import NOT_ASCII, fitting_encodings
from domaintune.data.finding import Source
from domaintune.errors import UsageError

# The longer ones first: UTF-32's mark of little-endian text begins with UTF-16's.
MARKS = {
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF8: "utf-8",
    "\ufeff".encode("gb18030"): "gb18030",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
OTHERWISE = {"utf-8-sig": "utf-8", "utf-16": "utf-16-le", "utf-32": "utf-32-le"}  # codecs that look for a mark: without
LATIN = ("iso8859-1", "iso8859-15", "iso8859-9")  # in which 0x80 to 0x9f are control characters
CONTROLS = re.compile(rb"[\x80-\x9f]")
CHUNK = 1 << 20
SURE = 5  # characters beyond ASCII that aren't UTF-8 by chance


@contextmanager
def opened(source: Source) -> Iterator[IO[str]]:
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


def _binary(source: Source) -> Any:
    return gzip.open(source.name, "rb") if source.gzipped else open(source.name, "rb")


def _codec(source: Source, raw: Any) -> str:
    """The codec of what stands in a file behind its byte order mark, which is skipped."""
    mark = _mark(raw)
    given = OTHERWISE.get(source.encoding or "utf-8", source.encoding or "utf-8")
    if not mark:
        if source.encoding is not None and given != "utf-8" and os.path.isfile(source.name):
            _note_on_encoding(source, given)
        return given
    raw.read(len(mark))
    codec = MARKS[mark]
    if codec != given:
        source.note(f"read as {codec.upper()}, as its byte order mark says")
    return codec


def _mark(raw: Any) -> bytes:
    """The byte order mark that a file begins with; empty where there is none."""
    head = raw.peek(4)
    return next((mark for mark in MARKS if head.startswith(mark)), b"")


def is_utf8(source: Source) -> bool:
    """Whether the whole of a file is UTF-8, or has a byte order mark."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        if _length_of_mark(source):
            return True
        return all("\0" not in decoder.decode(chunk, final=not chunk) for chunk in _chunks(source))
    except UnicodeDecodeError:
        return False
    except (OSError, EOFError, zlib.error):
        return True  # told with its reason when it is read


def _note_on_encoding(source: Source, codec: str) -> None:
    """Notes where the encoding that a person named reads a file, and another one was probably meant."""
    if not all(chunk.isascii() for chunk in _chunks(source)) and is_utf8(source):
        source.note(f"it is UTF-8 as well, and data.encoding={source.encoding} reads it otherwise")
    elif codec in LATIN and any(CONTROLS.search(chunk) for chunk in _chunks(source)):
        source.note(
            f"data.encoding={source.encoding} reads some of its bytes as control characters; "
            f"data.encoding=windows-1252 has quotes, dashes and the euro sign there"
        )


def _chunks(source: Source) -> Iterator[bytes]:
    """The bytes behind a byte order mark; an empty chunk is the last."""
    with _binary(source) as raw:
        raw.read(len(_mark(raw)))
        yield from chain(iter(lambda: raw.read(CHUNK), b""), [b""])


def _undecodable(source: Source, codec: str) -> str:
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


def _length_of_mark(source: Source) -> int:
    with _binary(source) as raw:
        return len(_mark(raw))


def _line_ends(text: str) -> int:
    return text.count("\n") + text.count("\r") - text.count("\r\n")


def _way_out(source: Source) -> str:
    """What to type for a file that is in another encoding."""
    fitting = fitting_encodings(_chunks(source))
    if not fitting:
        return (
            "; none of the usual encodings reads it as text. If it is text, data.encoding=NAME says in which encoding"
        )
    if fitting[0] == "utf-8":
        return "; it is UTF-8, so leave data.encoding out, and make UTF-8 of the files that are not (iconv -t utf-8)"
    others = f" (or {' or '.join(fitting[1:])})" if fitting[1:] else ""
    return (
        f"; data.encoding={fitting[0]} would read it{others}. It is for all text files: where only some are not UTF-8, "
        f"`iconv -f {fitting[0]} -t utf-8` makes them so"
    )


def told_of_nul(source: Source, line: int) -> UsageError:
    """A text that holds a NUL character is none, unless two bytes make a character."""
    wide = [name for name in fitting_encodings(_chunks(source)) if name.startswith("utf-16")]
    hint = f"; data.encoding={wide[0]} would read it" if wide and source.encoding is None else ""
    return UsageError(f"{source.name}, line {line}: a NUL character; this is no text, or not in UTF-8{hint}")
