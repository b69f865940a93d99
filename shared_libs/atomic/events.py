"""
What happens in a run, as it happens: one union of small records, numbered per run.

Every event serialises: `to_dict` and `Event.from_dict`, `msgspec.json.encode` and `decode_event`, pydantic, FastAPI.
`seq` counts from 1 within a run, `at_s` is seconds since the run began. Logs, traces, metrics, the terminal and the run
record are all made from these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Self

import msgspec

from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.plain_data import PlainData
from shared_libs.atomic.results import AgentResult
from shared_libs.atomic.types import Attempt, LLMResponse, Message, Stage, ToolSpec


def _snake(name: str) -> str:
    return "".join(f"_{char.lower()}" if char.isupper() else char for char in name).lstrip("_")


class Event(msgspec.Struct, PlainData, kw_only=True, gc=False, tag_field="type", tag=_snake):
    """Base of all events; `run_id`, `seq` and `at_s` are stamped when it is emitted."""

    run_id: str = ""
    seq: int = 0
    at_s: float = 0.0

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """As `PlainData.from_dict`; `Event.from_dict` reads any event, by its `type`."""
        if cls is not Event:
            return super().from_dict(data)
        try:
            event: Self = msgspec.convert(data, AgentEvent)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise MisuseError(f"this is no event: {error}") from None
        return event


class RunStarted(Event):
    """
    A run began; `started_at` is its wall-clock time (ISO 8601, UTC), `timeout_s` its whole time in seconds.

    `resumed` tells that it goes on after a pause: `seq` and `at_s` go on too, and `timeout_s` is the time it has left.
    `waited_s` are the seconds before it that are none of its time: for a slot of the service, or for a decision, while
    it was paused. A sub-agent's run names the run and the tool call that it is for.
    """

    agent: str
    question: str
    started_at: str
    timeout_s: float
    model: str
    protocol: str
    session_id: str | None = None
    rehearsal: bool = False
    resumed: bool = False
    waited_s: float = 0.0
    parent_run_id: str | None = None
    parent_call_id: str | None = None


class MemoryLoaded(Event):
    """The history of the session was read."""

    session_id: str
    messages: int
    elapsed_s: float


class MemoryCompacted(Event):
    """
    Older messages gave way to a summary, or were left out where none was made (`summarised`).

    `messages` is how many; tokens are estimates of what the model sees.
    """

    messages: int
    tokens_before: int
    tokens_after: int
    summarised: bool
    elapsed_s: float


class MemoryStored(Event):
    """The run's exchange was appended to the session."""

    session_id: str
    messages: int
    elapsed_s: float


class StepStarted(Event):
    """A turn of the model begins; `final` marks the last word, asked without tools."""

    step: int
    final: bool = False


class AttemptStarted(Event):
    """A request goes to a model, for "chat", "embeddings" or "rerank"; `stream`: its answer comes in pieces."""

    provider: str
    model: str
    number: int
    operation: str = "chat"
    stream: bool = False


class ModelAsked(Event):
    """
    What a request holds, told to those listeners alone that say `wants_requests`: a store or record of runs.

    It is none of the numbered events: `seq` is that of the `AttemptStarted` it belongs to. `messages` are what the
    request adds to the first `kept` of the request `base`, so that a conversation is told once however long it grows.
    `tools` and `options` are None where they are those of `base`. All as the adapter was given it.
    """

    provider: str
    model: str
    base: int | None = None
    kept: int = 0
    messages: Sequence[Message] = ()
    tools: Sequence[ToolSpec] | None = None
    options: dict[str, Any] | None = None


class AttemptFinished(Event):
    """A request ended, one way or the other."""

    attempt: Attempt


class RetryScheduled(Event):
    """The same model is asked again after `wait_s` seconds; `told` is whether it had said when (Retry-After)."""

    provider: str
    model: str
    wait_s: float
    why: str
    told: bool = False


class LimitWaited(Event):
    """
    A request waited for a place within our own limit; `waited_s` in seconds, told when the wait is over.

    `limit` says which: "60 requests a minute", "90,000 tokens a minute", "4 requests at once"; "" where it is shared
    with other processes, or no place came.
    """

    provider: str
    model: str
    waited_s: float
    limit: str = ""


class FellBack(Event):
    """The next model of the chain takes over."""

    provider: str
    model: str
    next_provider: str
    next_model: str
    why: str


class BreakerChanged(Event):
    """A model's circuit breaker moved to `state`: closed, open or half_open."""

    provider: str
    model: str
    state: str


class TextDelta(Event):
    """A piece of the model's text."""

    text: str


class ThinkingDelta(Event):
    """A piece of the model's reasoning."""

    text: str


class StreamRestarted(Event):
    """The pieces since the step began are void; the text comes again."""

    reason: str


