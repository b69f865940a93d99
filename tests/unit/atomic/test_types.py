"""Neutral messages: what callers may write, and what survives JSON."""

from __future__ import annotations

import msgspec
import pytest

from shared_libs.atomic import (
    Attempt,
    ImagePart,
    LLMChunk,
    LLMResponse,
    Message,
    MisuseError,
    Price,
    TextPart,
    Thinking,
    ToolCall,
    ToolResult,
    ToolSpec,
    Usage,
    tool,
)
from shared_libs.atomic.types import as_messages, as_tool_specs

USER = Message("user", "hi")


@pytest.mark.parametrize(
    "prompt",
    ["hi", USER, {"role": "user", "content": "hi"}, [USER], [{"role": "user", "content": "hi"}], (USER,)],
)
def test_a_prompt_may_be_a_question_a_message_or_several(prompt):
    assert as_messages(prompt) == [USER]
    assert as_messages(each for each in as_messages(prompt)) == [USER]


def test_messages_as_openai_writes_them_are_read():
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    written = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "What is "}, {"type": "text", "text": "this?"}]},
        {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None, "annotations": []},
        {"role": "tool", "tool_call_id": "c1", "content": "1"},
        {"role": "assistant", "content": "1", "tool_calls": None},
    ]
    assert as_messages(written) == [
        Message("system", "Be brief."),
        Message("user", (TextPart("What is "), TextPart("this?"))),
        Message("assistant", tool_calls=(ToolCall("c1", "add", {"a": 1}),)),
        Message("tool", "1", tool_call_id="c1"),
        Message("assistant", "1"),
    ]
    assert as_messages(written)[1].text == "What is this?"


def test_images_are_read_as_others_write_them():
    data = {"type": "base64", "media_type": "image/jpeg", "data": "AA=="}
    parts = [
        {"type": "input_text", "text": "a"},
        {"type": "input_image", "image_url": "https://example.org/a.png"},
        {"type": "image", "source": {"type": "url", "url": "https://example.org/b.png"}},
        {"type": "image", "source": data},
    ]
    assert as_messages([{"role": "user", "content": parts}])[0].content == (
        TextPart("a"),
        ImagePart("https://example.org/a.png"),
        ImagePart("https://example.org/b.png"),
        ImagePart.from_bytes(b"\0", "image/jpeg"),
    )


def test_images_are_read_in_both_forms():
    parts = [
        {"type": "text", "text": "look"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
        {"type": "image", "url": "https://example.org/a.png", "media_type": "image/png"},
    ]
    (message,) = as_messages({"role": "user", "content": parts})
    assert message.content == (
        TextPart("look"),
        ImagePart("data:image/png;base64,AA=="),
        ImagePart("https://example.org/a.png", "image/png"),
    )


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ([{"role": "robot", "content": "x"}], r"message 0 .*role"),
        ([USER, {"content": "x"}], r"message 1 .*role"),
        ([{"role": "user", "content": 3}], "message 0"),
        ([{"role": "user", "content": [{"type": "audio"}]}], "message 0"),
        ([{"role": "user", "content": [{"image_url": {"uri": "https://x"}}]}], "message 0"),
        ([{"role": "user", "content": [{"type": "image", "source": {"type": "file", "file_id": "x"}}]}], "message 0"),
        ([{"role": "user", "content": [{"type": "image", "url": "photo.png"}]}], "not 'photo.png'.*from_bytes"),
        ([{"role": "assistant", "tool_calls": [{"function": {"name": "x"}}]}], "message 0"),
        ([{"role": "assistant", "tool_calls": ["x"]}], "message 0"),
        ([None], "message 0"),
        (["user: hi"], "message 0"),
        (42, "not 42"),
        (None, "not None"),
    ],
)
def test_what_is_no_message_is_misuse(given, why):
    with pytest.raises(MisuseError, match=why):
        as_messages(given)


