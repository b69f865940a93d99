"""How the `factory` command ends: its exit codes, and what Ctrl-C does where there is nothing to cancel."""

from __future__ import annotations

import os
import signal
from enum import IntEnum


class ExitCode(IntEnum):
    """What a command's exit tells."""

    ANSWERED = 0
    FAILED = 1
    MISUSE = 2
    PARTIAL = 3
    INTERRUPTED = 130
    TERMINATED = 143


CODES = {
    "answered": ExitCode.ANSWERED,
    "partial": ExitCode.PARTIAL,
    "failed": ExitCode.FAILED,
    "cancelled": ExitCode.INTERRUPTED,
    "paused": ExitCode.PARTIAL,
}
"""How a command ends after a run that ended so."""


def end_on_interrupt() -> None:
    """
    Let Ctrl-C end the process at once: while libraries load and files are read, nothing is to be cleaned up.

    An exception there would come out of the middle of an import, as a traceback or as somebody's error.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # which whoever started us may want
        signal.signal(signal.SIGINT, _end)


def raise_on_interrupt() -> None:
    """Let Ctrl-C raise `KeyboardInterrupt` from here on: something has begun that is to end well."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def end_on_stop() -> None:
    """
    Let SIGTERM end what serves or works on, with a word, until that heeds it; and SIGHUP, its terminal's end, as well.

    The first process of a container dies of no signal that it has no handler for: it would go on until it is killed.
    """
    signal.signal(signal.SIGTERM, _stop)
    hangup = getattr(signal, "SIGHUP", None)  # not every system has it
    if hangup is not None and signal.getsignal(hangup) is signal.SIG_DFL:  # `nohup` ignores it
        signal.signal(hangup, lambda *_: signal.raise_signal(signal.SIGTERM))


def _stop(*_: object) -> None:
    os.write(2, b"factory: told to stop before it had begun\n")
    os._exit(ExitCode.TERMINATED)


def _end(*_: object) -> None:
    os._exit(ExitCode.INTERRUPTED)
