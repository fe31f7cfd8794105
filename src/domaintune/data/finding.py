"""`data.path` and its like -> the files and data sets behind it, each with a hash of its bytes."""

import fnmatch
import glob
import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from domaintune.config.checks import HUB_ID
from domaintune.config.programs import program
from domaintune.config.schema import DataConfig
from domaintune.data.charsets import find_codec
from domaintune.data.embedded import embedded_corpus
from domaintune.data.own_files import OwnFiles, is_prediction
from domaintune.errors import UsageError
from domaintune.files.cache import unwritable

TEXTS = (".txt", ".md", ".conll")
CONLL = (".conll", ".txt", ".tsv")  # where words and their tags are wanted
TABLES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
SUFFIXES = (*TEXTS, *TABLES)
# Other endings of the same kinds.
ALIASES = {".ndjson": ".jsonl", ".conllu": ".conll", ".iob": ".conll", ".bio": ".conll"}
KINDS = {**{suffix: suffix for suffix in SUFFIXES}, **ALIASES}
GZIPPED = ".gz"  # after any of them but .parquet, which compresses by itself
QUOTED = (".csv", ".tsv")  # in which quotes may mean something
SUFFIX = re.compile(r"(?=.*[^\W\d_])[\w+-]{1,10}")  # without its dot; the rest of a name may hold dots as well
PACKED = ("gz", "bz2", "xz", "zst", "lz4", "br", "z")  # suffixes that are told with the one before them
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
        encoding: the codec of a text file; None where it is UTF-8, or what a byte order mark says.
        quoting: what quotes mean in a .csv or .tsv file (see `data.quoting`); None where its suffix and content decide.
        notes: what a person should know about how it was read; reading it adds to them.
    """

    name: str
    kind: str
    side: str | None = None
    dataset: Any = None
    encoding: str | None = None
    quoting: str | None = None
    notes: list[str] = field(default_factory=list, compare=False)

    @property
    def gzipped(self) -> bool:
        return self.dataset is None and self.name.lower().endswith(GZIPPED)

    @property
    def files(self) -> list[str]:
        """The file, or those that a data set lies in."""
        return [part["filename"] for part in self.dataset.cache_files] if self.dataset is not None else [self.name]

    @property
    def ways(self) -> list[str | None]:
        """How a person wants it read: a part of a cache's key."""
        return [self.encoding, self.quoting]

    def stamp(self) -> list[tuple[int, int, int]]:
        """Changes with every writing to the files."""
        stats = [os.stat(file) for file in self.files]
        return [(stat.st_ino, stat.st_size, stat.st_mtime_ns) for stat in stats]

    def note(self, text: str) -> None:
        """Adds a note, once however often the source is read."""
        if text not in self.notes:
            self.notes.append(text)

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


@dataclass
class Files:
    """What a path holds.

    Attributes:
        usable: the files that are read, in their order.
        other: how many files of other kinds there are, by their suffixes.
        own: how many files there are that this program wrote itself.
        notes: what else a person should know.
    """

    usable: list[Path] = field(default_factory=list)
    other: Counter[str] = field(default_factory=Counter)
    own: int = 0
    notes: list[str] = field(default_factory=list)


@dataclass
class Found:
    """Everything that the `data` group names: the sources in the order in which they are read, and as `Files`."""

    sources: list[Source] = field(default_factory=list)
    other_files: Counter[str] = field(default_factory=Counter)
    own_files: int = 0
    notes: list[str] = field(default_factory=list)

    def add(self, files: Files) -> None:
        """Counts what a path holds beside its sources."""
        self.other_files += files.other
        self.own_files += files.own
        self.notes += files.notes


