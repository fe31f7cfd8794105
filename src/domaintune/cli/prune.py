"""List what takes disk in the folders of runs and is no longer needed, and remove it, asking first.

    python scripts/prune.py

run=NAME     in the folder of one run: its name or folder, or a sweep's trial as SWEEP/TRIAL
sweep=NAME   of all trials of one sweep
yes=true     removes without asking
paths.logs=  where runs and sweeps are, as train was told

Without run= or sweep= it looks at all of them, and at exports in the cache, of runs that had not finished when they
were asked. Of a finished run, last.ckpt and the one before it go: the run can't be trained longer then. Its best.ckpt
and its export/ stay. What fresh=true has moved aside goes as a whole.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

from domaintune.cli.arguments import run_folder, split_arguments, sweep_folder, typed
from domaintune.cli.exiting import told
from domaintune.config.composing import PathsArguments, default_config
from domaintune.config.wording import escaped
from domaintune.errors import RunError, UsageError
from domaintune.runs.pruning import Unneeded, find_exports, find_unneeded


@dataclass
class Arguments:
    run: str = ""
    sweep: str = ""
    yes: bool = False
    paths: PathsArguments = field(default_factory=PathsArguments)


def asked_for(arguments: Arguments) -> list[Unneeded]:
    if arguments.run and arguments.sweep:
        raise UsageError("give run= or sweep=, not both")
    paths = default_config(paths=arguments.paths).paths
    if arguments.run:
        return list(find_unneeded([run_folder(arguments.run, paths)]))
    if arguments.sweep:
        return list(find_unneeded([sweep_folder("sweep", arguments.sweep, paths)]))
    return [*find_unneeded([Path(paths.runs), Path(paths.sweeps)]), *find_exports(paths.cache)]


def is_agreed(found: list[Unneeded]) -> bool:
    if any(each.files for each in found):
        print("Runs that have finished can't be trained longer afterwards.")
    try:
        return input("Remove all of it? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        print("\nnothing is removed where nobody answers; yes=true removes without asking")
        return False
    except KeyboardInterrupt:
        print("\nnothing is removed")
        raise SystemExit(130) from None


def remove(found: list[Unneeded]) -> None:
    """Removes what can be removed, and says how much, and why the rest could not.

    Raises:
        RunError: some could not.
    """
    left, removed = [], 0
    for each in found:
        try:
            size = each.size
            each.remove()
            removed += size
        except (OSError, UsageError) as error:
            left.append(f"{each.path} is left as it was: {error}")
    print(f"removed {megabytes(removed)}")
    if left:
        raise RunError("\n".join(map(escaped, left)))


def megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


@told
def main() -> None:
    usage, arguments = __doc__ or "", Arguments()
    typed(arguments, split_arguments(sys.argv[1:], usage))
    found = asked_for(arguments)
    for each in found:
        print(f"{megabytes(each.size):>14}  {escaped(str(each.path))}  ({each.why})")
    if not found:
        print("nothing to remove")
        return
    print(f"{megabytes(sum(each.size for each in found)):>14}  in all")
    if arguments.yes or is_agreed(found):
        remove(found)
