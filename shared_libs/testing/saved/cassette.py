"""A run as a cassette: what its models were asked and what came of it, so that the same requests have the same end."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from shared_libs.atomic.addresses import without_addresses
from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.events import AgentEvent, ModelAsked
from shared_libs.atomic.llms.lessons import TOLD_IN_WORDS
from shared_libs.atomic.resilience.attempt import GIVEN_UP
from shared_libs.atomic.types import Attempt, LLMChunk, LLMResponse, ToolCall
from shared_libs.observability.runs.contents import is_cut
from shared_libs.observability.runs.requests import whole_requests
from shared_libs.testing.cassettes import pieces
from shared_libs.testing.cassettes.data import Came, Cassette, Entry, Failure, Numbers, answered, asked, failure_of
from shared_libs.testing.cassettes.secrets import Secrets
from shared_libs.testing.saved.own import Try, tries


def saved_cassette(events: Sequence[AgentEvent], secrets: Secrets | None = None) -> Cassette:
    """
    Return the cassette of a run: of its own turns, since what its tools saw stands in its scenario.

    Args:
        events: those of the run, and what its models were asked.
        secrets: what is hidden in it.

    Raises:
        MisuseError: what was asked or answered is not kept, or not whole; says which request.

    """
    hide = secrets or Secrets()
    whole = whole_requests(event for event in events if isinstance(event, ModelAsked))
    known = {request.seq: request for request in whole}
    mine = tries(events)
    if not mine:
        raise MisuseError("no model was asked in this run: there is nothing to replay")
    entries = []
    for number, one in enumerate(mine, 1):
        request = known.get(one.began.seq)
        if request is None or request.base is not None:
            raise MisuseError(
                f"request {number} ({one.model}): what it was asked is not kept: the run was recorded without contents "
                "or by an older version"
            )
        if any(map(is_cut, request.messages)):
            raise MisuseError(f"request {number} ({one.model}): a message was too long to be kept whole")
        told, numbers = asked(one.model, request.messages, request.tools or (), request.options or {}, hide)
        entries.append(Entry(told, _came(one, number, request, whole, numbers, hide)))
    return Cassette(tuple(entries))


def _came(
    one: Try, number: int, request: ModelAsked, whole: Sequence[ModelAsked], numbers: Numbers, hide: Secrets
) -> Came:
    ended = one.ended
    if ended is None or ended.outcome == "cancelled" or (ended.outcome == "timeout" and ended.why.startswith(GIVEN_UP)):
        return Came(after_s=0.0 if ended is None else _after(ended, ended.ended_s), given_up=True)
    after_s = _after(ended, ended.ended_s)
    if ended.outcome != "ok":
        came = Came(after_s=after_s, failure=_failure(one, ended, hide))
        return came if ended.first_token_s is None else _in_pieces(came, ended, ())
    response = one.response or _said_later(request, whole)
    if response is None:
        raise MisuseError(f"request {number} ({one.model}): what it answered is not kept, as of a summary of a session")
    came = answered(response, numbers, hide, after_s)
    came = came if ended.usage is None else msgspec.structs.replace(came, usage=ended.usage)
    streamed = ended.first_token_s is not None and ended.first_token_s < ended.ended_s
    return _in_pieces(came, ended, response.tool_calls) if streamed else came


def _failure(one: Try, ended: Attempt, hide: Secrets) -> Failure:
    failure = failure_of(
        ended.outcome,
        hide.hidden_text(without_addresses(ended.why)),
        status_code=ended.status_code,
        again=one.again,
        retry_after_s=one.told_s,
        goes_on=one.next,
        usage=ended.usage,
    )
    refused = TOLD_IN_WORDS in ended.why
    return msgspec.structs.replace(failure, tools_refused=True, learnt=True) if refused else failure


def _in_pieces(came: Came, ended: Attempt, calls: Sequence[ToolCall]) -> Came:
    """The answer as one piece of each kind: how it was cut is not kept, when it began and ended is."""
    first_s = _after(ended, ended.first_token_s or ended.started_s)
    parts = [("thinking", "".join(block.text for block in came.thinking)), ("text", came.text)]
    taken = [pieces.Piece(first_s, LLMChunk(kind, text)) for kind, text in parts if text]  # type: ignore[arg-type]
    taken = taken or [pieces.Piece(first_s, LLMChunk("text"))]
    taken += [pieces.Piece(came.after_s, LLMChunk("tool_call", tool_call=call)) for call in calls]
    return msgspec.structs.replace(came, pieces=pieces.written(taken))


def _said_later(asked_before: ModelAsked, whole: Sequence[ModelAsked]) -> LLMResponse | None:
    """An answer that was sent back, such as one of the wrong shape: the request that goes on from it has it."""
    place = len(asked_before.messages)
    for request in whole:
        if request.seq > asked_before.seq and request.messages[:place] == asked_before.messages:
            for message in request.messages[place : place + 1]:
                if message.role == "assistant":
                    return LLMResponse(text=message.text, tool_calls=message.tool_calls, thinking=message.thinking)
    return None


def _after(ended: Attempt, at_s: float) -> float:
    return round(at_s - ended.started_s, 3)
