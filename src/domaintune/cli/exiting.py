"""How a command ends: 0 done; 2 the config or the data is wrong, or 1 a run can't go on, told in one message;
1 a crash, with its traceback; 128 and the number of the signal that stopped it."""

import errno
import functools
import logging
import os
import select
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from traceback import extract_tb
from typing import Any, NoReturn, ParamSpec, TypeVar

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from domaintune.config.hydra_errors import told_by_hydra
from domaintune.config.overrides import hand_to_hydra, register_resolvers
from domaintune.errors import RunError, UsageError
from domaintune.runs.console import copy_output

FULL = (errno.ENOSPC, errno.EDQUOT)
P = ParamSpec("P")
R = TypeVar("R")


def told(main: Callable[P, R]) -> Callable[P, R]:
    """A main function whose errors of use end in a message and exit status 2, before Hydra adds words of its own.

    So do, with other statuses, a run that can't go on and a full disk. Ctrl-C, and a reader who has read enough, end it
    without a word.
    """

    @functools.wraps(main)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        # Hydra makes INFO the root's level, and every call of the Hub's client is an INFO.
        logging.getLogger().setLevel(logging.WARNING)
        try:
            return main(*args, **kwargs)
        except UsageError as error:
            _remove_empty_folder()
            _exit_with_message(str(error))
        except RunError as error:
            _exit_with_message(str(error), status=1)
        except KeyboardInterrupt:
            sys.exit(128 + signal.SIGINT)
        except OSError as error:
            if isinstance(error, BrokenPipeError) and _is_unread():
                _end_unread()
            if error.errno not in FULL:
                raise
            where = f": {error.filename}" if error.filename else ""
            _exit_with_message(f"{os.strerror(error.errno)}{where}", status=1)

    return wrapped


def _is_unread() -> bool:
    """Whether standard output is a pipe whose reader is gone."""
    asked = select.poll()
    asked.register(1, select.POLLOUT)
    return any(event & select.POLLERR for _, event in asked.poll(0))


def _end_unread() -> NoReturn:
    """Ends where nobody reads what is printed, as `| head` does when it has read enough."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(128 + signal.SIGPIPE)


def run_command(main: Callable[[], Any]) -> None:
    """Runs a command that Hydra composes; what it can't compose ends like a UsageError."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # let its exceptions through, to be told apart here
    copy_output()
    register_resolvers()
    try:
        hand_to_hydra()
        main()
    except HydraException as error:
        _exit_with_message(told_by_hydra(error))
    except OmegaConfBaseException as error:  # of what is resolved before main, as the run's folder is
        _exit_with_message(f"the config does not resolve: {_unresolved(error)}")
    except UsageError as error:  # of a sweep, before its trials
        _exit_with_message(str(error))
    except RunError as error:
        _exit_with_message(str(error), status=1)
    except OSError as error:
        if any(frame.filename == __file__ and frame.name == "wrapped" for frame in extract_tb(error.__traceback__)):
            raise  # from inside of main
        _exit_with_message(f"the folder of the run can't be made: {error}")  # by Hydra, before main
    except KeyboardInterrupt:
        sys.exit(130)


def _unresolved(error: OmegaConfBaseException) -> str:
    key = f"{error.full_key}: " if error.full_key else ""
    hint = "; of the environment it is ${oc.env:NAME}" if "nterpolation" in type(error).__name__ else ""
    return f"{key}{str(error).splitlines()[0]}{hint}"


def _exit_with_message(message: str, status: int = 2) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(status)


def _remove_empty_folder() -> None:
    """Removes the folder that Hydra made for a run that never began, and for name=a/b also `a`.

    A folder that holds anything stays, and so does the one in which the command was typed.
    """
    if HydraConfig.initialized():
        folder = Path(HydraConfig.get().runtime.output_dir)
        within = list(takewhile(lambda parent: parent.name != "runs", folder.parents))
        own = {Path.cwd(), *Path.cwd().parents}
        with suppress(OSError):
            for empty in (folder, *(within if len(within) < len(folder.parents) else ())):
                if empty not in own:
                    empty.rmdir()
