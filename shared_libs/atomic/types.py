"""
Neutral messages, responses and usage: what every provider is translated to and from.

Everything here is a frozen `msgspec.Struct`: cheap to build (no pydantic on the hot path), slotted,
and JSON in both directions (`msgspec.json.encode`, `msgspec.json.decode(..., type=Message)`), so that
state between two steps is plain data that can be stored, journaled and sent elsewhere.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import msgspec

from shared_libs.atomic.misuse import MisuseError
from shared_libs.atomic.nearly_json import object_in
from shared_libs.atomic.plain_data import PlainData
from shared_libs.atomic.whole import whole_text

Role = Literal["system", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "pause"]
ChunkKind = Literal["text", "thinking", "tool_call", "restarted", "finished"]


TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
"""The names of tools that every provider takes; the strictest are OpenAI's and Anthropic's."""


MAX_PLACE = 200
"""Characters of an image's URL that say where it is; a longer one is the image itself."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:\S")
_object = msgspec.json.Decoder(dict[str, Any])


class ToolCall(msgspec.Struct, PlainData, frozen=True, gc=False, omit_defaults=True):
    """
    One call the model asks for.

    `arguments` is the decoded JSON object. Where the model sent something else, `arguments` is empty and
    `malformed` holds the raw text, so that the model can be told and nothing is guessed.
    """

    id: str
    name: str
    arguments: dict[str, Any] = msgspec.field(default_factory=dict)
    malformed: str | None = None

    @classmethod
    def from_json(cls, id: str, name: str, raw: str | bytes) -> ToolCall:
        """Build a call from the JSON text a provider sent; no text means no arguments, and so does `null`."""
        text = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw
        try:
            return cls(id, name, _object.decode(text))
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
            meant = object_in(text)
        return cls(id, name, malformed=whole_text(text)) if meant is None else cls(id, name, meant)

    @property
    def input(self) -> dict[str, Any] | str:
        """What the model gave: the arguments, or the raw text where they were not a JSON object."""
        return self.arguments if self.malformed is None else self.malformed

    def arguments_json(self) -> str:
        """The arguments as the JSON text a provider expects back."""
        return msgspec.json.encode(self.arguments).decode() if self.malformed is None else self.malformed


Extra = dict[str, dict[str, Any]]
"""
What only servers of one wire know, by that wire: `openai` (chat completions), `responses`, `anthropic`.

It goes on to them as it is, in its place of the request: `{"anthropic": {"cache_control": {"type": "ephemeral"}}}`.
"""


def with_extra(told: dict[str, Any], extra: Extra | None, wire: str, leave_out: Collection[str] = ()) -> dict[str, Any]:
    """What is told on a wire, with what only that wire knows beside it; what is told stands above it."""
    if extra is None or wire not in extra:
        return told
    return _merged({name: more for name, more in extra[wire].items() if name not in leave_out}, told)


def plain_on(content: Sequence[TextPart | ImagePart], wire: str) -> bool:
    """Whether parts are but a text on a wire: there are several only for what stands beside them on another one."""
    extras = [part.extra for part in content if isinstance(part, TextPart)]
    return len(extras) == len(content) and any(extras) and not any(extra and wire in extra for extra in extras)


def _merged(extra: dict[str, Any], told: dict[str, Any]) -> dict[str, Any]:
    made = extra | told
    for name in extra.keys() & told.keys():
        more, own = extra[name], told[name]
        if isinstance(more, dict) and isinstance(own, dict):
            made[name] = _merged(more, own)
        elif isinstance(more, list) and isinstance(own, list) and len(more) == len(own):
            both = zip(more, own, strict=True)
            made[name] = [_merged(a, b) if isinstance(a, dict) and isinstance(b, dict) else b for a, b in both]
    return made


class TextPart(msgspec.Struct, PlainData, frozen=True, gc=False, tag_field="type", tag="text", omit_defaults=True):
    """A piece of text in a message of several parts."""

    text: str
    extra: Extra | None = None


