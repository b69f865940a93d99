"""What a run is asked: a text, parts (text and images), a message, or a conversation of the caller's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.types import ImagePart, Message, TextPart, as_messages

Question = str | Message | Mapping[str, Any] | Sequence[Message | Mapping[str, Any] | TextPart | ImagePart | str]
"""A text; content parts (a text may stand for one); one message; or messages: the last asks, or is a result."""

IMAGE = "[image]"


class Asked(msgspec.Struct, frozen=True, gc=False):
    """
    A question as a run takes it.

    `text` is what it says, for people; `message` is the user's, and `before` the conversation the caller brought along.
    `after` is what has been done about it already: calls, and at the end their results.
    """

    text: str
    message: Message
    before: tuple[Message, ...] = ()
    after: tuple[Message, ...] = ()

    @property
    def exchange(self) -> list[Message]:
        """What the run begins with and stores at its end."""
        return [self.message, *self.after]


def read_question(question: Question) -> Asked:
    """
    Take a question.

    Raises:
        MisuseError: it is empty, not valid Unicode, or nothing that asks.

    """
    given: Any = question
    if isinstance(given, str):
        return _checked(Message("user", given), ())
    if not isinstance(given, Message | Mapping | Sequence) or isinstance(given, bytes):
        raise MisuseError(f"a question is a text, content parts or messages, not a {type(given).__name__}")
    if isinstance(given, Sequence) and given and all(_is_part(item) for item in given):
        given = {"role": "user", "content": [TextPart(item) if isinstance(item, str) else item for item in given]}
    messages = as_messages(given if isinstance(given, Message | Mapping) else list(given))
    if not messages:
        raise MisuseError("the question is empty")
    asks = len(messages) - 1
    if messages[-1].role == "tool":
        asks = max((index for index, message in enumerate(messages) if message.role == "user"), default=asks)
    if messages[asks].role != "user":
        raise MisuseError(
            f"the last message asks, or is a tool's result behind one that does; its role is {messages[-1].role!r}"
        )
    return _checked(messages[asks], tuple(messages[:asks]), tuple(messages[asks + 1 :]))


def _is_part(item: Any) -> bool:
    return isinstance(item, str | TextPart | ImagePart) or (
        isinstance(item, Mapping) and "type" in item and "role" not in item
    )


def _checked(message: Message, before: tuple[Message, ...], after: tuple[Message, ...] = ()) -> Asked:
    images = 0 if isinstance(message.content, str) else sum(isinstance(part, ImagePart) for part in message.content)
    text = " ".join(filter(None, (message.text, *[IMAGE] * images)))
    if not text.strip():
        raise MisuseError("the question is empty")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise MisuseError(f"the question is not valid Unicode: {error.reason} at {error.start}") from error
    return Asked(text, message, before, after)
