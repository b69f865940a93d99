"""The two moments a run touches its memory: the history before it, and the exchange after it."""

from __future__ import annotations

from shared_libs.agents.run import Run
from shared_libs.atomic.errors import MemoryStoreError
from shared_libs.atomic.events import MemoryLoaded, MemoryStored, Warned
from shared_libs.atomic.memory.base import BaseMemory
from shared_libs.atomic.scope import use_scope
from shared_libs.atomic.supervise import GRACE_S
from shared_libs.atomic.types import Message


async def recall(run: Run, memory: BaseMemory | None) -> list[Message]:
    """Load the history of the run's session."""
    if memory is None or run.session_id is None:
        return []
    began = run.elapsed_s
    with use_scope(run.scope(run.explore)):
        history = await memory.async_load(run.session_id, memory.window)
    run.emit(MemoryLoaded(session_id=run.session_id, messages=len(history), elapsed_s=run.elapsed_s - began))
    return history


async def remember(run: Run, memory: BaseMemory | None) -> None:
    """Store the exchange. An answer is not lost because the store is: that is a warning."""
    if memory is None or run.session_id is None:
        return
    began, exchange = run.elapsed_s, run.state.exchange
    # the grace of a store that hangs must end before the run does, or its answer would be taken for a partial one
    until = run.deadline.earlier_by(GRACE_S + min(GRACE_S, run.timeout_s / 50))
    try:
        with use_scope(run.scope(until)):
            await memory.async_store(run.session_id, exchange)
    except MemoryStoreError as error:
        run.trouble = f"the exchange was not stored: {error}"
        run.emit(Warned(message=run.trouble))
    else:
        run.emit(MemoryStored(session_id=run.session_id, messages=len(exchange), elapsed_s=run.elapsed_s - began))
