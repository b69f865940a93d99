"""What MCP servers answer that is not quite what is specified: read as far as it can be, else told at once."""

from __future__ import annotations

from contextlib import suppress

import pytest

from shared_libs.tools.mcp_messages import as_text, greeting
from shared_libs.tools.mcp_wire import BARE, NoMessage, is_of_a_session, messages
from tests.growth import assert_linear
from tests.support import run
from tests.unit.tools.mcp_scripted import said_by_a_call, said_by_calls, scripted


@pytest.mark.promise("mcp-items")
@pytest.mark.parametrize(
    ("result", "said"),
    [
        ({"content": [{"type": "text", "text": "hi"}, {"type": "video", "url": "x"}]}, "hi\n[video, not shown]"),
        ({"content": [{"type": "text", "text": "hi"}, {"type": "text"}, None, 7]}, "hi\n[text, not shown]\n7"),
        ({"content": [{"text": "no type"}, "plain"]}, "no type\nplain"),
        ({"content": "plain"}, "plain"),
        (
            {"content": [{"type": "link", "url": "https://h"}, {"type": "error", "message": "no"}]},
            '{"url": "https://h"}\nno',
        ),
        ({"content": {"type": "text", "text": "alone"}}, "alone"),
        ({"content": None, "structuredContent": {"a": 1}}, '{"a": 1}'),
        ({"structuredContent": [1, 2]}, "[1, 2]"),
        ({"content": [{"type": "text", "text": None}], "structuredContent": {"a": 1}}, '{"a": 1}'),
        ({"content": [], "structured_content": {"a": 1}}, '{"a": 1}'),
        ({"content": [], "structuredContent": {"f": float("nan")}}, '{"f": null}'),
        ({"content": [{"type": "image", "data": "AAAA"}]}, "[image, unknown, 3 bytes; it is not shown]"),
        ({"content": [{"type": "resource", "resource": {}}]}, "[resource None, binary, not shown]"),
        ({"content": [{"type": "resource_link", "uri": 3}]}, "[resource 3: ]"),
        ({}, ""),
        ({"content": [{"type": "text", "text": ["a", 1]}]}, '["a", 1]'),
        ({"content": [{"type": "json", "json": {"a": 1}}, {"type": "markdown", "markdown": "# b"}]}, '{"a": 1}\n# b'),
        (
            {"content": [{"type": "html", "content": "<b>"}, {"type": "image", "image": "AAAA"}]},
            "<b>\n[image, not shown]",
        ),
        ({"content": [[{"type": "text", "text": "within"}]]}, "within"),
        ({"content": [{"type": "text", "text": ""}], "structuredContent": {"items": [1]}}, '{"items": [1]}'),
        ({"toolResult": {"a": 1}}, '{"toolResult": {"a": 1}}'),
        ({"message": "done", "_meta": {}}, '{"message": "done"}'),
        ({BARE: "plain"}, "plain"),
        ({BARE: [{"type": "text", "text": "a list"}]}, "a list"),
        ({BARE: None}, "null"),
    ],
)
def test_a_result_is_read_as_far_as_it_can_be(result, said):
    assert as_text(result)["content"] == [{"type": "text", "text": said}]


BACK = {"q": {"method": "elicitation/create", "params": {}}}


@pytest.mark.promise("mcp-items")
@pytest.mark.parametrize(
    ("result", "why"),
    [
        ({"resultType": "input_required"}, "asks back"),
        ({"resultType": "input_required", "requestState": "s"}, "asks back"),
        (
            {"resultType": "input_required", "inputRequests": BACK, "content": [{"type": "text", "text": "so far"}]},
            "back",
        ),
        ({"resultType": "input_required", "inputRequests": {"q": {"method": "foo/bar"}}}, "asks back"),
        ({"task": {"taskId": "t", "status": "working"}}, "as a task"),
        ({"resultType": "task", "content": []}, "as a task"),
    ],
)
def test_what_is_no_end_of_a_call_is_no_result(result, why):
    told = as_text(result)
    assert told["isError"]
    assert why in told["content"][0]["text"]


