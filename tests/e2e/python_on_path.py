"""What a shell of the tests runs as `python`: hands its arguments, folder, environment and streams to preloaded.py.

Options of Python's own (`-m`, `-c`) are run by Python itself. SMALLER, a JSON object, has settings that train.py gets
besides: `unset` where they are not typed, `typed` in place of those that are, and `always` in both cases. Under
`appended` it has options of other programs, by what their command begins with.
"""

import json
import os
import socket
import sys

LIMIT_SECONDS = 580

if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
file, *arguments = sys.argv[1:]
smaller = json.loads(os.environ.get("SMALLER", "{}"))
for beginning, options in smaller.get("appended", {}).items():
    if " ".join([file, *arguments]).startswith(beginning):
        arguments += options.split()
if smaller and os.path.basename(file) == "train.py":
    keys = {each.partition("=")[0].lstrip("+~") for each in arguments}
    added = {key: value for key, value in smaller["unset"].items() if key not in keys} | smaller["always"]
    added |= {key: value for key, value in smaller["typed"].items() if key in keys}
    arguments = [each for each in arguments if each.partition("=")[0] not in added]
    arguments += [f"{key}={value}" for key, value in added.items()]
place = os.environ["PRELOADED"]
environment = {name: value for name, value in os.environ.items() if name not in ("PRELOADED", "SMALLER")}
asked = {
    "file": os.path.abspath(file),
    "arguments": arguments,
    "cwd": os.getcwd(),
    "environment": environment,
    "limit_seconds": LIMIT_SECONDS,
}
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect(place)
    socket.send_fds(connection, [json.dumps(asked).encode()], [0, 1, 2])
    code = int(connection.recv(64))
sys.exit(code if code >= 0 else 128 - code)
