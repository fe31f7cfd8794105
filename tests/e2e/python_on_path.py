"""What a shell of the tests runs as `python`: hands its arguments, folder, environment and streams to preloaded.py.

Options of Python's own (`-m`, `-c`) are run by Python itself.
"""

import json
import os
import socket
import sys

LIMIT_SECONDS = 580

if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
file, *arguments = sys.argv[1:]
place = os.environ["PRELOADED"]
environment = {name: value for name, value in os.environ.items() if name != "PRELOADED"}
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
