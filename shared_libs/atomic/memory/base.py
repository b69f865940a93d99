"""The memory port: sessions of messages, stored and loaded under supervision."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, final

from shared_libs.atomic.deadline import Deadline
from shared_libs.atomic.errors import DeadlineExceeded, MemoryStoreError, MisuseError, StaleCall
from shared_libs.atomic.memory.history import last_messages, valid_history
from shared_libs.atomic.scope import current_deadline, current_scope
from shared_libs.atomic.supervise import BodyCancelled, Expiry, LeftRunning, supervise
from shared_libs.atomic.types import Message, as_messages


class BaseMemory:
    """
    Conversation history per session.

    A store implements `_store` (append all of the messages or none), `_load` (the newest `limit` messages, oldest
    first; None: all) and may implement `_search`. The public methods are final: they bound every call by `timeout_s`
    and the current deadline, and what they return is a history a model accepts, whenever the writer was interrupted.
    """

    name: str = "memory"
    timeout_s: float = 10.0
    window: int | None = None
    """How many of the newest messages a run loads; None: all."""

    _left_running: LeftRunning | None = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for method in ("async_store", "async_load", "async_search"):
            if method in vars(cls):
                raise MisuseError(f"{cls.__name__} overrides {method}, which is final; write `_{method[6:]}` instead")

    @final
    async def async_store(self, session_id: str, messages: Sequence[Message | Mapping[str, Any]]) -> None:
        """
        Append messages to a session: all of them, or none.

        Raises:
            MemoryStoreError: the store failed or did not answer in time.
            MemoryConflict: another writer of this session was faster.
            StaleCall: the tool call that writes was given up.

        """
        if current_scope().stale:
            raise StaleCall(f"the call that writes to memory {self.name} was given up, so nothing it says is kept")
        checked = as_messages(messages)
        if checked:
            await self._supervised(self._store(_checked_session(session_id), checked), "store")

    @final
    async def async_load(self, session_id: str, limit: int | None = None) -> list[Message]:
        """
        Return the newest `limit` messages of a session, oldest first (None: all).

        A tool call is never parted from its result: rather fewer messages come than a broken pair.

        Raises:
            MemoryStoreError: the store failed or did not answer in time.

        """
        if limit is not None and limit < 0:
            raise MisuseError(f"limit is a number of messages, not {limit}")
        found: list[Message] = await self._supervised(self._load(_checked_session(session_id), limit), "load")
        return last_messages(valid_history(found), limit)

    @final
    async def async_search(self, session_id: str, query: str, k: int = 5) -> list[Message]:
        """
        Return up to `k` messages of a session that fit the query, best first.

        Raises:
            MemoryStoreError: the store failed or did not answer in time.

        """
        found: list[Message] = await self._supervised(self._search(_checked_session(session_id), query, k), "search")
        return found

    async def aclose(self) -> None:
        """Release what the store holds; using it afterwards opens it again."""

    async def _store(self, session_id: str, messages: list[Message]) -> None:
        raise NotImplementedError

    async def _load(self, session_id: str, limit: int | None) -> list[Message]:
        raise NotImplementedError

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
            return await supervise(body, expiry, what="memory", name=self.name, call_id=verb, left=self._left_running)
        except DeadlineExceeded as error:
            raise MemoryStoreError(str(error)) from error
        except BodyCancelled:
            raise MemoryStoreError(f"memory {self.name} was cancelled from within during {verb}") from None
        except (MemoryStoreError, MisuseError):
            raise
        except Exception as error:  # a store is foreign code: its failure has one type for the caller
            raise MemoryStoreError(f"memory {self.name} failed to {verb}: {type(error).__name__}: {error}") from error


class InProcessMemory(BaseMemory):
    """History in this process's memory; gone when it ends, and never shared with another."""

    name = "in-process"

    def __init__(self, *, window: int | None = None) -> None:
        self.window = window
        self._sessions: dict[str, list[Message]] = {}

    async def _store(self, session_id: str, messages: list[Message]) -> None:
        self._sessions.setdefault(session_id, []).extend(messages)

    async def _load(self, session_id: str, limit: int | None) -> list[Message]:
        return list(self._sessions.get(session_id, ()))


def _checked_session(session_id: str) -> str:
    if not session_id:
        raise MisuseError(f"a session id is a text that is not empty, not {session_id!r}")
    return session_id
