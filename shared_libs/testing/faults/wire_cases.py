"""
What real model servers put on the wire, byte by byte: the cases in `cases/`, each under its name.

The same files are what our own adapters are tested with; their format stands in `tests/wire_cases/README.md`. Here only
what a server does counts (`server`): which answer to which request, and what a request must have to get it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from shared_libs.testing.faults.wire import Play, Step, Then

FOLDER = Path(__file__).parent / "cases"
USAGE = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}

Case = dict[str, Any]

PATHS: Mapping[str, tuple[str, ...]] = {
    "chat": ("/v1/chat/completions", "/v1/embeddings"),
    "responses": ("/v1/responses",),
    "anthropic": ("/v1/messages",),
    "ollama": ("/api/chat", "/api/embed"),
}
"""Where the APIs of cases are served."""

_EACH = "$each"
_LINES = {"ollama": "application/x-ndjson"}


@cache
def wire_cases() -> Mapping[str, Case]:
    """Every case by its name."""
    return {case["id"]: case for file in sorted(FOLDER.glob("*.yaml")) for case in read_cases(file)}


def no_case(name: str) -> str:
    """What to say of a name that no case has."""
    known = {known: None for full in wire_cases() for known in (full, full.partition("[")[0])}
    near = get_close_matches(name, known, 3, 0.5)
    return f"there is no case {name!r} of a real server" + (f": is it {' or '.join(near)}?" if near else "")


def read_cases(file: Path) -> list[Case]:
    """The cases of a file, those with `each` once for each."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same in C
    items = yaml.load(file.read_text("utf-8"), loader)  # noqa: S506 - both are safe
    return [case for item in items for case in _each(item)]


def answered(api: str, answer: Mapping[str, Any], body: Any, path: str = "") -> Play:
    """
    What a server sends, in the format of an API, in answer to a request.

    Args:
        api: `chat`, `responses`, `anthropic` or `ollama`.
        answer: as it stands in a case.
        body: of the request, as JSON.
        path: of the request.

    """
    wrong = [why for wanted in answer.get("when", ()) if (why := unmet(wanted, body, path))]
    if wrong:
        refused = {"status": 400, "body": {"error": {"message": "; ".join(wrong)}}}
        return _play(api, answer.get("else", refused))
    return _play(api, answer)


def unmet(wanted: Mapping[str, Any], body: Any, path: str = "") -> str:
    """Why a request does not do what is wanted, or "" if it does."""
    place = at(body, wanted["at"]) if "at" in wanted else body
    text = json.dumps(place, ensure_ascii=False)
    if "is" in wanted and place != wanted["is"]:
        return f"{wanted['at']} must be {wanted['is']!r} and is {place!r}"
    for word in listed(wanted.get("has", ())):
        if word not in text:
            return f"{word!r} is missing in {wanted.get('at', 'the request')}"
    for word in listed(wanted.get("lacks", ())):
        if word in text:
            return f"{word!r} must not stand in {wanted.get('at', 'the request')}"
    if "path" in wanted and path != wanted["path"]:
        return f"the path is {path}"
    return ""


def at(node: Any, path: str) -> Any:
    """What stands at a place, such as `messages.1.role`, or None."""
    for step in path.split("."):
        try:
            node = node[int(step)] if isinstance(node, list) else node[step]
        except (KeyError, IndexError, TypeError, ValueError):
            return None
    return node


def listed(value: Any) -> Iterable[str]:
    """A text alone, or several."""
    return [value] if isinstance(value, str) else value


def _each(item: Case) -> Iterator[Case]:
    """The case, or one for every member of `each`, by name or by value."""
    each = item.get("each")
    if each is None:
        yield item
        return
    members = each.items() if isinstance(each, Mapping) else ((str(value), value) for value in each)
    for name, value in members:
        yield _filled(item, value) | {"id": f"{item['id']}[{name}]", "each": value}


