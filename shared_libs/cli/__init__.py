"""The `factory` command: its words, and what becomes of an error. Heavy libraries load where they are needed."""

from __future__ import annotations

import argparse
import io
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from shared_libs.cli import past
from shared_libs.cli.exits import ExitCode
from shared_libs.cli.service_options import add_service_commands

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
    if name in ("runs", "trace"):
        return {"runs": past.runs, "trace": past.trace}[name]
    if name in ("run", "chat"):
        from shared_libs.cli import running

        return {"run": running.run, "chat": running.chat}[name]
    if name in ("submit", "worker"):
        from shared_libs.cli import queueing

        return {"submit": queueing.submit, "worker": queueing.worker}[name]
    if name == "serve":
        from shared_libs.cli.serving import serve

        return serve
    if name == "keys":
        from shared_libs.cli.keying import keys

        return keys
    if name == "faults":
        from shared_libs.cli import faulting

        return faulting.faults
    if name == "eval":
        from shared_libs.cli import evaluating

        return evaluating.evaluate
    if name == "index":
        from shared_libs.cli.indexing import index

        return index
    if name == "simulate":
        from shared_libs.cli.simulating import simulate

        return simulate
    from shared_libs.cli import inspecting

    commands: dict[str, Callable[[argparse.Namespace], int]] = {
        "check": inspecting.check,
        "schema": inspecting.schema,
        "doctor": inspecting.doctor,
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
    past.add_store(run)
    run.add_argument(
        "--stream",
        action=argparse.BooleanOptionalAction,
        help="ask the model for a stream (default: when a terminal watches)",
    )

    chat = commands.add_parser("chat", help="a conversation", allow_abbrev=False)
    chat.add_argument("config", metavar="CONFIG", help="the agent's definition, a YAML file")
    chat.add_argument("--session", metavar="ID", help="the conversation to continue")
    past.add_store(chat)

    check = commands.add_parser("check", help="validate definitions", allow_abbrev=False)
    check.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="files, or folders of *.yaml and *.yml")

    commands.add_parser("schema", help="print the JSON Schema of a definition", allow_abbrev=False)
    commands.add_parser("doctor", help="what is usable here, and how to get the rest", allow_abbrev=False)

    past.add_words(commands)

    add_service_commands(commands, port=_port)
    _add_durable(commands)
    _add_index(commands)
    _add_testing(commands)
    return parser


def _add_index(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    index = commands.add_parser("index", help="load documents into a collection", allow_abbrev=False)
    index.add_argument("paths", nargs="*", type=Path, metavar="PATH", help="files, or folders with all their levels")
    index.add_argument("--collection", required=True, metavar="NAME", help="the collection; it is made if need be")
    index.add_argument("--config", type=Path, metavar="CONFIG", help="the definition whose `collections` has it")
    index.add_argument(
        "--url",
        default="sqlite:///collections.db",
        metavar="URL",
        help="where it is kept, without --config (default: sqlite:///collections.db)",
    )
    index.add_argument("--tenant", default="default", metavar="NAME", help="whose it is, without --config")
    index.add_argument("--rebuild", action="store_true", help="embed what is there anew, with the present model")


def _add_durable(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    place = "where durable runs are kept (default: FACTORY_RUNS, else a file in your data folder)"
    submit = commands.add_parser("submit", help="put a run into the queue of durable ones", allow_abbrev=False)
    submit.add_argument("config", metavar="CONFIG", help="the agent's definition, a YAML file")
    submit.add_argument("question", metavar="QUESTION", help="what to answer")
    submit.add_argument("--id", metavar="ID", help="names the run for good; submitted twice it is one run")
    submit.add_argument("--session", metavar="ID", help="the conversation to continue")
    submit.add_argument("--timeout", type=_seconds, metavar="S", help="seconds from when it begins")
    submit.add_argument("--priority", type=int, metavar="N", help="the higher ones begin first (default: 0)")
    submit.add_argument("--delay", type=_seconds, metavar="S", help="seconds until it may begin")
    submit.add_argument("--store", metavar="URL", help=place)

    worker = commands.add_parser("worker", help="do durable runs from the queue", allow_abbrev=False)
    worker.add_argument("--concurrency", type=_count, default=8, metavar="N", help="runs at once (default: 8)")
    worker.add_argument(
        "--lease", type=_seconds, default=10.0, metavar="S", help="silence after which runs are another's (default: 10)"
    )
    worker.add_argument(
        "--grace", type=_seconds, default=60.0, metavar="S", help="how long SIGTERM waits for a boundary (default: 60)"
    )
    worker.add_argument(
        "--retention", type=_days, default=30.0, metavar="DAYS", help="forget what ended before; 0: never (default: 30)"
    )
    worker.add_argument("--health", type=_port, metavar="P", help="answer probes on this port: /healthz, /readyz")
    worker.add_argument("--store", metavar="URL", help=place)


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


def _days(text: str) -> float:
    return 0.0 if text == "0" else _seconds(text)


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
