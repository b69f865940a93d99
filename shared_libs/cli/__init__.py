"""The `factory` command: its words, and what becomes of an error. Heavy libraries load where they are needed."""

from __future__ import annotations

import argparse
import io
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from shared_libs.cli.exits import ExitCode

_EPILOG = "exit codes: 0 answered, 1 failed, 2 misuse or bad configuration, 3 partial, 130 interrupted"


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run one command and return its exit code.

    Mistakes of the user are one message on stderr; `FACTORY_DEBUG=1` shows the traceback of anything else.
    """
    _prepare_streams()
    arguments = _parser().parse_args(argv)
    from shared_libs.atomic.errors import FactoryError, MisuseError

    try:
        return int(_command(arguments.command)(arguments))
    except MisuseError as error:
        print(error, file=sys.stderr)
        return ExitCode.MISUSE
    except FactoryError as error:
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
        print(f"factory: {type(error).__name__}: {error} (FACTORY_DEBUG=1 shows where)", file=sys.stderr)
        return ExitCode.FAILED


def _prepare_streams() -> None:
    """Make printing safe: a character the terminal lacks, or a closed stream, must not cost an answer."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123 - open until the end
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _command(name: str) -> Callable[[argparse.Namespace], int]:
    if name in ("run", "chat"):
        from shared_libs.cli import running

        return {"run": running.run, "chat": running.chat}[name]
    if name == "serve":
        from shared_libs.cli.serving import serve

        return serve
    if name == "tables":
        from shared_libs.cli.tables import tables

        return tables
    if name == "faults":
        from shared_libs.cli import faulting

        return faulting.faults
    if name == "eval":
        from shared_libs.cli import evaluating

        return evaluating.evaluate
    if name == "simulate":
        from shared_libs.cli.simulating import simulate

        return simulate
    from shared_libs.cli import inspecting

    commands: dict[str, Callable[[argparse.Namespace], int]] = {
        "check": inspecting.check,
        "schema": inspecting.schema,
        "doctor": inspecting.doctor,
        "trace": inspecting.trace,
    }
    return commands[name]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="factory",
        description="Agents from YAML that always come back in time.",
        epilog=_EPILOG,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="answer one question", epilog=_EPILOG, allow_abbrev=False)
    run.add_argument("config", metavar="CONFIG", help="the agent's definition, a YAML file")
    run.add_argument("question", metavar="QUESTION", help="what to answer; '-' reads it from stdin")
    run.add_argument("--timeout", type=_seconds, metavar="S", help="seconds for the whole run")
    run.add_argument("--session", metavar="ID", help="the conversation to continue")
    run.add_argument("--json", action="store_true", help="print the result alone, as JSON")
    run.add_argument("--trace", type=Path, metavar="FILE", help="write the run record, one event a line")
    run.add_argument(
        "--stream",
        action=argparse.BooleanOptionalAction,
        help="ask the model for a stream (default: when a terminal watches)",
    )

    chat = commands.add_parser("chat", help="a conversation", allow_abbrev=False)
    chat.add_argument("config", metavar="CONFIG", help="the agent's definition, a YAML file")
    chat.add_argument("--session", metavar="ID", help="the conversation to continue")

    check = commands.add_parser("check", help="validate definitions", allow_abbrev=False)
    check.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="files, or folders of *.yaml and *.yml")

    commands.add_parser("schema", help="print the JSON Schema of a definition", allow_abbrev=False)
    commands.add_parser("doctor", help="what is usable here, and how to get the rest", allow_abbrev=False)

    trace = commands.add_parser("trace", help="draw a recorded run as a timeline", allow_abbrev=False)
    trace.add_argument("file", type=Path, metavar="FILE", help="a run record")
    trace.add_argument("--html", type=Path, metavar="OUT", help="write one self-contained HTML file instead")

    tables = commands.add_parser("tables", help="make the tables in a database ahead", allow_abbrev=False)
    tables.add_argument("url", metavar="URL", help="postgresql://user:password@host/database, or sqlite:///file.db")
    tables.add_argument(
        "--only",
        action="append",
        choices=("memory", "limits", "runs"),
        help="for one of them, and again for another (default: all)",
    )

    _add_service(commands)
    _add_testing(commands)
    return parser


def _add_service(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    serve = commands.add_parser("serve", help="serve agents over HTTP", allow_abbrev=False)
    serve.add_argument(
        "--configs",
        type=Path,
        default=Path("configs"),
        metavar="DIR",
        help="the folder of definitions (default: configs)",
    )
    serve.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: 127.0.0.1)")
    serve.add_argument("--port", type=_port, default=8000, metavar="P", help="the port to listen on (default: 8000)")
    serve.add_argument("--store", metavar="URL", help="where runs are kept (default: as service.yaml says)")
    serve.add_argument("--keys", metavar="FILE|URL", help="where keys are kept (default: as service.yaml says)")


def _add_testing(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    simulate = commands.add_parser("simulate", help="play an agent against random faults", allow_abbrev=False)
    simulate.add_argument("config", metavar="CONFIG", help="the agent's definition, a YAML file")
    simulate.add_argument("--runs", type=_count, default=1000, metavar="N", help="scenarios to play (default: 1000)")
    simulate.add_argument("--seed", type=int, default=0, metavar="N", help="decides the scenarios (default: 0)")
    simulate.add_argument(
        "--out", type=Path, default=Path(), metavar="DIR", help="where scenarios that fail are written (default: here)"
    )

    faults = commands.add_parser("faults", help="serve faults on loopback, for any client", allow_abbrev=False)
    faults.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: 127.0.0.1)")
    faults.add_argument(
        "--port", type=_port, default=0, metavar="P", help="the port to listen on (default: a free one)"
    )
    what = faults.add_mutually_exclusive_group()
    what.add_argument("--script", type=Path, metavar="FILE", help="what each model does, a YAML file")
    what.add_argument(
        "--fault", nargs="+", metavar="NAME", help="what every model does: one always, several one after the other"
    )
    what.add_argument("--list", action="store_true", help="list the faults and their parameters")

    judged = commands.add_parser(
        "eval", help="put a suite of questions to definitions, and compare them", allow_abbrev=False
    )
    judged.add_argument("configs", nargs="+", type=Path, metavar="CONFIG", help="definitions, YAML files")
    judged.add_argument(
        "--suite", required=True, type=Path, metavar="DIR", help="a folder of *.scenario.yaml with `questions`"
    )
    judged.add_argument("--junit", type=Path, metavar="FILE", help="write a JUnit file")
    judged.add_argument("--json", action="store_true", help="print the reports alone, as JSON")
    judged.add_argument("--concurrency", type=_count, default=4, metavar="N", help="questions at a time (default: 4)")
    judged.add_argument(
        "--repeat", type=_count, default=1, metavar="N", help="how often each question is asked (default: 1)"
    )


def _port(text: str) -> int:
    if not (text.isdecimal() and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"a port is a number up to 65535, not {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not (seconds > 0 and math.isfinite(seconds)):
        raise argparse.ArgumentTypeError(f"a positive number of seconds, not {text!r}")
    return seconds


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"a whole number from 1, not {text!r}")
    return int(text)


def run_as_program() -> None:
    """Run the command of this process, and leave no matter what a tool still does in a thread."""
    code = main()
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = code or int(ExitCode.FAILED)
    # stderr is flushed line by line; waiting for it could be waiting for a pager
    # joins no thread: one stuck in foreign code must not hold a process whose answer is out
    os._exit(code)
