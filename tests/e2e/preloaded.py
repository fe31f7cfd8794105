"""A server with the imports of train.py done, which forks for every command: they take longer than a small run does.

`python_on_path.py` stands in for `python` and hands a command over at the Unix socket named in the first argument. The
server answers with the process that runs it, and then with its return code as subprocess gives it. Where a variable
that imports read has another value than here, it answers `different`. It ends with its standard input.
"""

import atexit
import faulthandler
import gc
import json
import os
import re
import runpy
import select
import signal
import socket
import sys
import threading
from contextlib import suppress
from typing import Any

import lightning.pytorch.loggers  # noqa: F401
import tensorboard.summary  # noqa: F401

import domaintune.tasks.predicting
import domaintune.training  # noqa: F401

READ_BY_IMPORTS = re.compile(r"(HF|OMP|MKL|KMP|TORCH|TRANSFORMERS|TOKENIZERS|CUDA)[A-Z]*_.*|PYTHON(?!PATH|FAULT).*")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def next_command(server: socket.socket) -> dict[str, Any]:
    """Returns what this process is to run, in a fork of the server; the server itself stays in here until it ends."""
    gc.freeze()  # a collection in a fork would copy all that was imported
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who attend to commands
    while True:
        ready, _, _ = select.select([sys.stdin.fileno(), server], [], [])
        if server not in ready:
            raise SystemExit(0)
        connection, _ = server.accept()
        if not os.fork():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            return attend(connection)
        connection.close()


def attend(connection: socket.socket) -> dict[str, Any]:
    """Forks for one command, and kills its process where whoever asked is gone; returns in that process alone."""
    raw, streams, _, _ = socket.recv_fds(connection, 1 << 20, 3)
    asked = json.loads(raw)
    if read_by_imports(asked["environment"]) != READ:
        connection.sendall(b"different")
        os._exit(0)
    child = os.fork()
    if not child:
        connection.close()
        return {**asked, "streams": streams}
    for stream in streams:
        os.close(stream)
    with suppress(BrokenPipeError):
        connection.sendall(f"{child}\n".encode())
    ended = os.pidfd_open(child)
    ready, _, _ = select.select([ended, connection], [], [])
    if ended not in ready:
        for kill in (os.kill, *([os.killpg] if asked["leads"] else [])):  # it may not lead a session yet
            with suppress(ProcessLookupError):
                kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    with suppress(BrokenPipeError):
        connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def read_by_imports(environment: Any) -> dict[str, str]:
    return {name: value for name, value in environment.items() if READ_BY_IMPORTS.fullmatch(name)}


def own_environment() -> dict[str, str]:
    """The environment that this process was started with; imports have added to `os.environ`."""
    with open("/proc/self/environ", encoding="utf-8", errors="surrogateescape") as file:
        return dict(each.split("=", 1) for each in file.read().split("\0") if "=" in each)


def become(asked: dict[str, Any]) -> None:
    """Makes this process what a fresh interpreter would be, and runs the command."""
    if asked["leads"]:
        os.setsid()
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN if number in asked["ignored"] else signal.SIG_DFL)
    if signal.SIGINT not in asked["ignored"]:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.alarm(asked["limit_seconds"])
    os.chdir(asked["cwd"])
    own = paths(os.environ)
    os.environ.clear()
    os.environ.update(asked["environment"])
    for descriptor, stream in enumerate(asked["streams"]):
        os.dup2(stream, descriptor)
        os.close(stream)
    if "PYTHONFAULTHANDLER" in os.environ:
        faulthandler.enable()
    sys.argv = [asked["file"], *asked["arguments"]]
    sys.executable = asked["python"]
    rest = [each for each in sys.path[1:] if each not in own]
    sys.path[:] = [os.path.dirname(asked["file"]), *paths(os.environ), *rest]
    code: Any = 0
    try:
        runpy.run_path(asked["file"], run_name="__main__")
    except SystemExit as stopped:
        code = stopped.code
    except KeyboardInterrupt:
        sys.excepthook(*sys.exc_info())
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    end(code)


def end(code: Any) -> None:
    """Ends as the interpreter does, without freeing what was imported, which takes longer than most commands.

    What goes wrong only while the interpreter frees objects is not seen so.
    """
    if not isinstance(code, int | None):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            code = code or 120
    os._exit(code or 0)


def paths(environment: Any) -> list[str]:
    return [each for each in environment.get("PYTHONPATH", "").split(os.pathsep) if each]


if __name__ == "__main__":
    READ = read_by_imports(own_environment())
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"{sys.argv[1]}.new")
        listening.listen(64)
        os.rename(f"{sys.argv[1]}.new", sys.argv[1])
        asked = next_command(listening)
    become(asked)
