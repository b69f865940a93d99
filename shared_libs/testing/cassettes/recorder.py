"""The recorder: stands below the onion of a real model and notes every attempt, however it ends."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from shared_libs.atomic.errors import MisuseError, StreamInterrupted
from shared_libs.atomic.llms.base import BaseLLMWrapper
from shared_libs.atomic.resilience.health import ModelHealth
from shared_libs.atomic.types import LLMChunk, LLMResponse, Message, ToolSpec
from shared_libs.testing.cassettes import data, pieces
from shared_libs.testing.cassettes.data import Asked, Came, Cassette, Entry, Numbers, Streamed
from shared_libs.testing.cassettes.secrets import Secrets
from shared_libs.testing.cassettes.stand_in import StandIn

if TYPE_CHECKING:
    import numpy as np


class Recorder:
    """
    Notes what models are asked and what comes of it.

    `chain(llm)` is a chain like `llm` that asks it; give it to an agent instead. `cassette()` is what was noted.
    """

    def __init__(self, secrets: Secrets | None = None) -> None:
        self.secrets = secrets or Secrets()
        self._notes: list[Note] = []

    def chain(self, llm: BaseLLMWrapper) -> BaseLLMWrapper:
        """Return a chain that asks this one, and notes it."""
        return RecordedLLM(llm, self, [self.chain(fallback) for fallback in llm.fallbacks])

    def link(self, llm: BaseLLMWrapper) -> BaseLLMWrapper:
        """The same for one model, whose fallbacks are left as they are."""
        return RecordedLLM(llm, self, llm.fallbacks)

    def cassette(self) -> Cassette:
        """
        Return what was noted; a request that has not ended counts as given up.

        Raises:
            MisuseError: nothing was asked.

        """
        if not self._notes:
            raise MisuseError("no model was asked: there is nothing to record")
        return Cassette(tuple(note.entry() for note in self._notes))

    def note(self, asked: Asked, numbers: Numbers) -> Note:
        """Begin to note a request."""
        note = Note(asked, numbers, self.secrets)
        self._notes.append(note)
        return note


class Note:
    """One request while it is on its way."""

    def __init__(self, asked: Asked, numbers: Numbers, secrets: Secrets) -> None:
        self._asked = asked
        self._numbers = numbers
        self._secrets = secrets
        self._clock = asyncio.get_running_loop().time
        self._began_at = self._clock()
        self._pieces: list[pieces.Piece] | None = None
        self._came: Came | None = None

    def streams(self) -> None:
        """Say that the answer comes in pieces."""
        self._pieces = []

    def piece(self, chunk: LLMChunk) -> None:
        """Note a piece of the answer; one that is empty is a sign of life, of which one at a time is enough."""
        assert self._pieces is not None
        now = self._now()
        if chunk.text or chunk.kind == "tool_call" or not self._pieces or self._pieces[-1].at_s != now:
            self._pieces.append(pieces.Piece(now, chunk))

    def answered(self, response: LLMResponse) -> None:
        """Note the answer."""
        self._came = data.answered(response, self._numbers, self._secrets, self._now())

    def embedded(self, vectors: np.ndarray) -> None:
        """Note embeddings."""
        import numpy as np

        rows = [base64.b64encode(np.asarray(row, "<f4").tobytes()).decode() for row in vectors]
        self._came = Came(after_s=self._now(), vectors=rows)

    def failed(self, error: Exception, *, base_url: str = "", schema_refused: bool = False) -> None:
        """Note an error; `schema_refused` where the model was found to have no mode for structured output."""
        failure = data.failed(error, self._secrets, base_url)
        failure = msgspec.structs.replace(failure, schema_refused=schema_refused)
        self._came = Came(after_s=self._now(), failure=failure)

    def gave_up(self) -> None:
        """Note that nobody waits any more; who has the answer waits for nothing."""
        self._came = self._came or Came(after_s=self._now(), given_up=True)

    def ended(self) -> None:
        """Note that a stream is over, which is a failure where the answer is missing."""
        if self._came is None:
            self.failed(StreamInterrupted("the stream ended without its end"))

    def entry(self) -> Entry:
        """The request and what came of it."""
        came = self._came or Came(given_up=True)
        return Entry(self._asked, came if self._pieces is None else self._with_pieces(came, self._pieces))

    def _with_pieces(self, came: Came, taken: list[pieces.Piece]) -> Came:
        joined = {
            kind: self._secrets.hidden_text("".join(chunk.text for _, chunk in taken if chunk.kind == kind))
            for kind in ("text", "thinking")
        }
        if not taken and (came.failure or came.given_up):
            return came
        calls = [chunk.tool_call for _, chunk in taken if chunk.tool_call is not None]
        streamed = Streamed(**joined, calls=data.calls_of(calls, self._numbers, self._secrets))
        whole = Streamed(text=came.text, thinking="".join(block.text for block in came.thinking), calls=came.calls)
        return msgspec.structs.replace(
            came, pieces=pieces.written(taken), streamed=None if streamed == whole else streamed
        )

    def _now(self) -> float:
        return round(self._clock() - self._began_at, 3)


class RecordedLLM(StandIn):
    """A model as it is, whose attempts are noted; closing it closes the model."""

    def __init__(self, real: BaseLLMWrapper, recorder: Recorder, fallbacks: Sequence[BaseLLMWrapper]) -> None:
        self._recorder = recorder
        super().__init__(real, fallbacks)

    async def _chat(self, messages: list[Message], tools: tuple[ToolSpec, ...], **options: Any) -> LLMResponse:
        note = self._recorder.note(*data.asked(self.name, messages, tools, options, self._recorder.secrets))
        with self._noting(note):
            response = await self._real._chat(messages, tools, **options)  # noqa: SLF001 - below the onion
            note.answered(response)
            return response

    async def _stream(
        self, messages: list[Message], tools: tuple[ToolSpec, ...], **options: Any
    ) -> AsyncGenerator[LLMChunk, None]:
        note = self._recorder.note(*data.asked(self.name, messages, tools, options, self._recorder.secrets))
        note.streams()
        with self._noting(note):
            async with aclosing(self._real._stream(messages, tools, **options)) as chunks:  # noqa: SLF001
                async for chunk in chunks:
                    if chunk.kind == "finished" and chunk.response is not None:
                        note.answered(chunk.response)
                    else:
                        note.piece(chunk)
                    yield chunk
            note.ended()

    async def _embed(self, texts: list[str], **options: Any) -> np.ndarray:
        note = self._recorder.note(*data.asked_of_texts(self.name, texts, options, self._recorder.secrets))
        with self._noting(note):
            vectors = await self._real._embed(texts, **options)  # noqa: SLF001 - below the onion
            note.embedded(vectors)
            return vectors

    @contextmanager
    def _noting(self, note: Note) -> Iterator[None]:
        could = self.structured_output
        try:
            yield
        except Exception as error:
            self.structured_output = self._real.structured_output  # the adapter learns from what is refused
            base_url = getattr(self._real, "base_url", "")  # models in a process of their own have none
            note.failed(error, base_url=base_url, schema_refused=could and not self.structured_output)
            raise
        except (asyncio.CancelledError, GeneratorExit):
            note.gave_up()
            raise

    async def _close(self) -> None:
        await self._real._close()  # noqa: SLF001 - below the onion

    def _health(self) -> ModelHealth:
        return self._real.health
