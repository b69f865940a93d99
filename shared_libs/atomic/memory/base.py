"""The memory port: sessions of messages, stored and loaded under supervision."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Self, final

import msgspec

from shared_libs.atomic.alarm import Expiry
from shared_libs.atomic.amounts import is_amount
from shared_libs.atomic.deadline import Deadline
from shared_libs.atomic.errors import (
    DeadlineExceeded,
    MemoryConflict,
    MemoryStoreError,
    MemoryUnavailable,
    MisuseError,
    StaleCall,
)
from shared_libs.atomic.memory.compaction import Compaction
from shared_libs.atomic.memory.history import last_messages, valid_history
from shared_libs.atomic.opening import closed
from shared_libs.atomic.rescue import call_here, door
from shared_libs.atomic.scope import current_deadline, current_scope
from shared_libs.atomic.supervise import NO_FAILURES, BodyCancelled, LeftRunning, said_by, supervise
from shared_libs.atomic.types import Message, as_messages
from shared_libs.atomic.whole import whole_text

RECALLED = 2_000
"""With a compaction a run reads what no summary stands for yet, but never more messages than this."""


class Recollection(msgspec.Struct, kw_only=True):
    """
    What a run begins with.

    `summary` stands for what came before `messages`. `before` is how many messages of the session that is, and `length`
    how many it has in all; None where the store does not count.
    """

    messages: list[Message]
    summary: str = ""
    before: int = 0
    length: int | None = None


class BaseMemory:
    """
    Conversation history per session.

    A store implements `_store` (append all of the messages or none), `_load` (the newest `limit` messages, oldest
    first; None: all) and may implement `_search`. The public methods are final: they bound every call by `timeout_s`
    and the current deadline, and what they return is a history a model accepts, whenever the writer was interrupted.

    A store that counts implements `_recall` and `_store_after` too, so that a run is told of another one in its
    session; one that keeps summaries implements `_recall` and `_summarise`; one whose users may be forgotten `_forget`.
    """

    name: str = "memory"
    timeout_s: float = 10.0
    window: int | None = None
    """How many of the newest messages a run loads; None: all."""
    compaction: Compaction | None = None
    """Sums up what falls out of the window, or out of a number of tokens; None: it is left out."""

    _left_running: LeftRunning | None = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for method in vars(cls):
            if method.startswith("async_") and method in vars(BaseMemory):
                raise MisuseError(f"{cls.__name__} overrides {method}, which is final; write `_{method[6:]}` instead")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    @final
    async def async_store(
        self,
        session_id: str,
        messages: Sequence[Message | Mapping[str, Any]],
        *,
        after: int | None = None,
        batch: str | None = None,
    ) -> None:
        """
        Append messages to a session: all of them, or none.

        Args:
            session_id: the conversation.
            messages: what to append; they stand together, whoever else writes.
            after: how many messages the session must have for that (`Recollection.length`); None: any number.
            batch: names this store for good: the same one again stores nothing, where the store keeps such names.

        Raises:
            MemoryStoreError: the store failed or did not answer in time.
            MemoryConflict: another writer of this session was faster; nothing was stored.
            StaleCall: the tool call that writes was given up.

        """
        self._refuse_stale()
        checked = as_messages(messages)
        session_id = _checked_session(session_id)
        if checked:
            if batch is not None:
                body = self._store_batch(session_id, checked, after, batch)
            elif after is None:
                body = self._store(session_id, checked)
            else:
                body = self._store_after(session_id, checked, after)
            await self._supervised(body, "store")

    @final
    async def async_load(self, session_id: str, limit: int | None = None) -> list[Message]:
        """
        Return the newest `limit` messages of a session, oldest first (None: all).

        A tool call is never parted from its result: rather fewer messages come than a broken pair.

        Raises:
            MemoryStoreError: the store failed or did not answer in time.

        """
        checked_count(limit, "limit")
        found = self._checked(await self._supervised(self._load(_checked_session(session_id), limit), "load"))
        return last_messages(valid_history(found), limit)

    @final
    async def async_recall(self, session_id: str) -> Recollection:
        """
        Return what a run of the session begins with: the newest `window` messages.

        With a compaction: the summary so far, and the messages it does not stand for.

        Raises:
            MemoryStoreError: the store failed or did not answer in time.

        """
        limit = self.window if self.compaction is None else RECALLED
        found: Recollection = await self._supervised(self._recall(_checked_session(session_id), limit), "load")
        if type(found) is not Recollection:
            raise MemoryStoreError(f"memory {self.name} gave a {type(found).__name__} where a Recollection belongs")
        found.messages = self._checked(found.messages)
        counted = found.before + len(found.messages)
        found.messages = last_messages(valid_history(found.messages), limit)
        # a repair or a cut moves the count; where a message stands is told by those behind it
        found.before = max(0, counted - len(found.messages))
        return found

    @final
    async def async_summarise(self, session_id: str, summary: str, messages: int) -> None:
        """
        Keep a summary of the first `messages` messages of a session; the messages stay.

        Of two summaries the one that stands for more is kept. A store without summaries does nothing.

        Raises:
            MemoryStoreError: the store failed or did not answer in time.
            StaleCall: the tool call that writes was given up.

        """
        self._refuse_stale()
        await self._supervised(self._summarise(_checked_session(session_id), summary, messages), "summarise")

    def _refuse_stale(self) -> None:
        if current_scope().stale:
            raise StaleCall(f"the call that writes to memory {self.name} was given up, so nothing it says is kept")

    @final
    async def async_search(self, session_id: str, query: str, k: int = 5) -> list[Message]:
        """
        Return up to `k` messages of a session that fit the query, best first.

        Raises:
            MemoryStoreError: the store failed or did not answer in time.

        """
        checked_count(k, "k")
        if not isinstance(query, str):
            raise MisuseError(f"query is a text, not {query!r:.100}")
        return self._checked(await self._supervised(self._search(_checked_session(session_id), query, k), "search"))

    @final
    async def async_forget(self, session_id: str) -> None:
        """
        Delete a session: its messages, with what is kept beside them (summary, embeddings, what waits to be stored).

        A run that is under way in it stores its exchange all the same, as the first of a new one.

        Raises:
            MemoryStoreError: the store failed, did not answer in time, or cannot delete; ask again.
            StaleCall: the tool call that deletes was given up.

        """
        self._refuse_stale()
        await self._supervised(self._forget(_checked_session(session_id)), "forget")

    def _checked(self, found: Any) -> list[Message]:
        """Take what a store has found: it is foreign code."""
        if isinstance(found, list) and type(found) is not list:
            found = call_here(list, found)  # what a list of its own does when it is looked at is foreign code too
        wrong = found if not isinstance(found, list) else next((it for it in found if type(it) is not Message), found)
        if wrong is not found or not isinstance(found, list):
            raise MemoryStoreError(f"memory {self.name} gave a {type(wrong).__name__} where a list of messages belongs")
        return found

    @final
    async def async_open(self) -> None:
        """
        Get ready what takes long, such as connecting and making tables; optional, and safe to repeat.

        Raises:
            MemoryStoreError: the store is not there, or did not answer in time.

        """
        await self._supervised(self._open(), "open")

    async def aclose(self) -> None:
        """Release what the store holds, its models too; using it afterwards opens it again."""
        if self.compaction is not None:
            await self.compaction.llm.aclose()

    async def __aenter__(self) -> Self:
        await self.async_open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await closed((self.name, self.aclose()))

    async def _open(self) -> None:
        """Get ready what takes long."""

    async def _store(self, session_id: str, messages: list[Message]) -> None:
        raise NotImplementedError

    async def _load(self, session_id: str, limit: int | None) -> list[Message]:
        raise NotImplementedError

    @door
    async def _store_after(self, session_id: str, messages: list[Message], after: int) -> None:
        """Append where the session has `after` messages, else raise `MemoryConflict`; in one step."""
        await self._store(session_id, messages)

    @door
    async def _store_batch(self, session_id: str, messages: list[Message], after: int | None, batch: str) -> None:
        """Append as `_store` or `_store_after` do, but nothing where a batch of this name has been stored already."""
        if after is None:
            await self._store(session_id, messages)
        else:
            await self._store_after(session_id, messages, after)

    @door
    async def _recall(self, session_id: str, limit: int | None) -> Recollection:
        """Load the newest `limit` messages that no summary stands for, with their place in the session."""
        return Recollection(messages=await self._load(session_id, limit))

    async def _summarise(self, session_id: str, summary: str, messages: int) -> None:
        """Keep a summary."""

    @door
    async def _forget(self, session_id: str) -> None:
        raise MemoryStoreError(f"memory {self.name} cannot forget a session: {type(self).__name__} has no `_forget`")

    @door
    async def _search(self, session_id: str, query: str, k: int) -> list[Message]:
        """Search by the words of the query, for a store without an index of its own."""
        words = set(query.lower().split())
        scored = [
            (len(words & set(message.text.lower().split())), index, message)
            for index, message in enumerate(await self._load(session_id, None))
        ]
        best = sorted((row for row in scored if row[0]), key=lambda row: (-row[0], -row[1]))
        return [message for _, _, message in best[:k]]

    @property
    def still_running(self) -> int:
        """How many calls of this store run on although nobody waits for them any more; a gauge for metrics."""
        return 0 if self._left_running is None else len(self._left_running)

    async def _supervised(self, body: Any, verb: str) -> Any:
        if self._left_running is None:
            self._left_running = LeftRunning()
        if self._left_running.full:
            body.close()
            raise MemoryStoreError(f"memory {self.name} was not asked to {verb}: {self._left_running}")
        limit: Deadline = current_deadline().narrowed(self.timeout_s)
        started = asyncio.get_running_loop().time()
        allowed = max(0.0, limit.at - started)
        expiry = Expiry(limit.at, f"memory {self.name} did not {verb} within {allowed:.3g} s")
        try:
            return await supervise(
                body, expiry, what="memory", name=self.name, call_id=verb, left_running=self._left_running
            )
        except DeadlineExceeded as error:
            raise MemoryUnavailable(str(error)) from error
        except BodyCancelled:
            raise MemoryStoreError(f"memory {self.name} was cancelled from within during {verb}") from None
        except (MemoryStoreError, MisuseError):
            raise
        except NO_FAILURES:
            raise
        except BaseException as error:  # a store is foreign code: its failure has one type for the caller
            raise MemoryStoreError(f"memory {self.name} failed to {verb}: {said_by(error)}") from error


class InProcessMemory(BaseMemory):
    """
    History in this process's memory; gone when it ends, and never shared with another.

    Args:
        window: how many of the newest messages a run loads; None: all.
        compaction: sums up what a run has no room for; None: it is left out.
        max_sessions: how many sessions are kept; beyond that those go that were used longest ago.

    """

    name = "in-process"

    def __init__(
        self, *, window: int | None = None, compaction: Compaction | None = None, max_sessions: int = 10_000
    ) -> None:
        if not is_amount(max_sessions, whole=True):
            raise MisuseError(f"max_sessions is a number from 1, not {max_sessions!r}")
        self.window = checked_count(window, "window")
        self.compaction = compaction
        self._most = max_sessions
        self._sessions: dict[str, list[Message]] = {}
        self._summaries: dict[str, tuple[int, str]] = {}
        self._batches: dict[str, set[str]] = {}

    async def _store(self, session_id: str, messages: list[Message]) -> None:
        kept = self._sessions.pop(session_id, [])
        self._sessions[session_id] = kept  # the newest stands last
        kept.extend(messages)
        while len(self._sessions) > self._most:
            await self._forget(next(iter(self._sessions)))

    async def _store_after(self, session_id: str, messages: list[Message], after: int) -> None:
        if (length := len(self._sessions.get(session_id, ()))) != after:
            raise outrun(session_id, after, length)
        await self._store(session_id, messages)

    async def _store_batch(self, session_id: str, messages: list[Message], after: int | None, batch: str) -> None:
        if batch not in self._batches.get(session_id, ()):
            await super()._store_batch(session_id, messages, after, batch)
            self._batches.setdefault(session_id, set()).add(batch)

    async def _load(self, session_id: str, limit: int | None) -> list[Message]:
        return list(self._sessions.get(session_id, ()))

    async def _recall(self, session_id: str, limit: int | None) -> Recollection:
        kept = self._sessions.get(session_id, [])
        covered, summary = self._summaries.get(session_id, (0, "")) if self.compaction else (0, "")
        return Recollection(messages=kept[covered:], summary=summary, before=covered, length=len(kept))

    async def _summarise(self, session_id: str, summary: str, messages: int) -> None:
        if messages > self._summaries.get(session_id, (0, ""))[0]:
            self._summaries[session_id] = (messages, summary)

    async def _forget(self, session_id: str) -> None:
        for kept in (self._sessions, self._summaries, self._batches):
            kept.pop(session_id, None)


def outrun(session_id: str, after: int, length: int) -> MemoryConflict:
    """Say that another writer was faster."""
    return MemoryConflict(
        f"another writer of session {session_id!r} was faster: it has {length} messages, not {after}; "
        "nothing was stored; load again and store again"
    )


def _checked_session(session_id: Any) -> str:
    if not isinstance(session_id, str) or not session_id or whole_text(session_id) != session_id:
        raise MisuseError(f"a session id is a text that is not empty, of whole characters, not {session_id!r:.100}")
    return session_id


def checked_count(count: int | None, name: str) -> int | None:
    """
    Take a number of messages.

    Raises:
        MisuseError: it is none.

    """
    if count is not None and not is_amount(count, whole=True, zero=True):
        raise MisuseError(f"{name} is a number of messages, not {count!r:.100}")
    return count