def _filled(node: Any, value: Any) -> Any:
    if node == _EACH:
        return value
    if isinstance(node, str) and node.startswith(f"{_EACH}."):
        return at(value, node.removeprefix(f"{_EACH}."))
    if isinstance(node, Mapping):
        filled = {key: _filled(inner, value) for key, inner in node.items() if key != _EACH}
        return filled | (value if _EACH in node else {})
    if isinstance(node, list):
        return [_filled(inner, value) for inner in node]
    if isinstance(node, str) and isinstance(value, str):
        return node.replace(_EACH, value)
    return node


def _play(api: str, answer: Mapping[str, Any]) -> Play:
    """An answer as bytes."""
    status, headers = answer.get("status", 200), dict(answer.get("headers", {}))
    if "stream" in answer:
        kind = answer.get("type", _LINES.get(api, "text/event-stream"))
        pieces = [_event(api, event) for event in answer["stream"]]
        if api == "chat" and answer.get("done", True):
            pieces.append(b"data: [DONE]\n\n")
        return _sent(status, kind, headers, pieces, answer.get("framing", "chunked"), answer.get("then", "keep"))
    body: Any = answer.get("text")
    if body is None and "whole" in answer:
        body = _whole(api, dict(answer["whole"]))
    if body is None:
        body = answer.get("body")
    raw = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else json.dumps(body).encode()
    then, framing = answer.get("then", "keep"), answer.get("framing", "length")
    return _sent(status, answer.get("type", "application/json"), headers, [raw], framing, then)


def _event(api: str, event: Any) -> Step:
    if isinstance(event, str):
        return event.encode("utf-8", "surrogatepass")
    if event.keys() == {"pause"}:
        return float(event["pause"])
    if event.keys() == {"repeat", "times"}:
        once = _event(api, event["repeat"])
        return b"".join([once] * event["times"]) if isinstance(once, bytes) else once * event["times"]
    if event.keys() <= {"delta", "finish"} and api == "chat":
        event = {
            "id": "x",
            "object": "chat.completion.chunk",
            "model": "m",
            "choices": [{"index": 0, "delta": event.get("delta", {}), "finish_reason": event.get("finish")}],
        }
    data = json.dumps(event)
    if api == "ollama":
        return f"{data}\n".encode()
    named = f"event: {event['type']}\n" if api in {"anthropic", "responses"} else ""
    return f"{named}data: {data}\n\n".encode()


def _whole(api: str, message: dict[str, Any]) -> dict[str, Any]:
    """A whole answer; of chat completions its message, the rest being what it usually is."""
    if api == "anthropic" and "content" in message:
        content = message.pop("content")
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        calls = any(block.get("type") == "tool_use" for block in blocks)
        usage = {"input_tokens": 5, "output_tokens": 3}
        reason = "tool_use" if calls else "end_turn"
        return {"type": "message", "model": "m", "content": blocks, "stop_reason": reason, "usage": usage} | message
    if api != "chat":
        return message
    beside = message.pop("beside", {})
    choice = message.pop("choice", {})
    finish = message.pop("finish", "tool_calls" if message.get("tool_calls") else "stop")
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish} | choice
    whole = {"id": "x", "object": "chat.completion", "model": "m", "choices": [choice], "usage": USAGE}
    return {**whole, **beside}


def _sent(status: int, kind: str, headers: Mapping[str, str], pieces: Sequence[Step], framing: str, then: Then) -> Play:
    lines = [f"HTTP/1.1 {status} Told", f"Content-Type: {kind}", *(f"{name}: {told}" for name, told in headers.items())]
    sent = list(pieces)
    if framing == "chunked":
        lines.append("Transfer-Encoding: chunked")
        sent = [
            b"%x\r\n%s\r\n" % (len(piece), piece) if isinstance(piece, bytes) else piece for piece in pieces if piece
        ]
        if then == "keep":
            sent.append(b"0\r\n\r\n")
    elif framing == "length":
        lines.append(f"Content-Length: {sum(len(piece) for piece in pieces if isinstance(piece, bytes))}")
    else:
        lines.append("Connection: close")
        then = "close" if then == "keep" else then
    return Play((("\r\n".join(lines) + "\r\n\r\n").encode(), *sent), then)
