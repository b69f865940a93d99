"""
What an error body says, whatever its shape: its words, codes, status, and the wait and field it names.

Servers nest errors in each other, in lists, in choices, and as JSON inside a text; everything is gathered alike.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec

from shared_libs.atomic.llms.payload import page_title

MAX_REASON_CHARS = 500

_MAX_DEPTH = 8
_MAX_ITEMS = 20
_MAX_BODY_CHARS = 16 * MAX_REASON_CHARS

_WORDS = (
    *("message", "msg", "detail", "error_msg", "errormessage", "error_message", "status_msg", "error_description"),
    *("faultstring", "description", "errors", "error", "title", "errmsg", "statusmessage", "exception", "reason"),
)
"""The keys under which words stand, best first; a text is words, anything else holds words of its own."""
_CODES = frozenset(
    {
        "code",
        "type",
        "status",
        "reason",
        "reasons",
        "error_code",
        "errorcode",
        "errcode",
        "__type",
        "error",
        "status_code",
    }
)
_INSIDE = frozenset(
    {
        *("error", "errors", "detail", "details", "metadata", "raw", "innererror", "inner_error", "response", "cause"),
        *("fault", "body", "choices", "data", "base_resp", "violations", "provider_error", "upstream_error", "headers"),
        "rate_limit",
        "issues",  # zod
        *("error_msg", "errormsg", "err", "failure", "result"),
    }
)
"""The keys under which a further error, or more about this one, may stand."""
_WAIT = re.compile(
    r"(?:retry(?:after|delay|in|at)|(?:timeto)?resets?(?:after|in|at|time)?|wait(?:time|for)?|cooldown"
    r"|(?:next)?available(?:at|in)?|estimatedtime)(?:in)?(?P<unit>s|secs?|seconds|ms|millis|milliseconds|m|minutes)?"
)
"""What a wait, or the moment of its end, is called; without `_` and `-`."""
_STARTS_JSON = re.compile(r"[\[{]")
_LABEL = re.compile(r"\s*(?:event\s*:\s*error\s+)?(?:(?:data|error)\s*:\s*)?", re.IGNORECASE)
"""What may stand before some JSON and says nothing."""


class Reason(NamedTuple):
    """
    What the provider itself says.

    `codes` are in lower case; those of a list that is no HTTP's stand behind its name: `base_resp/1004`. `status` is
    the HTTP status that the body tells, the innermost. `field` is the field of the request it names, `wait_told` the
    wait as it stands in the body, `headers` those of a server behind this one.
    """

    text: str
    codes: frozenset[str] = frozenset()
    status: int | None = None
    field: str = ""
    wait_told: str = ""
    headers: Mapping[str, str] = MappingProxyType({})


def read_reason(body: bytes) -> Reason:
    """Read an error body: JSON in one of its many shapes, an HTML page, or plain text."""
    try:
        data = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        title = page_title(body)
        if title is not None:
            return Reason(title or "an HTML page without a title")
        data = body[:_MAX_BODY_CHARS].decode("utf-8", "replace")
    found = _Found()
    found.take(data)
    return found.reason()


class _Found:
    """What has been gathered so far."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._codes: set[str] = set()
        self._statuses: list[int] = []
        self._field = ""
        self._wait = ""
        self._headers: dict[str, str] = {}

    def reason(self) -> Reason:
        # what only repeats a part of another text says nothing new
        told = [text for text in self._texts if not any(text != other and text in other for other in self._texts)]
        return Reason(
            ": ".join(dict.fromkeys(told)),
            frozenset(self._codes),
            self._statuses[-1] if self._statuses else None,
            self._field,
            self._wait,
            self._headers,
        )

    def take(self, data: Any, depth: int = 0) -> None:
        """Gather from anything that a server gave."""
        if depth > _MAX_DEPTH:
            return
        if isinstance(data, str):
            self._take_text(data, depth)
        elif isinstance(data, list):
            for item in data[:_MAX_ITEMS]:
                self.take(item, depth + 1)
        elif isinstance(data, dict):
            self._take_object(data, depth)
        elif data is not None and not isinstance(data, bool) and depth == 0:
            self._tell(str(data))

    def _take_text(self, text: str, depth: int) -> None:
        """A text that is JSON, or ends in JSON, holds an error of its own."""
        start = _STARTS_JSON.search(text)
        inner = _json_at(text, start.start()) if start else None
        before = len(self._texts)
        is_said = inner is None or start is None or not _LABEL.fullmatch(text[: start.start()])
        if is_said:
            self._tell(text)
        if inner is not None:
            self.take(inner, depth + 1)
        if not is_said and len(self._texts) == before:
            self._tell(text)

    def _tell(self, text: str) -> None:
        if text.strip():
            self._texts.append(text.strip())

    def _take_object(self, data: dict[Any, Any], depth: int) -> None:
        by_name = {str(key).lower(): value for key, value in data.items()}
        for key, value in by_name.items():
            if key in _CODES:
                self._take_code(value)
            elif (found := _WAIT.fullmatch(re.sub(r"[_-]", "", key))) is not None:
                self._wait = self._wait or _as_wait(value, found["unit"] or "")
            elif key == "headers" and isinstance(value, dict):
                self._headers |= {str(name).lower(): str(told) for name, told in value.items()}
        if isinstance(base := by_name.get("base_resp"), dict) and base.get("status_code"):
            self._codes.add(f"base_resp/{base['status_code']}")
        if isinstance(field := by_name.get("param"), str):
            self._field = self._field or field
        if isinstance(place := by_name.get("loc"), list):
            self._field = self._field or ".".join(str(part) for part in place if part != "body")
        for quota in ("quotaid", "quota_id"):
            if isinstance(named := by_name.get(quota), str):
                self._codes.add(f"quota/{named.lower()}")
        self._take_words(by_name, depth)
        for key, value in by_name.items():
            if key in _INSIDE and isinstance(value, dict | list):
                self.take(value, depth + 1)
                self.take(_by_field(value) if key == "errors" else None, depth + 1)
            elif key == "raw" and isinstance(value, str):
                self._take_text(value, depth + 1)

    def _take_words(self, by_name: dict[str, Any], depth: int) -> None:
        """The best words of an object; where they are no text they are told as they are, if nothing else is told."""
        for key in _WORDS:
            value = by_name.get(key)
            if isinstance(value, str) and value.strip():
                self._take_text(value, depth)
                return
            if key in {"message", "msg"} and isinstance(value, dict | list) and value and "role" not in value:
                before = len(self._texts)
                self.take(value, depth + 1)
                if len(self._texts) == before:
                    self._tell(msgspec.json.encode(value).decode())
                return

    def _take_code(self, value: Any) -> None:
        if isinstance(value, list):
            for item in value[:_MAX_ITEMS]:
                self._take_code(item)
            return
        if isinstance(value, bool) or not isinstance(value, str | int):
            return
        code = str(value).strip().lower().rpartition("#")[2]  # AWS puts a namespace in front
        if len(code) > 100:
            return
        self._codes |= {code, code.partition(".")[0]}  # of those that say more behind a dot, what they are of, too
        if code.isdecimal() and 400 <= int(code) < 600:
            self._statuses.append(int(code))


def _by_field(errors: Any) -> list[Any]:
    """The errors that stand under the field that each is of, as Rails and ASP.NET have them."""
    return [told for told in errors.values() if isinstance(told, list)] if isinstance(errors, dict) else []


def _json_at(text: str, start: int) -> Any:
    """The JSON object or list that begins at a place in a text, or None."""
    try:
        found, _ = json.JSONDecoder().raw_decode(text, start)
    except (ValueError, RecursionError):
        return None
    return found or None


def _as_wait(value: Any, unit: str) -> str:
    """A wait as a text: `2s`, a number of seconds, or Google's `{"seconds": 2, "nanos": 5}`."""
    if isinstance(value, dict):
        seconds, nanos = value.get("seconds", 0), value.get("nanos", 0)
        try:
            return f"{float(seconds) + float(nanos) / 1e9:g}s"
        except (TypeError, ValueError):
            return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    return f"{value}{unit}"
