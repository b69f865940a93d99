"""Search by meaning: the embedding of each message, made in the background, kept beside it."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import weakref
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import Row, bindparam, func, or_, select, update

from shared_libs.atomic.errors import LLMError, MemoryStoreError
from shared_libs.atomic.llms.base import BaseLLMWrapper
from shared_libs.atomic.types import Message
from shared_libs.memory.tables import MESSAGES

if TYPE_CHECKING:
    import numpy as np

_log = logging.getLogger(__name__)

SEARCHED = 2_000
"""How many of a session's newest embeddings are compared with a query."""

BATCH = 64
"""How many messages are embedded by one request."""

BATCHES = 16
"""How many requests one session may make before the others have their turn."""

WAITING = 1_000
"""How many sessions may wait for their embeddings; those beyond get theirs when they are next used."""

EMBED_S = 30.0
"""Seconds a request for embeddings may take, in the background."""

_EMBEDDED_CHARS = 8_000
"""So much of a message is embedded: within what every embedding model takes."""

_FUSION = 60
"""Rank fusion: a hit counts one divided by this and its rank (Cormack, Clarke and Büttcher 2009)."""

Begin = Callable[..., Awaitable[Any]]


class Meaning:
    """
    The embeddings of one store.

    A message waits for its embedding where it is stored: no queue can lose it, and until it has one it is found by its
    words.

    Args:
        embedder: makes the embeddings. Those of another model, or length, are not compared; they are made anew.
        begin: begins a transaction, to write where `writes=True`.

    """

    def __init__(self, embedder: BaseLLMWrapper, begin: Begin) -> None:
        self.embedder = embedder
        self._begin = begin
        self._bytes: int | None = None
        self._waiting: dict[str, None] = {}
        self._tasks: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Task[None]] = (
            weakref.WeakKeyDictionary()
        )

    def wake(self, session_id: str) -> None:
        """Embed the new messages of a session, soon."""
        if len(self._waiting) >= WAITING:
            return
        self._waiting[session_id] = None
        loop = asyncio.get_running_loop()
        if loop not in self._tasks:
            # a context of its own: it outlives the run whose deadline stands in the current one
            task = self._tasks[loop] = loop.create_task(self._work(), context=contextvars.Context())
            task.add_done_callback(lambda _: self._tasks.pop(loop, None))

    async def aclose(self) -> None:
        """Stop; what is not embedded yet will be when its session is next used."""
        task = self._tasks.get(asyncio.get_running_loop())
        self._waiting.clear()
        if task is not None:
            task.cancel()
            await asyncio.wait([task], timeout=1.0)

    async def nearest(self, session_id: str, query: str, k: int, within_s: float) -> list[int] | None:
        """
        Return the positions of the messages nearest in meaning, best first; None where there are no embeddings.

        The embedder has two thirds of the time, so that words can be looked for in the rest.
        """
        try:
            wanted = (await self.embedder.async_embed([query[:_EMBEDDED_CHARS]], timeout=within_s / 3))[0]
            self._bytes = wanted.astype("<f4").nbytes
            await self._embed(session_id, within_s / 3)
        except LLMError as error:
            _log.warning("searching by words, because the embedder does not answer: %s", error)
            return None
        query_ = select(MESSAGES.c.position, MESSAGES.c.embedding).where(
            MESSAGES.c.session_id == session_id, MESSAGES.c.embedding_model == self.embedder.model
        )
        async with await self._begin() as connection:
            rows = (await connection.execute(query_.order_by(MESSAGES.c.position.desc()).limit(SEARCHED))).all()
        return await asyncio.to_thread(_nearest, wanted, rows, k)

    def unembedded(self) -> Any:
        """Return the condition for the messages that have no embedding of the present model, and length."""
        others = [MESSAGES.c.embedding_model.is_(None), MESSAGES.c.embedding_model != self.embedder.model]
        if self._bytes is not None:
            others.append(func.length(MESSAGES.c.embedding) != self._bytes)
        return or_(*others)

    async def _work(self) -> None:
        while self._waiting:
            session_id = next(iter(self._waiting))
            del self._waiting[session_id]
            try:
                for _ in range(BATCHES):
                    if await self._embed(session_id, EMBED_S) < BATCH:
                        break
            except (LLMError, MemoryStoreError) as error:
                _log.warning("messages wait for their embeddings: %s", error)
                self._waiting.clear()  # they stand in the store; the next use of a session tries again
            except Exception:  # noqa: BLE001 - nobody waits for this task: what fails in it is told here
                _log.exception("messages wait for their embeddings")
                self._waiting.clear()

    async def _embed(self, session_id: str, timeout_s: float) -> int:
        """Embed up to a batch of a session's newest messages that need it; return how many there were."""
        needed = select(MESSAGES.c.position, MESSAGES.c.message).where(
            MESSAGES.c.session_id == session_id, func.trim(MESSAGES.c.words) != "", self.unembedded()
        )
        async with await self._begin() as connection:
            rows = (await connection.execute(needed.order_by(MESSAGES.c.position.desc()).limit(BATCH))).all()
        if not rows:
            return 0
        texts = [msgspec.json.decode(row.message, type=Message).text[:_EMBEDDED_CHARS] for row in rows]
        vectors = await self.embedder.async_embed(texts, timeout=timeout_s)
        made = [
            {"at": row.position, "model": self.embedder.model, "vector": vector.astype("<f4").tobytes()}
            for row, vector in zip(rows, vectors, strict=True)
        ]
        put = update(MESSAGES).where(MESSAGES.c.session_id == session_id, MESSAGES.c.position == bindparam("at"))
        async with await self._begin(writes=True) as connection:
            await connection.execute(
                put.values(embedding_model=bindparam("model"), embedding=bindparam("vector")), made
            )
        return len(rows)


def fused(*rankings: Sequence[int]) -> list[int]:
    """Merge rankings: what stands high in any of them comes first, and of equals what the first ranking has."""
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, position in enumerate(ranking):
            scores[position] = scores.get(position, 0.0) + 1 / (_FUSION + rank)
    return sorted(scores, key=lambda position: -scores[position])


def _nearest(wanted: np.ndarray, rows: Sequence[Row[Any]], k: int) -> list[int]:
    """Rank by the cosine; embeddings of another length cannot be compared."""
    import numpy as np

    wanted = wanted.astype("<f4")
    same = [row for row in rows if len(row.embedding) == wanted.nbytes]
    if not same:
        return []
    vectors = np.frombuffer(b"".join(row.embedding for row in same), dtype="<f4").reshape(len(same), -1)
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(wanted)
    cosines = (vectors @ wanted) / np.where(lengths > 0, lengths, 1)
    best = np.argsort(-cosines, kind="stable")[:k]  # of equals the newest comes first
    return [same[index].position for index in best]
