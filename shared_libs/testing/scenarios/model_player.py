"""What takes the place of a model, a tool and a memory at their ports: scripted, faulty, and under the same policy."""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
from collections.abc import AsyncGenerator
from typing import Any

import msgspec

from shared_libs.atomic.errors import (
    LLMConnectionError,
    LLMError,
    MalformedResponse,
    MemoryConflict,
    MemoryUnavailable,
    StreamInterrupted,
)
from shared_libs.atomic.llms.base import BaseLLMWrapper
from shared_libs.atomic.llms.faults import refusal
from shared_libs.atomic.memory.base import BaseMemory, Recollection
from shared_libs.atomic.scope import current_scope
from shared_libs.atomic.types import LLMChunk, LLMResponse, Message, Thinking, ToolCall, ToolSpec, Usage
from shared_libs.testing.clock import real_time
from shared_libs.testing.scenarios.port_faults import FaultPlan, Panic, PortFault
from shared_libs.testing.scenarios.turns import Script, Turn

_LATE_S = 12.0
_STUBBORN_S = 60.0
_PAUSE_S = 1.0
_HUGE_CHARS = 1024 * 1024

_REFUSALS = {
    "rate_limited": (429, "rate_limit_exceeded", "Too many requests."),
    "server_error": (500, "server_error", "The server had an error."),
    "unauthorized": (401, "invalid_api_key", "The API key is not valid."),
    "model_missing": (404, "model_not_found", "The model was not found."),
    "context_too_long": (400, "context_length_exceeded", "The conversation is longer than the model's context."),
    "content_filter": (400, "content_filter", "The request was refused by the content filter."),
    "bad_request": (400, "invalid_request_error", "The request is not valid."),
    "flapping": (503, "server_error", "The server is down."),
}


_FAILURES: dict[str, tuple[type[Exception], str]] = {
    "connection_refused": (LLMConnectionError, "the connection was refused"),
    "reset_before_headers": (LLMConnectionError, "the connection was reset before an answer came"),
    "malformed_body": (MalformedResponse, "the answer is no JSON"),
    "empty_answer": (StreamInterrupted, "the answer is empty"),
    "crash": (RuntimeError, "the adapter of the scenario crashed"),
}


_SPEAKS_ON_S = 8.0
"""How long one that goes on speaking ignores its cancellation: longer than its idle time, shorter than most runs."""

_WRONG: tuple[Any, ...] = (
    LLMResponse(text=None),  # type: ignore[arg-type]
    LLMResponse(text="x", usage=None),  # type: ignore[arg-type]
    LLMResponse(tool_calls=(ToolCall("call_1", None),)),  # type: ignore[arg-type]
    {"text": "x"},
    LLMResponse(text="x", finish_reason="because"),  # type: ignore[arg-type]
)
"""What adapters give that are wrong about our types."""


class Asked(msgspec.Struct, frozen=True):
    """A request that reached a model's port: what a server would have seen."""

    model: str
    number: int
    at_s: float
    messages: tuple[Message, ...]
    tools: tuple[str, ...]
    run_id: str = ""


class Stubborn(msgspec.Struct):
    """Something that ignores its cancellation, while it lasts; `ended_s` by the loop's clock."""

    run_id: str
    name: str
    call_id: str
    task: asyncio.Task[Any] | None
    began_s: float
    ended_s: float = math.inf


class Chances:
    """What the players of one scenario share: the plan, what reached the models, and the end of it all."""

    def __init__(self, plan: FaultPlan) -> None:
        self.plan = plan
        self.asked: list[Asked] = []
        self.said: list[tuple[Asked, LLMResponse]] = []
        self.unheard: set[str] = set()
        self.returned: dict[tuple[str, str], Any] = {}
        self.raised: dict[tuple[str, str], str] = {}
        self.real: set[str] = set()
        self.stubborns: list[Stubborn] = []
        self.problems: list[str] = []
        self.sleepers: list[threading.Event] = []
        self.over = False
        self._number = 0

    def numbered(self) -> int:
        """Return a number that comes once."""
        self._number += 1
        return self._number

    def end(self) -> None:
        """Wake what sleeps in a thread, and let go what ignores its cancellation."""
        self.over = True
        for sleeper in self.sleepers:
            sleeper.set()

    async def stubborn(self, seconds: float, name: str) -> None:
        """Wait, whoever cancels it."""
        loop, scope = asyncio.get_running_loop(), current_scope()
        until = loop.time() + seconds
        waiting = Stubborn(scope.run_id, name, scope.call_id, asyncio.current_task(), loop.time())
        self.stubborns.append(waiting)
        while not self.over and (left_s := until - loop.time()) > 0:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(left_s)
        waiting.ended_s = loop.time()
        if self.over:
            raise asyncio.CancelledError


