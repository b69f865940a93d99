"""What `ReActAgent.chat` returns: an answer that can be read word by word, or whole, any number of times."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Generator
from typing import Any

from shared_libs.atomic.deadline import event_loop
from shared_libs.atomic.events import (
    AgentEvent,
    EventSink,
    ModelFinished,
    RunFinished,
    StepStarted,
    StreamRestarted,
    TextDelta,
)
from shared_libs.atomic.inbox import Inbox
from shared_libs.atomic.results import AgentResult
from shared_libs.atomic.supervise import GRACE_S, settle


async def events_of(run: Callable[[EventSink], Coroutine[Any, Any, object]]) -> AsyncGenerator[AgentEvent, None]:
    """Yield what happens in a run, as it happens; closing the iterator early cancels the run."""
    loop = event_loop()
    events: Inbox[AgentEvent] = Inbox()
    task = loop.create_task(run(events.put))
    task.add_done_callback(events.close)
    try:
        while some := await events.some():
            for event in some:
                yield event
        task.result()
    finally:
        if not task.done():
            task.cancel()
            if (cancelled := await settle([task], 3 * GRACE_S)) is not None:
                raise cancelled


class Reply:
    """
    A reply in progress.

    `async for token in reply` yields the answer as it is written; `await reply` gives the whole text. Both may be done
    any number of times, by several readers, and give the same text.

    A turn that ends in tool calls is a thought and no part of the answer, and that shows only at its end. So with
    native tools the text of a turn is held until then; `ReActAgent.async_stream` shows it at once.

    Raises:
        RunError: the run failed; raised to every reader.

    """

    def __init__(self, events: AsyncGenerator[AgentEvent, None], *, live: bool) -> None:
        self._tokens: list[str] = []
        self._result: AgentResult | None = None
        self._live = live
        self._news = asyncio.Event()
        self._task = event_loop().create_task(self._read(events))
        self._task.add_done_callback(lambda _: self._news.set())

    @property
    def result(self) -> AgentResult | None:
        """The whole result; None while the run goes on."""
        return self._result

    async def aclose(self) -> None:
        """Cancel the run, if it still goes on."""
        self._task.cancel()
        if (cancelled := await settle([self._task], 4 * GRACE_S)) is not None:
            raise cancelled

    def __await__(self) -> Generator[object, None, str]:
        return self._whole().__await__()

    async def __aiter__(self) -> AsyncIterator[str]:
        index = 0
        while True:
            while index < len(self._tokens):
                index += 1
                yield self._tokens[index - 1]
            if self._task.done():
                break
            await self._news.wait()
        await self._whole()

    async def _whole(self) -> str:
        # one reader's cancellation is not the other readers'
        await asyncio.shield(self._task)
        assert self._result is not None
        if self._result.status == "failed":
            self._result.raise_for_status()
        return self._result.answer or ""

    async def _read(self, events: AsyncGenerator[AgentEvent, None]) -> None:
        held: list[str] = []
        live = self._live
        async for event in events:
            if isinstance(event, StepStarted):
                live = self._live or event.final
            elif isinstance(event, TextDelta):
                if live:
                    self._say(event.text)
                else:
                    held.append(event.text)
            elif isinstance(event, StreamRestarted):
                # what was said cannot be unsaid: after that, only the whole answer can be compared with it
                held.clear()
                live = False
            elif isinstance(event, ModelFinished):
                if not event.response.tool_calls and not self._tokens:
                    self._say(*held)
                held.clear()
            elif isinstance(event, RunFinished):
                self._result = event.result
                self._say_rest(event.result.answer or "")

    def _say(self, *tokens: str) -> None:
        self._tokens += tokens
        news, self._news = self._news, asyncio.Event()
        news.set()

    def _say_rest(self, answer: str) -> None:
        said = "".join(self._tokens)
        if answer.startswith(said):
            self._say(*filter(None, [answer[len(said) :]]))
        else:
            self._say(f"\n\n[restarted]\n\n{answer}")
