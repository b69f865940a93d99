"""Calls and reasoning in the text of a model, told without a server; the rest is cases of the fault server."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from shared_libs.agents import prompts
from shared_libs.agents.call_words import tool_named
from shared_libs.agents.protocol import NativeProtocol, TextProtocol
from shared_libs.agents.reasoning import MARKS, MAX_LONE, Opening, part
from shared_libs.agents.speech import Speech
from shared_libs.agents.written_calls import MAX_CHARS, calls_behind, may_be_calls, written_calls
from shared_libs.atomic.types import LLMResponse, Thinking, ToolSpec

TOOLS = [
    ToolSpec(
        "get_weather", "", {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
    ),
    ToolSpec("Get_Time", "", {"type": "object", "properties": {}}),
    ToolSpec("get_time", "", {"type": "object", "properties": {}}),
]


@pytest.mark.promise("written-read")
@pytest.mark.parametrize("marks", MARKS, ids=lambda marks: marks[0])
def test_reasoning_is_parted_however_it_is_cut(marks):
    text = f"{marks[0]}because{marks[1]}\n\nParis < Rome"
    assert part(text) == ("because", "Paris < Rome")
    for size in (1, 2, 5, 100):
        opening = Opening()
        pieces = [opening.hear(text[start : start + size]) for start in range(0, len(text), size)]
        assert "".join(thinking for thinking, _ in pieces) == "because"
        assert "".join(said for _, said in pieces) + opening.end()[1] == "Paris < Rome"


@pytest.mark.promise("written-read")
@pytest.mark.parametrize(
    ("text", "parted"),
    [
        ("<think>\u0130zmir\u0130</think>Hi", ("\u0130zmir\u0130", "Hi")),  # two letters where it is small
        ("\u0130zmir\n</THINK>\nHi", ("\u0130zmir", "Hi")),
        ("a</think:b>\nHi", ("a", "Hi")),
        ("done.</think>Hi", ("done.", "Hi")),
        ("the mark </think> is one", ("", "the mark </think> is one")),
        ("(</think>) is one", ("", "(</think>) is one")),
        (f"{'x' * MAX_LONE}\n</think>Hi", ("", f"{'x' * MAX_LONE}\n</think>Hi")),
    ],
    ids=["dotted", "alone", "suffixed", "tight", "told of", "in brackets", "further than is looked"],
)
def test_where_reasoning_ends(text, parted):
    assert part(text) == parted


@pytest.mark.promise("written-read")
def test_parameters_are_what_the_schema_says():
    text = (
        "<tool_call>\n<function=get_weather>\n<parameter=city>\n12\n</parameter>\n<parameter=days>\n3\n</parameter>\n"
        "</function>\n</tool_call>"
    )
    (call,) = written_calls(text, TOOLS)
    assert call.arguments == {"city": "12", "days": 3}


@pytest.mark.promise("written-read")
@pytest.mark.parametrize("end", ["<|python_end|>", ""])
def test_code_between_the_marks_of_llama_4_is_calls(end):
    (call,) = written_calls(f'<|python_start|>[get_weather(city="x")]{end}', TOOLS)
    assert (call.name, call.arguments) == ("get_weather", {"city": "x"})


@pytest.mark.promise("written-read")
def test_a_name_means_one_tool_or_none():
    assert tool_named("get_time", TOOLS).name == "get_time"
    assert tool_named("Get_Time", TOOLS).name == "Get_Time"
    assert tool_named("GET_TIME", TOOLS) is None  # which of the two?
    assert tool_named("GET_WEATHER", TOOLS).name == "get_weather"
    assert tool_named("functions.get_weather", TOOLS).name == "get_weather"
    assert tool_named("weather", TOOLS) is None


def schema(**kinds):
    return {"type": "object", "properties": {name: {"type": kind} for name, kind in kinds.items()}}


OFFERED = [
    ToolSpec("get_weather", "", schema(city="string") | {"required": ["city"]}),
    ToolSpec("get_time", "", schema(tz="string")),
    ToolSpec("search", "", schema(query="string", k="integer", tags="array", deep="boolean")),
    ToolSpec("now", "", schema()),
]
PROTOCOLS = {"native": NativeProtocol(), "text": TextProtocol()}


def written():
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    file = Path(__file__).parents[2] / "wire_words" / "written.yaml"
    rows = yaml.load(file.read_text("utf-8"), loader)
    return [pytest.param(row, id=f"{row.get('protocol', 'native')}-{at}") for at, row in enumerate(rows)]


@pytest.mark.promise("written-read")
@pytest.mark.parametrize("row", written())
def test_turns_are_read_as_what_they_are(row):
    protocol, calls = PROTOCOLS[row.get("protocol", "native")], row.get("calls", [])
    wrong = []
    for text in row["texts"]:
        turn = protocol.read(LLMResponse(text=text), OFFERED)
        read = [[call.name, call.input] for call in turn.calls]
        answer = None if calls else row.get("answer", text)
        if read != calls or turn.answer != answer:
            wrong.append((text, read, turn.answer))
    assert wrong == []


@pytest.mark.promise("written-read")
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_calls_written_between_marks_are_never_told_as_the_answer(size):
    told = []
    for row in (param.values[0] for param in written()):
        for text in row["texts"] if row.get("calls") and "protocol" not in row else ():
            speech = Speech(PROTOCOLS["native"].answer_start)
            said = "".join(speech.hear(text[start : start + size])[1] for start in range(0, len(text), size))
            if may_be_calls(text) and said and not said.startswith(("get_weather", "<tool_calls>")):
                told.append((text, said))
    assert told == []


@pytest.mark.promise("written-read")
@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_a_call_within_reasoning_that_nothing_follows_is_made(protocol):
    called = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'
    beside = (Thinking(f"I could write <tool_call>. So:\n{called}"),)
    for response in (
        LLMResponse(text=f"<think>I need it. {called}"),
        LLMResponse(text=f"<think>I need it. {called}</think>"),
        LLMResponse(text="", thinking=beside),
    ):
        (call,) = protocol.read(response, OFFERED).calls
        assert (call.name, call.arguments) == ("get_weather", {"city": "Paris"})
    assert protocol.read(LLMResponse(text="Final Answer: 42", thinking=beside), OFFERED).calls == ()
    assert protocol.read(LLMResponse(text="", thinking=(Thinking(f"{called} is the form."),)), OFFERED).calls == ()
    assert part("<think>Not closed.") == ("Not closed.", "")


@pytest.mark.promise("written-read")
@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_a_call_that_breaks_off_is_no_answer_and_the_model_is_told(protocol):
    for text in (
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Par',
        "<tool_call><function=get_weather><parameter=city>Par",
        '[TOOL_CALLS][{"name": "get_weather", "arguments": {"ci',
        '<|channel|>commentary to=functions.get_weather<|message|>{"city": "Pa',
    ):
        turn = protocol.read(LLMResponse(text=text), OFFERED)
        assert (turn.calls, turn.answer, turn.problem) == ((), None, prompts.BROKEN_CALL)


@pytest.mark.promise("written-read")
def test_what_stands_below_an_action_and_is_no_input_is_told_and_not_dropped():
    (call,) = TextProtocol().read(LLMResponse(text="Action: get_time\nI will wait for it."), OFFERED).calls
    assert (call.name, call.malformed) == ("get_time", "I will wait for it.")
    (call,) = TextProtocol().read(LLMResponse(text="Action: now\nI will wait for it."), OFFERED).calls
    assert (call.name, call.arguments) == ("now", {})


@pytest.mark.promise("work-bounded")
@pytest.mark.parametrize(
    "piece",
    [
        *(
            "<tool_call>",
            "<function=get_weather>",
            "<tool_call>{",
            "[TOOL_CALLS]",
            '{"name": ',
            "<parameter=x>",
            "[get_time(",
        ),
        *(
            "</think>",
            "<think>",
            "<|channel|>",
            "```json\n",
            "analysis",
            "\n</think",
            "<invoke name=",
            "{{",
            '{"name":"get_weather"},',
            "<start_function_call>call:get_weather{",
            "<start_function_call>call:get_weather{city:<escape>",
            "<x:tool_call>",
            "<x:invoke name=",
            "<function_calls>get_time(",
            ">>>get_weather\n{",
            "<get_weather>",
            "get_weather\n<arg_key>",
            "<|tool_call>call:get_weather{city:",
            '<tool_call>{"name": "get_weather", "arguments": {}',
            "<tool_call>get_time(",
            '<|tool_call>call:get_weather{city:<|"|>',
            "<function=get_weather><parameter=x>",
            "<function=get_weather><parameter=city></function>",
            '<|open|>call tool="get_weather"<|sep|><|open|>argument key="city"<|sep|>',
            '<function=get_weather><param name="city"><![CDATA[',
            "<|DSML| invoke name=",
            "]<]minimax[>[<invoke",
            "to=get.weather<|message|><",
            '<function=get_weather>{"name": "get_weather", "arguments": {"city":',
        ),
    ],
)
def test_hostile_turns_are_read_in_linear_time(piece):
    text = piece * (MAX_CHARS // len(piece))
    assert written_calls(text, TOOLS) == ()
    part(text)
    calls_behind(text, TOOLS)
    may_be_calls(text)
    opening = Opening()
    for start in range(0, len(text), 64):
        opening.hear(text[start : start + 64])


@pytest.mark.promise("written-read")
@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>get_weather city="Paris"</tool_call>',
        '<tool_call>{"name"="get_weather", "arguments"={"city"="Paris"}}</tool_call>',
        "<tool_call>\nname: get_weather\narguments:\n  city: Paris\n</tool_call>",
    ],
)
@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_a_call_that_nobody_can_read_is_told_and_no_answer(protocol, text):
    assert protocol.read(LLMResponse(text=text), OFFERED).problem == prompts.BROKEN_CALL


@pytest.mark.promise("written-read")
@pytest.mark.parametrize("beside", ["for ann", "--customer ann"])
def test_words_behind_the_name_of_a_tool_do_not_call_it_with_its_defaults(beside):
    orders = [ToolSpec("orders", "", schema(customer="string", limit="integer"))]
    (call,) = PROTOCOLS["text"].read(LLMResponse(text=f"Action: orders {beside}"), orders).calls
    assert call.malformed == beside
