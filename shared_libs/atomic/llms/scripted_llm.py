"""A public, strict fake: it answers what the script says, turn by turn, and fails on anything else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any, Self

import msgspec

from shared_libs.atomic.errors import FactoryError, LLMError
from shared_libs.atomic.llms.base import BaseLLMWrapper
from shared_libs.atomic.resilience.policy import Resilience
from shared_libs.atomic.types import LLMChunk, LLMResponse, Message, Price, ToolCall, ToolSpec, Usage


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """
    One scripted answer.

    Args:
        text: what the model says.
        calls: the tools it calls, as `ToolCall` or `(name, arguments)`.
        delay_s: seconds before the answer begins; `math.inf` never answers.
        chunk_delay_s: seconds between two streamed words.
        cut_after: break a streamed answer off after so many words, without its end.
        usage: the tokens it reports.

    """

    text: str = ""
    calls: Sequence[ToolCall | tuple[str, dict[str, Any]]] = ()
    delay_s: float = 0.0
    chunk_delay_s: float = 0.0
    cut_after: int | None = None
    usage: Usage = Usage()


ScriptItem = str | Turn | LLMResponse | Exception | Callable[[list[Message]], Any]
"""A turn: its text, a `Turn`, a whole response, an error to raise, or a function of the messages that gives one."""


class ScriptExhausted(LLMError):
    """The model was asked more often than the script has turns."""


class ScriptedLLM(BaseLLMWrapper):
    """
    A model that follows a script.

    One more request than the script has turns fails; `async with` (or `verify`) fails when turns are left unused.
    `requests` holds the messages of every request, for a test to look at. Every attempt takes one turn, retries too.
    """

    provider = "scripted"

    def __init__(
        self,
        script: Sequence[ScriptItem],
        *,
        model: str = "scripted",
        resilience: Resilience | Mapping[str, Any] | None = None,
        fallbacks: Sequence[BaseLLMWrapper | str] = (),
        price: Price | None = None,
        native_tools: bool = True,
    ) -> None:
        super().__init__(model, resilience=resilience, fallbacks=fallbacks, price=price)
        self.native_tools = native_tools
        self.requests: list[list[Message]] = []
        self.tools: list[tuple[ToolSpec, ...]] = []
        self._script = list(script)

    def verify(self) -> None:
        """
        Check that the whole script was used.

        Raises:
            FactoryError: turns are left.

        """
        left = len(self._script) - len(self.requests)
        if left > 0:
            raise FactoryError(f"{left} of {len(self._script)} turns of the script were not used")

    async def __aexit__(self, kind: object = None, *_: object) -> None:
        await self.aclose()
        if kind is None:
            self.verify()

    async def __aenter__(self) -> Self:
        return self

    async def _chat(self, messages: list[Message], tools: tuple[ToolSpec, ...], **options: Any) -> LLMResponse:
        turn = await self._next(messages, tools)
        return turn if isinstance(turn, LLMResponse) else self._response(turn)

    async def _stream(
        self, messages: list[Message], tools: tuple[ToolSpec, ...], **options: Any
    ) -> AsyncGenerator[LLMChunk, None]:
        turn = await self._next(messages, tools)
        response = turn if isinstance(turn, LLMResponse) else self._response(turn)
        pause_s, cut_after = (0.0, None) if isinstance(turn, LLMResponse) else (turn.chunk_delay_s, turn.cut_after)
        for count, word in enumerate(response.text.split(" ")):
            if count == cut_after:
                return
            if pause_s:
                await asyncio.sleep(pause_s)
            if word or count:
                yield LLMChunk("text", f" {word}" if count else word)
        for call in response.tool_calls:
            yield LLMChunk("tool_call", tool_call=call)
        yield LLMChunk("finished", response=response)

    async def _next(self, messages: list[Message], tools: tuple[ToolSpec, ...]) -> Turn | LLMResponse:
        number = len(self.requests)
        self.requests.append(list(messages))
        self.tools.append(tools)
        if number >= len(self._script):
            raise ScriptExhausted(f"the script has {len(self._script)} turns; this is request {number + 1}")
        item: Any = self._script[number]
        if callable(item):
            item = item(messages)
        if isinstance(item, Exception):
            raise item
        turn = Turn(text=item) if isinstance(item, str) else item
        if isinstance(turn, Turn) and turn.delay_s:
            await (asyncio.sleep(turn.delay_s) if turn.delay_s != float("inf") else asyncio.Event().wait())
        return turn

    def _response(self, turn: Turn) -> LLMResponse:
        number = len(self.requests)
        calls = tuple(
            call if isinstance(call, ToolCall) else ToolCall(f"call_{number}_{index}", call[0], call[1])
            for index, call in enumerate(turn.calls, 1)
        )
        return LLMResponse(
            text=turn.text,
            tool_calls=calls,
            usage=turn.usage,
            model=self.model,
            finish_reason="tool_calls" if calls else "stop",
        )
