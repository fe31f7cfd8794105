"""`data.path` and its like -> the files and data sets behind it, each with a hash of its bytes."""

import fnmatch
import glob
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from domaintune.caching import unwritable
from domaintune.config import HUB_ID, UsageError
from domaintune.data.embedded import embedded_corpus
from domaintune.settings import DataConfig

TEXTS = (".txt", ".md", ".conll")
CONLL = (".conll", ".txt", ".tsv")  # where words and their tags are wanted
TABLES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
SUFFIXES = (*TEXTS, *TABLES)
GZIPPED = ".gz"  # after any of them but .parquet, which compresses by itself
SAVED = ({"dataset_dict.json"}, {"dataset_info.json", "state.json"})  # what datasets' save_to_disk leaves in a folder
VAL_NAMES, TEST_NAMES = ("validation", "val", "valid", "dev"), ("test",)  # of the splits of a published data set
HUB_TIMEOUT = 5  # seconds to wait for the Hub's first answer


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

    @property
    def files(self) -> list[str]:
        """The file, or those that a data set lies in."""
        return [part["filename"] for part in self.dataset.cache_files] if self.dataset is not None else [self.name]

    def stamp(self) -> list[tuple[int, int, int]]:
        """Changes with every writing to the files."""
        stats = [os.stat(file) for file in self.files]
        return [(stat.st_ino, stat.st_size, stat.st_mtime_ns) for stat in stats]

    @cached_property
    def sha256(self) -> str:
        """Of the file's bytes, or of the files that a data set lies in."""
        digest = hashlib.sha256()
        for file in self.files:
            try:
                with open(file, "rb") as content:
                    digest.update(hashlib.file_digest(content, "sha256").digest())
            except OSError as error:
                raise _unreadable(error) from error
        return digest.hexdigest()


def find_sources(config: DataConfig, cache: str) -> list[Source]:
    """Everything that the `data` group names, in the order in which it is read; without a path the embedded corpus.

    The validation and test splits of a data set in `path` serve as such where no path of their own is given.

    Raises:
        UsageError: naming the setting whose path is missing or holds nothing usable.
    """
    if config.subset is not None and not any(looks_like_hub_id(path) for path in as_list(config.path)):
        raise UsageError(f"data.subset={config.subset}: only a data set on the Hub (data.path=owner/name) has subsets")
    try:
        given = config.path or str(embedded_corpus(cache, config.embedded or "domain"))
    except OSError as error:
        raise unwritable(cache, cache, error) from error
    sources: list[Source] = []
    own = {"val": config.val_path, "test": config.test_path}
    for paths, side in ((given, None), (own["val"], "val"), (own["test"], "test")):
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
    return len(files) == 1 and _kind(files[0]) == ".txt" and os.path.isfile(os.path.expanduser(files[0]))


def _sources(path: str, side: str | None, subset: str | None) -> list[Source]:
    place = Path(os.path.expanduser(path))
    if any(all(os.path.isfile(place / name) for name in names) for names in SAVED):
        return _splits(path, _open_saved(place), side)
    if not os.path.lexists(place) and not glob.has_magic(path) and looks_like_hub_id(path):
        return _splits(path, _open_from_hub(path, subset), side)
    return [Source(str(file), _kind(file), side) for file in find_files(path)]


def find_files(path: str) -> list[Path]:
    """The usable files behind a path, sorted by name. Raises UsageError where there are none."""
    # os.path says False where Path's own methods raise: a name that is too long, a folder that may not be entered.
    place = Path(os.path.expanduser(path))
    if os.path.isdir(place):
        found = sorted(file for file in _walk(place) if _kind(file))
        if not found:
            raise UsageError(f"the folder holds no usable file; {_usable()}")
    elif os.path.lexists(place):
        if not _kind(place):
            raise UsageError(f"can't read a {place.suffix or 'file without an ending'}; {_usable()}")
        found = [place]
    else:
        matches = _matches(place)
        found = [match for match in matches if _kind(match) and not os.path.isdir(match)]
        if matches and not found:
            raise UsageError(f"nothing that it matches is usable; {_usable()}")
        if not found:
            raise _absent(place)
    for file in found:
        if not os.path.exists(file):
            raise UsageError(f"{file}: a link that leads nowhere, or to what may not be read")
    ordinary = [file for file in found if os.path.isfile(file)]
    if not ordinary:
        raise UsageError(f"{found[0]}: neither a file nor a folder")
    return ordinary


