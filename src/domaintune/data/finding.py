"""`data.path` and its like -> the files and data sets behind it, each with a hash of its bytes."""

import glob
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from domaintune.config import HUB_ID, DataConfig, UsageError
from domaintune.data.embedded import embedded_corpus

TEXTS = (".txt", ".md")
TABLES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
SUFFIXES = (*TEXTS, *TABLES)
GZIPPED = ".gz"  # after any of them but .parquet, which compresses by itself
SAVED = {"dataset_info.json", "dataset_dict.json"}  # what datasets' save_to_disk leaves in a folder
VAL_NAMES, TEST_NAMES = ("validation", "val", "valid", "dev"), ("test",)  # of the splits of a published data set


@dataclass(frozen=True)
class Source:
    """A file, or a split of a data set in the form of Hugging Face's `datasets`.

    Attributes:
        name: for messages: the file, or the data set with its split.
        kind: the suffix that says how to read it, without .gz, or `dataset`.
        side: val or test where its rows belong there; None where their hash decides.
        dataset: the opened data set.
    """

    name: str
    kind: str
    side: str | None = None
    dataset: Any = None

    @property
    def gzipped(self) -> bool:
        return self.dataset is None and self.name.lower().endswith(GZIPPED)

    @cached_property
    def sha256(self) -> str:
        """Of the file's bytes, or of the files that a data set lies in."""
        files = [part["filename"] for part in self.dataset.cache_files] if self.dataset is not None else [self.name]
        digest = hashlib.sha256()
        for file in files:
            try:
                with open(file, "rb") as content:
                    digest.update(hashlib.file_digest(content, "sha256").digest())
            except OSError as error:
                raise UsageError(f"{file}: can't be read ({error.strerror})") from error
        return digest.hexdigest()


def find_sources(config: DataConfig, cache: str) -> list[Source]:
    """Everything that the `data` group names, in the order in which it is read; without a path the embedded corpus.

    The validation and test splits of a data set in `path` serve as such where no path of their own is given.

    Raises:
        UsageError: naming the setting whose path is missing or holds nothing usable.
    """
    sources: list[Source] = []
    own = {"val": config.val_path, "test": config.test_path}
    for paths, side in ((config.path or str(embedded_corpus(cache)), None), (own["val"], "val"), (own["test"], "test")):
        for path in as_list(paths):
            try:
                found = _sources(path, side, config.subset)
            except UsageError as error:
                raise UsageError(f"data.{side + '_' if side else ''}path={path}: {error}") from error
            sources += [source for source in found if side or source.side is None or own[source.side] is None]
    return sources


def as_list(paths: Any) -> list[str]:
    """One path, several or none."""
    return [] if paths is None else [paths] if isinstance(paths, str) else list(paths)


def is_one_text(paths: Any) -> bool:
    """Whether the path is a single text file: one book, not a folder of documents."""
    files = as_list(paths)
    return len(files) == 1 and _kind(files[0]) == ".txt" and Path(files[0]).expanduser().is_file()


def _sources(path: str, side: str | None, subset: str | None) -> list[Source]:
    place = Path(path).expanduser()
    if place.is_dir() and any((place / name).is_file() for name in SAVED):
        return _splits(path, _open_saved(place), side)
    if not os.path.lexists(place) and not glob.has_magic(path) and looks_like_hub_id(path):
        return _splits(path, _open_from_hub(path, subset), side)
    return [Source(str(file), _kind(file), side) for file in find_files(path)]


def find_files(path: str) -> list[Path]:
    """The usable files behind a path, sorted by name. Raises UsageError where there are none."""
    place = Path(path).expanduser()
    if place.is_dir():
        found = sorted(file for file in _walk(place) if _kind(file))
        if not found:
            raise UsageError(f"the folder holds no usable file; {_usable()}")
    elif os.path.lexists(place):
        if not _kind(place):
            raise UsageError(f"can't read a {place.suffix or 'file without an ending'}; {_usable()}")
        found = [place]
    else:
        matches = [Path(match) for match in sorted(glob.glob(str(place), recursive=True))]
        found = [match for match in matches if _kind(match) and not match.is_dir()]
        if matches and not found:
            raise UsageError(f"nothing that it matches is usable; {_usable()}")
        if not found:
            raise UsageError(f"no such file or folder (from {Path.cwd()})")
    for file in found:
        if not file.exists():
            raise UsageError(f"{file}: a link that leads nowhere")
    return [file for file in found if file.is_file()]


def _walk(folder: Path) -> Iterator[Path]:
    """Every file below a folder, through links too; what begins with a dot is hidden. A loop of links is gone once."""
    seen = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent, name) for name in files if not name.startswith("."))


def _kind(file: str | Path) -> str:
    """The suffix that says how to read a file; an empty string where nothing here can."""
    name = str(file).lower()
    bare = name.removesuffix(GZIPPED)
    kind = next((suffix for suffix in SUFFIXES if bare.endswith(suffix)), "")
    return "" if bare != name and kind == ".parquet" else kind


def _usable() -> str:
    return f"usable are {', '.join(SUFFIXES)}, and all but the last with .gz after it"


def looks_like_hub_id(path: str) -> bool:
    """`owner/name`: with one slash, and no suffix of a file."""
    return HUB_ID.fullmatch(path) is not None and not _kind(path)


def _open_saved(folder: Path) -> dict[str, Any]:
    """{split: data set} of a folder that `save_to_disk` made."""
    import datasets  # takes a second, and only these need it

    try:
        opened = datasets.load_from_disk(str(folder))
    except Exception as error:  # its own errors, pyarrow's, and of the JSON beside
        raise UsageError(f"not a whole saved data set ({_first_line(error)})") from error
    return dict(opened) if isinstance(opened, dict) else {"train": opened}


def _open_from_hub(name: str, subset: str | None) -> dict[str, Any]:
    """{split: data set} of a data set on the Hub, or in its cache; never runs code that comes with it."""
    import datasets

    try:
        return dict(datasets.load_dataset(name, subset))
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise UsageError(
            f"no such file or folder (from {Path.cwd()}), and no data set that the Hub or its cache gives: "
            f"{_first_line(error)}"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _splits(path: str, opened: dict[str, Any], side: str | None) -> list[Source]:
    """The splits that are wanted of a data set: for `data.path` the training one, and what else is published."""
    names = {"val": VAL_NAMES, "test": TEST_NAMES}
    published = {key: next((name for name in names[key] if name in opened), None) for key in names}
    only = next(iter(opened)) if len(opened) == 1 else None
    first = (published[side] or only) if side else ("train" if "train" in opened else only)
    if first is None:
        raise UsageError(f"no {side or 'train'} split; there are {', '.join(opened)}")
    chosen = {first: side}
    if side is None:
        chosen |= {name: key for key, name in published.items() if name not in (None, first)}
    return [Source(f"{path} ({name})", "dataset", its_side, opened[name]) for name, its_side in chosen.items()]
