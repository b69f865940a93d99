"""`factory serve`: the HTTP service."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable

from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.loading import needs
from shared_libs.cli.exits import ExitCode
from shared_libs.observability.printable import printable


def serve(arguments: argparse.Namespace) -> int:
    """Serve the agents of a folder until a signal comes; where it listens is on stderr."""
    for package in ("fastapi", "uvicorn", "httptools"):
        needs(package, "the service")
    from shared_libs.service import load_settings
    from shared_libs.service import serve as serve_until_stopped
    from shared_libs.service.key_store import key_store

    if not arguments.configs.is_dir():
        raise MisuseError(f"--configs {arguments.configs} is no folder; name the one that holds the definitions")
    told = {"store": arguments.store, "keys": arguments.keys}
    settings = load_settings(arguments.configs).model_copy(update={k: v for k, v in told.items() if v is not None})
    if settings.keys is not None and "://" not in settings.keys:
        # within the server, what is wrong with it would be a traceback in its log
        asyncio.run(key_store(settings.keys, settings.configs).aopen())
    began = serve_until_stopped(
        settings, host=arguments.host, port=arguments.port, on_start=_tell_where(settings.is_open), on_note=_note
    )
    return ExitCode.ANSWERED if began else ExitCode.FAILED


def _tell_where(is_open: bool) -> Callable[[list[str]], None]:
    def tell(urls: list[str]) -> None:
        for url in urls:
            print(f"listening on {url}", file=sys.stderr)
        if is_open:
            print("no keys are kept: whoever reaches this address may ask anything", file=sys.stderr)

    return tell


def _note(text: str) -> None:
    print(f"note: {printable(text)}", file=sys.stderr)
