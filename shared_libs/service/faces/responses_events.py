"""
The grammar of a streamed response, as a machine that can write nothing else.

::

    created → (queued →) in_progress → item* → completed | incomplete | failed | cancelled
    item      = output_item.added → its parts → output_item.done; one is open at a time
    message   = content_part.added → output_text.delta* → output_text.done → content_part.done
    reasoning = reasoning_summary_part.added → …_text.delta* → …_text.done → …_part.done
    call      = function_call_arguments.delta → .done
    mcp call  = mcp_call.in_progress → mcp_call_arguments.delta → .done → mcp_call.completed | failed

Events are numbered from 0 without a gap. Whoever comes back finds all of them, and the response as it stands.
"""

from __future__ import annotations

import re
import time
from typing import Any

import msgspec

from shared_libs.atomic.types import ToolCall, Usage
from shared_libs.service.faces.wanted import Began, Called, Ended, Outcome, Piece, Said, Thought
from shared_libs.service.problems import Problem

LABEL = "factory"
"""The server label under which an agent's own tools show: they are items of the kind that a server's tools have."""

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}

_CODES = {
    "rate_limited": "rate_limit_exceeded",
    "upstream_rate_limited": "rate_limit_exceeded",
    "invalid_request": "invalid_prompt",
    "context_length_exceeded": "context_length_exceeded",
    "budget_exhausted": "insufficient_quota",
    "upstream_quota_spent": "insufficient_quota",
}
"""What OpenAI calls a failure; anything else is a `server_error`, and the message says which."""

_UNDER_WAY = ("queued", "in_progress")

_ITEM_ID = re.compile(r"[a-z]+_([0-9a-f]{32})[io][0-9a-f]{1,6}")

Event = dict[str, Any]
Item = dict[str, Any]


