"""Events and results without what stands in a fact already, and whole again: nothing is written twice."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

from shared_libs.atomic.events import AgentEvent, ModelFinished, RunFinished, ToolFinished
from shared_libs.atomic.results import AgentResult

_LONGEST = 200


def kept_name(name: str) -> str:
    """Return a name as every database can keep and index it: a long one, as some servers' ids are, by its hash."""
    if len(name) <= _LONGEST and name.isprintable():
        return name
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return "".join(filter(str.isprintable, name[:40])) + "~" + digest


def folded(event: AgentEvent, contents: Mapping[str, str], answers: Mapping[int, str]) -> Any:
    """
    Return an event as it is written.

    `contents` are the observations that are facts, by call id, and `answers` the names of those of the model, by step.
    The result of a run stands with the job.
    """
    if isinstance(event, ToolFinished) and contents.get(event.call_id) == event.content:
        return msgspec.to_builtins(event) | {"content": None}
    if isinstance(event, ModelFinished) and event.step in answers:
        data = msgspec.structs.asdict(event) | {"response": {"fact": answers[event.step]}}
        return {"type": "model_finished"} | data
    if isinstance(event, RunFinished):
        data = {"run_id": event.run_id, "seq": event.seq, "at_s": event.at_s}
        ended = None if event.result.status != "paused" else folded_result(event.result, contents)
        return {"type": "run_finished"} | data | {"result": ended}
    return event


def folded_result(result: AgentResult, contents: Mapping[str, str]) -> dict[str, Any]:
    """Return a result as it is written: without observations that are facts, and without the state of a pause."""
    data = msgspec.to_builtins(msgspec.structs.replace(result, state=None))
    for step in data["steps"]:
        for row in step["observations"]:
            if contents.get(row["call_id"]) == row["content"]:
                row["content"] = None
    whole: dict[str, Any] = data
    return whole


def holes(data: Mapping[str, Any]) -> list[str]:
    """Return the names of the facts that an event or a result as it is written lacks."""
    kind = data.get("type")
    if kind == "tool_finished":
        return [_tool(data)] if data["content"] is None else []
    if kind == "model_finished":
        return [data["response"]["fact"]] if set(data["response"]) == {"fact"} else []
    result = data.get("result") if kind == "run_finished" else data
    return [_tool(row) for row in _rows(result) if row["content"] is None]


def unfolded(data: dict[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Make an event or a result whole; of a fact that is gone there is nothing left."""
    if data.get("type") == "model_finished":
        if names := holes(data):
            data["response"] = facts.get(names[0], {"text": ""})
        return data
    result = data.get("result") if data.get("type") == "run_finished" else data
    for row in [data] if data.get("type") == "tool_finished" else _rows(result):
        if row["content"] is None:
            row["content"] = facts.get(_tool(row), {}).get("content", "")
    return data


def _tool(row: Mapping[str, Any]) -> str:
    return kept_name(f"tool.{row['call_id']}")


def _rows(result: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    return [row for step in (result or {}).get("steps", ()) for row in step["observations"]]
