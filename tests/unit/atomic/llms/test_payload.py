"""Framing: events come out whole, wherever the bytes were cut."""

from __future__ import annotations

import msgspec
import pytest

from shared_libs.atomic.errors import BadRequest, MalformedResponse
from shared_libs.atomic.llms.payload import (
    MAX_EVENT_BYTES,
    Doubles,
    JsonLines,
    ServerSentEvents,
    decode,
    encode,
    portable_id,
)

SSE = (
    b"\xef\xbb\xbfdata: one\r\n\r\n"
    b": a comment\n"
    b"event: named\nid: 7\nretry: 10\ndata:two\ndata: lines\n\n"
    b"data: lines\r\ndata: of windows\r\n\r\n"
    b"data\n\n"
    b"data: \n\n\n\n"
    b"data:  two spaces\r\r"
    b"data: gr\xc3\xbcn \xf0\x9f\x8c\xb3\r\n\r\n"
    b"data: never ended"
)
EXPECTED = [b"one", b"two\nlines", b"lines\nof windows", b" two spaces", "grün 🌳".encode()]


@pytest.mark.parametrize("size", range(1, len(SSE) + 1))
def test_events_come_out_whole_in_pieces_of_any_size(size):
    events = ServerSentEvents()
    found = [payload for start in range(0, len(SSE), size) for payload in events.feed(SSE[start : start + size])]
    assert found == EXPECTED


def test_a_line_needs_its_end():
    lines = JsonLines()
    assert lines.feed(b'{"a":1}\n{"b"') == [b'{"a":1}']
    assert lines.feed(b":2}") == []
    assert lines.feed(b"\n\n") == [b'{"b":2}']


def test_an_endless_event_is_refused():
    line, event = ServerSentEvents(), ServerSentEvents()
    with pytest.raises(MalformedResponse, match="longer than"):
        for _ in range(17):
            line.feed(b"x" * (MAX_EVENT_BYTES // 16))
    with pytest.raises(MalformedResponse, match="longer than"):
        for _ in range(17):
            event.feed(b"data: " + b"x" * (MAX_EVENT_BYTES // 16) + b"\n")


class Body(msgspec.Struct):
    a: str = ""
    n: int = 0


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "it is empty"),
        (b"<!DOCTYPE html><html><title>502\n Bad Gateway</title></html>", r"an HTML page \(502 Bad Gateway\)"),
        (b"<html>", "an HTML page .without a title"),
        (b'{"n": 1', "Input data was truncated"),
        (b'{"a": "\xff"}', "utf-8"),
        (b'{"b": ' + b"[" * 100_000, "recursion|truncated"),
        (b'{"n": "x"}', r"Expected `int`, got `str` - at `\$\.n`"),
    ],
)
def test_what_cannot_be_read_is_described_and_not_quoted(body, why):
    with pytest.raises(MalformedResponse, match=why):
        decode(msgspec.json.Decoder(Body), body)


@pytest.mark.parametrize("value", ["\ud800", object()])
def test_what_json_cannot_say_is_a_bad_request(value):
    with pytest.raises(BadRequest, match="cannot be written as JSON"):
        encode({"a": value})


def test_an_id_is_kept_where_it_fits_and_replaced_the_same_way_everywhere():
    assert portable_id("call_1-a", 40) == "call_1-a"
    for foreign in ("", "x" * 41, "toolu 1", "gr\u00fcn", "\ud800"):
        assert portable_id(foreign, 40) == portable_id(foreign, 40) != foreign
        assert len(portable_id(foreign, 40)) <= 40


@pytest.mark.parametrize(
    ("payloads", "doubled"),
    [("aabbcc", True), ("aabb", True), ("aabbc", False), ("abcc", False), ("aaaab", False), ("aa", False), ("", False)],
)
def test_a_stream_of_nothing_but_doubles_is_told_from_one_that_repeats_itself(payloads, doubled):
    seen = Doubles()
    for payload in payloads:
        seen.see(payload.encode())
    assert seen.all is doubled
