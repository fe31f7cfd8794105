import errno
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from filelock import FileLock

from domaintune.errors import UsageError
from domaintune.files import cache as caching
from domaintune.files.cache import CONTENTS, cached, is_complete

KEY = {"format": 1, "files": [["a", "b"]]}
MAKER = """
import os, sys, time
from pathlib import Path
from domaintune.files.cache import cached

def make(folder):
    with open(sys.argv[2], "a") as log:
        log.write("made\\n")
    (folder / "half.bin").write_bytes(b"half")
    print("begun", flush=True)
    time.sleep(float(sys.argv[3]))
    (folder / "rest.bin").write_bytes(b"rest")

if sys.argv[4:] and os.geteuid() == 0:
    os.seteuid(65534)  # to whom, unlike root, the bits of a folder's mode apply
print(cached(sys.argv[1], "texts", {"format": 1, "files": [["a", "b"]]}, make))
"""


def start(*arguments: object, folder: Path | None = None) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", MAKER, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder)


def fill(folder: Path) -> None:
    (folder / "text.bin").write_bytes(b"text")
    (folder / "empty").touch()


def refuse(folder: Path) -> None:
    pytest.fail("made again")


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def test_an_entry_is_made_once(tmp_path: Path) -> None:
    folder = cached(str(tmp_path / "new" / "cache"), "texts", KEY, fill)
    assert folder.parent == tmp_path / "new" / "cache" / "texts"
    assert names(folder) == {"text.bin", "empty", CONTENTS}
    assert cached(str(tmp_path / "new" / "cache"), "texts", dict(reversed(KEY.items())), refuse) == folder


def test_another_key_or_kind_is_another_entry(tmp_path: Path) -> None:
    folders = {
        cached(str(tmp_path), kind, key, fill) for kind in ("texts", "tokens") for key in (KEY, {**KEY, "format": 2})
    }
    assert len(folders) == 4


def test_a_maker_that_raises_leaves_nothing(tmp_path: Path) -> None:
    def make(folder: Path) -> None:
        fill(folder)
        raise UsageError("line 3 is broken")

    with pytest.raises(UsageError, match="line 3"):
        cached(str(tmp_path), "texts", KEY, make)
    assert [file.suffix for file in (tmp_path / "texts").iterdir()] in ([".lock"], [])
    assert is_complete(cached(str(tmp_path), "texts", KEY, fill))


def test_what_a_killed_maker_left_is_not_used_and_is_cleared_away(tmp_path: Path) -> None:
    with start(tmp_path / "cache", tmp_path / "log", 60) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.kill()
    left = {file.suffix for file in (tmp_path / "cache" / "texts").iterdir()}
    assert left == {".unfinished", ".lock"}
    folder = cached(str(tmp_path / "cache"), "texts", KEY, fill)
    assert names(folder) == {"text.bin", "empty", CONTENTS}
    assert ".unfinished" not in {file.suffix for file in folder.parent.iterdir()}


@pytest.mark.parametrize(
    "damage", ["shorter", "longer", "missing", "no contents", "contents cut", "contents of a list"]
)
def test_a_damaged_entry_is_made_again(tmp_path: Path, damage: str) -> None:
    folder = cached(str(tmp_path), "texts", KEY, fill)
    text, contents = folder / "text.bin", folder / CONTENTS
    match damage:
        case "shorter":
            text.write_bytes(b"tex")
        case "longer":
            text.write_bytes(b"text and more")
        case "missing":
            text.unlink()
        case "no contents":
            contents.unlink()
        case "contents cut":
            contents.write_bytes(contents.read_bytes()[:-3])
        case "contents of a list":
            contents.write_text("[]")
    (folder / "stray").touch()
    assert cached(str(tmp_path), "texts", KEY, fill) == folder
    assert text.read_bytes() == b"text"
    assert "stray" not in names(folder)


def test_two_processes_that_want_the_same_entry_make_it_once(tmp_path: Path) -> None:
    both = [start(tmp_path / "cache", tmp_path / "log", 1) for _ in range(2)]
    printed = [process.communicate(timeout=280)[0].split() for process in both]
    assert (tmp_path / "log").read_text() == "made\n"
    assert sorted(map(len, printed)) == [1, 2], "one has begun, the other waited"
    assert len({lines[-1] for lines in printed}) == 1
    assert names(Path(printed[0][-1])) == {"half.bin", "rest.bin", CONTENTS}


def test_who_waits_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    folder = cached(str(tmp_path), "texts", KEY, fill)
    (folder / CONTENTS).unlink()
    monkeypatch.setattr(caching, "PATIENCE", 0.05)
    said = ""
    with ThreadPoolExecutor(1) as other:
        with FileLock(folder.with_suffix(".lock")):
            waiting = other.submit(cached, str(tmp_path), "texts", KEY, fill)
            while not said and not waiting.done():
                said = capsys.readouterr().err
        assert waiting.result(timeout=120) == folder
    assert said == "waiting for another process that is making the same texts\n"


@pytest.mark.parametrize("inside", ["", "cache", "some/cache"])
def test_a_file_in_the_place_of_the_cache_is_told(tmp_path: Path, inside: str) -> None:
    (tmp_path / "file").touch()
    cache = str(tmp_path / "file" / inside)
    with pytest.raises(UsageError, match=r"paths\.cache=.*file.*DOMAINTUNE_CACHE"):
        cached(cache, "texts", KEY, refuse)


@pytest.mark.parametrize("cache", [".", "cache", "some/cache"])
def test_a_folder_that_may_not_be_written_is_told(tmp_path: Path, cache: str) -> None:
    (tmp_path / "locked").mkdir(mode=0o555)
    # From inside: whoever root becomes can't pass through the folders above.
    process = start(cache, tmp_path / "log", 0, "without root", folder=tmp_path / "locked")
    last = process.communicate(timeout=280)[1].splitlines()[-1]
    assert last.startswith(f"domaintune.errors.UsageError: paths.cache={cache}: ")
    assert "Permission denied" in last


def test_an_entry_can_be_used_where_nothing_may_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = cached(str(tmp_path), "texts", KEY, fill)
    (tmp_path / "texts" / f"{folder.name}.lock").unlink(missing_ok=True)

    def fail(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path))

    monkeypatch.setattr(os, "open", fail)
    monkeypatch.setattr(os, "mkdir", fail)
    assert cached(str(tmp_path), "texts", KEY, refuse) == folder


@pytest.mark.parametrize("when", ["while it is made", "when it is flushed"])
def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    def fail(_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    make = fail if when == "while it is made" else fill
    if make is fill:
        monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(UsageError, match=r"paths\.cache=.*No space left"):
        cached(str(tmp_path), "texts", KEY, make)
    assert {file.suffix for file in (tmp_path / "texts").iterdir()} <= {".lock"}


@pytest.mark.parametrize("place", ["elsewhere.txt", "cache/texts of mine/a.txt"])
def test_an_input_that_is_missing_is_not_blamed_on_the_cache(tmp_path: Path, place: str) -> None:
    def make(folder: Path) -> None:
        (folder / "text.bin").write_bytes((tmp_path / place).read_bytes())

    with pytest.raises(FileNotFoundError, match=place):
        cached(str(tmp_path / "cache"), "texts", KEY, make)
