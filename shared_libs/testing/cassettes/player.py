"""The player: answers as the cassette says, below the onion, and names what is asked otherwise than it was recorded."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import msgspec

from shared_libs.atomic.errors import LLMError
from shared_libs.atomic.llms.base import BaseLLMWrapper
from shared_libs.atomic.types import (
    FinishReason,
    LLMChunk,
    LLMResponse,
    Message,
    Thinking,
    ToolCall,
    ToolSpec,
    Usage,
)
from shared_libs.testing.cassettes import data, pieces
from shared_libs.testing.cassettes.data import Asked, Call, Came, Cassette, Entry, Failure
from shared_libs.testing.cassettes.differences import differences, opening
from shared_libs.testing.cassettes.secrets import Secrets
from shared_libs.testing.cassettes.stand_in import StandIn

if TYPE_CHECKING:
    import numpy as np

MAX_LINES = 8
"""How many differences of one request are told."""


class CassetteMismatch(LLMError):
    """A model is asked what the cassette does not have; the text names the difference."""

    kind = "cassette"
    another_may_answer = False


class Player:
    """
    Answers requests from a cassette.

    A request gets the first unused entry of its model that is equal to it: what runs at the same time may arrive in any
    order, and a retry gets what came of the retry.
    """

    def __init__(self, cassette: Cassette, secrets: Secrets | None = None) -> None:
        self.cassette = cassette
        self.secrets = secrets or Secrets()
        self._left = list(enumerate(cassette.entries, 1))
        self._mismatches: list[str] = []

    def chain(self, llm: BaseLLMWrapper) -> BaseLLMWrapper:
        """Return a chain like this one, which answers from the cassette; the models themselves are never asked."""
        return ReplayedLLM(llm, self, [self.chain(fallback) for fallback in llm.fallbacks])

    def link(self, llm: BaseLLMWrapper) -> BaseLLMWrapper:
        """The same for one model, whose fallbacks are left as they are."""
        return ReplayedLLM(llm, self, llm.fallbacks)

    def knows(self, model: str) -> bool:
        """Whether a model was asked when the cassette was recorded."""
        return any(entry.asked.model == model for entry in self.cassette.entries)

    def differences(self) -> list[str]:
        """Return what was asked otherwise than recorded; where nothing was, what was recorded and not asked."""
        if self._mismatches or not self._left:
            return list(self._mismatches)
        numbers = ", ".join(str(number) for number, _ in self._left)
        first = self._left[0][1].asked
        which = f"request {numbers} was" if len(self._left) == 1 else f"requests {numbers} were"
        return [f"{which} recorded and not made; the first asked {first.model}: {opening(first)}"]

    def take(self, asked: Asked) -> Came:
        """
        Return what came of a request, which is used up with it.

        Raises:
            CassetteMismatch: there is none; the text says how the nearest one differs.

        """
        for place, (_, entry) in enumerate(self._left):
            if entry.asked == asked:
                del self._left[place]
                return entry.came
        said, *lines = self._missing(asked)
        shown = lines if len(lines) <= MAX_LINES else [*lines[:MAX_LINES], f"and {len(lines) - MAX_LINES} more"]
        self._mismatches.append("\n  ".join([said, *shown]))
        more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
        raise CassetteMismatch(f"{said} {lines[0]}{more}" if lines else said)

    def _missing(self, asked: Asked) -> list[str]:
        """What is wrong with a request, and how it differs from the nearest one that is left."""
        if not self.knows(asked.model):
            models = ", ".join(dict.fromkeys(entry.asked.model for entry in self.cassette.entries)) or "none"
            return [f"{asked.model} was not asked when the cassette was recorded; asked were: {models}"]
        left = [
            (number, entry)
            for number, entry in self._left
            if entry.asked.model == asked.model and bool(entry.asked.texts) == bool(asked.texts)
        ]
        if not left:
            return [f"{asked.model} is asked once more than was recorded: {opening(asked)}"]
        number, nearest = max(left, key=lambda item: _likeness(item[1], asked))
        return [f"request {number} ({asked.model}) is not as recorded:", *differences(nearest.asked, asked)]


class ReplayedLLM(StandIn):
    """A model that answers from a cassette, taking the time it took."""

    def __init__(self, real: BaseLLMWrapper, player: Player, fallbacks: Sequence[BaseLLMWrapper]) -> None:
        self._player = player
        super().__init__(real, fallbacks)

    async def _chat(self, messages: list[Message], tools: tuple[ToolSpec, ...], **options: Any) -> LLMResponse:
        clock = _Clock()
        came = self._take(messages, tools, options)
        await self._end(came, clock)
        return self._response(came, messages)

    async def _stream(
        self, messages: list[Message], tools: tuple[ToolSpec, ...], **options: Any
    ) -> AsyncGenerator[LLMChunk, None]:
        clock = _Clock()
        came = self._take(messages, tools, options)
        part = came.streamed or came
        taken = _ids(messages)
        for at_s, chunk in pieces.read(came, self._calls(part.calls, taken)) if came.pieces is not None else ():
            await clock.until(at_s)
            yield self._shown(chunk)
        await self._end(came, clock)
        response = self._response(came, messages)
        for chunk in _at_once(response) if came.pieces is None else ():
            yield chunk
        yield LLMChunk("finished", response=response)

    async def _embed(self, texts: list[str], **options: Any) -> np.ndarray:
        import numpy as np

        clock = _Clock()
        asked, _ = data.asked_of_texts(self.name, texts, options, self._player.secrets)
        came = self._player.take(asked)
        await self._end(came, clock)
        return np.stack([np.frombuffer(base64.b64decode(row), "<f4") for row in came.vectors])

    def _take(self, messages: list[Message], tools: tuple[ToolSpec, ...], options: dict[str, Any]) -> Came:
        asked, _ = data.asked(self.name, messages, tools, options, self._player.secrets)
        return self._player.take(asked)

    async def _end(self, came: Came, clock: _Clock) -> None:
        """Wait for the end of a request, and fail as it failed."""
        if came.given_up:
            await asyncio.Event().wait()
        await clock.until(came.after_s)
        if came.failure is not None:
            self.structured_output &= not came.failure.schema_refused
            raise _error(came.failure)

    def _response(self, came: Came, messages: Iterable[Message]) -> LLMResponse:
        return LLMResponse(
            text=self._player.secrets.shown(came.text),
            tool_calls=tuple(self._calls(came.calls, _ids(messages))),
            thinking=tuple(_thinking(block, self._player.secrets) for block in came.thinking),
            usage=came.usage or Usage(),
            model=came.reported_model,
            finish_reason=cast("FinishReason", came.finish_reason),
        )

    def _calls(self, calls: Iterable[Call], taken: set[str]) -> Iterator[ToolCall]:
        for call in calls:
            name = call.id
            while name in taken:  # the conversation has ids of another making
                name += "_"
            yield ToolCall(
                name,
                call.tool,
                self._player.secrets.shown(call.input),
                None if call.malformed is None else self._player.secrets.shown(call.malformed),
            )

    def _shown(self, chunk: LLMChunk) -> LLMChunk:
        return msgspec.structs.replace(chunk, text=self._player.secrets.shown(chunk.text)) if chunk.text else chunk


class _Clock:
    """The time since a request."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._began_at = self._loop.time()

    async def until(self, at_s: float) -> None:
        """Wait for a moment; what lies behind is now."""
        await asyncio.sleep(max(0.0, self._began_at + at_s - self._loop.time()))