class ImagePart(msgspec.Struct, PlainData, frozen=True, gc=False, tag_field="type", tag="image", omit_defaults=True):
    """An image as input: an `https:` or `data:` URL; `from_bytes` makes one of what is at hand."""

    url: str
    media_type: str = ""
    extra: Extra | None = None

    def __post_init__(self) -> None:
        if not _URL.match(str(self.url)):  # a Path is none
            raise MisuseError(
                f"an image is an https: or data: URL, not {self.url!r:.60}; ImagePart.from_bytes takes a file's bytes"
            )

    @classmethod
    def from_bytes(cls, data: bytes, media_type: str = "image/png") -> ImagePart:
        """Make the part of an image's bytes, such as `Path("a.png").read_bytes()`."""
        return cls(f"data:{media_type};base64,{base64.b64encode(data).decode()}", media_type)

    @property
    def place(self) -> str:
        """Its URL; of one that is the image itself the beginning, the length and a digest, alike for equal images."""
        if len(self.url) <= MAX_PLACE:
            return self.url
        digest = hashlib.sha256(self.url.encode("utf-8", "replace")).hexdigest()
        return f"{self.url[:30]}… ({len(self.url)} characters, sha256 {digest[:16]})"


class Thinking(msgspec.Struct, PlainData, frozen=True, gc=False, omit_defaults=True):
    """
    A reasoning block of a model.

    `signature` (and `data` for redacted or encrypted blocks) mean something only to `provider`; an adapter
    sends back its own blocks unchanged and leaves out those of others.
    """

    text: str
    provider: str = ""
    signature: str = ""
    data: dict[str, Any] | None = None


class Message(msgspec.Struct, PlainData, frozen=True, gc=False, omit_defaults=True):
    """
    One message of a conversation.

    `tool_calls` and `thinking` go with role `assistant`; `tool_call_id`, `name` and `is_error` with role `tool`. On
    Anthropic's wire what is `extra` belongs to the last block.
    """

    role: Role
    content: str | tuple[TextPart | ImagePart, ...] = ""
    tool_calls: tuple[ToolCall, ...] = ()
    thinking: tuple[Thinking, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None
    is_error: bool = False
    extra: Extra | None = None

    @property
    def text(self) -> str:
        """The text of the message, its text parts joined."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content if isinstance(part, TextPart))


class ToolSpec(msgspec.Struct, PlainData, frozen=True, gc=False, omit_defaults=True):
    """What a model is told of a tool; `parameters` is a JSON Schema of type object."""

    name: str
    description: str
    parameters: dict[str, Any]
    extra: Extra | None = None


@runtime_checkable
class HasSpec(Protocol):
    """Anything that can describe itself to a model, such as a `BaseTool`."""

    @property
    def spec(self) -> ToolSpec:
        """What a model is told."""


class ToolResult(msgspec.Struct, PlainData, frozen=True, gc=False, omit_defaults=True):
    """
    The observation a tool call ended in; what `BaseTool.async_run` returns.

    `content` is what the model reads. `is_error` marks a failing or invalid call, `still_running` one that was
    given up on while it had not ended. `elapsed_s` is in seconds. `whole` is the output that `content` is the beginning
    of, where it was too long to be shown.
    """

    content: str
    is_error: bool = False
    elapsed_s: float = 0.0
    still_running: bool = False
    whole: str = ""

    def __str__(self) -> str:
        return self.content


class Usage(msgspec.Struct, PlainData, frozen=True, gc=False):
    """
    Tokens, as the provider counted them.

    `input_tokens` includes those read from the provider's cache (`cached_input_tokens`) and those written to it at a
    price of their own (`cache_creation_input_tokens`; of those, for an hour: `hour_cache_input_tokens`),
    `output_tokens` those of thinking, where the provider tells them (`reasoning_tokens`). `total_tokens` is both
    together where nobody tells it.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    total_tokens: int = 0
    cache_creation_input_tokens: int = 0
    hour_cache_input_tokens: int = 0
    reasoning_tokens: int = 0

    def __post_init__(self) -> None:
        if not self.total_tokens:
            msgspec.structs.force_setattr(self, "total_tokens", self.input_tokens + self.output_tokens)

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_input_tokens + other.cached_input_tokens,
            self.total_tokens + other.total_tokens,
            self.cache_creation_input_tokens + other.cache_creation_input_tokens,
            self.hour_cache_input_tokens + other.hour_cache_input_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
        )


