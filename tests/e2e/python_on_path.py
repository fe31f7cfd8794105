"""What the tests run as `python`: hands its arguments, folder, environment and streams to preloaded.py.

It is called with a socket, its own name and what `python` is called with. Signals that it gets reach the process that
runs the command, it ends as that does, and its own end by SIGKILL ends that too. Options of Python's own (`-m`, `-c`),
and what preloaded.py does not take, are run by Python itself.

SMALLER, a JSON object, has settings that train.py gets besides: `unset` where they are not typed, `typed` in place of
those that are, and `always` in both cases. Under `appended` it has options of other programs, by what their command
begins with.
"""

import json
import os
import signal
import socket
import sys
from contextlib import suppress

LIMIT_SECONDS = 580
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def forward(number: int, _: object) -> None:
    with suppress(ProcessLookupError):  # it has just ended
        os.kill(int(process), number)


_, place, python, *arguments = sys.argv
if not arguments or arguments[0].startswith("-"):
    os.execv(sys.executable, [sys.executable, *arguments])
file, *arguments = arguments
smaller = json.loads(os.environ.pop("SMALLER", "{}"))
for beginning, options in smaller.get("appended", {}).items():
    if " ".join([file, *arguments]).startswith(beginning):
        arguments += options.split()
if smaller and [os.path.basename(file), *arguments[:1]] in (["train.py", *arguments[:1]], ["domaintune", "train"]):
    keys = {each.partition("=")[0].lstrip("+~") for each in arguments}
    added = {key: value for key, value in smaller["unset"].items() if key not in keys} | smaller["always"]
    added |= {key: value for key, value in smaller["typed"].items() if key in keys}
    arguments = [each for each in arguments if each.partition("=")[0] not in added]
    arguments += [f"{key}={value}" for key, value in added.items()]
asked = {
    "file": os.path.abspath(file),
    "arguments": arguments,
    "cwd": os.getcwd(),
    "environment": dict(os.environ),
    "ignored": [number for number in SIGNALS if signal.getsignal(number) == signal.SIG_IGN],
    "leads": os.getsid(0) == os.getpid(),
    "python": python,
    "limit_seconds": LIMIT_SECONDS,
}
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect(place)
    socket.send_fds(connection, [json.dumps(asked).encode()], [0, 1, 2])
    answer = connection.makefile("r")
    process = answer.readline()
    if process == "different":
        os.execv(sys.executable, [sys.executable, file, *arguments])
    for number in SIGNALS:
        if number not in asked["ignored"]:
            signal.signal(number, forward)
    code = int(answer.read())
if code < 0:
    signal.signal(-code, signal.SIG_DFL) if -code != signal.SIGKILL else None
    os.kill(os.getpid(), -code)
sys.exit(code)