def _error(failure: Failure) -> LLMError:
    error = data.error_kind(failure.kind)(
        failure.message,
        status_code=failure.status_code,
        retryable=failure.retryable,
        retry_after_s=failure.retry_after_s,
        replay_safe=failure.replay_safe,
    )
    error.kind = failure.kind  # type: ignore[misc]  # an adapter may have a kind of its own
    error.usage, error.learnt, error.of_tools = failure.usage, failure.learnt, failure.tools_refused
    if failure.goes_on is not None:
        error.another_may_answer = failure.goes_on
    return error


def _likeness(entry: Entry, asked: Asked) -> tuple[int, bool, bool]:
    pairs = zip(entry.asked.messages, asked.messages, strict=False)
    same = next((index for index, (recorded, now) in enumerate(pairs) if recorded != now), len(asked.messages))
    return same, entry.asked.tools == asked.tools, entry.asked.options == asked.options


def _ids(messages: Iterable[Message]) -> set[str]:
    ids = {message.tool_call_id or "" for message in messages}
    return ids | {call.id for message in messages for call in message.tool_calls}


def _thinking(block: Thinking, secrets: Secrets) -> Thinking:
    return msgspec.structs.replace(block, text=secrets.shown(block.text))


def _at_once(response: LLMResponse) -> Iterator[LLMChunk]:
    if response.text:
        yield LLMChunk("text", response.text)
    for call in response.tool_calls:
        yield LLMChunk("tool_call", tool_call=call)