class PlayedLLM(BaseLLMWrapper):
    """
    A link of a chain, played: the definition's provider, model, policy, fallbacks and price, and the script's words.

    A request that no fault stops takes one turn.
    """

    def __init__(self, real: BaseLLMWrapper, script: Script[Turn] | None, chances: Chances) -> None:
        super().__init__(
            real.model, resilience=real.resilience, fallbacks=real.fallbacks, price=real.price, options=real.options
        )
        self.provider = real.provider  # type: ignore[misc]  # that of the link it stands for
        self.native_tools = real.native_tools
        self.structured_output = real.structured_output
        self.context_window = real.context_window
        self._script = script
        self._chances = chances
        self._first_at: float | None = None

    @property
    def name(self) -> str:
        """Provider and model."""
        return f"{self.provider}/{self.model}"

    async def _chat(self, messages: list[Message], tools: tuple[ToolSpec, ...], **options: Any) -> LLMResponse:
        try:
            async for chunk in self._stream(messages, tools, **options):
                if chunk.response is not None:
                    return chunk.response
        except StreamInterrupted as error:
            raise LLMConnectionError(str(error)) from None
        raise MalformedResponse("the answer is no JSON")

    async def _stream(
        self, messages: list[Message], tools: tuple[ToolSpec, ...], **options: Any
    ) -> AsyncGenerator[LLMChunk, None]:
        plan, loop = self._chances.plan, asyncio.get_running_loop()
        fault = plan.next("model", self.name)
        names = tuple(tool.name for tool in tools)
        number, run_id = plan.calls("model", self.name), current_scope().run_id
        asked = Asked(self.name, number, loop.time(), tuple(messages), names, run_id)
        self._chances.asked.append(asked)
        if self._first_at is None:
            self._first_at = loop.time()
        if fault is not None:
            await self._refuse(fault, loop.time() - self._first_at)
        turn = self._coming()
        if fault is None:
            self._take()
        if turn.delay_s:
            await asyncio.sleep(turn.delay_s)
        async for chunk in self._spoken(turn, fault, called=bool(tools)):
            if chunk.response is not None and (fault is None or fault.fault != "wrong_type"):
                self._chances.said.append((asked, chunk.response))
            yield chunk

    async def _refuse(self, fault: PortFault, since_s: float) -> None:
        """Fail as this fault does, or wait; return where an answer begins after all."""
        kind = fault.fault
        if kind == "flapping":
            down_s, up_s = fault.down_s or 8.0, fault.up_s or 4.0
            if since_s % (down_s + up_s) >= down_s:
                return
        if kind in _REFUSALS:
            status, code, said = _REFUSALS[kind]
            wait = {} if fault.retry_after_s is None else {"retry-after": f"{fault.retry_after_s:g}"}
            body = msgspec.json.encode({"error": {"message": said, "code": code}})
            raise refusal(fault.status or status, wait, body, (), self.name)
        if kind == "html_page":
            raise refusal(fault.status or 502, {}, b"<html><title>Bad gateway</title></html>", (), self.name)
        if kind in _FAILURES:
            failure, said = _FAILURES[kind]
            raise failure(said)
        if kind == "panic":
            raise Panic("the adapter panicked")
        if kind == "silence":
            await asyncio.Event().wait()
        if kind == "ignore_cancel":
            await self._chances.stubborn(_STUBBORN_S if fault.delay_s is None else fault.delay_s, self.name)
            raise LLMConnectionError("the connection was closed")
        if kind == "slow_first_token":
            await asyncio.sleep(_LATE_S if fault.delay_s is None else fault.delay_s)

    def _coming(self) -> Turn:
        script = self._script
        if script is None:
            self._chances.problems.append(f"{self.name} was asked, and the scenario has no script for it")
            raise LLMError(f"the scenario has no script for {self.name}")
        turn = script.coming()
        if turn is None:
            raise LLMError(f"the script of {script.name} has no further turn")
        return turn

    def _take(self) -> None:
        if self._script is not None:
            self._script.take()

    async def _spoken(self, turn: Turn, fault: PortFault | None, *, called: bool) -> AsyncGenerator[LLMChunk, None]:
        """Say a turn, up to where a fault ends it."""
        kind = "" if fault is None else fault.fault
        if fault is not None and kind == "huge_chunk":
            turn = Turn(text="x" * (_HUGE_CHARS if fault.chars is None else fault.chars), usage=turn.usage)
        if turn.calls and not called:
            turn = Turn(text=_as_react(turn), usage=turn.usage)
        if turn.think:
            yield LLMChunk("thinking", turn.think)
        pause_s = (_PAUSE_S if fault.delay_s is None else fault.delay_s) if fault and kind == "drip" else 0.0
        for position, piece in enumerate(turn.pieces[: _length(turn, fault)]):
            if fault is not None and kind == "speak_on" and position == len(turn.pieces) // 2:
                await self._chances.stubborn(_SPEAKS_ON_S if fault.delay_s is None else fault.delay_s, self.name)
            if pause_s or not isinstance(piece, str):
                await asyncio.sleep(pause_s if isinstance(piece, str) else piece)
            if isinstance(piece, str):
                yield LLMChunk("text", piece)
        await self._break_off(kind)
        if kind == "clean_cut":
            return
        if kind == "wrong_type":
            wrong: Any = _WRONG[self._chances.plan.calls("model", self.name) % len(_WRONG)]
            yield LLMChunk("finished", response=wrong)
            return
        if fault is not None:
            self._take()
        response = self._response(turn)
        for call in response.tool_calls:
            yield LLMChunk("tool_call", tool_call=call)
        yield LLMChunk("finished", response=response)

    async def _break_off(self, kind: str) -> None:
        """Fail in the middle of an answer, as some faults do."""
        if kind == "cut":
            raise StreamInterrupted(f"{self.name} broke off in the middle of its answer")
        if kind == "malformed_chunk":
            raise MalformedResponse("a part of the answer is no JSON")
        if kind == "stall":
            await asyncio.Event().wait()

    def _response(self, turn: Turn) -> LLMResponse:
        number = self._chances.numbered()  # as those of providers, an id is nobody else's
        calls = tuple(
            ToolCall(f"call_{number}_{index}", name, value)
            if isinstance(value, dict)
            else ToolCall.from_json(f"call_{number}_{index}", name, value)
            for index, (name, value) in enumerate(turn.calls, 1)
        )
        return LLMResponse(
            text=turn.said,
            tool_calls=calls,
            thinking=(Thinking(turn.think, self.provider),) if turn.think else (),
            usage=turn.usage or Usage(),
            model=self.model,
            finish_reason="tool_calls" if calls else "stop",
        )


