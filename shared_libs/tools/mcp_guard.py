"""
A small program that stands over an MCP server and ends it, with its children, when we are gone.

Its first argument is the number of an open pipe that nobody writes to; when the other end closes, because we want the
server to end or because we were killed, the server is ended. It runs by itself and imports nothing of ours.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading

TO_END_S = 0.3
"""Seconds between asking the server to end and killing it."""


def main() -> int:
    """Run the command behind the first argument; return its exit code."""
    lifeline, command = int(sys.argv[1]), sys.argv[2:]
    try:
        server = subprocess.Popen(command, start_new_session=True)  # noqa: S603 - the owner's own definition names it
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
        return 127
    os.close(0)
    os.close(1)  # so that its end is seen where its output is read
    threading.Thread(target=_watch, args=(lifeline, server), daemon=True).start()
    code = server.wait()
    _signal(server.pid, signal.SIGKILL)  # what it has left behind
    return code if code >= 0 else 128 - code


def _watch(lifeline: int, server: "subprocess.Popen[bytes]") -> None:
    while os.read(lifeline, 1):
        pass
    _signal(server.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.wait(TO_END_S)
    _signal(server.pid, signal.SIGKILL)


def _signal(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


if __name__ == "__main__":
    sys.exit(main())