class ModelFinished(Event):
    """The model's turn is complete."""

    step: int
    response: LLMResponse


class Thought(Event):
    """Why the model acts."""

    step: int
    text: str


class ToolStarted(Event):
    """A tool call begins."""

    step: int
    tool: str
    input: dict[str, Any] | str
    call_id: str


class ApprovalRequested(Event):
    """A tool call waits for a decision; the run pauses when nothing else of the turn is left to do."""

    step: int
    tool: str
    input: dict[str, Any] | str
    call_id: str


class ToolFinished(Event):
    """A tool call ended in an observation."""

    step: int
    tool: str
    call_id: str
    content: str
    is_error: bool
    elapsed_s: float


class RetrievalStarted(Event):
    """
    A collection of documents is asked for the `k` best passages, or for so many rows of its graph.

    `operation` is "search", "retrieve" (with what a graph and a reranker add) or "query" (Cypher), `query` what it is
    asked.
    """

    operation: str
    collection: str
    query: str
    k: int


class RetrievalFinished(Event):
    """
    What a collection was asked, the event `started` (its `seq`) tells: it has answered, or could not.

    `found` is how many passages or rows there were, `scores` the score of each passage by the id of its chunk, `error`
    why there is no answer. `stages` are its steps, such as "embed", "dense", "lexical", "graph" and "rerank"; what of
    them asks a model is told by the events of its requests, too.
    """

    operation: str
    collection: str
    started: int
    elapsed_s: float
    found: int = 0
    scores: dict[str, float] = {}
    stages: Sequence[Stage] = ()
    error: str = ""


class Abandoned(Event):
    """Something ignored its cancellation and was left behind: a tool, a memory call, a model request."""

    what: str
    name: str
    call_id: str


class AbandonedEnded(Event):
    """What was left behind has ended after all, `late_s` seconds later; told only while its run goes on."""

    what: str
    name: str
    call_id: str
    late_s: float


class LoopBlocked(Event):
    """
    The event loop could do nothing for `blocked_s` seconds, the deadlines of all its runs included.

    `tool` and `call_id` name the call that blocked it, where it was one; `stack` is where it stood, and `place` the
    innermost line of it that is neither ours nor a library's: `refresh (app.py:12)`. `interrupted`: it would have held
    the loop longer, and was interrupted.
    """

    tool: str
    call_id: str
    blocked_s: float
    stack: str
    place: str = ""
    interrupted: bool = False

    @property
    def who(self) -> str:
        """What blocked it, as well as is known."""
        return self.tool or self.place or "something"


class LimitReached(Event):
    """Exploration ends; the model gets its last word."""

    stop_reason: str
    why: str


class Warned(Event):
    """Something an operator should know that does not end the run."""

    message: str


class RunFinished(Event):
    """The run ended; always the last event."""

    result: AgentResult


AgentEvent = (
    RunStarted
    | MemoryLoaded
    | MemoryCompacted
    | MemoryStored
    | StepStarted
    | AttemptStarted
    | ModelAsked
    | AttemptFinished
    | RetryScheduled
    | LimitWaited
    | FellBack
    | BreakerChanged
    | TextDelta
    | ThinkingDelta
    | StreamRestarted
    | ModelFinished
    | Thought
    | ToolStarted
    | ApprovalRequested
    | ToolFinished
    | RetrievalStarted
    | RetrievalFinished
    | Abandoned
    | AbandonedEnded
    | LoopBlocked
    | LimitReached
    | Warned
    | RunFinished
)

EventSink = Callable[[AgentEvent], None]
"""Takes an event, at once and without blocking."""


def wants_requests(sink: EventSink) -> bool | Literal["options"]:
    """
    Whether a listener is told what models are asked (`ModelAsked`), too: it says so in an attribute of this name.

    One to whom the options of requests are enough says "options": where nobody wants more, messages are not compared.
    """
    wants: bool | Literal["options"] = getattr(sink, "wants_requests", False)
    return wants


def listens(sink: EventSink) -> bool:
    """Whether a listener hears of a run that begins: one that could tell nobody says so in `listens`."""
    return bool(getattr(sink, "listens", True))


class WithRequests:
    """A listener that is told what models are asked, too."""

    __slots__ = ("_sink",)
    wants_requests = True

    def __init__(self, sink: EventSink) -> None:
        self._sink = sink

    def __call__(self, event: AgentEvent) -> None:
        """Take an event."""
        self._sink(event)


_decoder = msgspec.json.Decoder(AgentEvent)


def decode_event(line: str | bytes) -> AgentEvent:
    """
    Read one line of a run record.

    Raises:
        msgspec.DecodeError: the line is no event.

    """
    event: AgentEvent = _decoder.decode(line)
    return event
