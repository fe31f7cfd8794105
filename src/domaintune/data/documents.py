"""Rows -> documents on the disk, read once per content of the files: their records, end to end, and where each begins.

A record of plain text lies there as it is, another one as JSON. So the same record has the same hash from any file.
"""

import json
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from domaintune.data.fields import Fields, Record
from domaintune.data.finding import Source
from domaintune.data.formats.text import TextFormat
from domaintune.data.left_out import BLANK, NAMED, LeftOutRows, explained, joined
from domaintune.data.reading import read
from domaintune.errors import UsageError
from domaintune.files.cache import cached
from domaintune.files.progress import progress

FORMAT = 7  # raise when the same files would give other documents
SIDES = ("train", "val", "test")
GIVEN = {None: -1, "train": 0, "val": 1, "test": 2}  # the number of a source's side; -1: to be decided


@dataclass(frozen=True)
class Documents:
    """Records in the order of reading. Nothing of them is held in memory; each access reads the file.

    Attributes:
        folder: the cache entry they lie in.
        sources: the names of the files, as they are called today.
        are_texts: whether they are of plain text.
    """

    folder: Path
    sources: tuple[str, ...]
    are_texts: bool

    def _array(self, name: str) -> npt.NDArray[np.int64]:
        return np.load(self.folder / f"{name}.npy")

    @cached_property
    def starts(self) -> npt.NDArray[np.int64]:
        """(D + 1,) document d is bytes starts[d] to starts[d + 1] of the file."""
        return self._array("starts")

    @property
    def hashes(self) -> npt.NDArray[np.uint64]:
        """(D, 2) BLAKE2b of each record, 128 bits."""
        return np.load(self.folder / "hashes.npy")

    @property
    def group_hashes(self) -> npt.NDArray[np.uint64]:
        """(D,) of what decides the side: the group where there are groups, else what is given."""
        return np.load(self.folder / "group_hashes.npy")

    @property
    def given_hashes(self) -> npt.NDArray[np.uint64]:
        """(D,) of what a model is given: of labels, entities and pairs a part of the row, else the text."""
        return np.load(self.folder / "given_hashes.npy")

    @property
    def given_sides(self) -> npt.NDArray[np.int8]:
        """(D,) the side that a document's source was given for, -1 where there was none."""
        return np.load(self.folder / "given_sides.npy")

    @property
    def rows_left_out(self) -> npt.NDArray[np.int64]:
        """(rows, 3) source, place and number in `kinds_left_out` of the rows that can't be used."""
        return self._array("left_out")

    @cached_property
    def notes(self) -> dict[str, Any]:
        """What was noted while reading.

        `kinds_left_out`: [side, reason, words about its first row] of the rows that were left out.
        `messages_after_last_answer`: of all chats.
        `source_notes`: [source, words] on how a file was read.
        """
        notes: dict[str, Any] = json.loads((self.folder / "notes.json").read_text(encoding="utf-8"))
        return notes

    def left_out(self, *sides: int) -> LeftOutRows:
        """The rows that were left out, by their reasons; only those of sources for these sides where any are named."""
        found: LeftOutRows = {}
        rows = self.rows_left_out
        for number, (side, reason, why) in enumerate(self.notes["kinds_left_out"]):
            if not sides or side in sides:
                of_kind = rows[rows[:, 2] == number]
                places = [self._named(source, place) for source, place, _ in of_kind[:NAMED].tolist()]
                found = joined(found, reason, len(of_kind), places, why)
        return found

    def source_notes(self) -> list[str]:
        """What a person should know about how the files were read."""
        return [f"{self.sources[number]}: {note}" for number, note in self.notes["source_notes"]]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, number: int) -> Any:
        return next(self.records(number, number + 1))

    def records(self, first: int, end: int) -> Iterator[Any]:
        """The records of documents `first` to `end`, read at once."""
        starts = self.starts[first : end + 1]
        with (self.folder / "text.bin").open("rb") as file:
            file.seek(starts[0])
            raw = file.read(int(starts[-1] - starts[0]))
        places = (starts - starts[0]).tolist()
        texts = (raw[start:stop].decode() for start, stop in pairwise(places))
        return texts if self.are_texts else map(json.loads, texts)

    def batches(self, size: int) -> Iterator[tuple[int, int]]:
        """(first, end) of runs of documents with about `size` bytes each."""
        first = 0
        while first < len(self):
            end = int(np.searchsorted(self.starts, self.starts[first] + size, side="left"))
            end = min(max(end, first + 1), len(self))
            yield first, end
            first = end

    def place(self, number: int) -> str:
        """`file:line`, where a document came from."""
        return self._named(int(self._array("sources")[number]), int(self._array("places")[number]))

    def _named(self, source: int, place: int) -> str:
        return f"{self.sources[source]}:{place}"


