"""Framing: events come out whole, wherever the bytes were cut."""

from __future__ import annotations

import itertools

import msgspec
import pytest

from shared_libs.atomic.errors import BadRequest, MalformedResponse
from shared_libs.atomic.llms.framing import MAX_EVENT_BYTES, AnyFraming, Doubles, JsonLines, ServerSentEvents
from shared_libs.atomic.llms.payload import decode, decode_strictly, encode, portable_id

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


PLAIN = [
    b'event: delta\ndata: {"a":1}\n\n',
    b'data: {"b":2}\n\n',
    b"data: {}\n\ndata: [DONE]\n\n",
    b"event: error\ndata: {}\n\n",
    b"event: error\n",
    b'data: {"c":\ndata: 3}\n\n',
    b'data: {"d":4}\n',
    b"data: {}\r\n\r\n",
    b"\n",
    b": alive\n\n",
    b"\xef\xbb\xbf",
    b"\r",
]


@pytest.mark.promise("wire-read")
@pytest.mark.parametrize("first", PLAIN)
def test_whole_events_are_what_their_lines_are(first):
    for second, third in itertools.product(PLAIN, PLAIN):
        pieces = [first, second, third, PLAIN[1]]
        whole, lines = ServerSentEvents(), ServerSentEvents()
        by_byte = [payload for byte in b"".join(pieces) for payload in lines.feed(bytes([byte]))]
        at_once = [payload for piece in pieces for payload in whole.feed(piece)]
        assert [*at_once, *whole.end()] == [*by_byte, *lines.end()], pieces


def test_a_line_needs_its_end_or_that_of_the_body():
    lines = JsonLines()
    assert lines.feed(b'{"a":1}\n{"b"') == [b'{"a":1}']
    assert lines.feed(b":2}") == []
    assert lines.feed(b"\n\n") == [b'{"b":2}']
    assert lines.feed(b'{"c":3}') == []
    assert lines.end() == [b'{"c":3}']
    cut = JsonLines()
    cut.feed(b'{"c":')
    assert cut.end() == []


BODIES = {
    "sse": (b'data: {"a":1}\n\ndata: [DONE]\n\n', [b'{"a":1}', b"[DONE]"], None),
    "no-blank-line": (b'data: {"a":1}\n\ndata: {"b":2}', [b'{"a":1}', b'{"b":2}'], None),
    "one-line-end": (b'data: {"a":1}\ndata: {"b":2}\ndata: [DONE]', [b'{"a":1}', b'{"b":2}', b"[DONE]"], None),
    "in-two-lines": (b'data: {"a":\ndata: 1}\n\n', [b'{"a":\n1}'], None),
    "named": (b'event: a\ndata: {"a":1}\nevent: b\ndata: {"b":2}\n\n', [b'{"a":1}', b'{"b":2}'], None),
    "error-line": (b'error: {"code":400}\n\n', [b'{"error":{"code":400}}'], None),
    "error-words": (b"error: out of memory\n\n", [b'{"error":"out of memory"}'], None),
    "error-event": (b'event: error\ndata: {"message":"oh"}\n\n', [b'{"error":{"message":"oh"}}'], None),
    "error-itself": (b'event: error\ndata: {"error":{"a":1}}\n\n', [b'{"error":{"a":1}}'], None),
    "bare-error": (b': hello\n{"error":{"a":1}}\n', [b'{"error":{"a":1}}'], None),
    "document": (b' \n{"a":\n1}\n', [], b'{"a":\n1}\n'),
    "lines": (b'{"a":1}\n{"b":2}\n', [b'{"a":1}', b'{"b":2}'], None),
    "nothing": (b"\r\n", [], None),
    "half": (b'data: {"a":1}\n\ndata: {"b":', [b'{"a":1}'], None),
}


@pytest.mark.promise("wire-read")
@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize("name", BODIES)
def test_a_body_is_what_its_first_byte_says(name, size):
    body, events, whole = BODIES[name]
    framing = AnyFraming()
    found = [event for start in range(0, len(body), size) for event in framing.feed(body[start : start + size])]
    assert [*found, *framing.end()] == events
    assert framing.whole == whole


def test_a_page_is_no_stream():
    framing = AnyFraming()
    assert framing.feed(b"\n<html><title>Log in</title>") == []
    with pytest.raises(MalformedResponse, match="and no stream"):
        framing.end()


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
        decode_strictly(msgspec.json.Decoder(Body), body)


@pytest.mark.promise("wire-read")
def test_what_does_not_fit_loses_itself_and_not_the_answer():
    decoder = msgspec.json.Decoder(Body)
    assert decode(decoder, b'{"n": "x", "a": "b"}') == Body("b")
    assert decode(decoder, b'{"n": "7", "a": 1}') == Body(n=7)
    assert decode(decoder, b'{"n": 7.0, "a": false}') == Body(n=7)
    assert decode(decoder, b'[{"n": 7}]') == Body(n=7)
    assert decode(decoder, b'{"a": "half \\ud83d", "n": NaN}') == Body("half \ud83d")
    for body in (b"7", b"[]", b'"text"', b"null", b'{"n": 1', b"[" * 100_000):
        with pytest.raises(MalformedResponse):
            decode(decoder, body)


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


def test_a_list_that_begins_alone_is_not_taken_for_the_end_marker():
    framing = AnyFraming()
    assert [framing.feed(piece) for piece in (b"[", b'{"a": 1}', b"]")] == [[], [], []]
    assert (framing.end(), framing.whole) == ([], b'[{"a": 1}]')