def find_sources(config: DataConfig, cache: str) -> Found:
    """Everything that the `data` group names; without a path the embedded corpus.

    The validation and test splits of a data set in `path` serve as such where no path of their own is given.

    Raises:
        UsageError: naming the setting whose path is missing or holds nothing usable.
    """
    if config.subset is not None and not any(looks_like_hub_id(path) for path in as_list(config.path)):
        raise UsageError(f"data.subset={config.subset}: only a data set on the Hub (data.path=owner/name) has subsets")
    codec = None if config.encoding is None else find_codec(config.encoding)
    try:
        given = config.path or str(embedded_corpus(cache, config.embedded or "domain"))
    except OSError as error:
        raise unwritable(cache, cache, error) from error
    found, splits = Found(), 0
    own = {"val": config.val_path, "test": config.test_path}
    for paths, side in ((given, None), (own["val"], "val"), (own["test"], "test")):
        for path in as_list(paths):
            try:
                data_set = _data_set(path, side, config.subset, config.split)
                files = _of_format(find_files(path), config.format) if data_set is None else Files()
            except UsageError as error:
                raise UsageError(f"data.{side + '_' if side else ''}path={path}: {error}") from error
            splits += len(data_set or ())
            found.sources += [
                split for split in data_set or () if side or split.side is None or own[split.side] is None
            ]
            found.sources += [_file_source(file, side, codec, config.quoting) for file in files.usable]
            found.add(files)
    if config.split is not None and not splits:
        raise UsageError(f"data.split={config.split}: only a data set, saved or on the Hub, has splits")
    return found


def passed_over(other_files: Mapping[str, int], own_files: int) -> str:
    """What a folder or a glob held and was not read, in words; empty where there was nothing of the kind."""
    number, words = sum(other_files.values()), []
    if number:
        ordered = sorted(other_files.items(), key=lambda item: (-item[1], item[0]))
        each = ", ".join(f"{suffix} {count:,}" for suffix, count in ordered)
        words.append(f"{number:,} file{'s' * (number != 1)} of other kinds ({each})")
    if own_files:
        words.append(f"{own_files:,} file{'s' * (own_files != 1)} that this program wrote")
    return ", ".join(words)


def as_list(paths: Any) -> list[str]:
    """One path, several or none."""
    return [] if paths is None else [paths] if isinstance(paths, str) else list(paths)


def is_one_text(paths: Any) -> bool:
    """Whether the path is a single text file: one book, not a folder of documents."""
    files = as_list(paths)
    return len(files) == 1 and kind_of_file(files[0]) == ".txt" and os.path.isfile(os.path.expanduser(files[0]))


def _data_set(path: str, side: str | None, subset: str | None, split: str | None) -> list[Source] | None:
    """The splits of a saved data set or of one on the Hub; None where the path names files."""
    place = Path(os.path.expanduser(path))
    if any(all(os.path.isfile(place / name) for name in names) for names in SAVED):
        return _splits(path, _open_saved(place), side, split)
    if not os.path.lexists(place) and not glob.has_magic(path) and looks_like_hub_id(path):
        return _splits(path, _open_from_hub(path, subset), side, split)
    return None


def _file_source(file: Path, side: str | None, codec: str | None, quoting: str | None) -> Source:
    kind = kind_of_file(file)
    return Source(
        str(file),
        kind,
        side,
        encoding=None if kind == ".parquet" else codec,
        quoting=quoting if kind in QUOTED else None,
    )


def find_files(path: str) -> Files:
    """The files behind a path, sorted by name. A file that is named itself is taken whoever wrote it.

    Raises:
        UsageError: there is no usable file.
    """
    # os.path says False where Path's own methods raise: a name that is too long, a folder that may not be entered.
    place = Path(os.path.expanduser(path))
    if os.path.isdir(place):
        files = _sorted_out(_walk(place), place)
        if not files.usable:
            raise UsageError(f"the folder holds no usable file{_without(files)}; {_usable()}")
    elif os.path.lexists(place):
        if not kind_of_file(place):
            raise UsageError(f"can't read a {place.suffix or 'file without an ending'}; {_usable()}")
        files = Files([place])
        if is_prediction(place):
            files.notes.append(f"{path} was written by {program('predict')}; it is read since it is named itself")
    else:
        matches = list(_matches(place))
        files = _sorted_out((match for match in matches if not os.path.isdir(match)), _fixed_part(place))
        if matches and not files.usable:
            raise UsageError(f"nothing that it matches is usable{_without(files)}; {_usable()}")
        if not matches:
            raise _absent(place)
        if folders := sum(os.path.isdir(match) for match in matches):
            which = "1 folder that it matches is" if folders == 1 else f"{folders:,} folders that it matches are"
            files.notes.append(f"{path}: {which} not looked into")
    for file in files.usable:
        if not os.path.exists(file):
            raise UsageError(f"{file}: a link that leads nowhere, or to what may not be read")
    ordinary = [file for file in files.usable if os.path.isfile(file)]
    if not ordinary:
        raise UsageError(f"{files.usable[0]}: neither a file nor a folder")
    files.usable = ordinary
    return files


