"""Fixtures for tests of anything that talks to models; nothing of the library is imported before one is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from shared_libs.testing.faults.background import BackgroundFaultServer
    from shared_libs.testing.faults.server import Script


@pytest.fixture
def fault_server() -> Iterator[Callable[[Mapping[str, Script]], BackgroundFaultServer]]:
    """
    Start servers that fail as they are told.

    `server = fault_server({"gpt-5.4-mini": [RateLimited(), Cut()]})` starts one. Any client, sync or async, is aimed
    at `server.url("openai")`. They run on the real clock and are stopped at the end of the test, which fails when one
    was asked for what it has no script for.
    """
    from shared_libs.testing.faults.background import BackgroundFaultServer
    from shared_libs.testing.faults.server import UnexpectedRequest

    running, problem = ExitStack(), ""
    try:
        with running:
            yield lambda models: running.enter_context(BackgroundFaultServer(models))
    except UnexpectedRequest as error:
        problem = str(error)
    if problem:
        pytest.fail(problem, pytrace=False)
