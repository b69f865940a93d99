"""What a client asks of a model or an agent, whatever wire it speaks."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from shared_libs.atomic.json_schema import portable
from shared_libs.atomic.llms.chat_fields import left_out
from shared_libs.atomic.types import Extra, ImagePart, Message, Role, TextPart, Thinking, ToolCall, ToolSpec, Usage
from shared_libs.service.problems import Problem

Finish = Literal["stop", "length", "tool_calls", "content_filter"]

CHAT_FIELDS_OF_AGENTS = (
    *("temperature", "top_p", "seed", "stop", "max_completion_tokens", "max_tokens", "reasoning_effort"),
    *("tool_choice", "parallel_tool_calls"),
)
"""The fields of a request that reach an agent's model; those of a chain all do."""


class Wanted(msgspec.Struct, kw_only=True):
    """
    One request.

    Args:
        model: the agent or chain that is asked.
        messages: the conversation; its system texts are the client's, beside an agent's own instructions.
        tools: what the client can do itself.
        fields: further fields, as chat completions name them.
        stream: whether the answer comes in pieces.
        schema: the JSON Schema that the answer has to fit.
        session_id: the conversation that the agent remembers.
        background: whether the client does not wait for the answer.
        ignored: what of the request means nothing here; told to the client in a header.
        own_fields: the fields in the request's own words, by its wire, for a chain that speaks it.
        beside: what stands in the request where nobody here reads it, by its place, and which wires it goes on to.

    """

    model: str
    messages: list[Message]
    tools: tuple[ToolSpec, ...] = ()
    fields: dict[str, Any] = {}
    stream: bool = False
    schema: dict[str, Any] | None = None
    session_id: str | None = None
    background: bool = False
    ignored: list[str] = []
    own_fields: dict[str, dict[str, Any]] = {}
    beside: dict[str, tuple[str, ...]] = {}

    def unheard(self, wire: str) -> list[str]:
        """What of the request does not reach a model that is asked on a wire."""
        fields = [] if wire in self.own_fields else left_out(wire, self.fields)
        return [*self.ignored, *fields, *[place for place, wires in self.beside.items() if wire not in wires]]


class Said(msgspec.Struct, frozen=True):
    """A piece of the answer."""

    text: str


class Thought(msgspec.Struct, frozen=True):
    """A piece of the reasoning; `sealed` is what its provider wants to see again of what came so far."""

    text: str
    sealed: Thinking | None = None


class Voided(msgspec.Struct, frozen=True):
    """What was said is void; another answer comes."""

    reason: str


class Called(msgspec.Struct, frozen=True):
    """The client is to call a tool of its own."""

    call: ToolCall


class Began(msgspec.Struct, frozen=True):
    """The agent calls a tool of its own."""

    call_id: str
    tool: str
    input: dict[str, Any] | str


class Ended(msgspec.Struct, frozen=True):
    """A tool of the agent's has ended."""

    call_id: str
    content: str
    is_error: bool


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """
    How it ended; always the last piece.

    `text`, `calls` and `thinking` are the whole answer, what came in pieces included. `facts` go into the client's
    answer as its member `factory`.
    """

    text: str = ""
    calls: tuple[ToolCall, ...] = ()
    thinking: tuple[Thinking, ...] = ()
    finish: Finish = "stop"
    usage: Usage = Usage()
    facts: dict[str, Any] = {}


Piece = Said | Thought | Voided | Called | Began | Ended | Outcome


def pieces_of(outcome: Outcome) -> list[Piece]:
    """What an answer that came whole would have been in pieces."""
    thoughts = [Thought(block.text, block) for block in outcome.thinking]
    return [*thoughts, Said(outcome.text), *map(Called, outcome.calls), outcome]


MOST_ITEMS = 10_000
"""Messages of a request, or parts of a message."""

MOST_TOOLS = 2_000
"""Tools of a request; the vendors' own servers take some hundred."""


class Bound(NamedTuple):
    """From where to where a number goes, and whether it is a whole one."""

    least: float
    most: float
    whole: bool = False


LENGTH = Bound(1, 2**31, whole=True)
"""How many tokens an answer may have, or how many of something are wanted."""

_INDEX = re.compile(r"\[\d+\]")