def _matches(pattern: Path) -> list[Path]:
    if "**" not in pattern.parts:
        return [Path(name) for name in sorted(glob.glob(str(pattern)))]
    # glob's own ** follows two links that lead back for ever
    magic = next(number for number, part in enumerate(pattern.parts) if glob.has_magic(part))
    folder, parts = Path(*pattern.parts[:magic]), pattern.parts[magic:]
    files = _walk(folder) if os.path.isdir(folder) else iter(())
    return sorted(file for file in files if _fits(file.relative_to(folder).parts, parts))


def _fits(parts: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    """Whether a path, part by part, is one that a pattern means; ** are any folders, or none."""
    if not pattern or not parts:
        return not parts and set(pattern) <= {"**"}
    if pattern[0] == "**":
        return _fits(parts, pattern[1:]) or _fits(parts[1:], pattern)
    return fnmatch.fnmatchcase(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])


def _absent(place: Path) -> UsageError:
    try:
        os.lstat(place)
    except PermissionError as error:
        return _unreadable(error)
    except (OSError, ValueError):
        pass
    return UsageError(f"no such file or folder (from {Path.cwd()})")


def _unreadable(error: OSError) -> UsageError:
    return UsageError(f"{error.filename}: can't be read ({error.strerror})")


def _walk(folder: Path) -> Iterator[Path]:
    """Every file below a folder, through links too; what begins with a dot is hidden. A loop of links is gone once."""

    def give_up(error: OSError) -> None:
        raise _unreadable(error) from error  # else os.walk goes on without that folder

    seen = set()
    for parent, folders, files in os.walk(folder, onerror=give_up, followlinks=True):
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
        opened = datasets.load_from_disk(str(folder), keep_in_memory=False)
    except Exception as error:  # its own errors, pyarrow's, and of the JSON beside
        raise UsageError(f"not a whole saved data set ({first_line(error)})") from error
    return dict(opened) if isinstance(opened, dict) else {"train": opened}


def _open_from_hub(name: str, subset: str | None) -> dict[str, Any]:
    """{split: data set} of a data set on the Hub, or in its cache; never runs code that comes with it."""
    import datasets

    offline = datasets.config.HF_HUB_OFFLINE
    refusal = "not asked, HF_HUB_OFFLINE is set" if offline else _refusal(name)
    try:
        datasets.config.HF_HUB_OFFLINE = refusal is not None
        return dict(datasets.load_dataset(name, subset, keep_in_memory=False))
    except Exception as error:  # its own errors, the network's, pyarrow's, a reader's that is not installed
        cached = "nothing" if isinstance(error, ConnectionError) else first_line(error)
        reasons = f"the Hub: {refusal}; its cache: {cached}" if refusal else first_line(error)
        raise UsageError(f"no such file or folder (from {Path.cwd()}), and no data set ({reasons})") from error
    finally:
        datasets.config.HF_HUB_OFFLINE = offline


def _refusal(name: str) -> str | None:
    """Why the Hub does not give a data set; None where it does. `load_dataset` itself would try for half a minute."""
    from huggingface_hub import HfApi

    try:
        HfApi().dataset_info(name, timeout=HUB_TIMEOUT)
    except Exception as error:  # whatever the network stack raises
        return first_line(error)
    return None


def first_line(error: Exception) -> str:
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