def test_a_session_that_is_lost_is_told_from_what_a_tool_says_of_one():
    for said in (
        "The session was closed",
        "No transport found for sessionId",
        "Your session has expired",
        "Session ended",
    ):
        assert is_of_a_session(said)
    for said in ("the training session 7 has no seats", "quota exceeded", "session booked"):
        assert not is_of_a_session(said)


def test_a_question_that_can_be_answered_is_handed_on_and_a_result_is_whole():
    for asked in ({"inputRequests": BACK, "content": []}, {"requestState": "s"}):
        result = {"resultType": "input_required", **asked}
        assert as_text(result, asks_back=True) == {word: result[word] for word in result if word != "content"}
    assert as_text({"resultType": "input_required", "inputRequests": {"q": {}}}, asks_back=True)["isError"]
    assert as_text({"content": []}, asks_back=True)["resultType"] == "complete"
    failed = {"content": [{"type": "text", "text": "bad"}], "isError": True, "structuredContent": {"code": 7}}
    assert as_text(failed)["content"][0]["text"] == 'bad\n{"code": 7}'


ANSWERS = [
    ({"content": [{"type": "text", "text": "hi"}, {"type": "video"}], "_meta": 3}, "hi\n[video, not shown]", False),
    ({"content": [{"type": "text", "text": "hi"}], "isError": "no", "structuredContent": "x"}, "hi", False),
    ({"content": [{"type": "text", "text": "gone"}], "isError": True}, "gone", True),
    ({"raw": '{"id":$ID,"result":{"content":[{"type":"text","text":"hi"}]}}'}, "hi", False),
    ({"raw": '[{"jsonrpc":"2.0","id":$ID,"result":{"content":"batched"}}]'}, "batched", False),
    (
        {"raw": '{\n  "jsonrpc": "2.0",\n  "id": $ID,\n  "result": {\n    "content": "laid out"\n  }\n}'},
        "laid out",
        False,
    ),
    ({"raw": '{"jsonrpc":"2.0","id":$ID,"result":{"content":"a\\ud83d"}}'}, "a?", False),
    (
        {"raw": '{"jsonrpc":"2.0","id":$ID,"result":{"content":"caf\\u00e9","structuredContent":{"f":NaN}}}'},
        "café",
        False,
    ),
    ({"raw": '{"jsonrpc":"2.0","id":$ID,"error":"no such city"}'}, "no such city", True),
    ({"raw": '{"jsonrpc":"2.0","id":$ID,"error":{"code":"E7","message":{"why":"x"}}}'}, '{"why": "x"}', True),
    ({"raw": '{"jsonrpc":"2.0","id":$ID,"result":{"content":"cut of'}, "its answer cannot be read", True),
    ({"raw": '{"jsonrpc":"2.0","id":$ID,"result":[1]}'}, "1", False),
]


@pytest.mark.promise("mcp-items")
def test_an_answer_that_is_nearly_right_is_read_and_one_that_is_not_is_told_at_once():
    heard = said_by_calls([result for result, _, _ in ANSWERS])
    wrong = [
        (result, found.content)
        for (result, said, is_error), found in zip(ANSWERS, heard, strict=True)
        if said not in found.content or found.is_error != is_error
    ]
    assert wrong == []


@pytest.mark.promise("mcp-items")
@pytest.mark.parametrize("told", [True, "true", "True", 1])
def test_an_error_is_one_in_whatever_words(told):
    for word in ("isError", "is_error"):
        assert as_text({"content": "x", word: told})["isError"] is True
        assert as_text({"content": "x", word: 0})["isError"] is False


