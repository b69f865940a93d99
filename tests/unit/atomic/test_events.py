"""Events: every one can be written to a run record and read back."""

from __future__ import annotations

import typing

import msgspec
import pytest

from shared_libs.atomic import events
from shared_libs.atomic.events import AgentEvent, Event, decode_event
from shared_libs.atomic.results import Action, AgentResult, Observation, Step, StillRunning
from shared_libs.atomic.types import Attempt, LLMResponse, Message, Stage, TextPart, ToolCall, ToolSpec, Usage

ATTEMPT = Attempt(provider="p", model="m", number=1, outcome="timeout", why="slow", first_token_s=0.5, usage=Usage(1))
RESULT = AgentResult(
    run_id="r",
    status="partial",
    stop_reason="deadline",
    answer="é",
    steps=(Step("t", (Action("a", {"x": [1]}, "c1"), Action("b", "{", "c2")), (Observation("c1", "o", True, 0.5),)),),  # noqa: FBT003
    usage=Usage(1, 2, 0, 3),
    still_running=(StillRunning("a", "c1", 1.5),),
    attempts=(ATTEMPT,),
)
VALUES = {
    "attempt": ATTEMPT,
    "result": RESULT,
    "response": LLMResponse(text="x", tool_calls=(ToolCall("1", "a", malformed="{"),), attempts=(ATTEMPT,)),
    "input": {"a": 1},
}
BY_TYPE = {
    "Sequence[Message]": [Message("user", (TextPart("x"),)), Message("tool", "y", tool_call_id="1", name="a")],
    "Sequence[ToolSpec] | None": [ToolSpec("a", "b", {"type": "object"})],
    "Sequence[Stage]": [Stage(name="words", state="late", elapsed_s=0.5, reason="no time was left")],
    "dict[str, Any] | None": {"temperature": 0},
    "dict[str, float]": {"words": 0.5},
    "int | None": 2,
    "str": "text é",
    "int": 3,
    "float": 1.5,
    "bool": True,
    "str | None": "s",
}


def filled(kind):
    fields = {field.name: field.name for field in msgspec.structs.fields(kind)}
    written = {
        name: note for base in reversed(kind.__mro__) for name, note in getattr(base, "__annotations__", {}).items()
    }
    return kind(**{name: VALUES[name] if name in VALUES else BY_TYPE[written[name]] for name in fields})


KINDS = [
    kind for kind in vars(events).values() if isinstance(kind, type) and issubclass(kind, Event) and kind is not Event
]


def test_every_event_is_in_the_union():
    assert set(typing.get_args(AgentEvent)) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_event_survives_its_line(kind):
    event = filled(kind)
    line = msgspec.json.encode(event)
    assert b"\n" not in line
    again = decode_event(line)
    assert type(again) is kind
    assert again == event


def test_an_input_may_be_the_raw_text():
    event = events.ToolStarted(step=1, tool="a", input="{", call_id="c")
    assert decode_event(msgspec.json.encode(event)) == event


@pytest.mark.parametrize("line", ["", "{}", '{"type":"nothing"}', '{"type":"warned"}', "[]", "x"])
def test_what_is_no_event_is_told(line):
    with pytest.raises(msgspec.DecodeError):
        decode_event(line)
