"""What comes in pieces: text whose characters may be cut in half, and tool calls in all the shapes of streams."""

from __future__ import annotations

import uuid
from typing import Any

import msgspec

from shared_libs.atomic.errors import MalformedResponse
from shared_libs.atomic.types import ToolCall
from shared_libs.atomic.whole import whole_text

MAX_CHARS = 16 * 1024 * 1024
"""The longest text of an answer that is kept; no model writes as much."""

MAX_CALLS = 1_000
"""The most tool calls of one turn; a server that sends more is at fault."""

_MAX_LOOKS = 100
"""How often the arguments of a call are read before its end; one piece in a call that names it again is the rule."""


class SaidCall(msgspec.Struct, gc=False):
    """
    A call, or a piece of one, under the names of every server: with an object around its name and arguments or without.

    Arguments that nobody looked for would be none at all, and a tool with defaults would run with nothing.
    """

    name: str | None = None
    arguments: Any = None
    parameters: Any = None
    input: Any = None
    args: Any = None
    function: SaidCall | None = None

    @property
    def tool(self) -> str:
        """The name, or a piece of it."""
        return self.name or (self.function.tool if self.function is not None else "")

    @property
    def said(self) -> Any:
        """The arguments, or a piece of them; None where it has none."""
        inner = self.function.said if self.function is not None else None
        said = (inner, self.arguments, self.parameters, self.input, self.args)
        return next((one for one in said if one is not None), None)


CALL_FIELDS = frozenset({"index", "id", "type", *SaidCall.__struct_fields__})
CALL_TYPES = frozenset({"tool_use", "tool_call", "function_call"})
"""What servers call a part of a message, or an item, that is a call."""


class Text:
    """A text that comes in pieces; the halves of a character wait for each other."""

    __slots__ = ("_half", "_pieces", "_size")

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._size = 0
        self._half = ""

    def add(self, piece: str) -> str:
        """
        Add a piece, and return what of it can be shown.

        Raises:
            MalformedResponse: the text has become longer than any model writes.

        """
        self._size += len(piece)
        if self._size > MAX_CHARS:
            raise MalformedResponse(f"the answer is longer than {MAX_CHARS} characters")
        if self._half or not piece.isascii():
            piece = self._half + piece
            self._half = piece[-1] if "\ud800" <= piece[-1] <= "\udbff" else ""
            piece = whole_text(piece[:-1] if self._half else piece)
        if piece:
            self._pieces.append(piece)
        return piece

    @property
    def size(self) -> int:
        """How many characters have come."""
        return self._size

    def __bool__(self) -> bool:
        return bool(self._pieces)

    def __str__(self) -> str:
        return "".join(self._pieces) + ("\ufffd" if self._half else "")


class _OpenCall:
    """A tool call that is still coming."""

    __slots__ = ("arguments", "given", "id", "looked_at", "name")

    def __init__(self, id: str) -> None:
        self.looked_at = 0
        self.id = id
        self.name = ""
        self.arguments: list[str] = []
        self.given: dict[str, Any] = {}

    def named(self, name: str) -> None:
        """Take a name, or a further piece of it; servers that repeat it say it whole."""
        if not self.name or name.startswith(self.name):
            self.name = name
        elif not self.arguments:
            self.name += name

    def is_another(self, id: str, name: str, arguments: str) -> bool:
        """Whether a piece that says a name begins another call than this one, at whose place it came."""
        opens = arguments.lstrip().startswith("{")
        if id and self.id and id != self.id:
            return not (name == self.name and self.arguments and not opens)
        if not self.arguments or not self.name:
            return False  # the name comes in pieces, or again, or last
        return name != self.name or (opens and self._is_whole and arguments.strip() != "".join(self.arguments).strip())

    @property
    def _is_whole(self) -> bool:
        """Whether the arguments are a JSON object as they stand; an empty one is what some servers begin with."""
        self.looked_at += 1
        if self.looked_at > _MAX_LOOKS or len(self.arguments) > MAX_CALLS:
            return False  # looked for in every piece, it would cost more than the pieces themselves
        said = "".join(self.arguments).rstrip()
        return said.endswith("}") and bool(ToolCall.from_json("", "", said).arguments)

    @property
    def _said_again(self) -> bool:
        """Whether the last piece is all of the arguments: of each piece so far, or of all before it together."""
        *before, last = (piece.strip() for piece in self.arguments)
        return last.startswith("".join(before)) or all(map(str.startswith, [*before[1:], last], before))

    def closed(self, *, cut: bool) -> ToolCall:
        """
        The call.

        Args:
            cut: the answer ended at its limit behind this call: nothing said yet may be all there is of it.

        """
        if not self.name:
            raise MalformedResponse("the answer has a tool call without a name")
        id = self.id or f"call_{uuid.uuid4().hex[:24]}"  # noqa: A001 - the field's own word
        pieces = self.arguments
        if cut and not "".join(pieces).strip():
            return ToolCall(id, self.name, malformed="")
        call = ToolCall.from_json(id, self.name, "".join(pieces))
        if call.malformed is not None and len(pieces) > 1 and self._said_again:
            again = ToolCall.from_json(id, self.name, pieces[-1])
            return call if again.malformed is not None else again
        return call


