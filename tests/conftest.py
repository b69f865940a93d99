"""The arms of the suite: no network but loopback, and every promise cited by a test is a known one."""

from __future__ import annotations

import faulthandler
import gc
import math
import os
import signal
import sys
import time
from collections.abc import Generator
from typing import Any

import pytest

from shared_libs.atomic.llms.dialect import forget
from tests.local_model import local_model
from tests.postgres import own_postgres, postgres
from tests.requirements import REQUIREMENTS

__all__ = ["local_model", "own_postgres", "postgres"]

_LOOPBACK = ("127.", "::1", "localhost", "0.0.0.0")


def _refuse_outside(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "socket.connect":
        return
    address = arguments[1]
    if isinstance(address, tuple) and not str(address[0]).startswith(_LOOPBACK):
        raise RuntimeError(f"a test tried to reach {address[0]}: only loopback is allowed")


sys.addaudithook(_refuse_outside)

# a machine may be told to keep no bytecode; each of the hundreds of programs that the suite starts would compile the
# library anew, which is half of what such a program takes
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# what commands run in the tests is not kept among the user's runs; what tests of the store want they say
os.environ["FACTORY_RUNS"] = "off"


@pytest.hookimpl(optionalhook=True, wrapper=True)  # unknown where the tests run in one process
def pytest_xdist_auto_num_workers() -> Generator[None, int, int]:
    """One process more than there are cores: a test that waits for a lease or a timeout leaves its core to another."""
    told = "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ
    return (yield) + (not told)


def pytest_runtest_setup() -> None:
    """Forget what was learnt: servers on loopback get the ports of earlier ones, and are none of them."""
    forget()


class _Hanging:
    """
    Tells where every thread is when no test has begun for so long that one must hang.

    pytest's own `faulthandler_timeout` starts and ends a thread for each test: ten thousand times two switches.
    """

    def __init__(self) -> None:
        self._told = os.dup(2)
        self._since = -math.inf

    def pytest_runtest_setup(self) -> None:
        if time.monotonic() - self._since > 30:
            faulthandler.dump_traceback_later(150, file=self._told)
            self._since = time.monotonic()

    def pytest_unconfigure(self) -> None:
        faulthandler.cancel_dump_traceback_later()


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_Hanging())
    # a shell that runs the suite in the background has SIGINT ignored, and every program we start would ignore it too
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "promise(id): the behaviour of tests/requirements.py that the test proves")


def pytest_collection_finish() -> None:
    """Leave what the collection made out of every later search for garbage: it stays until the end, and is 600 MB."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for mark in item.iter_markers("promise"):
            for name in mark.args:
                if name not in REQUIREMENTS:
                    raise pytest.UsageError(f"{item.nodeid} cites the promise {name!r}, which requirements.py lacks")
