"""The options of `factory runs` and `factory trace`, and the one that says which store of runs is meant."""

from __future__ import annotations

import argparse
from datetime import datetime, timedelta
from pathlib import Path

from shared_libs.cli.values import count

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def add_runs(parser: argparse.ArgumentParser) -> None:
    """Add the options of `factory runs`."""
    parser.add_argument(
        "id", nargs="?", metavar="ID", help="one run, by its id or the beginning of it; last: the newest"
    )
    parser.add_argument(
        "--since", type=moment, metavar="WHEN", help="30m, 2h, 7d, today, yesterday, 2026-11-26[T14:00]"
    )
    parser.add_argument("--until", type=moment, metavar="WHEN", help="those that began before; written as --since")
    parser.add_argument(
        "--status", metavar="S", help="running, answered, partial, failed, cancelled, paused or unfinished"
    )
    parser.add_argument("--agent", metavar="NAME", help="those of one agent")
    parser.add_argument("--session", metavar="ID", help="those of one conversation")
    parser.add_argument("--text", metavar="WORDS", help="those whose question, answer or error holds these words")
    parser.add_argument("--slowest", action="store_true", help="the slowest first, not the newest")
    parser.add_argument("-n", "--limit", type=count, default=20, metavar="N", help="how many (default: 20)")
    parser.add_argument("--after", metavar="CURSOR", help="the page behind the one that ended with this")
    parser.add_argument("--follow", action="store_true", help="with ID: tell what happens until the run ends")
    parser.add_argument("--cancel", action="store_true", help="with ID: end a durable run, whoever does it")
    parser.add_argument(
        "--decide",
        action="append",
        type=decision,
        metavar="CALL=yes|no",
        help="with ID: decide on a call that a durable run waits with; and again for another",
    )
    parser.add_argument("--json", action="store_true", help="as JSON")
    add_store(parser)


def add_trace(parser: argparse.ArgumentParser) -> None:
    """Add the options of `factory trace`."""
    parser.add_argument(
        "file", metavar="FILE|ID", help="a run record (- is stdin), or a run of the store; last: the newest"
    )
    parser.add_argument(
        "--run", metavar="ID", help="one run of a record, by its id or the beginning of it; last: the newest"
    )
    parser.add_argument("--sent", action="store_true", help="what models were asked, too: every message and tool")
    parser.add_argument("--scenario", type=Path, metavar="OUT", help="save it as a scenario that plays it again")
    parser.add_argument("--cassette", type=Path, metavar="OUT", help="save what its models were asked and answered")
    parser.add_argument("--agent", type=Path, metavar="CONFIG", help="with --scenario: the agent's definition")
    parser.add_argument(
        "--html", type=Path, metavar="OUT", help="write one self-contained HTML file instead; - is stdout"
    )
    add_store(parser)


def add_store(parser: argparse.ArgumentParser) -> None:
    """Add the option that says which store of runs is meant."""
    parser.add_argument(
        "--store", metavar="URL", help="the store of runs, or off (default: FACTORY_RUNS, else the user's data folder)"
    )


def decision(text: str) -> tuple[str, bool]:
    """Read a decision on a call: CALL=yes or CALL=no."""
    call, _, said = text.rpartition("=")
    if not call or said not in ("yes", "no"):
        raise argparse.ArgumentTypeError(f"a decision is CALL=yes or CALL=no, not {text!r}")
    return call, said == "yes"


def moment(text: str) -> datetime:
    """Read a moment: so long ago, a day by its name, or a date; times are local where they say nothing else."""
    now = datetime.now().astimezone()
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    named = {"now": now, "today": midnight, "yesterday": midnight - timedelta(days=1)}
    if text in named:
        return named[text]
    try:
        if text[-1:] in _UNITS and text[:-1].isdecimal():
            return now - timedelta(**{_UNITS[text[-1]]: int(text[:-1])})
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(
            f"a moment is 30m, 2h, 7d, today, yesterday, or a date such as 2026-11-26 or 2026-11-26T14:00, not {text!r}"
        ) from None