class Attempt(msgspec.Struct, PlainData, frozen=True, gc=False, kw_only=True):
    """
    One request to a model: a row of the ledger that equals what the server saw.

    Times are seconds from the start of the run, or of the call outside a run. `outcome` is "ok", "cancelled",
    "lost" (with a process of a durable run) or the kind of the error (see `LLMError.kind`); `why` says it in words;
    `waited_s` is the pause before this attempt.
    `usage` is None where the provider told none, as most do of what failed. Of what failed, `retryable` tells whether
    the same request may succeed later, and `retry_after_s` in how many seconds, where the provider told.
    """

    provider: str
    model: str
    number: int
    outcome: str
    why: str = ""
    status_code: int | None = None
    waited_s: float = 0.0
    started_s: float = 0.0
    first_token_s: float | None = None
    ended_s: float = 0.0
    usage: Usage | None = None
    retryable: bool | None = None
    retry_after_s: float | None = None


class Stage(msgspec.Struct, PlainData, frozen=True, gc=False, kw_only=True):
    """
    What became of a step of a retrieval; a `reason` wherever it is not "ok".

    `began_s` is when, in seconds after the retrieval began.
    """

    name: str
    state: Literal["ok", "skipped", "late", "failed"]
    elapsed_s: float = 0.0
    reason: str = ""
    began_s: float = 0.0

    @property
    def told(self) -> str:
        """It in words: its name, what became of it, and why."""
        return f"{self.name} {self.state}" + (f": {self.reason}" if self.reason else "")


class LLMResponse(msgspec.Struct, PlainData, frozen=True, gc=False, kw_only=True):
    """
    A model's whole answer.

    `model` is what the provider reported, `requested_model` what was asked. `usage` is the successful attempt's
    alone; `attempts` lists every try. `cost_usd` is what the answers it took cost (two, where the first did not fit its
    schema), each at the price of the model that gave it; None where a price is not known: unknown is not zero. `parsed`
    is the answer as an `output_schema` read it. `in_words` says that the model was told of its tools in words, so that
    calls stand in its text.
    """

    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    thinking: tuple[Thinking, ...] = ()
    usage: Usage = Usage()
    model: str = ""
    requested_model: str = ""
    provider: str = ""
    finish_reason: FinishReason = "stop"
    attempts: tuple[Attempt, ...] = ()
    cost_usd: float | None = None
    parsed: Any = None
    in_words: bool = False

    @property
    def message(self) -> Message:
        """The answer as the assistant's message, to append to the conversation."""
        return Message("assistant", self.text, tool_calls=self.tool_calls, thinking=self.thinking)


class LLMChunk(msgspec.Struct, PlainData, frozen=True, gc=False, omit_defaults=True):
    """
    A piece of a streamed answer.

    `kind` is "text" or "thinking" (`text`), "tool_call" (a complete `tool_call`), "restarted" (what came before is
    void; `reason`) or "finished" (`response`, the whole answer; always the last chunk). A "thinking" without a text has
    in `sealed` what its provider wants to see again: the signature of what came before, or a block nobody can read.
    """

    kind: ChunkKind
    text: str = ""
    tool_call: ToolCall | None = None
    reason: str = ""
    response: LLMResponse | None = None
    sealed: Thinking | None = None


class Price(msgspec.Struct, PlainData, frozen=True, gc=False, forbid_unknown_fields=True):
    """
    US dollars per million tokens.

    `cached_input` is for tokens read from the provider's cache, `cache_write` for those written to it; without them
    such tokens cost as much as fresh ones. `hour_cache_write` is for what is written for an hour; without it such
    tokens cost as much as the others that are written.
    """

    input: float
    output: float
    cached_input: float | None = None
    cache_write: float | None = None
    hour_cache_write: float | None = None

    def cost_usd(self, usage: Usage) -> float:
        """What `usage` costs, in US dollars."""
        read, hour = usage.cached_input_tokens, usage.hour_cache_input_tokens
        written = usage.cache_creation_input_tokens
        write = self.input if self.cache_write is None else self.cache_write
        cost = (usage.input_tokens - read - written) * self.input + usage.output_tokens * self.output
        cost += read * (self.input if self.cached_input is None else self.cached_input)
        cost += (written - hour) * write + hour * (write if self.hour_cache_write is None else self.hour_cache_write)
        return cost / 1_000_000


Prompt = str | Message | Mapping[str, Any] | Sequence[Message | Mapping[str, Any]]
"""What a caller may pass as the conversation: a question, one message, or several; dicts as OpenAI writes them."""


