"""What a model was asked, by the names of the conventions: fields, and where they are wanted messages and tools."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from shared_libs.atomic.asking import CONVERSATIONS
from shared_libs.atomic.events import ModelAsked
from shared_libs.atomic.types import ToolSpec
from shared_libs.observability.encoding import json_bytes
from shared_libs.observability.otel_facts import Fact
from shared_libs.observability.otel_words import LONGEST_CONTENT, message, named
from shared_libs.observability.runs.contents import masked_tool

_NUMBERS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
    "seed": "seed",
    "n": "choice.count",
    "max_tokens": "max_tokens",
    "max_completion_tokens": "max_tokens",  # OpenAI, as the next for its Responses
    "max_output_tokens": "max_tokens",
    "num_predict": "max_tokens",  # Ollama
}
"""Fields of requests that are numbers, as providers name them, and what the conventions call them."""

_TOOLS = "gen_ai.tool.definitions"


class _Asked(NamedTuple):
    options: Mapping[str, Any]
    tools: dict[str, Any]
    length: int
    messages: list[str]


_NOTHING = _Asked({}, {}, 0, [])


class Requests:
    """The requests of a run, each told as what it adds to one before (`ModelAsked`)."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[int, _Asked] = {}

    def told(self, asked: ModelAsked, *, contents: bool) -> Fact:
        """Return what a request's span is told; with its messages and tools where `contents` are wanted."""
        base = None if asked.base is None else self._known.get(asked.base)
        if asked.base is not None and base is not None and base.length == asked.kept:  # nobody else goes on from it
            del self._known[asked.base]
        before = _NOTHING if base is None else base
        options = before.options if asked.options is None else asked.options
        tools, messages = (
            before.tools,
            [*before.messages[: asked.kept], *map(message, asked.messages if contents else ())],
        )
        if contents and asked.tools is not None:
            tools = {_TOOLS: _tools(asked.tools)}
        self._known[asked.seq] = _Asked(options, tools, asked.kept + len(asked.messages), messages)
        if len(self._known) > CONVERSATIONS:
            del self._known[next(iter(self._known))]
        if not contents:
            return partial(_fields, options)
        return _fields(options) | tools | ({"gen_ai.input.messages": _shortened(messages)} if messages else {})


def _fields(options: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a request that the conventions have names for, where their values are what those are to be."""
    inner = options.get("options")  # where Ollama has them
    given = {**options, **inner} if isinstance(inner, Mapping) else options
    told: dict[str, Any] = {}
    for name, value in given.items():
        if name in _NUMBERS and type(value) in (int, float) and math.isfinite(value):
            told[f"gen_ai.request.{_NUMBERS[name]}"] = value
    stops = given.get("stop", given.get("stop_sequences"))
    if stops and isinstance(stops, str | list | tuple):
        told["gen_ai.request.stop_sequences"] = tuple(map(named, [stops] if isinstance(stops, str) else stops))
    if "output_schema" in given or any(map(_wants_json, (given.get("response_format"), given.get("text")))):
        told["gen_ai.output.type"] = "json"
    return told


def _wants_json(form: Any) -> bool:
    """Whether a form of an answer, as chat completions or Responses name it, is JSON."""
    if not isinstance(form, Mapping):
        return False
    return str(form.get("type", "")).startswith("json") or _wants_json(form.get("format"))


def _tools(tools: Sequence[ToolSpec]) -> str:
    """Tools as the conventions write them; where there is no room for all, those that came first."""
    told: list[str] = []
    room = LONGEST_CONTENT
    for one in tools:
        about = {"type": "function", **masked_tool(json_bytes(one))}
        about.pop("extra", None)
        said = json.dumps(about, ensure_ascii=False)
        room -= len(said)
        if room < 0:
            break
        told.append(said)
    return f"[{', '.join(told)}]"


def _shortened(messages: Sequence[str]) -> str:
    """A conversation; of a long one what it begins with, and as much of its end as there is room for."""
    first, *others = messages
    room, kept = LONGEST_CONTENT - len(first), 0
    for each in reversed(others):
        room -= len(each)
        if room < 0 and kept:
            break
        kept += 1
    return f"[{', '.join([first, *others[len(others) - kept :]])}]"
