"""What stands on the wire between us and an MCP server, read as far as can be: lines, batches, errors of any form."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any

import msgspec
from pydantic import ValidationError

from shared_libs.atomic.llms.reasons import MAX_REASON_CHARS, read_reason
from shared_libs.atomic.loading import importing
from shared_libs.atomic.whole import whole_data

with importing("mcp", "an MCP server"):
    from mcp.types import INTERNAL_ERROR, PARSE_ERROR, JSONRPCError, JSONRPCResponse, jsonrpc_message_adapter

BARE = "genai-factory/bare"
"""The key under which a result that is no object is passed on."""

_BEGINS = re.compile(r'\{\s{0,20}"(?:jsonrpc|id|result|error|method)"')
_TRIES = 3
"""Beginnings of a message in a line that are tried in vain."""

_UNHEARD = re.compile(r"notifications/(?:message|progress|prompts/.{0,40}|resources/.{0,40})")
"""What a server tells and nobody here asks for; chatty ones send thousands in a call."""

_OF_A_SESSION = re.compile(
    r"(?:bad request: ?)?(?:no (?:valid |such |active )?session|session (?:does not|doesn't) exist"
    r"|(?:the |your )?session (?:id )?(?:(?:was |has )(?:been )?)?(?:not found|expired|invalid|unknown|terminated"
    r"|closed|ended|is )"
    r"|no transport found for session"
    r"|(?:invalid|unknown|expired|missing) (?:mcp[ -])?session"
    r"|(?:.{0,60}\b)?(?:not (?:been )?initialized|before initiali[sz])).*",
    re.IGNORECASE | re.DOTALL,
)
_ID = re.compile(rb'"id"\s*:\s*(\d{1,18}|"[^"\\]{1,200}")')
_END = 1_000
"""Bytes at either end of what cannot be read in which its `id` is looked for."""


class NoMessage(Exception):
    """A line that is no message of the protocol."""


def messages(line: bytes) -> Iterator[Any]:
    """
    Read the messages of a line: one, or a batch of them.

    Encodings other than UTF-8 and lone halves of characters are read as far as they go. What is a message by its words
    and cannot be read is an error for whoever waits for it. News that nobody here hears are left out.

    Raises:
        NoMessage: there is none in it.

    """
    try:
        found = _decoded(line)
        batch = found if isinstance(found, list) else [found]
        read = [_message(one) for one in batch if not _is_unheard(one)]
    except (ValueError, RecursionError) as error:
        if several := [*_among(line)]:
            yield from several
            return
        named = _ID.search(line[:_END]) or _ID.search(line[-_END:])
        if b'"jsonrpc"' not in line or named is None or b'"method"' in line[:_END]:
            raise NoMessage from error
        yield unreadable(json.loads(named[1]), line.decode(errors="replace"))
        return
    yield from read


def answer_in(body: bytes, identity: Any, *, refused: bool) -> bytes:
    """Return the one answer in the body of an answer over HTTP; of a refusal that has none, an error in its words."""
    try:
        found = next((one for one in messages(body) if not hasattr(one, "method")), None)
    except NoMessage:
        found = None
    if found is None and refused:
        said = read_reason(body[: 8 * MAX_REASON_CHARS]).text[:MAX_REASON_CHARS]
        if not said:
            return body
        found = error_of(identity, {"code": INTERNAL_ERROR, "message": said})
    answer = unreadable(identity, body[:_END].decode(errors="replace")) if found is None else found
    answer.id = identity  # there is one request in a POST
    return answer.model_dump_json(by_alias=True, exclude_unset=True).encode()


class Events:
    """
    The events of a stream (WHATWG HTML, section 9.2), each handed on as one message that can be read.

    What is no message is left out; the end of the stream ends an event too. Names, ids and waits stay as they are.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._rest = bytearray()
        self._event: list[bytes] = []
        self._size = 0
        self.noise = ""

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes, and return those of the events that are complete."""
        self._rest += data
        if len(self._rest) + self._size > self._most:
            raise ValueError(f"an event is longer than {self._most >> 20} MiB")
        if b"\n" not in data and b"\r" not in data:
            return b""
        lines = bytes(self._rest).splitlines(keepends=True)
        # an LF that belongs to a CR may be still to come
        self._rest = bytearray(lines.pop() if lines[-1][-1:] != b"\n" else b"")
        return b"".join(map(self._line, lines))

    def end(self) -> bytes:
        """Take the end of the stream."""
        lines = bytes(self._rest).splitlines()
        self._rest = bytearray()
        return b"".join(map(self._line, [*lines, b""]))

    def _line(self, line: bytes) -> bytes:
        line = line.rstrip(b"\r\n")
        if line:
            self._event.append(line)
            self._size += len(line)
            return b""
        event, self._event, self._size = self._event, [], 0
        said = b"\n".join(part[5:].removeprefix(b" ") for part in event if part.startswith(b"data:"))
        kept = [part for part in event if not part.startswith(b"data:")]
        named = any(part.startswith(b"event:") and part[6:].strip() not in (b"", b"message") for part in kept)
        if named or not said.strip():
            return b"\n".join([*event, b"", b""]) if event else b""
        return b"".join(b"\n".join([*kept, b"data: " + one, b"", b""]) for one in self._read(said))

    def _read(self, said: bytes) -> list[bytes]:
        if said == b"[DONE]":  # as model servers end theirs
            return []
        try:
            return [one.model_dump_json(by_alias=True, exclude_unset=True).encode() for one in messages(said)]
        except NoMessage:
            self.noise = self.noise or repr(said.decode(errors="replace").strip()[:200])
            return []


def is_of_a_session(message: str) -> bool:
    """Whether an error says that the other side does not know the session, or knows none that has begun."""
    return len(message) < _END and _OF_A_SESSION.fullmatch(message.strip()) is not None


def unreadable(identity: Any, text: str) -> JSONRPCError:
    """Make the answer to a request whose own answer cannot be read."""
    message = f"its answer cannot be read: {text.strip()[:200]!r}"
    return error_of(identity, {"code": PARSE_ERROR, "message": message})


def as_json(value: Any) -> str:
    """Write a value of a server as JSON; a lone half of a character becomes `?`, what is no number null."""
    return json.dumps(msgspec.json.decode(msgspec.json.encode(whole_data(value))), ensure_ascii=False)


def _among(line: bytes) -> Iterator[Any]:
    """The messages among other words of a line: behind a prefix of a log, before a remark, or one behind the other."""
    if b'"jsonrpc"' not in line:
        return
    text = line.decode("utf-8", "replace")
    decoder, at, failed = json.JSONDecoder(), 0, 0
    for begins in _BEGINS.finditer(text):
        if begins.start() < at:
            continue
        try:
            found, at = decoder.raw_decode(text, begins.start())
            yield _message(whole_data(found))
        except (ValueError, RecursionError):
            failed += 1
            if failed == _TRIES:
                return


def _decoded(line: bytes) -> Any:
    line = line.removeprefix(codecs.BOM_UTF8)
    try:
        return msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeError):
        # Python's own reader takes what is not quite JSON: NaN, lone halves of characters
        return whole_data(json.loads(line.decode("utf-8", "replace")))


def _is_unheard(found: Any) -> bool:
    method = found.get("method") if isinstance(found, dict) and "id" not in found else None
    return isinstance(method, str) and _UNHEARD.fullmatch(method) is not None


def _message(found: Any) -> Any:
    if isinstance(found, dict):
        identity = found.get("id")
        if isinstance(identity, float) and identity.is_integer():
            found = {**found, "id": int(identity)}
        if "method" not in found and found.get("error") is not None:
            return error_of(found.get("id"), found["error"])
        if "result" in found and not isinstance(found["result"], dict):
            found = {**found, "result": {BARE: found["result"]}}
        identity = found.get("id")
        if "method" not in found and "result" in found and type(identity) in (int, str):
            # its result is looked at by who asked for it: a list of thousands is not walked through here too
            return JSONRPCResponse.model_construct(jsonrpc="2.0", id=identity, result=found["result"])
    try:
        return jsonrpc_message_adapter.validate_python({**found, "jsonrpc": "2.0"}, by_name=False)
    except (TypeError, ValidationError) as error:
        raise ValueError("no message") from error


def error_of(identity: Any, said: Any) -> JSONRPCError:
    """Make an error of whatever a server wrote as one."""
    facts = said if isinstance(said, dict) else {"message": said if isinstance(said, str) else as_json(said)}
    code, message = facts.get("code"), facts.get("message")
    mended = {
        "code": code if isinstance(code, int) and not isinstance(code, bool) else PARSE_ERROR,
        "message": message if isinstance(message, str) else "no reason given" if message is None else as_json(message),
        "data": facts.get("data"),
    }
    return JSONRPCError.model_validate({"jsonrpc": "2.0", "id": identity, "error": mended}, by_name=False)