class Body:
    """
    A JSON object of a request, read field by field; what is wrong is refused with the path of the field.

    `beside` is what stands in the whole request where nobody here reads it, by its place, with the wires it goes on to.
    """

    __slots__ = ("beside", "data", "path")

    def __init__(self, data: Any, path: str = "", beside: dict[str, tuple[str, ...]] | None = None) -> None:
        if not isinstance(data, dict):
            raise Problem("invalid_request", f"{path or 'the body'} is a JSON object", param=path or None)
        self.data: dict[str, Any] = data
        self.path = path
        self.beside: dict[str, tuple[str, ...]] = {} if beside is None else beside

    def rest(self, read: frozenset[str], carried: Mapping[str, tuple[str, ...]], otherwise: str = "") -> Extra | None:
        """
        What stands in the object beside the fields that are read, for the wires that know it; all of it is noted.

        Args:
            read: the fields that are read here.
            carried: the wires that others go on to.
            otherwise: the wire that any further field goes on to, if one does.

        """
        names = self.data.keys() - read
        if not names:
            return None
        extra: Extra = {}
        for name, value in self.data.items():
            if name not in names or value is None or value in ([], {}, ""):
                continue
            wires = carried.get(name, (otherwise,) if otherwise else ())
            self.note(name, *wires)
            for wire in wires:
                extra.setdefault(wire, {})[name] = value
        return extra or None

    def note(self, name: str, *wires: str) -> None:
        """Note what goes on to these wires alone, or to nobody."""
        self.beside[_INDEX.sub("[]", self.at(name))] = wires

    def at(self, name: str) -> str:
        """The path of a field."""
        return f"{self.path}.{name}" if self.path else name

    def wrong(self, name: str, expected: str) -> Problem:
        """The refusal of a field."""
        return Problem("invalid_request", f"{self.at(name)} is {expected}", param=self.at(name))

    def text(self, name: str) -> str:
        """A text that must be there."""
        value = self.data.get(name)
        if not isinstance(value, str) or not value:
            raise self.wrong(name, "a text that is not empty")
        return value

    def text_or(self, name: str, otherwise: str = "") -> str:
        """A text that may be left out."""
        value = self.data.get(name)
        if value is None:
            return otherwise
        if not isinstance(value, str):
            raise self.wrong(name, "a text")
        return value

    def flag(self, name: str) -> bool:
        """A boolean; null and nothing are false."""
        value = self.data.get(name)
        if value is not None and not isinstance(value, bool):
            raise self.wrong(name, "true or false")
        return bool(value)

    def objects(self, name: str, most: int = MOST_ITEMS) -> list[Body]:
        """A list of at most so many objects; null and nothing are an empty one."""
        value = self.data.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self.wrong(name, "a list")
        if len(value) > most:
            raise self.wrong(name, f"a list of at most {most:,}, not {len(value):,}")
        return [Body(item, f"{self.at(name)}[{index}]", self.beside) for index, item in enumerate(value)]

    def inside(self, name: str) -> Body:
        """An object that must be there."""
        return Body(self.data.get(name), self.at(name), self.beside)

    def object_or(self, name: str) -> Mapping[str, Any]:
        """An object that may be left out."""
        value = self.data.get(name)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self.wrong(name, "an object")
        return value

    def check(self, bounds: Mapping[str, Bound]) -> None:
        """Refuse a field that is no number, or no whole one, within its bounds; null and nothing are none."""
        for name, value in self.data.items():
            if value is None or name not in bounds:
                continue
            least, most, whole = bounds[name]
            if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
                raise self.wrong(name, f"a number from {least:g} to {most:g}")
            if whole and value != int(value):
                raise self.wrong(name, "a whole number")


NO_PARAMETERS: dict[str, Any] = {"type": "object", "properties": {}}


def tool_spec(body: Body, schema_field: str, extra: Extra | None) -> ToolSpec:
    """Read a function tool: its name, description, and the schema of its arguments."""
    parameters = body.data.get(schema_field)
    if parameters is not None and not isinstance(parameters, dict):
        raise body.wrong(schema_field, "a JSON Schema")
    return ToolSpec(body.text("name"), body.text_or("description"), portable(parameters or NO_PARAMETERS), extra)


def together(*extras: Extra | None) -> Extra | None:
    """What several say, of each wire the later ones above the earlier."""
    made: Extra = {}
    for extra in extras:
        for wire, more in (extra or {}).items():
            made[wire] = made.get(wire, {}) | more
    return made or None


Content = str | Sequence[TextPart | ImagePart]


def joined(content: Content, between: str = "") -> tuple[str, Extra | None]:
    """The words of a content where only a text can stand, and what stood beside any of its parts."""
    if isinstance(content, str):
        return content, None
    text = between.join([part.text for part in content if isinstance(part, TextPart)])
    return text, together(*[part.extra for part in content])