@pytest.mark.promise("mcp-items")
@pytest.mark.parametrize(
    "line",
    [
        'INFO call done {"jsonrpc":"2.0","id":4,"result":{"a":{"id":5}}}',
        '{"jsonrpc":"2.0","id":4,"result":{"a":{"id":5}}} // done',
        '\ufeff{"jsonrpc":"2.0","id":4,"result":{"a":{"id":5}}}',
        '{"jsonrpc":"1.0","id":4.0,"result":{"a":{"id":5}}}',
        '{"id":4,"result":{"a":{"id":5}}}',
        '{"jsonrpc":"2.0","method":"notifications/x"}{"jsonrpc":"2.0","id":4,"result":{"a":{"id":5}}}',
    ],
)
def test_a_message_among_other_words_is_read(line):
    read = [one for one in messages(line.encode()) if not hasattr(one, "method")]
    assert [(one.id, one.result) for one in read] == [(4, {"a": {"id": 5}})]


def test_what_is_said_without_an_id_is_of_the_one_call_under_way():
    found = said_by_a_call({"raw": '{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"no such city"}}'})
    assert "no such city" in found.content
    assert found.is_error


@pytest.mark.promise("mcp-items")
@pytest.mark.parametrize(
    "given",
    [
        {},
        {"protocolVersion": None, "capabilities": None, "serverInfo": None},
        {"protocolVersion": "1.0", "capabilities": [], "serverInfo": "me"},
        {"protocolVersion": 1, "capabilities": {"tools": True}, "serverInfo": {"name": "me", "version": 2.0}},
        {"protocolVersion": "2025-06-18", "instructions": ["x"], "serverInfo": {"name": "me", "icons": "none"}},
    ],
)
def test_a_server_that_says_little_of_itself_is_used(given):
    assert greeting(given, "2025-06-18")["protocolVersion"] == "2025-06-18"

    async def main():
        source = scripted({"initialize": given, "tools/list": {"tools": [{"name": "a"}]}})
        try:
            return [tool.name for tool in await source.async_list()]
        finally:
            await source.aclose()

    assert run(main()) == ["a"]


def test_a_server_that_refuses_the_newest_version_is_greeted_with_one_that_it_names():
    error = '{"jsonrpc":"2.0","id":$ID,"error":{"code":-32602,"message":"Unsupported protocol version"%s}}'
    refusals = [error % ',"data":{"supported":["2025-03-26","2024-11-05"]}', error % ""]

    async def main():
        greeted = [*({"raw": refusal} for refusal in refusals), {}]
        source = scripted({"initialize": greeted, "tools/list": {"tools": [{"name": "a"}]}})
        try:
            return [tool.name for tool in await source.async_list()]
        finally:
            await source.aclose()

    assert run(main()) == ["a"]


def test_a_version_before_the_first_is_the_first():
    assert greeting({"protocolVersion": "2024-10-07"}, "2025-06-18")["protocolVersion"] == "2024-11-05"
    assert greeting({"protocolVersion": "2025-03-26"}, "2025-06-18")["protocolVersion"] == "2025-03-26"


def test_an_answer_in_latin_1_is_read():
    assert (
        said_by_a_call({"raw": '{"jsonrpc":"2.0","id":$ID,"result":{"content":"café"}}'}, "latin-1").content
        == "caf\ufffd"
    )


def test_lines_that_are_no_messages_change_nothing():
    noise = "{\nloading\n}\n{}\n[\n"
    good = '{"jsonrpc":"2.0","id":$ID,"result":{"content":"hi"}}'
    assert said_by_a_call({"raw": noise + good}).content == "hi"
    for line in (b"", b"null", b"[1]", b"{}", b'"text"', b"[" * 100_000, b'{"jsonrpc": "2.0"}', b"\xff\xfe"):
        with pytest.raises(NoMessage):
            [*messages(line)]


def read_in_vain(line):
    with suppress(NoMessage):
        [*messages(line)]


def test_the_work_of_reading_a_line_grows_with_its_length():
    assert_linear(lambda line: [*messages(line)], lambda n: b'{"jsonrpc":"2.0","id":1,"result":{"content":"' + b"x" * n)
    for piece in (b'{"id":', b'{"id":1} '):
        assert_linear(read_in_vain, lambda n, piece=piece: b'"jsonrpc" ' + piece * min(n, 1 << 20))  # more is no line
    assert_linear(as_text, lambda n: {"content": [{"type": "text", "text": "x"}, {"type": "v"}] * n})
