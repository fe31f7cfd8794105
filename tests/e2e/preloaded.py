"""A process with the imports of train.py done, which forks for every command: they take longer than a small run does.

Standard input has a command on each line, {"file", "arguments", "cwd", "environment", "stdout", "stderr",
"limit_seconds"} as JSON; standard output answers with its return code, as subprocess gives it.
"""

import json
import os
import runpy
import signal
import sys
from typing import Any

import lightning.pytorch.loggers  # noqa: F401
import tensorboard.summary  # noqa: F401

import domaintune.predicting
import domaintune.training  # noqa: F401


def next_command() -> dict[str, Any]:
    """What the forked process is to run; the process that forks stays in here."""
    for line in sys.stdin:
        child = os.fork()
        if not child:
            return dict(json.loads(line))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
    raise SystemExit(0)


def become(asked: dict[str, Any]) -> None:
    signal.alarm(asked["limit_seconds"])
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    for descriptor, name in enumerate((os.devnull, asked["stdout"], asked["stderr"])):
        file = os.open(name, os.O_RDWR | os.O_CREAT, 0o600)
        os.dup2(file, descriptor)
        os.close(file)
    sys.argv = [asked["file"], *asked["arguments"]]
    sys.path[0] = os.path.dirname(asked["file"])
    runpy.run_path(asked["file"], run_name="__main__")


if __name__ == "__main__":
    become(next_command())
