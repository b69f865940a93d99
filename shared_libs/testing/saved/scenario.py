"""A run as a scenario that plays it again: what each model said, what each tool saw, what went wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from shared_libs.atomic import events as e
from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.events import AgentEvent, ModelAsked
from shared_libs.atomic.types import Message
from shared_libs.atomic.whole import whole_data
from shared_libs.observability.runs.requests import whole_requests
from shared_libs.testing.saved.own import Try, tries

FAULTS = {
    "connection": "connection_refused",
    "timeout": "silence",
    "rate_limited": "rate_limited",
    "unavailable": "server_error",
    "malformed": "malformed_body",
    "interrupted": "cut",
    "authentication": "unauthorized",
    "model_not_found": "model_missing",
    "bad_request": "bad_request",
    "context_overflow": "context_too_long",
    "content_filter": "content_filter",
}
"""Failures by the kind of their error, as faults of a scenario."""

LATE_S = 600.0
"""Seconds after which a model would have answered that was given up."""

SHORTEST_S = 1.0
"""Seconds from which on a scenario says how long something took."""

NOT_OF_THE_TOOL = ("[not run: ", "Invalid arguments for ")
"""How an observation begins that the runtime made without asking the tool, as it will again."""

_NOT_IN_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_PLAIN_KEY = re.compile(r"[a-z_]+")


def saved_scenario(events: Sequence[AgentEvent], *, definition: str, cassette: str | None = None) -> str:
    """
    Return a scenario's file that plays a run again.

    Args:
        events: those of the run, and what its models were asked, where that is kept: then a session's history is known.
        definition: the file of the agent's definition, relative to the scenario's.
        cassette: the file of its cassette, which its models answer from instead of a script.

    Raises:
        MisuseError: the run has no beginning, no end, or was kept without contents; or its models are to answer from a
            cassette, and were asked more than a scenario can ask.

    """
    began = next((event for event in events if isinstance(event, e.RunStarted)), None)
    ended = next((event for event in reversed(events) if isinstance(event, e.RunFinished)), None)
    if began is None or ended is None:
        raise MisuseError("this run has not ended: there is nothing to play again yet")
    if not began.question:
        raise MisuseError("this run was kept without contents: what was asked and said is not known")
    if cassette and _asked_more(began, events):
        raise MisuseError(
            "the question had images or messages of its own, which a scenario cannot ask: nothing would be as in the "
            "cassette: save the scenario without it, or the cassette alone"
        )
    mine = tries(events)
    scenario = {
        "scenario": f"a run of {began.agent}, played again",
        "agent": definition,
        "question": began.question,
        "timeout_s": began.timeout_s,
        "session": _session(began, events),
        "cassette": cassette,
        "models": {} if cassette else _models(mine),
        "tools": _tools(events),
        "faults": [] if cassette else _faults(mine),
        "expect": _expected(events, mine, ended),
    }
    lines = [_yaml(key, value) for key, value in scenario.items() if value]
    return "\n".join([*lines, ""])


def _asked_more(began: e.RunStarted, events: Iterable[AgentEvent]) -> bool:
    """Whether the first request has more than the question and what a session knew."""
    first = next((event for event in events if isinstance(event, ModelAsked)), None)
    said = [] if first is None else [message for message in first.messages if message.role != "system"]
    images = any(not isinstance(message.content, str) for message in said)
    return images or (began.session_id is None and len(said) > 1)


def _session(began: e.RunStarted, events: Iterable[AgentEvent]) -> dict[str, Any] | None:
    """The conversation that the question was part of: what stood before it in the first request."""
    if began.session_id is None:
        return None
    first = next(iter(whole_requests(event for event in events if isinstance(event, ModelAsked))), None)
    before = [] if first is None else [message for message in first.messages if message.role != "system"][:-1]
    if not all(isinstance(message.content, str) and message.role != "system" for message in before):
        before = []  # images cannot stand in a scenario
    told = {"id": began.session_id, "history": [_told(message) for message in before]}
    return told if before else {"id": began.session_id}


def _told(message: Message) -> dict[str, Any]:
    told = message.to_dict()
    told.pop("thinking", None)
    return told


def _models(mine: Sequence[Try]) -> dict[str, list[Any]]:
    models: dict[str, list[Any]] = {}
    contest = any(one.ended is not None and one.ended.outcome == "cancelled" for one in mine)  # which is won by time
    for one in mine:
        if one.ended is not None and one.ended.outcome == "cancelled":
            models.setdefault(one.model, []).append({"text": "too late", "delay_s": LATE_S})
        if (response := one.response) is None or one.ended is None:
            continue
        turn: dict[str, Any] = {}
        if response.text:
            turn["text"] = response.text
        if response.tool_calls:
            turn["calls"] = [{"tool": call.name, "input": call.input} for call in response.tool_calls]
        first_s = (one.ended.first_token_s or one.ended.ended_s) - one.ended.started_s
        if contest or first_s >= SHORTEST_S:
            turn["delay_s"] = round(first_s, 3)
        if (usage := response.usage).input_tokens or usage.output_tokens:
            turn["usage"] = {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}
        models.setdefault(one.model, []).append(turn)
    return models


def _tools(events: Sequence[AgentEvent]) -> dict[str, list[dict[str, Any]]]:
    tools: dict[str, list[dict[str, Any]]] = {}
    began: dict[str, tuple[float, dict[str, Any]]] = {}
    asked = [event for event in events if isinstance(event, ModelAsked)]
    offered = {tool.name for one in asked for tool in one.tools or ()}
    made = {
        event.call_id
        for event in events
        if isinstance(event, e.ToolFinished) and event.is_error and event.content.startswith(NOT_OF_THE_TOOL)
    }
    for event in events:
        if isinstance(event, e.ToolStarted):
            if event.call_id in made or (offered and event.tool not in offered):
                continue
            outcome: dict[str, Any] = {}
            tools.setdefault(event.tool, []).append(outcome)
            began[event.call_id] = event.at_s, outcome
        elif isinstance(event, e.ToolFinished) and event.call_id in began:
            at_s, outcome = began[event.call_id]
            outcome["error" if event.is_error else "result"] = event.content
            if event.at_s - at_s >= SHORTEST_S:
                outcome["delay_s"] = round(event.at_s - at_s, 3)
    return tools


def _faults(mine: Iterable[Try]) -> list[dict[str, Any]]:
    faults = []
    for one in mine:
        if one.ended is None or (name := FAULTS.get(one.ended.outcome)) is None:
            continue
        fault: dict[str, Any] = {"on": f"model {one.model}", "fault": name, "attempts": [one.number]}
        if name == "server_error" and one.ended.status_code:
            fault["status"] = one.ended.status_code
        if one.told_s is not None:
            fault["retry_after_s"] = round(one.told_s, 3)
        faults.append(fault)
    return faults


def _expected(events: Iterable[AgentEvent], mine: Sequence[Try], ended: e.RunFinished) -> dict[str, Any]:
    result = ended.result
    expect: dict[str, Any] = {"status": result.status, "stop_reason": result.stop_reason}
    said = next((one.response.text for one in reversed(mine) if one.response is not None), "")
    if result.answer and result.status == "answered":
        # a rehearsal says more than its model did
        expect["answer"] = {"contains": said} if said and said in result.answer else result.answer
    expect["tools"] = {"exact": [event.tool for event in events if isinstance(event, e.ToolStarted)]}
    expect["attempts"] = {one.model: sum(other.model == one.model for other in mine) for one in mine}
    return expect


def _yaml(key: str, value: Any, indent: str = "") -> str:
    """Write a key and its value: mappings and lists as lines, what is small or a text as JSON, which YAML reads too."""
    head = f"{indent}{key if _PLAIN_KEY.fullmatch(key) else _json(key)}:"
    if isinstance(value, list) and value:
        return "\n".join([head, *(f"{indent}- {_json(each)}" for each in value)])
    if isinstance(value, dict) and value:
        return "\n".join([head, *(_yaml(str(name), its, f"{indent}  ") for name, its in value.items())])
    return f"{head} {_json(value)}"


def _json(value: Any) -> str:
    text = json.dumps(whole_data(value), ensure_ascii=False)
    return _NOT_IN_YAML.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
