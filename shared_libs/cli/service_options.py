"""The arguments of `factory serve`, `factory keys` and `factory audit`; nothing heavy is loaded for them."""

from __future__ import annotations

import argparse
from pathlib import Path

from shared_libs.cli.values import days, hours, port


def add_serve(serve: argparse.ArgumentParser) -> None:
    """Add the arguments of `factory serve`."""
    serve.add_argument(
        "--configs",
        type=Path,
        default=Path("configs"),
        metavar="DIR",
        help="the folder of definitions (default: configs)",
    )
    serve.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: 127.0.0.1)")
    serve.add_argument("--port", type=port, default=8000, metavar="P", help="the port to listen on (default: 8000)")
    serve.add_argument("--store", metavar="URL", help="where runs are kept (default: as service.yaml says)")
    serve.add_argument(
        "--keys", type=_place, metavar="FILE|URL", help="where keys are kept (default: as service.yaml says)"
    )


def add_keys(keys: argparse.ArgumentParser) -> None:
    """Add the arguments of `factory keys`."""
    actions = keys.add_subparsers(dest="action", required=True, metavar="ACTION")
    new = actions.add_parser("new", help="make a key, and show it once")
    new.add_argument("--name", metavar="WORDS", help="who has it")
    new.add_argument("--team", metavar="NAME", help="whose it is: runs and sessions of a team are its own")
    new.add_argument("--scope", action="append", metavar="SCOPE", help="what it may (default: *); several may be given")
    new.add_argument("--days", type=days, metavar="N", help="how long it is valid (default: for ever)")
    new.add_argument("--rpm", type=int, metavar="N", help="requests a minute")
    new.add_argument("--tpm", type=int, metavar="N", help="tokens a minute")
    new.add_argument("--concurrency", type=int, metavar="N", help="requests at the same time")
    new.add_argument("--weight", type=float, metavar="N", help="its share in a queue beside others (default: 1)")
    new.add_argument("--budget", type=float, metavar="USD", help="what it may spend in a window")
    new.add_argument("--window", choices=("day", "month", "total"), help="the window of the budget (default: month)")
    new.add_argument("--rotates", metavar="ID", help="the key that it is to replace; it takes what is not given")
    new.add_argument("--overlap", type=hours, default=24.0, metavar="H", help="hours the old one goes on (default: 24)")
    told = actions.add_parser("list", help="what is kept of them")
    told.add_argument("--json", action="store_true", help="print JSON")
    revoke = actions.add_parser("revoke", help="let a key open nothing any more")
    revoke.add_argument("id", metavar="ID", help="which key")
    for action in (new, told, revoke):
        action.add_argument(
            "--configs", type=Path, default=Path("configs"), metavar="DIR", help="the definitions (default: ./configs)"
        )
        action.add_argument(
            "--keys", type=_place, metavar="FILE|URL", help="where keys are kept (default: as service.yaml says)"
        )


def add_audit(audit: argparse.ArgumentParser) -> None:
    """Add the arguments of `factory audit`."""
    actions = audit.add_subparsers(dest="action", required=True, metavar="ACTION")
    told = actions.add_parser("list", help="every entry, the oldest first")
    told.add_argument("--after", type=int, default=0, metavar="N", help="those behind this number")
    told.add_argument("--json", action="store_true", help="print one JSON object a line")
    verify = actions.add_parser("verify", help="whether every row follows from the one before it")
    verify.add_argument("--seen", metavar="N:HASH", help="the last row as an earlier look has told it")
    for action in (told, verify):
        action.add_argument(
            "--configs", type=Path, default=Path("configs"), metavar="DIR", help="the definitions (default: ./configs)"
        )
        action.add_argument("--store", metavar="URL", help="where it is kept (default: as service.yaml says)")


def _place(text: str) -> str:
    """Read where keys are: a file is meant from the working directory, as any that a command line names."""
    return text if "://" in text else str(Path(text).absolute())
