"""A process with the imports of train.py done, which forks for every command: they take longer than a small run does.

It takes commands from two places, one at a time:

- Standard input has a command on each line, {"file", "arguments", "cwd", "environment", "stdout", "stderr",
  "limit_seconds"} as JSON; standard output answers with its return code, as subprocess gives it.
- The Unix socket named in its first argument takes the same from `python_on_path.py`, which hands over its own standard
  streams instead of their names: so a shell that has that file on its PATH as `python` runs what a person types.
"""

import json
import os
import runpy
import select
import signal
import socket
import sys
from typing import Any

import lightning.pytorch.loggers  # noqa: F401
import tensorboard.summary  # noqa: F401

import domaintune.predicting
import domaintune.training  # noqa: F401


def next_command(server: socket.socket) -> dict[str, Any]:
    """What the forked process is to run; the process that forks stays in here until its standard input is closed."""
    while True:
        ready, _, _ = select.select([sys.stdin.fileno(), server], [], [])
        asked, answer = from_socket(server) if server in ready else from_line()
        child = os.fork()
        if not child:
            return asked
        _, status = os.waitpid(child, 0)
        for descriptor in asked.get("streams", ()):
            os.close(descriptor)
        answer(os.waitstatus_to_exitcode(status))


def from_line() -> tuple[dict[str, Any], Any]:
    line = b""
    while not line.endswith(b"\n"):  # unbuffered: what is left over in a buffer would not wake `select`
        read = os.read(0, 1)
        if not read:
            raise SystemExit(0)
        line += read
    return json.loads(line), lambda code: print(code, flush=True)


def from_socket(server: socket.socket) -> tuple[dict[str, Any], Any]:
    connection, _ = server.accept()
    raw, streams, _, _ = socket.recv_fds(connection, 1 << 20, 3)

    def answer(code: int) -> None:
        connection.sendall(str(code).encode())
        connection.close()

    return {**json.loads(raw), "streams": streams}, answer


def become(asked: dict[str, Any]) -> None:
    signal.alarm(asked["limit_seconds"])
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    streams = asked.get("streams") or [
        os.open(name, os.O_RDWR | os.O_CREAT, 0o600) for name in (os.devnull, asked["stdout"], asked["stderr"])
    ]
    for descriptor, stream in enumerate(streams):
        os.dup2(stream, descriptor)
        os.close(stream)
    sys.argv = [asked["file"], *asked["arguments"]]
    sys.path[0] = os.path.dirname(asked["file"])
    runpy.run_path(asked["file"], run_name="__main__")


if __name__ == "__main__":
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(sys.argv[1])
        listening.listen()
        asked = next_command(listening)
    become(asked)
