"""The folder of a sweep: its trials, and sweep.json, which says what became of each. Imports nothing heavy."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from domaintune.config.comparison import by_content, deciding, defaults
from domaintune.errors import RunError, UsageError
from domaintune.files.lock import Lock
from domaintune.files.writing import write_whole
from domaintune.runs.folder import RunFolder, now, optional, read_config, typed_command
from domaintune.sweeps import leaderboard
from domaintune.sweeps.trials import TrialRecord

Hashes = Mapping[str, str | None]
NO_HASHES: Hashes = {}


class SweepFolder:
    """One sweep's folder and its sweep.json, which is written anew at every change.

    What stands there and in the trials' folders is all that a later start of the sweep needs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.trials: dict[str, TrialRecord] = {}
        self.asked: set[str] = set()  # the trials of this command; a narrower grid leaves the others alone
        self._record: dict[str, Any] = {"command": typed_command(), "started": now(), "ended": None}
        self._lock = Lock(folder)
        self._identities: dict[str, list[str]] | None = None

    @property
    def file(self) -> Path:
        return self.folder / "sweep.json"

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Takes the folder while the block runs, and records how it ended.

        Raises:
            UsageError: another process has the folder.
            SystemExit: with status 1, after all trials, where one has failed.
        """
        self._lock.take()
        try:
            self._load()
            yield
        except UsageError:
            if self.asked:
                self._end("failed")
            else:
                self._leave_no_trace()
            raise
        except (KeyboardInterrupt, SystemExit):
            self._end("interrupted")
            raise
        except BaseException:
            self._end("failed")
            raise
        else:
            unfinished = [name for name in self.asked if self.trials[name].state != "finished"]
            self._end("failed" if unfinished else "finished")
            if unfinished:
                raise SystemExit(1)
        finally:
            self._lock.release()

    def save(self, status: str = "running") -> None:
        """Writes sweep.json. Raises RunError where that can't be done."""
        trials = {name: asdict(trial) for name, trial in self.trials.items()}
        try:
            write_whole(self.file, json.dumps({**self._record, "status": status, "trials": trials}, indent=2) + "\n")
        except OSError as error:
            raise RunError(f"{self.file} can't be written: {error}") from error

    def ask(self, name: str, overrides: list[str]) -> TrialRecord:
        """The trial of this name, which is added where it is new, with what varies now."""
        trial = self.trials.setdefault(name, TrialRecord(number=len(self.trials)))
        trial.overrides = overrides
        self.asked.add(name)
        return trial

    def same_trial(self, name: str, config: dict[str, Any], others: set[str], hashes: Hashes = NO_HASHES) -> str:
        """The name under which a trial is known: its own, or that of an earlier one with the same config, whose data
        and checkpoint may have lain elsewhere.

        A key that is varied now and was not before changes the names; what was trained stays trained.

        Args:
            name: of the trial.
            others: names that other trials of this command have.
            hashes: SHA-256 of `data`, `weights` and the `checkpoint`'s other files.
        """
        if (self.folder / name / "config.yaml").exists():
            return name
        if self._identities is None:
            self._identities = defaultdict(list)
            for file in sorted(self.folder.glob("*/config.yaml")):
                earlier = by_content(read_config(file.parent), RunFolder(file.parent).hashes())
                self._identities[_identity(earlier)].append(file.parent.name)
        if not self._identities:
            return name
        without = {**hashes, "checkpoint": None}  # as earlier versions recorded them
        known = [each for its in (hashes, without) for each in self._identities[_identity(by_content(config, its))]]
        return next((earlier for earlier in known if earlier not in others), name)

    def _load(self) -> None:
        """What an earlier process left; what was running then, isn't now."""
        if not self.file.exists():
            return
        earlier = json.loads(self.file.read_text(encoding="utf-8"))
        self._record["started"] = earlier["started"]
        self.trials = {name: TrialRecord(**trial) for name, trial in earlier["trials"].items()}
        for trial in self.trials.values():
            trial.state = "interrupted" if trial.state == "running" else trial.state

    def _end(self, status: str) -> None:
        """Every sweep's end, also one in which trials failed or that was stopped."""
        self._record["ended"] = now()
        self.save(status)
        if self.trials:
            with optional("the leaderboard could not be written"):
                leaderboard.tell(self.folder, failures=False)

    def move_aside(self) -> None:
        """Moves what an earlier sweep left, and starts over."""
        if self.file.exists():
            self.trials, self._identities = {}, None
            self._record["started"] = now()
            aside = self.folder.with_name(f"{self.folder.name}.before-{now().replace(':', '-')}")
            self.folder.rename(aside)
            (aside / self._lock.file.name).unlink()
            self._lock.release()
            self._lock.take()
            print(f"moved the earlier sweep to {aside}")

    def _leave_no_trace(self) -> None:
        """Of a sweep that never began."""
        self._lock.release()
        with suppress(OSError):  # it holds something
            self.folder.rmdir()


def _identity(config: dict[str, Any]) -> str:
    return json.dumps({**defaults(), **deciding(config)}, sort_keys=True, default=str)