class Calls:
    """
    The tool calls of an answer, put together from pieces by index, by id, or by neither.

    An index is where OpenAI says a piece belongs. Some servers leave it out, some give each of several calls the same,
    some give every piece the id again, and some an id of its own to every piece: so a piece at the place of a call
    begins another one only where it has a name, and either another id, or that call has all it needs.
    """

    __slots__ = ("_by_id", "_by_index", "_calls", "_last", "_size")

    def __init__(self) -> None:
        self._calls: list[_OpenCall] = []
        self._by_index: dict[int, _OpenCall] = {}
        self._by_id: dict[str, _OpenCall] = {}
        self._last: _OpenCall | None = None
        self._size = 0

    def __len__(self) -> int:
        return len(self._calls)

    def add(
        self,
        index: int | None = None,
        id: str = "",
        name: str = "",
        arguments: Any = None,
        *,
        position: int = 0,
        whole: bool = False,
    ) -> _OpenCall:
        """
        Add a piece to the call it belongs to, and return that call.

        Args:
            index: where the server says it belongs.
            id: the call's id.
            name: the tool's name, or a piece of it.
            arguments: JSON text or a piece of it, or an object.
            position: the place of the piece in its event.
            whole: it is a call of its own, because the answer came in one piece.

        Raises:
            MalformedResponse: there are more calls than any model makes.

        """
        said = "" if arguments is None else arguments if isinstance(arguments, str) else _as_json(arguments)
        call = None if whole else self._call_of(index, id, name, position)
        if call is not None and name and call.is_another(id, name, said):
            call = None
        if call is None:
            call = self._open(index, id)
        if id and not call.id:
            call.id = id
            self._by_id.setdefault(id, call)
        if name:
            call.named(name)
        if said:
            self._size += len(said)
            if self._size > MAX_CHARS:
                raise MalformedResponse(f"the arguments of the calls are longer than {MAX_CHARS} characters")
            call.arguments.append(said)
        self._last = call
        return call

    def closed(self, *, cut: bool = False, said: bool = False) -> tuple[ToolCall, ...]:
        """
        The calls, in the order they began.

        Args:
            cut: the answer ended at its limit.
            said: the answer says something besides; then what has neither a name nor arguments is no call of it.

        Raises:
            MalformedResponse: a call has no name.

        """
        calls = [call for call in self._in_order if call.name or call.arguments or not said]
        return tuple([call.closed(cut=cut and call is self._last) for call in calls])

    @property
    def given(self) -> list[dict[str, Any]]:
        """What the server gave with each call besides."""
        return [call.given for call in self._in_order]

    @property
    def _in_order(self) -> list[_OpenCall]:
        """By index where each has one of its own, else as they began."""
        if 1 < len(self._calls) == len(self._by_index):
            return [self._by_index[index] for index in sorted(self._by_index)]
        return self._calls

    def _call_of(self, index: int | None, id: str, name: str, position: int) -> _OpenCall | None:
        """The call at the place of a piece, or None where there is none yet."""
        at = None if index is None else self._by_index.get(index)
        known = self._by_id.get(id) if id else None
        if known is not None and (index is None or (at is not None and at.id != id)):
            return known
        if index is not None:
            return at if at is not None or name or id else self._last
        if not name and 0 < position < len(self._calls):
            return self._calls[position]
        last = self._last
        if last is not None and name and last.name and (id or not (last.arguments or name.startswith(last.name))):
            return None
        return last

    def _open(self, index: int | None, id: str) -> _OpenCall:
        if len(self._calls) == MAX_CALLS:
            raise MalformedResponse(f"the answer has more than {MAX_CALLS} tool calls")
        call = _OpenCall(id)
        self._calls.append(call)
        if index is not None:
            self._by_index[index] = call
        if id:
            self._by_id[id] = call
        return call


def _as_json(value: Any) -> str:
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError, RecursionError):
        return str(value)