class PlayedMemory(BaseMemory):
    """A memory under the plan's faults; what no fault stops goes to the real one, in real time."""

    def __init__(self, inner: BaseMemory, chances: Chances) -> None:
        self.inner = inner
        self.name = inner.name
        self.timeout_s = inner.timeout_s
        self.window = inner.window
        self.compaction = inner.compaction
        self._chances = chances

    async def aclose(self) -> None:
        """Close the real one."""
        await self.inner.aclose()

    async def kept(self, session_id: str) -> list[Message]:
        """Return what the real one holds of a session, as it is."""
        with real_time():
            return await self.inner._load(session_id, None)  # noqa: SLF001 - its own family

    async def _store(self, session_id: str, messages: list[Message]) -> None:
        await self._meet("store")
        with real_time():
            await self.inner._store(session_id, messages)  # noqa: SLF001 - its own family

    async def _store_after(self, session_id: str, messages: list[Message], after: int) -> None:
        await self._meet("store")
        with real_time():
            await self.inner._store_after(session_id, messages, after)  # noqa: SLF001 - its own family

    async def _load(self, session_id: str, limit: int | None) -> list[Message]:
        garbled = await self._meet("load")
        with real_time():
            return [*garbled, *await self.inner._load(session_id, limit)]  # noqa: SLF001 - its own family

    async def _recall(self, session_id: str, limit: int | None) -> Recollection:
        garbled = await self._meet("load")
        with real_time():
            found = await self.inner._recall(session_id, limit)  # noqa: SLF001 - its own family
        found.messages = [*garbled, *found.messages]
        return found

    async def _summarise(self, session_id: str, summary: str, messages: int) -> None:
        await self._meet("summarise")
        with real_time():
            await self.inner._summarise(session_id, summary, messages)  # noqa: SLF001 - its own family

    async def _search(self, session_id: str, query: str, k: int) -> list[Message]:
        garbled = await self._meet("search")
        with real_time():
            return [*garbled, *await self.inner._search(session_id, query, k)]  # noqa: SLF001 - its own family

    async def _meet(self, operation: str) -> list[Message]:
        """Play the fault of this call, if it has one; return what it adds to what is found."""
        fault = self._chances.plan.next("memory", operation)
        if fault is None:
            return []
        match fault.fault:
            case "error":
                raise MemoryUnavailable(fault.text or "the store of the scenario is out")
            case "crash":
                raise RuntimeError(fault.text or "the store of the scenario crashed")
            case "conflict":
                raise MemoryConflict("another writer of the scenario was faster; nothing was stored")
            case "panic":
                raise Panic(fault.text or "the store of the scenario panicked")
            case "hang":
                await asyncio.Event().wait()
            case "delay":
                await asyncio.sleep(_PAUSE_S if fault.delay_s is None else fault.delay_s)
            case "ignore_cancel":
                await self._chances.stubborn(_STUBBORN_S if fault.delay_s is None else fault.delay_s, self.name)
        if fault.fault == "wrong_type":
            wrong: Any = [{"role": "user", "content": None}, None]
            return wrong  # type: ignore[no-any-return]
        return [Message("tool", "an answer to no call", tool_call_id="nobody")] if fault.fault == "garbage" else []


def _length(turn: Turn, fault: PortFault | None) -> int:
    """How many pieces of a turn come before a fault ends it."""
    if fault is None or fault.fault not in ("cut", "clean_cut", "stall", "malformed_chunk"):
        return len(turn.pieces)
    return len(turn.pieces) // 2 if fault.after_tokens is None else fault.after_tokens


def _as_react(turn: Turn) -> str:
    """Write calls as a model without native tools does."""
    lines = [f"Thought: {turn.think}"] if turn.think else []
    for name, value in turn.calls:
        given = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        lines += [f"Action: {name}", f"Action Input: {given}"]
    return "\n".join(lines)
