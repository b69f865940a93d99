"""
The rehearsal: an embedded stand-in for a model, so that everything runs without a key.

It replays recorded *decisions* for a handful of named questions. The tools and their data are real, and the answer is
formed from what they returned just now: with other data the answer is another one. It never passes for a model: every
answer says what it is.
"""

from __future__ import annotations

import re
import string
from collections.abc import AsyncGenerator, Mapping, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any
from zlib import crc32

import msgspec

from shared_libs.atomic.errors import LLMError, MisuseError
from shared_libs.atomic.llms.base import BaseLLMWrapper
from shared_libs.atomic.loading import load
from shared_libs.atomic.types import LLMChunk, LLMResponse, Message, Price, ToolCall, ToolSpec

if TYPE_CHECKING:
    import numpy as np

LABEL = "(Rehearsal: recorded decisions on live data; no model was asked.)"
_CONFIGURE = (
    "For any other question configure a model: set OPENAI_API_KEY, or give the first link of `llm.chain` a `base_url`, "
    "such as http://127.0.0.1:8000/v1 of a local server."
)


DIMENSIONS = 256
"""The length of a rehearsed vector where the caller names none."""


ANY = "*"
"""What a scene asks that can be played for any question."""


class Decision(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One recorded turn: why, and which tools with which input; `{…}` in a text stands for something observed."""

    thought: str
    calls: list[tuple[str, dict[str, Any]]]


class Scene(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """
    One question that can be rehearsed; `after` names the question that has to stand before it.

    `ANY` stands for every question; `{asked}` in a text is what was asked.
    """

    ask: str
    turns: list[Decision]
    answer: str
    after: str | None = None


class RehearsalLLM(BaseLLMWrapper):
    """
    Replays recorded decisions.

    Args:
        script: which recording: "clock", "documents", "flights", "hello" or "research".
        model: the name it goes by.

    Raises:
        MisuseError: there is no such recording.

    """

    provider = "rehearsal"
    rehearsal = True

    def __init__(self, script: str, *, model: str = "rehearsal") -> None:
        super().__init__(model, price=Price(0.0, 0.0))
        self.scenes = _scenes(script)

    async def _chat(self, messages: list[Message], tools: tuple[ToolSpec, ...], **options: Any) -> LLMResponse:
        return self._respond(messages, {tool.name for tool in tools})

    async def _stream(
        self, messages: list[Message], tools: tuple[ToolSpec, ...], **options: Any
    ) -> AsyncGenerator[LLMChunk, None]:
        response = self._respond(messages, {tool.name for tool in tools})
        for word in re.findall(r"\s*\S+|\s+$", response.text):
            yield LLMChunk("text", word)
        for call in response.tool_calls:
            yield LLMChunk("tool_call", tool_call=call)
        yield LLMChunk("finished", response=response)

    async def _embed(self, texts: list[str], **options: Any) -> np.ndarray:
        return rehearsed_vectors(texts, int(options.get("dimensions") or DIMENSIONS))

    async def _rerank(self, query: str, texts: list[str], **options: Any) -> list[float]:
        await load("numpy")
        vectors = rehearsed_vectors([query, *texts], DIMENSIONS)
        return [round(float(score), 6) for score in vectors[1:] @ vectors[0]]

    def _respond(self, messages: Sequence[Message], tools: set[str]) -> LLMResponse:
        asked = [index for index, message in enumerate(messages) if message.role == "user"]
        if not tools and len(asked) > 1 and self._named(messages[asked[-1]].text) is None:
            asked.pop()  # the agent's request for a last word
        scene = self._scene(messages[asked[-1]].text) if asked else None
        if scene is None:
            return self._say(self._what_can_be_rehearsed())
        seen = _Observed(messages[asked[-1] :])
        played = sum(1 for message in messages[asked[-1] :] if message.tool_calls)
        before = self._before(scene, messages[: asked[-1]])
        if scene.after is not None and before is None:
            return self._say(f'This question needs the one before it in the same session: "{scene.after}"')
        if played < len(scene.turns) and tools:
            return self._decide(scene.turns[played], played, _Template(seen, before), tools)
        try:
            return self._say(_Template(seen, before).fill(scene.answer))
        except LLMError as error:
            return self._say(f"The rehearsed question has no answer here: {error}")

    def _decide(self, decision: Decision, turn: int, template: _Template, tools: set[str]) -> LLMResponse:
        missing = {name for name, _ in decision.calls} - tools
        if missing:
            return self._say(
                f"This question needs the tool {', '.join(sorted(missing))}, which the agent does not have."
            )
        try:
            calls = tuple(
                ToolCall(f"rehearsed_{turn + 1}_{index}", name, template.fill_all(given))
                for index, (name, given) in enumerate(decision.calls, 1)
            )
        except LLMError as error:
            return self._say(f"The rehearsed question cannot go on: {error}")
        return LLMResponse(text=decision.thought, tool_calls=calls, model=self.model, finish_reason="tool_calls")

    def _say(self, text: str) -> LLMResponse:
        return LLMResponse(text=f"{text}\n\n{LABEL}", model=self.model)

    def _scene(self, question: str) -> Scene | None:
        return self._named(question) or next((scene for scene in self.scenes if scene.ask == ANY), None)

    def _named(self, question: str) -> Scene | None:
        wanted = _plain(question)
        return next((scene for scene in self.scenes if _plain(scene.ask) == wanted and scene.ask != ANY), None)

    def _before(self, scene: Scene, history: Sequence[Message]) -> _Observed | None:
        """What was observed when the question before this one was answered, if it is in the history."""
        if scene.after is None:
            return None
        wanted = _plain(scene.after)
        for index in range(len(history) - 1, -1, -1):
            if history[index].role == "user" and _plain(history[index].text) == wanted:
                return _Observed(history[index:])
        return None

    def _what_can_be_rehearsed(self) -> str:
        listed = "\n".join(
            f"- {scene.ask}" + (f' (after "{scene.after}")' if scene.after else "") for scene in self.scenes
        )
        return f"Without a model only these questions can be rehearsed:\n{listed}\n{_CONFIGURE}"


def rehearsed_vectors(texts: Sequence[str], dimensions: int) -> np.ndarray:
    """
    Vectors without a model: texts that share words are near each other, and nothing else is meant by them.

    Each word stands at a place of its own, found by its hash (feature hashing); the rows have length 1.
    """
    import numpy as np

    rows = np.zeros((len(texts), dimensions), np.float32)
    for row, text in zip(rows, texts, strict=True):
        for word in re.findall(r"\w+", text.casefold()):
            row[crc32(word.encode("utf-8", "replace")) % dimensions] += 1
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(norms == 0, 1, norms), np.float32)


class _Observed:
    """The observations of one exchange, numbered from 1; tables as rows by column name."""

    def __init__(self, exchange: Sequence[Message]) -> None:
        self.asked = exchange[0].text
        self.values: list[Any] = []
        for index, message in enumerate(exchange):
            if index and message.role == "user":
                break
            if message.role == "tool":
                self.values.append(LLMError(message.text) if message.is_error else _read(message.text))


class _Template(string.Formatter):
    """Fills `{2.0.name}`: observation 2, row 0, column name; `{before.2.0.name}` looks into the exchange before."""

    def __init__(self, seen: _Observed, before: _Observed | None) -> None:
        self._seen = seen
        self._before = before

    def fill(self, text: str) -> str:
        return self.vformat(text, (), {})

    def fill_all(self, given: Mapping[str, Any]) -> dict[str, Any]:
        return {key: self.fill(value) if isinstance(value, str) else value for key, value in given.items()}

    def get_field(self, field_name: str, args: Any, kwargs: Any) -> tuple[Any, str]:
        if field_name == "asked":
            return self._seen.asked, field_name
        path = field_name.split(".")
        observed = self._before if path[0] == "before" else self._seen
        number, *rest = path[1:] if path[0] == "before" else path
        try:
            value: Any = observed.values[int(number) - 1] if observed else None
            if isinstance(value, LLMError):
                raise value
            for key in rest:
                value = value[int(key)] if isinstance(value, list) else value[key]
        except (LookupError, TypeError, ValueError) as error:
            raise LLMError(f"observation {number} has no {'.'.join(rest)}") from error
        return value, field_name


def _read(text: str) -> Any:
    try:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
    if isinstance(value, dict) and {"columns", "rows"} <= value.keys():
        return [dict(zip(value["columns"], row, strict=True)) for row in value["rows"]]
    return value


def _plain(question: str) -> str:
    """The question without case, punctuation and spare spaces; nothing is guessed beyond that."""
    return " ".join(re.findall(r"\w+", question.casefold()))


def _scenes(script: str) -> list[Scene]:
    folder = resources.files(__package__) / "rehearsals"
    known = sorted(file.name.removesuffix(".json") for file in folder.iterdir() if file.name.endswith(".json"))
    if script not in known:
        raise MisuseError(f"rehearsal script {script!r}: allowed are {', '.join(known)}")
    return msgspec.json.decode((folder / f"{script}.json").read_bytes(), type=list[Scene])
