"""Rows -> documents on the disk, read once per content of the files: their text, end to end, and where each begins."""

import json
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from domaintune.caching import cached
from domaintune.config import UsageError
from domaintune.data.finding import Source
from domaintune.data.reading import Fields, read
from domaintune.progress import progress

FORMAT = 3  # raise when the same files would give other documents
NAMED_BLANKS = 5  # rows without text that a message names
SIDES = ("train", "val", "test")
GIVEN = {None: -1, "train": 0, "val": 1, "test": 2}  # the number of a source's side; -1: to be decided


@dataclass(frozen=True)
class Documents:
    """Texts in the order of reading. Nothing of the text is held in memory; each access reads the file.

    Attributes:
        folder: the cache entry they lie in.
        sources: the names of the files, as they are called today.
    """

    folder: Path
    sources: tuple[str, ...]

    def _array(self, name: str) -> npt.NDArray[np.int64]:
        return np.load(self.folder / f"{name}.npy")

    @cached_property
    def starts(self) -> npt.NDArray[np.int64]:
        """(D + 1,) document d is bytes starts[d] to starts[d + 1] of the file."""
        return self._array("starts")

    @property
    def hashes(self) -> npt.NDArray[np.uint64]:
        """(D, 2) BLAKE2b of each text, 128 bits."""
        return np.load(self.folder / "hashes.npy")

    @property
    def group_hashes(self) -> npt.NDArray[np.uint64]:
        """(D,) of what decides the side: the group where there are groups, else the text."""
        return np.load(self.folder / "group_hashes.npy")

    @property
    def given_sides(self) -> npt.NDArray[np.int8]:
        """(D,) the side that a document's source was given for, -1 where there was none."""
        return np.load(self.folder / "given_sides.npy")

    @property
    def blanks(self) -> npt.NDArray[np.int64]:
        """(blank rows, 2) source and place of the rows that were left out since nothing stands in them."""
        return self._array("blanks")

    def source_notes(self) -> list[str]:
        """What a person should know about how the files were read."""
        notes = json.loads((self.folder / "source_notes.json").read_text(encoding="utf-8"))
        return [f"{self.sources[number]}: {note}" for number, note in notes]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, number: int) -> str:
        return next(self.texts(number, number + 1))

    def texts(self, first: int, end: int) -> Iterator[str]:
        """The texts of documents `first` to `end`, read at once."""
        starts = self.starts[first : end + 1]
        with (self.folder / "text.bin").open("rb") as file:
            file.seek(starts[0])
            raw = file.read(int(starts[-1] - starts[0]))
        places = (starts - starts[0]).tolist()
        return (raw[start:stop].decode() for start, stop in pairwise(places))

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

    def blank_places(self) -> list[str]:
        """The first few of the blank rows."""
        return [self._named(source, place) for source, place in self.blanks[:NAMED_BLANKS].tolist()]

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
    return Documents(folder, tuple(source.name for source in sources))


def _write(folder: Path, sources: list[Source], fields: Fields) -> None:
    starts, places, numbers, blanks = array("q", [0]), array("q"), array("q"), array("q")
    given, hashes, groups = array("b"), bytearray(), bytearray()
    with (folder / "text.bin").open("wb") as file, progress("reading", _bytes(sources), "bytes") as advance:
        for number, source in enumerate(sources):
            for place, text, group in read(source, fields):
                if text is None:
                    blanks.extend((number, place))
                    continue
                raw = text.encode()
                file.write(raw)
                starts.append(starts[-1] + len(raw))
                places.append(place)
                numbers.append(number)
                given.append(GIVEN[source.side])
                hashes += blake2b(raw, digest_size=16).digest()
                groups += hashes[-8:] if group is None else blake2b(group.encode(), digest_size=8).digest()
                advance(len(raw))
    if len(starts) == 1:
        raise UsageError(_nothing(sources, blanks))
    np.save(folder / "starts.npy", np.frombuffer(starts, dtype=np.int64))
    np.save(folder / "places.npy", np.frombuffer(places, dtype=np.int64))
    np.save(folder / "sources.npy", np.frombuffer(numbers, dtype=np.int64))
    np.save(folder / "given_sides.npy", np.frombuffer(given, dtype=np.int8))
    np.save(folder / "hashes.npy", np.frombuffer(hashes, dtype=np.uint64).reshape(-1, 2))
    np.save(folder / "group_hashes.npy", np.frombuffer(groups, dtype=np.uint64))
    notes = [[number, note] for number, source in enumerate(sources) for note in source.notes]
    (folder / "source_notes.json").write_text(json.dumps(notes), encoding="utf-8")
    np.save(folder / "blanks.npy", np.frombuffer(blanks, dtype=np.int64).reshape(-1, 2))


def _bytes(sources: list[Source]) -> int | None:
    """About as many as will be read; None where something is packed."""
    packed = any(source.gzipped or source.kind in (".parquet", "dataset") for source in sources)
    return None if packed else sum(Path(source.name).stat().st_size for source in sources)


def _nothing(sources: list[Source], blanks: Sequence[int]) -> str:
    files = f"{sources[0].name}: no text in it" if len(sources) == 1 else f"no text in any of {len(sources)} files"
    if not blanks:
        return files
    rows = [f"{sources[number].name}:{place}" for number, place in zip(blanks[::2], blanks[1::2], strict=True)]
    more = f" and {len(rows) - NAMED_BLANKS:,} more" if len(rows) > NAMED_BLANKS else ""
    return f"{files}: nothing to learn from stands in {', '.join(rows[:NAMED_BLANKS])}{more}"
