"""Getting parts ready and closing them: what is asked of foreign code before and after the runs has its limits too."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from shared_libs.atomic.alarm import Expiry
from shared_libs.atomic.deadline import Deadline
from shared_libs.atomic.errors import DeadlineExceeded, ToolError
from shared_libs.atomic.rescue import noted
from shared_libs.atomic.scope import current_deadline
from shared_libs.atomic.supervise import BodyCancelled, supervise

OPEN_S = 600.0
"""Seconds a part, such as a model or a tool, may take to get ready where no deadline says less."""

CLOSE_S = 5.0
"""Seconds a part may take to close."""

_log = logging.getLogger(__name__)


async def opened(name: str, opening: Coroutine[Any, Any, None]) -> None:
    """
    Await that a part gets ready.

    Raises:
        DeadlineExceeded: it was not ready in time.
        ToolError: it cancelled itself.

    """
    limit = current_deadline().narrowed(OPEN_S)
    expiry = Expiry(limit.at, f"{name} was not ready within {limit.remaining():.3g} s")
    try:
        await supervise(opening, expiry, what="part", name=name)
    except BodyCancelled:
        raise ToolError(f"{name} was cancelled from within as it got ready") from None


async def closed(*parts: tuple[str, Coroutine[Any, Any, None]]) -> None:
    """
    Await that parts, each with its name, close, all at once.

    What does not within `CLOSE_S` is left behind, and the log says so. What fails keeps nothing else open; the first
    failure is raised in the end.
    """
    failures = await asyncio.gather(*(_closed(name, closing) for name, closing in parts), return_exceptions=True)
    if failure := next(filter(None, failures), None):
        raise failure


async def _closed(name: str, closing: Coroutine[Any, Any, None]) -> None:
    why = f"{name} was not closed within {CLOSE_S:g} s, and is left so"
    try:
        await supervise(closing, Expiry(Deadline.after(CLOSE_S).at, why), what="part", name=name)
    except DeadlineExceeded as error:
        noted(_log.warning, "%s", error)
    except BodyCancelled:
        noted(_log.warning, "%s was cancelled from within as it was closed", name)
