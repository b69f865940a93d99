"""The words of the `factory` command: what may be said, what each command is for, and which module does it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from shared_libs.cli.past_options import add_runs, add_store, add_trace
from shared_libs.cli.service_options import add_audit, add_keys, add_serve
from shared_libs.cli.values import count, days, port, seconds

EPILOG = "exit codes: 0 answered, 1 failed, 2 misuse or bad configuration, 3 partial, 130 interrupted"


class Command(NamedTuple):
    """
    A command: what it is for, `module:function` in this package that does it, and what adds its arguments.

    `at_once`: Ctrl-C ends it without a word until it calls `raise_on_interrupt`; else it is raised from the first.
    `stays`: it goes on until it is told to stop.
    """

    help: str
    home: str
    add: Callable[[argparse.ArgumentParser], None]
    at_once: bool = False
    stays: bool = False


class Parser(argparse.ArgumentParser):
    """Takes no shortened options, and says what a wrong one may have been meant to be."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)

    def refuse(self, words: Sequence[str]) -> NoReturn:
        """End with what was not understood, and the nearest that would have been."""
        from shared_libs.factory.problems import nearest

        known = [name for action in self._actions for name in action.option_strings]
        hints = [f"did you mean '{near}'?" for word in words if (near := nearest(word.partition("=")[0], known))]
        if not hints and any(action.dest == "question" for action in self._actions):
            hints.append("a question with dashes in it stands in quotes")
        self.error("; ".join([f"not understood: {' '.join(words)}", *hints]))


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """
    Read a command line.

    Raises:
        SystemExit: it is not understood (2), or asks for help or the version (0); that has been printed.

    """
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["help"]:
        words = [*words[1:2], "--help"]
    parser = Parser(prog="factory", description="Agents from YAML that always come back in time.", epilog=EPILOG)
    parser.add_argument("-V", "--version", action=_Version, nargs=0, help="print the version and exit")
    parsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        command.add(parsers.add_parser(name, help=command.help, epilog=EPILOG if name == "run" else None))
    first = next((word for word in words if not word.startswith("-")), None)
    if first is not None and first not in COMMANDS:
        from shared_libs.factory.problems import choices

        parser.error(f"{first!r} is no command; {choices(first, COMMANDS)}")
    before = words if first is None else words[: words.index(first)]
    if before and not {"-h", "--help", "-V", "--version"} & {*before}:
        if first is None:
            parser.refuse(before)
        parser.error(f"{' '.join(before)}: options stand behind their command: factory {first} … {' '.join(before)}")
    found, left = parser.parse_known_args(words)
    if left:
        parsers.choices[found.command].refuse(left)
    return found


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        print(f"genai-factory {version()} on Python {sys.version.split()[0]}")
        parser.exit()