def read_documents(sources: list[Source], fields: Fields, cache: str) -> Documents:
    """The documents of all sources; from the cache where the same bytes were read the same way before.

    Raises:
        UsageError: a source is damaged, or there is no text in any of them.
    """
    try:
        stamps = [source.stamp() for source in sources]
    except OSError as error:
        raise UsageError(f"{error.filename}: can't be read ({error.strerror})") from error
    key = {
        "format": FORMAT,
        "sources": [[source.kind, source.gzipped, source.side, source.sha256, *source.ways] for source in sources],
        "fields": fields.that_matter({source.kind for source in sources}),
    }

    def make(folder: Path) -> None:
        _write(folder, sources, fields)
        for source, stamp in zip(sources, stamps, strict=True):
            if source.stamp() != stamp:
                raise UsageError(f"{source.name}: changed while it was read; start again when it is at rest")

    folder = cached(cache, "documents", key, make)
    return Documents(folder, tuple(source.name for source in sources), isinstance(fields.format, TextFormat))


def _write(folder: Path, sources: list[Source], fields: Fields) -> None:
    starts, places, numbers, left_out = array("q", [0]), array("q"), array("q"), array("q")
    sides, hashes, given, groups = array("b"), bytearray(), bytearray(), bytearray()
    kinds: dict[tuple[int, str], tuple[int, str]] = {}  # (side, reason) -> its number, and words about its first row
    unused = 0
    with (folder / "text.bin").open("wb") as file, progress("reading", _bytes(sources), "bytes") as advance:
        for number, source in enumerate(sources):
            side = GIVEN[source.side]
            for row in read(source, fields):
                if row.record is None:
                    kind, _ = kinds.setdefault((side, row.reason or BLANK), (len(kinds), row.why))
                    left_out.extend((number, row.place, kind))
                    continue
                raw = _written(row.record).encode()
                file.write(raw)
                starts.append(starts[-1] + len(raw))
                places.append(row.place)
                numbers.append(number)
                sides.append(side)
                hashes += blake2b(raw, digest_size=16).digest()
                given += hashes[-8:] if row.given is None else blake2b(row.given.encode(), digest_size=8).digest()
                groups += given[-8:] if row.group is None else blake2b(row.group.encode(), digest_size=8).digest()
                unused += row.unused
                advance(len(raw))
    np.save(folder / "starts.npy", np.frombuffer(starts, dtype=np.int64))
    np.save(folder / "places.npy", np.frombuffer(places, dtype=np.int64))
    np.save(folder / "sources.npy", np.frombuffer(numbers, dtype=np.int64))
    np.save(folder / "given_sides.npy", np.frombuffer(sides, dtype=np.int8))
    np.save(folder / "hashes.npy", np.frombuffer(hashes, dtype=np.uint64).reshape(-1, 2))
    np.save(folder / "given_hashes.npy", np.frombuffer(given, dtype=np.uint64))
    np.save(folder / "group_hashes.npy", np.frombuffer(groups, dtype=np.uint64))
    np.save(folder / "left_out.npy", np.frombuffer(left_out, dtype=np.int64).reshape(-1, 3))
    listed = [[side, reason, why] for (side, reason), (_, why) in kinds.items()]
    source_notes = [[number, note] for number, source in enumerate(sources) for note in source.notes]
    notes = {"kinds_left_out": listed, "messages_after_last_answer": unused, "source_notes": source_notes}
    (folder / "notes.json").write_text(json.dumps(notes), encoding="utf-8")
    if len(starts) == 1:
        names = tuple(source.name for source in sources)
        raise UsageError(_nothing(names, Documents(folder, names, isinstance(fields.format, TextFormat)).left_out()))


def _written(record: Record) -> str:
    return record if isinstance(record, str) else json.dumps(record, ensure_ascii=False)


def _bytes(sources: list[Source]) -> int | None:
    """About as many as will be read; None where something is packed."""
    packed = any(source.gzipped or source.kind in (".parquet", "dataset") for source in sources)
    return None if packed else sum(Path(source.name).stat().st_size for source in sources)


def _nothing(names: tuple[str, ...], left_out: LeftOutRows) -> str:
    files = f"{names[0]}: no text in it" if len(names) == 1 else f"no text in any of {len(names)} files"
    return f"{files} that can be learnt from; left out are {explained(left_out)}" if left_out else files