def shown(content: Content, between: str = "", *, images: bool = True) -> str | tuple[TextPart | ImagePart, ...]:
    """
    Make the content of a message: a text, unless there is more to it.

    Args:
        content: what it has.
        between: what stands between texts that become one.
        images: whether it may have some; elsewhere they are left out.

    """
    if isinstance(content, str):
        return content
    kept = tuple([part for part in content if images or isinstance(part, TextPart)])
    if any(isinstance(part, ImagePart) for part in kept):
        return kept
    if not any(part.extra is not None for part in kept):
        return joined(kept, between)[0]
    texts = [part.text for part in kept if isinstance(part, TextPart)]
    ended = [*[text + between for text in texts[:-1]], *texts[-1:]]
    return tuple([TextPart(text, part.extra) for text, part in zip(ended, kept, strict=True)])


def tools_of(
    body: Body, mine: str, spec_of: Callable[[Body], ToolSpec], *, named: bool = False
) -> tuple[tuple[ToolSpec, ...], list[str]]:
    """
    Read the tools that a client can run itself; those of kinds that run elsewhere are left out, and named.

    Args:
        body: the request.
        mine: the `type` of the client's own.
        spec_of: reads one of them.
        named: whether each says its type; else one without is the client's own.

    Raises:
        Problem: one is not valid, or two have the same name.

    """
    specs: dict[str, ToolSpec] = {}
    ignored = []
    for one in body.objects("tools", MOST_TOOLS):
        kind = one.text("type") if named else one.text_or("type", mine)
        if kind != mine:
            ignored.append(f"tools:{kind}")
            continue
        spec = spec_of(one)
        if spec.name in specs:
            raise Problem("invalid_request", f"two tools are called {spec.name!r:.80}", param="tools")
        specs[spec.name] = spec
    return tuple(specs.values()), ignored


_CHOICES = {"auto": "auto", "none": "none", "required": "required", "any": "required"}


def chosen(
    tools: tuple[ToolSpec, ...], fields: Mapping[str, Any], choice: Any
) -> tuple[tuple[ToolSpec, ...], dict[str, Any], list[str]]:
    """
    Read which of its tools a client lets the model call: a word, one of them, or some of them.

    A choice of some is those tools alone: no provider but one has a word for it.

    Args:
        tools: what the client can do itself.
        fields: the request's, as chat completions name them.
        choice: its `tool_choice`, as chat completions or Responses have it.

    Returns:
        The tools that are left, the fields with the choice, and what of it means nothing here.

    Raises:
        Problem: it is none.

    """
    made = {name: value for name, value in fields.items() if name != "tool_choice"}
    ignored: list[str] = []
    kind = choice.get("type") if isinstance(choice, dict) else None
    if isinstance(choice, dict) and kind == "allowed_tools":
        told = choice.get("allowed_tools", choice)
        body = Body(told, "tool_choice")
        names = {_named(one.data) for one in body.objects("tools", MOST_TOOLS)}
        tools = tuple([spec for spec in tools if spec.name in names])
        choice = body.text_or("mode", "auto")
    if isinstance(choice, dict) and kind == "function":
        made["tool_choice"] = {"type": "function", "function": {"name": _named(choice)}}
    elif isinstance(choice, dict) and isinstance(kind, str):
        ignored.append(f"tool_choice:{kind}")
    elif choice is not None and not (isinstance(choice, str) and choice in _CHOICES):
        told = "auto, none, required, or an object with a type"
        raise Problem("invalid_request", f"tool_choice is {told}", param="tool_choice")
    elif choice is not None:
        made["tool_choice"] = _CHOICES[choice]
    return tools, made, ignored


def _named(tool: Mapping[str, Any]) -> str:
    function = tool.get("function")
    return str((function if isinstance(function, dict) else tool).get("name", ""))


class Turns:
    """
    A conversation as it is read, message by message.

    Only texts are a tool's results everywhere; the images of some stand behind them, as what the user shows.
    """

    __slots__ = ("_images", "_messages")

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._images: list[TextPart | ImagePart] = []

    @property
    def last_role(self) -> Role | None:
        """Who said the last; None: nobody said anything."""
        return self._messages[-1].role if self._messages else None

    def add(self, message: Message) -> None:
        """Add what anybody but a tool says."""
        self._show()
        self._messages.append(message)

    def add_result(self, call_id: str, content: Content, extra: Extra | None, *, is_error: bool = False) -> None:
        """Add the result of a tool, which has this content."""
        text, beside = joined(content)
        extra = together(extra, beside)
        self._messages.append(Message("tool", text, tool_call_id=call_id, is_error=is_error, extra=extra))
        self._images += [part for part in content if isinstance(part, ImagePart)]

    def take_back(self) -> Message:
        """Take the last message away, which is no result."""
        return self._messages.pop()

    def all(self) -> list[Message]:
        """The conversation."""
        self._show()
        return self._messages

    def _show(self) -> None:
        if self._images:
            self._messages.append(Message("user", tuple(self._images)))
            self._images = []