@pytest.mark.parametrize(
    ("raw", "arguments", "malformed"),
    [
        ('{"a": [1, {"b": null}]}', {"a": [1, {"b": None}]}, None),
        (b'{"a": "\xc3\xa9"}', {"a": "é"}, None),
        ("", {}, None),
        ("  ", {}, None),
        ("{}", {}, None),
        ("[1]", {}, "[1]"),
        ("null", {}, None),
        *((nothing, {}, None) for nothing in ("[]", "[{}]", "()", "None", "undefined", "{}{}")),
        ('[{"a": 1}]', {"a": 1}, None),
        ('{"a": "}"} }', {"a": "}"}, None),
        ('{"a": 1}\x00;', {"a": 1}, None),
        ('{"a": 1} {"a": 2}', {}, '{"a": 1} {"a": 2}'),
        ('{"a": 1} and more', {}, '{"a": 1} and more'),
        ('{a: "b: c, d: e"}', {"a": "b: c, d: e"}, None),
        ("{a: 'b', $c: [1],}", {"a": "b", "$c": [1]}, None),
        ('[{"a": 1}, {"a": 2}]', {}, '[{"a": 1}, {"a": 2}]'),
        ('{"a": ', {}, '{"a": '),
        ("{1: 2}", {}, "{1: 2}"),
        ('{"a": NaN}', {}, '{"a": NaN}'),
        ('{"a": "\ud800"}', {"a": "?"}, None),
        ('{"a": ' + "[" * 9999, {}, '{"a": ' + "[" * 9999),
        (b"\xff", {}, "\ufffd"),
    ],
)
def test_arguments_are_decoded_or_kept_as_they_came(raw, arguments, malformed):
    call = ToolCall.from_json("1", "t", raw)
    assert (call.arguments, call.malformed) == (arguments, malformed)
    assert call.input == (arguments if malformed is None else malformed)
    assert call.arguments_json() == (msgspec.json.encode(arguments).decode() if malformed is None else malformed)


CALL = ToolCall("1", "add", {"a": 1.5, "b": ["x", None]})
RESPONSE = LLMResponse(
    text="x",
    tool_calls=(CALL,),
    thinking=(Thinking("hm", "p", "sig", {"k": 1}),),
    usage=Usage(1, 2, 3, 4),
    attempts=(Attempt(provider="p", model="m", number=1, outcome="ok", usage=Usage(1, 2, 0, 3)),),
    cost_usd=0.1,
)


@pytest.mark.parametrize(
    "value",
    [
        Message("assistant", "é", tool_calls=(CALL,), thinking=RESPONSE.thinking),
        Message("user", (TextPart("a"), ImagePart("https://x/y.png", "image/png"))),
        Message("tool", "no", tool_call_id="1", name="add", is_error=True),
        ToolSpec("a", "b", {"type": "object"}),
        ToolResult("x", is_error=True, elapsed_s=1.5, still_running=True),
        RESPONSE,
        LLMChunk("finished", response=RESPONSE),
        LLMChunk("tool_call", tool_call=CALL),
        Price(1.0, 2.0),
    ],
)
def test_everything_survives_json(value):
    assert msgspec.json.decode(msgspec.json.encode(value), type=type(value)) == value


def test_a_response_is_a_message_to_go_on_with():
    assert RESPONSE.message == Message("assistant", "x", tool_calls=(CALL,), thinking=RESPONSE.thinking)


def test_usage_adds_up_and_costs():
    usage = Usage(1000, 10, 400, 1010) + Usage(1000, 0, 0, 1000)
    assert usage == Usage(2000, 10, 400, 2010)
    assert Price(1.0, 100.0).cost_usd(usage) == pytest.approx(0.003)
    assert Price(1.0, 100.0, cached_input=0.5).cost_usd(usage) == pytest.approx(0.0028)
    assert Price(0.0, 0.0).cost_usd(usage) == 0


def test_tools_may_be_given_in_every_form():
    @tool
    def add(a: int) -> int:
        """Add."""
        return a

    function = {"name": "add", "description": "Add.", "parameters": add.spec.parameters}
    specs = as_tool_specs([add, add.spec, {"type": "function", "function": function}, function])
    assert specs == (add.spec,) * 4


@pytest.mark.parametrize("given", [[3], [{"name": "x"}], [lambda: 1], [{"function": None}], ["add"]])
def test_what_is_no_tool_is_misuse(given):
    with pytest.raises(MisuseError, match="Allowed"):
        as_tool_specs(given)
