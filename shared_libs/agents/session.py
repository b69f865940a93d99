"""Where a run touches its memory: the history before it, what grows too long on its way, the exchange after it."""

from __future__ import annotations

from shared_libs.agents.run import Run
from shared_libs.atomic.errors import LLMError, MemoryConflict, MemoryStoreError
from shared_libs.atomic.events import MemoryCompacted, MemoryLoaded, MemoryStored, Warned
from shared_libs.atomic.memory.base import BaseMemory, Recollection
from shared_libs.atomic.memory.compaction import Digest
from shared_libs.atomic.scope import use_scope
from shared_libs.atomic.supervise import GRACE_S
from shared_libs.atomic.types import LLMResponse, Message, estimate_tokens


async def recall(run: Run, memory: BaseMemory | None) -> tuple[list[Message], Digest]:
    """Load the history of the run's session, and the summary of what came before it."""
    if memory is None or run.session_id is None:
        return [], Digest()
    began, session_id = run.elapsed_s, run.session_id
    with use_scope(run.scope(run.explore)):
        found = await run.once("recall", Recollection, lambda: memory.async_recall(session_id))
    count = len(found.messages)
    run.session_length, run.session_before = found.length, found.before
    run.emit(MemoryLoaded(session_id=run.session_id, messages=count, elapsed_s=run.elapsed_s - began))
    return found.messages, Digest(found.summary)


async def compact(run: Run, memory: BaseMemory | None) -> None:
    """
    Sum up the older part of the conversation where it has grown too long for the next call of the model.

    A model that has failed to sum up is not asked again in this run: its silence would cost the run its time.
    """
    if memory is None or memory.compaction is None:
        return
    compaction, state = memory.compaction, run.state
    conversation, question = [*state.history, *state.exchange], len(state.history)
    old = state.digest
    cut = compaction.cut(conversation, old, question, memory.window)
    if cut == old.messages:
        return
    before, began = estimate_tokens(old.shown(conversation, question)), run.elapsed_s
    state.digest = compaction.leave_out(old, cut)

    async def sum_up() -> LLMResponse:
        try:
            return await compaction.sum_up(conversation[old.messages : cut], old, run.explore.remaining() / 2)
        except LLMError as error:  # a fact too: who goes on with the run asks no more than this one would have
            run.emit(Warned(message=f"earlier messages are left out, because they could not be summed up: {error}"))
            return LLMResponse(text="", cost_usd=0.0)

    if not old.lost:
        response = await run.asked_once(f"compact.{len(state.steps) + 1}", sum_up)
        run.budget.charge(response.usage, response.cost_usd)
        state.digest = compaction.take(response, old, cut)
    run.emit(
        MemoryCompacted(
            messages=cut - old.messages,
            tokens_before=before,
            tokens_after=estimate_tokens(state.digest.shown(conversation, question)),
            summarised=state.digest.lost == old.lost,
            elapsed_s=run.elapsed_s - began,
        )
    )


async def remember(run: Run, memory: BaseMemory | None) -> None:
    """
    Store the exchange. An answer is not lost because the store is: that is a warning.

    Another run of the session may have ended meanwhile: then this exchange stands behind the other's, and that is a
    warning too, because neither knew of the other.
    """
    if memory is None or run.session_id is None:
        return
    began, session_id, exchange = run.elapsed_s, run.session_id, run.state.exchange
    # what a durable run stores again, because it died before the fact was kept, is the same store
    batch = None if run.journal is None else run.id
    # the grace of a store that hangs must end before the run does, or its answer would be taken for a partial one
    until = run.deadline.earlier_by(GRACE_S + min(GRACE_S, run.timeout_s / 50))

    async def store() -> bool:
        try:
            await memory.async_store(session_id, exchange, after=run.session_length, batch=batch)
        except MemoryConflict as conflict:
            await memory.async_store(session_id, exchange, batch=batch)
            run.emit(Warned(message=f"stored behind the exchange of another run: {conflict}"))
        return True

    with use_scope(run.scope(until)):
        try:
            await run.once("store", bool, store)
        except MemoryStoreError as error:
            run.trouble = f"the exchange was not stored: {error}"
            run.emit(Warned(message=run.trouble))
            return
        run.emit(MemoryStored(session_id=session_id, messages=len(exchange), elapsed_s=run.elapsed_s - began))
        await _keep_summary(run, memory, session_id)


async def _keep_summary(run: Run, memory: BaseMemory, session_id: str) -> None:
    """Keep a summary of history for the next run. One that tells of this run stays with it: the next makes its own."""
    digest = run.state.digest
    if not digest.text or digest.lost or not 0 < digest.messages <= len(run.state.history):
        return
    try:
        await memory.async_summarise(session_id, digest.text, run.session_before + digest.messages)
    except MemoryStoreError as error:
        run.emit(Warned(message=f"the summary was not kept: {error}"))