def _of_format(files: Files, format: str) -> Files:
    """Without the plain texts beside files with columns, where columns are wanted: a README.md beside a table."""
    without_columns = {"text": (), "entities": (".md",)}.get(format, TEXTS)
    odd = [file for file in files.usable if kind_of_file(file) in without_columns]
    if len(odd) < len(files.usable):
        files.usable = [file for file in files.usable if file not in odd]
        files.other.update(suffix_of(file.name) for file in odd)
    return files


def _sorted_out(files: Iterable[Path], searched: Path) -> Files:
    """Those that are read, and the numbers of those that aren't; what begins with a dot counts for nothing."""
    sorted_out, own = Files(), OwnFiles(searched)
    for file in files:
        if file in own:
            sorted_out.own += 1
        elif kind_of_file(file):
            sorted_out.usable.append(file)
        elif not file.name.startswith("."):
            sorted_out.other[suffix_of(file.name)] += 1
    sorted_out.usable.sort()
    return sorted_out


def suffix_of(name: str) -> str:
    """What says of which kind a file is, in lower case; `.tar.gz` as a whole."""
    stem, _, last = name.lower().rpartition(".")
    if not stem or not SUFFIX.fullmatch(last):
        return "no suffix"
    stem, _, before = stem.rpartition(".")
    return f".{before}.{last}" if last in PACKED and stem and SUFFIX.fullmatch(before) else f".{last}"


def _without(files: Files) -> str:
    words = passed_over(files.other, files.own)
    return f": {words}" if words else ""


def _fixed_part(pattern: Path) -> Path:
    """The folder that a glob searches: what of it is there as it is written, brackets in names of folders included."""
    folder = Path()
    for part in pattern.parts[:-1]:
        if glob.has_magic(part) and not os.path.isdir(folder / part):
            break
        folder /= part
    return folder


def _matches(pattern: Path) -> Iterable[Path]:
    folder = _fixed_part(pattern)
    parts = pattern.parts[len(folder.parts) :]
    if "**" not in parts:
        return map(Path, glob.glob(str(Path(glob.escape(str(folder)), *parts))))
    # glob's own ** follows two links that lead back for ever
    files = _walk(folder) if os.path.isdir(folder) else iter(())
    return (file for file in files if _fits(file.relative_to(folder).parts, parts))


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
    parts = str(place).split(",")
    several = len(parts) > 1 and all(os.path.lexists(os.path.expanduser(part.strip())) for part in parts)
    listed = f"; several are a list in brackets: '[{','.join(part.strip() for part in parts)}]'" if several else ""
    return UsageError(f"no such file or folder (from {Path.cwd()}){listed}")


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


def kind_of_file(file: str | Path) -> str:
    """The suffix that says how to read a file; an empty string where nothing here can."""
    name = str(file).lower()
    bare = name.removesuffix(GZIPPED)
    kind = next((kind for suffix, kind in KINDS.items() if bare.endswith(suffix)), "")
    return "" if bare != name and kind == ".parquet" else kind


def _usable() -> str:
    return f"usable are {', '.join(SUFFIXES)}, and all but the last with .gz after it"


def looks_like_hub_id(path: str) -> bool:
    """`owner/name`: with one slash, and no suffix of a file."""
    return HUB_ID.fullmatch(path) is not None and not kind_of_file(path)


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


def _splits(path: str, opened: dict[str, Any], side: str | None, split: str | None) -> list[Source]:
    """The splits that are wanted of a data set: for `data.path` the training one, and what else is published."""
    names = {"val": VAL_NAMES, "test": TEST_NAMES}
    published = {key: next((name for name in names[key] if name in opened), None) for key in names}
    only = next(iter(opened)) if len(opened) == 1 else None
    first = (published[side] or only) if side else split or ("train" if "train" in opened else only)
    if first is None or first not in opened:
        way_out = "" if side else f"; data.split={next(iter(opened))} takes one of them"
        raise UsageError(f"no {first or side or 'train'} split; there are {', '.join(opened)}{way_out}")
    chosen = {first: side}
    if side is None:
        chosen |= {name: key for key, name in published.items() if name not in (None, first)}
    return [Source(f"{path} ({name})", "dataset", its_side, opened[name]) for name, its_side in chosen.items()]
