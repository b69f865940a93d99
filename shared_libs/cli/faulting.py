"""`factory faults`: the fault server for any client, until it is stopped."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections import Counter
from typing import Any, Protocol

from shared_libs.atomic.errors import MisuseError
from shared_libs.cli.exits import ExitCode
from shared_libs.cli.loop import CommandLoop, Terminated
from shared_libs.factory.problems import choices
from shared_libs.observability.printable import printable
from shared_libs.testing.faults.catalogue import CATALOGUE, AddressFault, Fault, Healthy, WireCase
from shared_libs.testing.faults.formats import FORMATS
from shared_libs.testing.faults.script import load_fault_script
from shared_libs.testing.faults.server import ANY, FaultServer, Happening, Script, SeenRequest


def faults(arguments: argparse.Namespace) -> int:
    """Serve faults until Ctrl-C, and sum up who got what; or list them."""
    show: View = Words() if sys.stdout.isatty() else Lines()
    if arguments.list:
        for name, kind in CATALOGUE.items():
            show.fault(name, _parameters(kind), (kind.__doc__ or "").strip().splitlines()[0])
        return ExitCode.ANSWERED
    scripts = load_fault_script(arguments.script) if arguments.script else {ANY: _script(arguments)}
    seen: asyncio.Queue[Happening] = asyncio.Queue()
    server = FaultServer(scripts, host=arguments.host, port=arguments.port, listener=seen.put_nowait)
    loop = CommandLoop()
    try:
        loop.run(_serve(server, scripts, seen, show))
    except KeyboardInterrupt as stop:
        show.summary(server)
        return ExitCode.TERMINATED if isinstance(stop, Terminated) else ExitCode.INTERRUPTED
    finally:
        loop.close()
    return ExitCode.ANSWERED


async def _serve(server: FaultServer, scripts: dict[str, Script], seen: asyncio.Queue[Happening], show: View) -> None:
    async with server:
        began = asyncio.get_running_loop().time()
        for model in (None, *(model for model, script in scripts.items() if isinstance(script, AddressFault))):
            show.listening(model, {name: server.url(name, model) for name in FORMATS})
        while True:
            happened = await seen.get()
            if isinstance(happened, SeenRequest):
                show.request(happened, happened.at_s - began)
            else:
                show.unexpected(str(happened), asyncio.get_running_loop().time() - began)


def _script(arguments: argparse.Namespace) -> Script:
    if arguments.case:
        played = [answer for case in arguments.case for answer in WireCase.answers(case)]
        return played[0] if len(played) == 1 else played
    found = []
    for name in arguments.fault or ["healthy"]:
        if name not in CATALOGUE:
            raise MisuseError(f"--fault: there is no fault {name!r}; {choices(name, CATALOGUE)}")
        found.append(CATALOGUE[name]())
    return found[0] if len(found) == 1 else found


def _parameters(kind: type[Fault]) -> dict[str, Any]:
    """A fault's parameters and their defaults, as a script file has them."""
    told = ((name, getattr(kind(), name)) for name in kind.__struct_fields__)
    return {name: {} if isinstance(value, Healthy) else value for name, value in told}


class View(Protocol):
    """Who shows what a server does, on stdout."""

    def fault(self, name: str, parameters: dict[str, Any], text: str) -> None:
        """Show a fault of the catalogue."""

    def listening(self, model: str | None, urls: dict[str, str]) -> None:
        """Show the base URLs of each format, of all models or of one that has its own."""

    def request(self, seen: SeenRequest, at_s: float) -> None:
        """Show a request, and what it got."""

    def unexpected(self, what: str, at_s: float) -> None:
        """Show a request that was refused."""

    def summary(self, server: FaultServer) -> None:
        """Show how many requests each model got each fault for."""


class Lines(View):
    """JSON lines, for a pipe or a file."""

    def fault(self, name: str, parameters: dict[str, Any], text: str) -> None:
        """Show a fault of the catalogue."""
        self._say("fault", fault=name, parameters=parameters, description=text)

    def listening(self, model: str | None, urls: dict[str, str]) -> None:
        """Show base URLs."""
        self._say("listening", model=model, urls=urls)

    def request(self, seen: SeenRequest, at_s: float) -> None:
        """Show a request."""
        told = {"model": seen.model, "attempt": seen.attempt, "format": seen.format, "stream": seen.stream}
        self._say("request", at_s=round(at_s, 3), **told, fault=seen.fault)

    def unexpected(self, what: str, at_s: float) -> None:
        """Show a request that was refused."""
        self._say("unexpected", at_s=round(at_s, 3), what=what)

    def summary(self, server: FaultServer) -> None:
        """Show the counts."""
        rows = [{"model": model, "fault": fault, "requests": number} for (model, fault), number in _counted(server)]
        self._say("summary", requests=rows, handshakes=server.handshakes)

    def _say(self, kind: str, **told: Any) -> None:
        print(json.dumps({"type": kind, **told}, ensure_ascii=False), flush=True)


class Words(View):
    """Rows for a person."""

    def __init__(self) -> None:
        self._headed = False

    def fault(self, name: str, parameters: dict[str, Any], text: str) -> None:
        """Show a fault of the catalogue."""
        print(f"{name}\n    {text}")
        if parameters:
            print("    " + ", ".join(f"{key}: {json.dumps(value)}" for key, value in parameters.items()))

    def listening(self, model: str | None, urls: dict[str, str]) -> None:
        """Show base URLs, once for those who share one."""
        shared: dict[str, list[str]] = {}
        for name, url in urls.items():
            shared.setdefault(url, []).append(name)
        print("base URLs" if model is None else f"base URLs for {_named(model)}")
        for url, names in shared.items():
            print(f"  {url}  {', '.join(names)}")
        if not self._headed:
            print("any key will do; Ctrl-C ends")

    def request(self, seen: SeenRequest, at_s: float) -> None:
        """Show a request."""
        if not self._headed:
            print(f"\n{'':>9}  {'model':<24} {'try':>3}  {'format':<18} {'asked for':<10} got")
            self._headed = True
        mode = "stream" if seen.stream else "whole"
        print(
            f"{at_s:7.2f} s  {printable(seen.model):<24} {seen.attempt:>3}  {seen.format:<18} {mode:<10} {seen.fault}",
            flush=True,
        )

    def unexpected(self, what: str, at_s: float) -> None:
        """Show a request that was refused."""
        print(f"{at_s:7.2f} s  refused: {printable(what)}", flush=True)

    def summary(self, server: FaultServer) -> None:
        """Show the counts."""
        print("\nrequests")
        for (model, fault), number in _counted(server):
            print(f"{number:>9}  {printable(model):<24} {fault}")
        if not server.requests:
            print(f"{0:>9}")
        if server.handshakes:
            print(f"{server.handshakes:>9}  TLS handshakes broken off")


def _counted(server: FaultServer) -> list[tuple[tuple[str, str], int]]:
    return sorted(Counter((seen.model, seen.fault) for seen in server.requests).items())


def _named(model: str) -> str:
    return "every other model" if model == ANY else printable(model)
