"""The `factory` command: how one is run, and what becomes of an error. Heavy libraries load where they are needed."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

from shared_libs.cli.exits import ExitCode, end_on_interrupt, end_on_stop, raise_on_interrupt
from shared_libs.cli.streams import CannotWriteError, guard_streams, prepare_streams
from shared_libs.cli.words import COMMANDS, parsed


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run one command and return its exit code.

    Mistakes of the user are one message on stderr; `FACTORY_DEBUG=1` shows the traceback of anything else.
    """
    prepare_streams()
    arguments = parsed(argv)
    command = COMMANDS[arguments.command]
    if command.stays:
        end_on_stop()
    from shared_libs.atomic.errors import FactoryError, MisuseError
    from shared_libs.cli.environment import read_env_files

    try:
        read_env_files(getattr(arguments, "config", None))
        module, _, function = command.home.partition(":")
        run = getattr(import_module(f"shared_libs.cli.{module}"), function)
        if not command.at_once:
            raise_on_interrupt()
        return int(run(arguments))
    except MisuseError as error:
        print(error, file=sys.stderr)
        return ExitCode.MISUSE
    except (FactoryError, CannotWriteError) as error:
        print(f"factory: {error}", file=sys.stderr)
        return ExitCode.FAILED
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # whoever read our output has gone: nothing more to say, not even at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.FAILED
    except Exception as error:
        if os.environ.get("FACTORY_DEBUG"):
            raise
        if isinstance(error, OSError) and error.filename is not None and error.strerror:
            print(f"factory: {error.filename}: {error.strerror}", file=sys.stderr)
            return ExitCode.FAILED
        print(f"factory: {type(error).__name__}: {error} (FACTORY_DEBUG=1 shows where)", file=sys.stderr)
        return ExitCode.FAILED


def run_as_program() -> None:
    """Run the command of this process, and leave no matter what a tool still does in a thread."""
    end_on_interrupt()
    guard_streams()
    try:
        try:
            code = main()
        except SystemExit as left:  # of the reader of arguments
            code = int(left.code or 0)
        end_on_interrupt()
        sys.stdout.flush()
    except BrokenPipeError:
        code = ExitCode.FAILED
    except CannotWriteError as error:
        print(f"factory: {error}", file=sys.stderr)
        code = ExitCode.FAILED
    # stderr is flushed line by line; waiting for it could be waiting for a pager
    # joins no thread: one stuck in foreign code must not hold a process whose answer is out
    os._exit(code)