def version() -> str:
    """Return the version of the installed distribution."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as of

    try:
        return of("genai-factory")
    except PackageNotFoundError:
        return "(not installed)"


def _config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG", help="the agent's definition, a YAML file")


def _agent(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-m", "--model", metavar="MODEL", help="ask this model and no other, such as openai/gpt-5.4-mini"
    )
    parser.add_argument("--system", metavar="TEXT", help="the words to the model, instead of the definition's")
    parser.add_argument("--session", metavar="ID", help="the conversation to continue")
    add_store(parser)


def _init(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", nargs="?", type=Path, default=Path(), metavar="DIR", help="where (default: here)")


def _run(parser: argparse.ArgumentParser) -> None:
    _config(parser)
    parser.add_argument("question", nargs="+", metavar="QUESTION", help="what to answer; '-' reads it from stdin")
    _agent(parser)
    parser.add_argument("--timeout", type=seconds, metavar="S", help="seconds for the whole run")
    parser.add_argument("--json", action="store_true", help="print the result alone, as JSON")
    parser.add_argument("--trace", type=Path, metavar="FILE", help="write the run record, one event a line")
    parser.add_argument(
        "--stream",
        action=argparse.BooleanOptionalAction,
        help="ask the model for a stream (default: when a terminal watches)",
    )


def _chat(parser: argparse.ArgumentParser) -> None:
    _config(parser)
    _agent(parser)


def _check(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="files, or folders of *.yaml and *.yml")


def _schema(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--scenario", action="store_true", help="of a scenario, instead of a definition")


def _doctor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "config", nargs="?", metavar="CONFIG", help="ask the models, stores and servers of this definition too"
    )


def _tables(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "url",
        nargs="?",
        metavar="URL",
        help="postgresql://user:password@host/database, or sqlite:///file.db (default: FACTORY_RUNS)",
    )
    parser.add_argument(
        "--only",
        action="append",
        choices=("memory", "limits", "runs", "durable", "service"),
        help="for one of them, and again for another (default: all)",
    )


def _scenario(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="files, or folders of *.scenario.yaml")
    parser.add_argument("--seed", type=int, metavar="N", help="play them with this seed and not with their own")
    parser.add_argument("--record", action="store_true", help="ask the real models, and renew the cassettes")


def _index(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="*", type=Path, metavar="PATH", help="files, or folders with all their levels")
    parser.add_argument("--collection", required=True, metavar="NAME", help="the collection; it is made if need be")
    parser.add_argument("--config", type=Path, metavar="CONFIG", help="the definition whose `collections` has it")
    parser.add_argument(
        "--url",
        default="sqlite:///collections.db",
        metavar="URL",
        help="where it is kept, without --config (default: sqlite:///collections.db)",
    )
    parser.add_argument("--tenant", default="default", metavar="NAME", help="whose it is, without --config")
    parser.add_argument("--rebuild", action="store_true", help="embed what is there anew, with the present model")


_DURABLE_STORE = "where durable runs are kept (default: FACTORY_RUNS, else a file in your data folder)"


def _submit(parser: argparse.ArgumentParser) -> None:
    _config(parser)
    parser.add_argument("question", metavar="QUESTION", help="what to answer")
    parser.add_argument("--id", metavar="ID", help="names the run for good; submitted twice it is one run")
    parser.add_argument("--session", metavar="ID", help="the conversation to continue")
    parser.add_argument("--timeout", type=seconds, metavar="S", help="seconds from when it begins")
    parser.add_argument("--priority", type=int, metavar="N", help="the higher ones begin first (default: 0)")
    parser.add_argument("--delay", type=seconds, metavar="S", help="seconds until it may begin")
    parser.add_argument(
        "--cron",
        metavar="'M H D M W'",
        help="submit it again and again, such as '0 7 * * 1-5'; --id names the schedule",
    )
    parser.add_argument("--zone", default="UTC", metavar="ZONE", help="the time zone of --cron (default: UTC)")
    parser.add_argument("--store", metavar="URL", help=_DURABLE_STORE)


def _schedules(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--remove", metavar="NAME", help="submit no more of its runs")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("--store", metavar="URL", help=_DURABLE_STORE)


def _worker(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--concurrency", type=count, default=8, metavar="N", help="runs at once (default: 8)")
    parser.add_argument(
        "--lease", type=seconds, default=10.0, metavar="S", help="silence after which runs are another's (default: 10)"
    )
    parser.add_argument(
        "--grace", type=seconds, default=60.0, metavar="S", help="how long SIGTERM waits for a boundary (default: 60)"
    )
    parser.add_argument(
        "--retention", type=days, default=30.0, metavar="DAYS", help="forget what ended before; 0: never (default: 30)"
    )
    parser.add_argument("--health", type=port, metavar="P", help="answer on this port: /healthz, /readyz, /metrics")
    parser.add_argument("--store", metavar="URL", help=_DURABLE_STORE)


def _simulate(parser: argparse.ArgumentParser) -> None:
    _config(parser)
    parser.add_argument("--runs", type=count, default=1000, metavar="N", help="scenarios to play (default: 1000)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="decides the scenarios (default: 0)")
    parser.add_argument(
        "--out", type=Path, default=Path(), metavar="DIR", help="where scenarios that fail are written (default: here)"
    )


def _faults(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=port, default=0, metavar="P", help="the port to listen on (default: a free one)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--script", type=Path, metavar="FILE", help="what each model does, a YAML file")
    what.add_argument(
        "--fault", nargs="+", metavar="NAME", help="what every model does: one always, several one after the other"
    )
    what.add_argument(
        "--case", nargs="+", metavar="NAME", help="what a real server sends, byte by byte: cases, one after the other"
    )
    what.add_argument("--list", action="store_true", help="list the faults and their parameters")


def _eval(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("configs", nargs="+", type=Path, metavar="CONFIG", help="definitions, YAML files")
    parser.add_argument(
        "--suite", required=True, type=Path, metavar="DIR", help="a folder of *.scenario.yaml with `questions`"
    )
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write a JUnit file")
    parser.add_argument("--json", action="store_true", help="print the reports alone, as JSON")
    parser.add_argument("--concurrency", type=count, default=4, metavar="N", help="questions at a time (default: 4)")
    parser.add_argument(
        "--repeat", type=count, default=1, metavar="N", help="how often each question is asked (default: 1)"
    )


COMMANDS: dict[str, Command] = {
    "init": Command("make an agent to begin with", "starting:init", _init, at_once=True),
    "run": Command("answer one question", "running:run", _run, at_once=True),
    "chat": Command("a conversation", "running:chat", _chat, at_once=True),
    "check": Command(
        "validate definitions, scenarios and every other file of ours", "checking:check", _check, at_once=True
    ),
    "schema": Command("print the JSON Schema of a definition", "inspecting:schema", _schema, at_once=True),
    "doctor": Command("what is usable here, and how to get the rest", "examining:doctor", _doctor, at_once=True),
    "runs": Command("what was run: a list, or one run and what its time went on", "past:runs", add_runs, at_once=True),
    "trace": Command("draw recorded runs as timelines", "past:trace", add_trace, at_once=True),
    "index": Command("load documents into a collection", "indexing:index", _index),
    "tables": Command("make the tables in a database ahead", "tables:tables", _tables),
    "submit": Command("put a run into the queue of durable ones", "queueing:submit", _submit),
    "schedules": Command("what is submitted again and again", "queued:show_schedules", _schedules, at_once=True),
    "worker": Command("do durable runs from the queue", "queueing:worker", _worker, at_once=True, stays=True),
    "serve": Command("serve agents over HTTP", "serving:serve", add_serve, at_once=True, stays=True),
    "keys": Command("keys of the service", "keying:keys", add_keys),
    "audit": Command("who did what, and whether the log of it is whole", "auditing:audit", add_audit),
    "scenario": Command("play scenarios, without pytest", "playing:scenario", _scenario, at_once=True),
    "simulate": Command("play an agent against random faults", "simulating:simulate", _simulate, at_once=True),
    "faults": Command("serve faults on loopback, for any client", "faulting:faults", _faults, at_once=True),
    "eval": Command(
        "put a suite of questions to definitions, and compare them", "evaluating:evaluate", _eval, at_once=True
    ),
}
"""Every command; a new one is a line here."""