def as_messages(prompt: Prompt) -> list[Message]:
    """
    Turn a prompt into messages.

    Raises:
        MisuseError: a message has no known role or a field of a wrong type.

    """
    if not isinstance(prompt, list):  # what it nearly always is
        if isinstance(prompt, str):
            return [Message("user", prompt)]
        if isinstance(prompt, Message | Mapping):
            return [_as_message(prompt, 0)]
        if not isinstance(prompt, Iterable):
            raise MisuseError(f"a prompt is a question, a message or a list of messages, not {prompt!r}")
        prompt = list(prompt)  # it may be one that is read only once
    if set(map(type, prompt)) == {Message}:
        return list(prompt)
    return [_as_message(item, index) for index, item in enumerate(prompt)]


def as_tool_specs(tools: Iterable[ToolSpec | HasSpec | Mapping[str, Any]]) -> tuple[ToolSpec, ...]:
    """Turn tools, tool specs or OpenAI-style tool dicts into tool specs."""
    given: tuple[Any, ...] = tuple(tools)
    if set(map(type, given)) == {ToolSpec}:
        return given
    return tuple([tool if isinstance(tool, ToolSpec) else _as_tool_spec(tool) for tool in given])


def _as_tool_spec(tool: HasSpec | Mapping[str, Any]) -> ToolSpec:
    if isinstance(tool, Mapping):
        function = tool.get("function", tool)
        try:
            return ToolSpec(function["name"], function.get("description", ""), dict(function["parameters"]))
        except (KeyError, TypeError, ValueError) as error:
            raise MisuseError(
                f"this is not a tool: {dict(tool)!r}. Allowed: a BaseTool, a ToolSpec, or "
                '{"type": "function", "function": {"name", "description", "parameters"}}.'
            ) from error
    if isinstance(tool, HasSpec):
        return tool.spec
    raise MisuseError(f"{type(tool).__name__} is not a tool. Allowed: a BaseTool, a function under @tool, a ToolSpec.")


def _as_message(item: Message | Mapping[str, Any], index: int) -> Message:
    if isinstance(item, Message):
        return item
    try:
        fields = dict(item)
        calls = tuple(_as_tool_call(call) for call in fields.pop("tool_calls", None) or ())
        content = _as_content(fields.pop("content", "") or "")
        return msgspec.convert(fields | {"content": content, "tool_calls": calls}, Message)
    except (msgspec.ValidationError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise MisuseError(
            f"message {index} is not valid: {error}. A message is "
            '{"role": "system" | "user" | "assistant" | "tool", "content": "..."}.'
        ) from error


def _as_content(content: Any) -> Any:
    if isinstance(content, str):
        return content
    return tuple(_as_part(part) for part in content)


def _as_part(part: Any) -> Any:
    """A content part as OpenAI or Anthropic writes it, as ours."""
    if not isinstance(part, Mapping):
        return part
    kind = part.get("type")
    if "image_url" in part:  # an object in chat completions, a text in responses
        url = part["image_url"]
        return ImagePart(url if isinstance(url, str) else url["url"])
    if kind == "image" and isinstance(source := part.get("source"), Mapping):
        url = source.get("url") or f"data:{source['media_type']};base64,{source['data']}"
        return ImagePart(url, source.get("media_type", ""))
    return TextPart(part["text"]) if kind in ("input_text", "output_text") else part


def _as_tool_call(call: Any) -> ToolCall:
    if isinstance(call, ToolCall):
        return call
    function = call.get("function", call)
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        return ToolCall.from_json(call["id"], function["name"], arguments)
    return ToolCall(call["id"], function["name"], dict(arguments))


BYTES_PER_TOKEN = 4
"""An estimate: what English text has with today's tokenisers."""

_TOKENS_PER_MESSAGE = 4
_TOKENS_PER_IMAGE = 1_000


def estimate_tokens(messages: Sequence[Message]) -> int:
    """
    Estimate the tokens of messages: a token for four bytes of UTF-8.

    That is what English text has with today's tokenisers; other alphabets are counted too high rather than too low.
    """
    return sum(map(_tokens, messages))


def _tokens(message: Message) -> int:
    size = len(message.text.encode("utf-8", "replace"))
    size += sum(len(call.name) + len(call.arguments_json()) for call in message.tool_calls)
    size += sum(len(thinking.text) for thinking in message.thinking)
    images = 0 if isinstance(message.content, str) else sum(not hasattr(part, "text") for part in message.content)
    return _TOKENS_PER_MESSAGE + size // BYTES_PER_TOKEN + images * _TOKENS_PER_IMAGE
