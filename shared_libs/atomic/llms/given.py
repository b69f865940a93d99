"""
What a server gave with a turn and wants to see again: reasoning, signatures, ids of its own.

It travels opaque, as `Thinking` of the assistant's message that tells who made it: the address and the model. It goes
back to these unchanged, and to nobody else.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any
from urllib.parse import urlsplit

import msgspec

from shared_libs.atomic.llms.payload import portable_id
from shared_libs.atomic.types import Message, Thinking

STAND_INS: dict[str, tuple[bool, dict[str, Any]]] = {
    # Moonshot, DeepSeek: "reasoning_content is missing in assistant tool call message"
    "reasoning_content": (False, {"reasoning_content": ""}),
    # https://ai.google.dev/gemini-api/docs/thought-signatures: what Google says to send for calls made elsewhere
    "thought_signature": (
        True,
        {"extra_content": {"google": {"thought_signature": "skip_thought_signature_validator"}}},
    ),
}
"""What is sent to a server that misses a field in calls which another one made: whether in each call, and what."""

_OPAQUE = (
    *("signature", "opaque", "extra_content", "provider_specific", "reasoning_id", "reasoning_item"),
    *("thought_", "_thought"),
)
"""What is in the name of a field that only its server knows and wants to see again, whoever invents the next one."""

_MISSED = re.compile(r"missing|must be|must have|required|lacks|not (?:found|provided|passed)|expected", re.IGNORECASE)

_EMPTY: tuple[Any, ...] = (None, "", [], {}, False)


def is_opaque(told: str) -> bool:
    """Whether a name is that of such a field, or a text may hold one."""
    # much faster than one pattern; and of a text, for in bytes `in` raises and catches an error before it looks
    return any(map(told.__contains__, _OPAQUE))


def maker(base_url: str, model: str) -> list[str]:
    """Who makes what is given: the address, without what may be secret in it, and the model."""
    parts = urlsplit(base_url)
    return [parts._replace(query="", fragment="").geturl(), model]


def is_made_by(block: Thinking, made_by: Sequence[str]) -> bool:
    """Whether a block tells that it is of this maker."""
    return block.data is not None and block.data.get("made_by") == list(made_by)


def is_foreign(block: Thinking, made_by: Sequence[str]) -> bool:
    """Whether a block tells that it is of another maker; one that a caller wrote by hand tells nothing."""
    return block.data is not None and "made_by" in block.data and not is_made_by(block, made_by)


class Returned(msgspec.Struct, frozen=True):
    """What goes back of one assistant's message: `fields` of the message, and those of each of its calls."""

    fields: dict[str, Any] = {}
    calls: list[dict[str, Any]] = []


_NOTHING = Returned()


def keep(
    text: str,
    provider: str,
    made_by: Sequence[str],
    *,
    text_fields: Iterable[str] = (),
    fields: dict[str, Any] | None = None,
    calls: Sequence[dict[str, Any]] = (),
) -> Thinking:
    """
    What was given with a turn, as it is kept.

    Args:
        text: the reasoning that can be read.
        provider: whose format it is.
        made_by: who gave it.
        text_fields: the fields of the message that the text came in.
        fields: other fields of the message.
        calls: fields of the calls, in their order.

    """
    data: dict[str, Any] = {"made_by": list(made_by)}
    if names := list(text_fields):
        data["as"] = names
    if fields:
        data["fields"] = fields
    if any(calls):
        data["calls"] = list(calls)
    return Thinking(text, provider, data=data)


def missed_in(words: str) -> str | None:
    """The field that a refusal misses in calls which another server made, if we have something to put there."""
    return next((name for name in STAND_INS if name in words and _MISSED.search(words)), None)


def returned(
    message: Message, made_by: Sequence[str], leave_out: Collection[str] = (), stand_in: Collection[str] = ()
) -> Returned:
    """
    What of a message goes back to `made_by`.

    Readable reasoning goes back with the calls it led to, as its makers ask; behind an answer some refuse it, and all
    ignore it.

    Args:
        message: an assistant's.
        made_by: who is asked.
        leave_out: fields that it does not take back.
        stand_in: those of `STAND_INS` that it misses in what others made.

    """
    back = _returned(message, made_by, leave_out) if message.thinking else _NOTHING
    if not stand_in or not message.tool_calls:
        return back
    fields, calls = dict(back.fields), back.calls or [{} for _ in message.tool_calls]
    for name in stand_in:
        of_calls, values = STAND_INS[name]
        for place in calls if of_calls else [fields]:
            if name not in str(place):
                place.update(values)
    return Returned(fields=fields, calls=calls)


def _returned(message: Message, made_by: Sequence[str], leave_out: Collection[str]) -> Returned:
    for block in message.thinking:
        if is_made_by(block, made_by):
            data = block.data or {}
            fields = dict(data.get("fields", {}))
            if message.tool_calls:
                fields |= dict.fromkeys(data.get("as", ()), block.text)
            calls = data.get("calls", [])
            if len(calls) != len(message.tool_calls):
                calls = []
            return Returned(fields=_without(fields, leave_out), calls=[_without(call, leave_out) for call in calls])
    return _NOTHING


def wire_ids(messages: Sequence[Message], made_by: Sequence[str], longest: int) -> dict[str, str]:
    """The ids of calls as they are sent: to whoever made them as they came, else as every provider takes them."""
    ids: dict[str, str] = {}
    for message in messages:
        if not message.tool_calls:
            continue
        own = any(is_made_by(block, made_by) for block in message.thinking) if message.thinking else False
        for call in message.tool_calls:
            ids[call.id] = call.id if own else portable_id(call.id, longest)
    return ids


def needs_keeping(ids: Iterable[str], longest: int) -> bool:
    """Whether an id goes back as it came only where it is known who made it."""
    return any(portable_id(own, longest) != own for own in ids)


def beside(raw: Any, known: Collection[str]) -> dict[str, Any]:
    """The fields of an object that are not known, and say something."""
    if not isinstance(raw, dict):
        return {}
    return {name: value for name, value in raw.items() if name not in known and value not in _EMPTY}


def merged(before: Any, piece: Any) -> Any:
    """
    What pieces of an opaque value are together: texts and lists grow, objects merge, anything else is replaced.

    A list grows where it is: to copy it for each of its items would cost their square.
    """
    if isinstance(before, str) and isinstance(piece, str):
        return before + piece
    if isinstance(before, dict) and isinstance(piece, dict):
        return before | {
            name: merged(before[name], value) if name in _GROWS and before.get(name) else value
            for name, value in piece.items()
            if value is not None
        }
    if isinstance(before, list) and isinstance(piece, list):
        for item in piece:
            if before and _continues(before[-1], item):
                before[-1] = merged(before[-1], item)
            else:
                before.append(item)
        return before
    return before if piece is None else piece


_GROWS = frozenset({"text", "thinking", "summary", "data", "signature", "reasoning", "content"})


def _continues(last: Any, item: Any) -> bool:
    """Whether an item of a list is a further piece of the one before: it has its place and kind."""
    if not isinstance(last, dict) or not isinstance(item, dict) or item.get("index") is None:
        return False
    return all(last.get(name) == item.get(name) for name in ("index", "type"))


def _without(fields: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in names}
