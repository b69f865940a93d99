"""
Cases of what model servers put on the wire (`tests/wire_cases/*.yaml`): bytes in, and what a client makes of them.

The format stands in `tests/wire_cases/README.md`. A case knows nothing of our classes: any client that takes a base URL
can be run against it (`Client`), and is judged by what it says it heard (`Heard`).
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from tests.wire_server import Play, Seen, WireServer

FOLDER = Path(__file__).parent / "wire_cases"
FALLBACK_SAYS = "from the fallback"
USAGE = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
_EACH = "$each"


@dataclass
class Case:
    """One case as it stands in a file; see README.md there."""

    id: str
    server: list[dict[str, Any]]
    expect: dict[str, Any]
    about: str = ""
    source: str = ""
    api: str = "chat"
    ask: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=dict)
    path: str = "/v1"
    messages: list[dict[str, Any]] | str = "Hi"
    texts: list[str] = field(default_factory=list)
    tools: list[str] = field(default_factory=list)
    limits: dict[str, Any] = field(default_factory=dict)
    protocol: str = "auto"
    output_schema: dict[str, Any] | None = None
    timeout: float = 60.0
    resilience: dict[str, Any] = field(default_factory=lambda: {"retry": {"attempts": 3, "base_s": 0}})
    fallback: bool | str | list[dict[str, Any]] = False
    each: Any = None

    def __post_init__(self) -> None:
        if not self.ask:
            self.ask = "stream" if any("stream" in answer for answer in self.server) else "chat"

    @property
    def streams(self) -> bool:
        """Whether the first answer is a stream: then a client that may choose asks for one."""
        return "stream" in self.server[0] or self.server[0].get("asked") == "stream"


@dataclass
class Heard:
    """What a client made of a case; what it cannot tell is None and is not judged."""

    text: str | None = None
    thinking: str | None = None
    calls: list[list[Any]] | None = None
    usage: dict[str, int] | None = None
    finish: str | None = None
    model: str | None = None
    parsed: Any = None
    deltas: dict[str, str] | None = None
    answer: str | None = None
    status: str | None = None
    actions: list[list[Any]] | None = None
    restarts: int | None = None
    """How often a stream of an agent said that what it had told is void."""
    vectors: list[list[float]] | None = None
    error: str | None = None
    """The kind of the error; "" where there was none."""
    words: str = ""
    """The text of the error."""
    took_s: float | None = None


Client = Callable[[Case, str, str | None], Awaitable[Heard]]
"""Asks what the case says at a base URL, with another one behind it where there is a fallback."""


def cases(*names: str) -> list[Case]:
    """The cases of the named files, or of all."""
    files = [FOLDER / f"{name}.yaml" for name in names] or sorted(FOLDER.glob("*.yaml"))
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same in C: every process of the suite reads them all
    read = [yaml.load(file.read_text("utf-8"), loader) for file in files]
    return [case for items in read for item in items for case in _each(item)]


async def judged(case: Case, client: Client) -> list[str]:
    """Run a case; return what is not as expected."""
    second = case.fallback if isinstance(case.fallback, list) else [{"whole": {"content": FALLBACK_SAYS}}] * 9
    api = case.fallback if isinstance(case.fallback, str) else case.api
    async with WireServer(_player(case.api, case.server)) as server, WireServer(_player(api, second)) as other:
        first = f"http://127.0.0.1:{server.port}{case.path}"
        heard = await client(case, first, f"http://127.0.0.1:{other.port}{_path(api)}" if case.fallback else None)
        return list(_complaints(case, heard, server.requests, other.requests))


def _path(api: str) -> str:
    return "" if api in {"anthropic", "ollama"} else "/v1"


def _each(item: dict[str, Any]) -> Iterator[Case]:
    """The case, or one for every member of `each`, by name or by value."""
    each = item.get("each")
    if each is None:
        yield _case(item)
        return
    members = each.items() if isinstance(each, Mapping) else ((str(value), value) for value in each)
    for name, value in members:
        yield _case(_filled(item, value) | {"id": f"{item['id']}[{name}]", "each": value})


def _case(item: dict[str, Any]) -> Case:
    unknown = item.keys() - {known.name for known in fields(Case)}
    assert not unknown, f"{item.get('id')}: unknown keys {sorted(unknown)}"
    if item.get("api") in {"anthropic", "ollama"}:
        item = {"path": ""} | item
    return Case(**item)


def _filled(node: Any, value: Any) -> Any:
    if node == _EACH:
        return value
    if isinstance(node, str) and node.startswith(f"{_EACH}."):
        return _at(value, node.removeprefix(f"{_EACH}."))
    if isinstance(node, Mapping):
        filled = {key: _filled(inner, value) for key, inner in node.items() if key != _EACH}
        return filled | (value if _EACH in node else {})
    if isinstance(node, list):
        return [_filled(inner, value) for inner in node]
    if isinstance(node, str) and isinstance(value, str):
        return node.replace(_EACH, value)
    return node


def _player(api: str, answers: Sequence[dict[str, Any]]) -> Callable[[Seen], Play]:
    turn = iter(answers)

    def play(request: Seen) -> Play:
        answer = next(turn, None)
        if answer is None:
            return _sent(599, "application/json", {}, [b'{"error": {"message": "a request too many"}}'])
        wrong = [why for wanted in answer.get("when", ()) if (why := _unmet(wanted, request))]
        if wrong:
            refused = {"status": 400, "body": {"error": {"message": "; ".join(wrong)}}}
            return _play(api, answer.get("else", refused))
        return _play(api, answer)

    return play


def _play(api: str, answer: dict[str, Any]) -> Play:
    """An answer as bytes."""
    status, headers = answer.get("status", 200), dict(answer.get("headers", {}))
    if "stream" in answer:
        kind = answer.get("type", "application/x-ndjson" if api == "ollama" else "text/event-stream")
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


def _event(api: str, event: Any) -> bytes | float:
    if isinstance(event, str):
        return event.encode("utf-8", "surrogatepass")
    if event.keys() == {"pause"}:
        return float(event["pause"])
    if event.keys() == {"repeat", "times"}:
        return b"".join(bytes(_event(api, event["repeat"])) for _ in range(event["times"]))
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
    return {"id": "x", "object": "chat.completion", "model": "m", "choices": [choice], "usage": USAGE} | beside


def _sent(
    status: int,
    kind: str,
    headers: Mapping[str, str],
    pieces: Sequence[bytes | float],
    framing: str = "length",
    then: Any = "keep",
) -> Play:
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
    return Play([("\r\n".join(lines) + "\r\n\r\n").encode(), *sent], then)


def _unmet(wanted: Mapping[str, Any], request: Seen) -> str:
    """Why a request does not do what is wanted, or "" if it does."""
    place: Any = request.body
    if "at" in wanted:
        place = _at(request.body, wanted["at"])
    text = json.dumps(place, ensure_ascii=False)
    if "is" in wanted and place != wanted["is"]:
        return f"{wanted['at']} must be {wanted['is']!r} and is {place!r}"
    for word in _listed(wanted.get("has", ())):
        if word not in text:
            return f"{word!r} is missing in {wanted.get('at', 'the request')}"
    for word in _listed(wanted.get("lacks", ())):
        if word in text:
            return f"{word!r} must not stand in {wanted.get('at', 'the request')}"
    if "path" in wanted and request.path != wanted["path"]:
        return f"the path is {request.path}"
    return ""


def _at(node: Any, path: str) -> Any:
    for step in path.split("."):
        try:
            node = node[int(step)] if isinstance(node, list) else node[step]
        except (KeyError, IndexError, TypeError, ValueError):
            return None
    return node


def _listed(value: Any) -> Iterable[str]:
    return [value] if isinstance(value, str) else value


def _complaints(case: Case, heard: Heard, requests: Sequence[Seen], others: Sequence[Seen]) -> Iterator[str]:
    expect = dict(case.expect)
    wants_error = expect.pop("error", "")
    if heard.error is not None and (heard.error != wants_error and wants_error != "any"):
        yield f"error: {heard.error or 'none'} ({heard.words}), expected {wants_error or 'none'}"
        if not wants_error:
            return
    if wants_error == "any" and not heard.error:
        yield "error: none, expected one"
    for word in _listed(expect.pop("says", ())):
        if word not in heard.words:
            yield f"the error does not say {word!r}: {heard.words!r}"
    for word in _listed(expect.pop("says_not", ())):
        if word in heard.words:
            yield f"the error says {word!r}: {heard.words!r}"
    number = expect.pop("requests", None)
    if number is not None and number != len(requests):
        yield f"requests: {len(requests)}, expected {number}"
    asked = expect.pop("fallback_asked", None)
    if asked is not None and asked != bool(others):
        yield f"the fallback was {'' if others else 'not '}asked"
    for wanted in expect.pop("sent", ()):
        to = others if wanted.get("to") == "fallback" else requests
        index = wanted.get("request", len(to)) - 1
        why = _unmet(wanted, to[index]) if 0 <= index < len(to) else "there is no such request"
        if why:
            yield f"sent: {why}"
    for first, second in [expect.pop("same")] if "same" in expect else []:
        if _at(vars(heard), first) != _at(vars(heard), second):
            yield f"{first} and {second} differ: {_at(vars(heard), first)!r}, {_at(vars(heard), second)!r}"
    for word in _listed(expect.pop("answer_lacks", ())):
        if word in (heard.answer or ""):
            yield f"the answer has {word!r}: {heard.answer!r}"
    took = expect.pop("took_s", None)
    if took is not None and heard.took_s is not None and not took[0] <= heard.took_s <= took[1]:
        yield f"took {heard.took_s:g} s, expected {took[0]} to {took[1]}"
    for name, value in expect.items():
        told = getattr(heard, name)
        if told is None:
            continue
        if isinstance(value, Mapping) and isinstance(told, Mapping):
            told = {key: told.get(key) for key in value}
        if told != value:
            yield f"{name}: {told!r}, expected {value!r} {heard.words}".rstrip()
