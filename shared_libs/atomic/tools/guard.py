"""
The program behind `isolation: process`: a guard that forks one worker, and ends it with everything it has started.

Its arguments are the number of the worker's socket, and where modules are found, as JSON. When its own input ends,
because the call's time is over or because our process died in any way, the guard kills the worker and all its
descendants. It writes how the worker ended, as `os.waitpid` tells it. It runs by itself, and what it imports is small:
it must act while the worker's native code holds the interpreter.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def main() -> None:
    """Fork the worker and stand over it until it has ended."""
    channel, guard = int(sys.argv[1]), os.getpid()
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)  # orphans below come to the guard, sessions of their own or not
    worker = os.fork()
    if worker == 0:
        _become_worker(channel, guard)
    with contextlib.suppress(OSError):  # the worker does it too; whoever is first
        os.setpgid(worker, worker)
    os.close(channel)
    threading.Thread(target=_kill_at_end_of_input, args=(worker,), daemon=True).start()
    ended, status = 0, 0
    while ended != worker:
        ended, status = os.waitpid(-1, 0)
    _kill_the_rest(worker)
    with contextlib.suppress(OSError):  # nobody is left who would read it
        os.write(1, str(status).encode())
    os._exit(0)  # whoever waits for the report waits for the end of it; an interpreter takes its time


def _kill_at_end_of_input(worker: int) -> None:
    while os.read(0, 1):
        pass
    _kill(os.killpg, worker)
    _kill(os.kill, worker)  # where it has left its group


def _kill_the_rest(group: int) -> None:
    """Kill what the worker has left; those of Linux also where they left its group."""
    while True:
        _kill(os.killpg, group)
        with contextlib.suppress(OSError), Path(f"/proc/self/task/{os.getpid()}/children").open() as listed:
            for child in listed.read().split():
                _kill(os.kill, int(child))
        try:
            os.waitpid(-1, 0)  # the death of one may bring us its children
        except ChildProcessError:
            return


def _kill(how: Callable[[int, int], None], number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        how(number, signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _become_worker(channel: int, guard: int) -> None:
    """Run the worker in this fork, and never return."""
    os.setpgid(0, 0)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != guard:
        os._exit(1)
    os.set_inheritable(channel, False)  # noqa: FBT003
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)  # what the tool prints belongs neither to the guard's report nor to our program's output
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    with socket.socket(fileno=channel) as link:
        sys.path[:] = json.loads(sys.argv[2])
        from shared_libs.atomic.tools.worker import serve

        serve(link)
    os._exit(0)


if __name__ == "__main__":
    main()
