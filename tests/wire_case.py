"""
Cases of what model servers put on the wire (`faults/cases/`), and of what they are asked (`tests/wire_cases/`).

The format stands in `tests/wire_cases/README.md`. A case knows nothing of our classes: any client that takes a base URL
can be run against it (`Client`), and is judged by what it says it heard (`Heard`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

from shared_libs.testing.faults.wire_cases import FOLDER, answered, at, listed, read_cases, unmet
from tests.wire_server import Play, Seen, WireServer

FOLDERS = (Path(__file__).parent / "wire_cases", FOLDER)
"""What is asked of servers, and what they send: the latter is played by the fault server, too."""
FALLBACK_SAYS = "from the fallback"


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


@cache
def cases(*names: str) -> list[Case]:
    """The cases of the named files, or of all."""
    files = sorted(file for folder in FOLDERS for file in folder.glob("*.yaml") if not names or file.stem in names)
    return [_case(item) for file in files for item in read_cases(file)]


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


def _case(item: dict[str, Any]) -> Case:
    unknown = item.keys() - {known.name for known in fields(Case)}
    assert not unknown, f"{item.get('id')}: unknown keys {sorted(unknown)}"
    if item.get("api") in {"anthropic", "ollama"}:
        item = {"path": ""} | item
    return Case(**item)


def _player(api: str, answers: Sequence[dict[str, Any]]) -> Callable[[Seen], Play]:
    turn = iter(answers)

    def play(request: Seen) -> Play:
        answer = next(turn, None)
        if answer is None:
            answer = {"status": 599, "body": {"error": {"message": "a request too many"}}}
        told = answered(api, answer, request.body, request.path)
        return Play(told.steps, told.then)

    return play


def _complaints(case: Case, heard: Heard, requests: Sequence[Seen], others: Sequence[Seen]) -> Iterator[str]:
    expect = dict(case.expect)
    wants_error = expect.pop("error", "")
    if heard.error is not None and (heard.error != wants_error and wants_error != "any"):
        yield f"error: {heard.error or 'none'} ({heard.words}), expected {wants_error or 'none'}"
        if not wants_error:
            return
    if wants_error == "any" and not heard.error:
        yield "error: none, expected one"
    for word in listed(expect.pop("says", ())):
        if word not in heard.words:
            yield f"the error does not say {word!r}: {heard.words!r}"
    for word in listed(expect.pop("says_not", ())):
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
        why = unmet(wanted, to[index].body, to[index].path) if 0 <= index < len(to) else "there is no such request"
        if why:
            yield f"sent: {why}"
    for first, second in [expect.pop("same")] if "same" in expect else []:
        if at(vars(heard), first) != at(vars(heard), second):
            yield f"{first} and {second} differ: {at(vars(heard), first)!r}, {at(vars(heard), second)!r}"
    for word in listed(expect.pop("answer_lacks", ())):
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