class ResponseEvents:
    """
    A response as it comes about.

    Args:
        id: names it.
        model: what the client asked for.
        echo: what of the request the response repeats.

    """

    def __init__(self, id: str, model: str, echo: dict[str, Any]) -> None:
        self.id = id
        self.events: list[Event] = []
        self.ended = False
        self._output: list[dict[str, Any]] = []
        self._item: dict[str, Any] | None = None
        self._tools: dict[str, tuple[Began, Ended | None]] = {}
        self._response: dict[str, Any] = {
            "id": id,
            "object": "response",
            "created_at": int(time.time()),
            "status": "in_progress",
            "error": None,
            "incomplete_details": None,
            "model": model,
            "usage": None,
            **echo,
        }

    @classmethod
    def restored(cls, response: dict[str, Any], events: list[Event]) -> ResponseEvents:
        """Return a response as it was kept; the last event of one that has ended is its end."""
        made = cls(response["id"], response["model"], {})
        made.events, made._output = events, list(response["output"])
        made._response = {name: value for name, value in response.items() if name != "output"}
        made.ended = response["status"] not in _UNDER_WAY
        return made

    @property
    def response(self) -> dict[str, Any]:
        """The response as it stands."""
        return self._response | {"output": list(self._output)}

    @property
    def status(self) -> str:
        """How it stands."""
        return str(self._response["status"])

    def begin(self) -> None:
        """Begin; nothing where it has begun."""
        if not self.events:
            self._emit("response.created", response=self.response)
            self._emit("response.in_progress", response=self.response)

    def take(self, piece: Piece) -> None:
        """Add a piece; nothing comes behind an outcome."""
        if self.ended:
            return
        self.begin()
        match piece:
            case Said(text):
                self._flush_tools()
                self._say(text)
            case Thought(text) if text:
                self._flush_tools()
                self._think(text)
            case Called(call):
                self._flush_tools()
                self._call(call)
            case Began():
                self._close()
                self._tools[piece.call_id] = piece, None
                if len(self._tools) == 1:
                    self._open_tool(piece)
            case Ended():
                self._end_tool(piece)
            case Outcome():
                self._finish(piece)

    def fail(self, problem: Problem) -> None:
        """End it for a failure."""
        if not self.ended:
            self.begin()
            error = {"code": _CODES.get(problem.code, "server_error"), "message": problem.detail}
            self._end("failed", error=error, factory={"code": problem.code} | problem.facts)

    def cancel(self) -> None:
        """End it because its client wants no more of it."""
        if not self.ended:
            self.begin()
            self._end("cancelled")

    def _emit(self, kind: str, **fields: Any) -> None:
        self.events.append({"type": kind, "sequence_number": len(self.events), **fields})

    def _new_id(self, kind: str) -> str:
        return item_id(kind, self.id, f"o{len(self._output):x}")

    def _open(self, item: dict[str, Any]) -> None:
        self._close()
        self._item = item
        self._output.append(item)
        self._emit("response.output_item.added", output_index=self._at, item=_copy(item))

    @property
    def _at(self) -> int:
        return len(self._output) - 1

    def _say(self, text: str) -> None:
        item = self._item
        if item is None or item["type"] != "message":
            item = {
                "id": self._new_id("msg"),
                "type": "message",
                "status": "in_progress",
                "role": "assistant",
                "content": [],
            }
            self._open(item)
            item["content"].append({"type": "output_text", "text": "", "annotations": [], "logprobs": []})
            self._part(item, "response.content_part.added", content_index=0, part=_copy(item["content"][0]))
        item["content"][0]["text"] += text
        self._part(item, "response.output_text.delta", content_index=0, delta=text, logprobs=[])

    def _think(self, text: str) -> None:
        item = self._item
        if item is None or item["type"] != "reasoning":
            item = {"id": self._new_id("rs"), "type": "reasoning", "status": "in_progress", "summary": []}
            self._open(item)
            item["summary"].append({"type": "summary_text", "text": ""})
            part = _copy(item["summary"][0])
            self._part(item, "response.reasoning_summary_part.added", summary_index=0, part=part)
        item["summary"][0]["text"] += text
        self._part(item, "response.reasoning_summary_text.delta", summary_index=0, delta=text)

    def _call(self, call: ToolCall) -> None:
        item = {
            "id": self._new_id("fc"),
            "type": "function_call",
            "status": "in_progress",
            "call_id": call.id,
            "name": call.name,
            "arguments": "",
        }
        self._open(item)
        item["arguments"] = call.arguments_json()
        self._part(item, "response.function_call_arguments.delta", delta=item["arguments"])
        self._close()

    def _open_tool(self, began: Began) -> None:
        item = {
            "id": self._new_id("mcp"),
            "type": "mcp_call",
            "status": "in_progress",
            "server_label": LABEL,
            "name": began.tool,
            "arguments": "",
            "output": None,
            "error": None,
        }
        self._open(item)
        self._part(item, "response.mcp_call.in_progress")
        given = began.input if isinstance(began.input, str) else msgspec.json.encode(began.input).decode()
        item["arguments"] = given
        self._part(item, "response.mcp_call_arguments.delta", delta=given)
        self._part(item, "response.mcp_call_arguments.done", arguments=given)

    def _end_tool(self, ended: Ended) -> None:
        """Calls that are done at once show one behind the other: the next opens when the one before has ended."""
        if ended.call_id not in self._tools:
            return
        self._tools[ended.call_id] = self._tools[ended.call_id][0], ended
        while self._tools:
            call_id, (_, end) = next(iter(self._tools.items()))
            if end is None:
                return
            self._close_tool(end)
            del self._tools[call_id]
            if self._tools:
                self._open_tool(next(iter(self._tools.values()))[0])

    def _close_tool(self, ended: Ended | None) -> None:
        item = self._item
        assert item is not None
        failed = ended is None or ended.is_error
        content = "it was given up" if ended is None else ended.content
        item["status"] = "failed" if failed else "completed"
        if failed:
            item["error"] = {"type": "mcp_tool_execution_error", "content": [{"type": "text", "text": content}]}
        else:
            item["output"] = content
        self._part(item, f"response.mcp_call.{item['status']}")
        self._done(item)

    def _flush_tools(self) -> None:
        """End calls that have been given up."""
        while self._tools:
            call_id, (_, ended) = next(iter(self._tools.items()))
            self._close_tool(ended)
            del self._tools[call_id]
            if self._tools:
                self._open_tool(next(iter(self._tools.values()))[0])

    def _part(self, item: dict[str, Any], kind: str, **fields: Any) -> None:
        self._emit(kind, item_id=item["id"], output_index=self._at, **fields)

    def _close(self, status: str = "completed") -> None:
        """End the item that is open, if one is."""
        item = self._item
        if item is None:
            return
        if item["type"] == "mcp_call":
            self._flush_tools()
            return
        item["status"] = status
        if item["type"] == "message":
            part = item["content"][0]
            self._part(item, "response.output_text.done", content_index=0, text=part["text"], logprobs=[])
            self._part(item, "response.content_part.done", content_index=0, part=_copy(part))
        elif item["type"] == "reasoning":
            part = item["summary"][0]
            self._part(item, "response.reasoning_summary_text.done", summary_index=0, text=part["text"])
            self._part(item, "response.reasoning_summary_part.done", summary_index=0, part=_copy(part))
        else:
            name, given = item["name"], item["arguments"]
            self._part(item, "response.function_call_arguments.done", name=name, arguments=given)
        self._done(item)

    def _done(self, item: dict[str, Any]) -> None:
        self._emit("response.output_item.done", output_index=self._at, item=_copy(item))
        self._item = None

    def _finish(self, outcome: Outcome) -> None:
        self._flush_tools()
        reason = _INCOMPLETE.get(outcome.finish)
        if not self._output or (not outcome.text and not outcome.calls and not self._said):
            self._say("")
        self._close("incomplete" if reason else "completed")
        facts: dict[str, Any] = {"factory": outcome.facts} if outcome.facts else {}
        if reason and (stop := outcome.facts.get("stop_reason")):
            facts["metadata"] = {**self._response["metadata"], "factory_stop_reason": str(stop)}
        details = {"reason": reason} if reason else None
        self._end(
            "incomplete" if reason else "completed", incomplete_details=details, usage=usage_of(outcome.usage), **facts
        )

    @property
    def _said(self) -> bool:
        return any(item["type"] == "message" for item in self._output)

    def _end(self, status: str, **fields: Any) -> None:
        self._flush_tools()
        self._close("incomplete")
        self._response |= {"status": status, **fields}
        if status == "completed":
            self._response["completed_at"] = int(time.time())
        self.ended = True
        # a cancelled response has no event of its own: it is incomplete for whoever follows it
        kind = "incomplete" if status == "cancelled" else status
        self._emit(f"response.{kind}", response=self.response)


def item_id(kind: str, response_id: str, place: str) -> str:
    """Name an item, so that its name tells the response in which it stands (`response_of_item`)."""
    return f"{kind}_{response_id.removeprefix('resp_')}{place}"


def response_of_item(id: str) -> str | None:
    """The response in which an item of that name stands; None: it is no name of ours."""
    found = _ITEM_ID.fullmatch(id)
    return f"resp_{found[1]}" if found else None


def usage_of(usage: Usage) -> dict[str, Any]:
    """Tokens, as the Responses API names them."""
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cached_input_tokens,
            "cache_write_tokens": usage.cache_creation_input_tokens,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.total_tokens,
    }


def _copy(item: dict[str, Any]) -> dict[str, Any]:
    """The item as it stands now: what is told is not changed any more."""
    return {name: [dict(one) for one in value] if isinstance(value, list) else value for name, value in item.items()}
