"""What the listeners of a run hear of what its tools ask of collections."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from shared_libs.atomic.errors import in_words
from shared_libs.atomic.events import RetrievalFinished, RetrievalStarted
from shared_libs.atomic.scope import current_scope
from shared_libs.atomic.types import Stage


class Telling:
    """What is to be told at the end of what `began` at that loop time."""

    def __init__(self, began: float) -> None:
        self.began = began
        self.found = 0
        self.scores: dict[str, float] = {}
        self.stages: tuple[Stage, ...] = ()


@contextmanager
def told(operation: str, collection: str, query: str, k: int) -> Iterator[Telling]:
    """Tell that a collection is asked, and at the end of the block what came of it, however it ends."""
    emit, clock = current_scope().emit, asyncio.get_running_loop().time
    started = RetrievalStarted(operation=operation, collection=collection, query=query, k=k)
    emit(started)
    telling, error = Telling(clock()), ""
    try:
        yield telling
    except asyncio.CancelledError:
        error = "cancelled"
        raise
    except BaseException as failure:
        error = in_words(failure)
        raise
    finally:
        emit(
            RetrievalFinished(
                operation=operation,
                collection=collection,
                started=started.seq,
                elapsed_s=clock() - telling.began,
                found=telling.found,
                scores=telling.scores,
                stages=telling.stages,
                error=error,
            )
        )
