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


def drain_on_hangup() -> None:
    """Let what serves or works on end as at SIGTERM when its terminal goes: it would be gone without a word."""
    hangup = getattr(signal, "SIGHUP", None)  # not every system has it
    if hangup is not None and signal.getsignal(hangup) is signal.SIG_DFL:  # `nohup` ignores it
        signal.signal(hangup, lambda *_: signal.raise_signal(signal.SIGTERM))


def _end(*_: object) -> None:
    os._exit(ExitCode.INTERRUPTED)
