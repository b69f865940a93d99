"""The console script: Ctrl-C is heard before anything else is loaded, and ends what has not begun without a word."""

import os
import signal


def _end(*_: object) -> None:
    os._exit(130)


if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _end)


def main() -> None:
    """Run the command of this process."""
    from genai_factory.cli import run_as_program

    run_as_program()
