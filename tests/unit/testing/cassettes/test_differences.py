"""A request that is not as recorded is named: message and line, tool and path of its schema, option."""

from __future__ import annotations

import pytest

from shared_libs.atomic.llms import ScriptedLLM
from shared_libs.atomic.llms.scripted_llm import Turn
from shared_libs.atomic.types import Message, ToolCall, ToolSpec
from shared_libs.testing.cassettes import CassetteMismatch, Player, Recorder
from shared_libs.testing.cassettes.data import Asked, Line
from shared_libs.testing.cassettes.differences import differences
from tests.support import run_virtual

PROMPT = "You look up facts.\nBe brief.\nAnswer in English."
SCHEMA = {
    "type": "object",
    "properties": {
        "q": {"type": "string", "maxLength": 80},
        "deep": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
    },
    "required": ["q"],
}
LOOK = ToolSpec("look", "Looks something up.", SCHEMA)
ADD = ToolSpec("add", "Adds.", {"type": "object", "properties": {"a": {"type": "number"}}})
TALK = [
    Message("system", PROMPT),
    Message("user", "Who?"),
    Message("assistant", "Let me look.", tool_calls=(ToolCall("c1", "look", {"q": "who"}),)),
    Message("tool", "Ada\nborn 1815", tool_call_id="c1"),
]


def changed(index, message):
    return [*TALK[:index], message, *TALK[index + 1 :]]


def with_schema(**more):
    return ToolSpec("look", "Looks something up.", SCHEMA | more)


CASES = {
    "a line of the prompt": (
        (changed(0, Message("system", PROMPT.replace("brief", "very brief"))), [LOOK, ADD], {}),
        ["message 0 (system): line 2: “Be brief.” → “Be very brief.”"],
    ),
    "a new line and one that is gone": (
        (changed(0, Message("system", "You look up facts.\nAnswer in English.\nUse tables.")), [LOOK, ADD], {}),
        ["message 0 (system): line 2 is gone: “Be brief.”", "message 0 (system): line 3 is new: “Use tables.”"],
    ),
    "a result": (
        (changed(3, Message("tool", "Ada\nborn 1816", tool_call_id="c1")), [LOOK, ADD], {}),
        ["message 3 (tool): line 2: “born 1815” → “born 1816”"],
    ),
    "a result that became an error": (
        (changed(3, Message("tool", "Ada\nborn 1815", tool_call_id="c1", is_error=True)), [LOOK, ADD], {}),
        ["message 3 (tool): error: false → true"],
    ),
    "an argument": (
        (
            changed(2, Message("assistant", TALK[2].text, tool_calls=(ToolCall("c1", "look", {"q": "x"}),))),
            [LOOK, ADD],
            {},
        ),
        ['message 2 (assistant): calls[0].input.q: "who" → "x"'],
    ),
    "a message more": (
        ([TALK[0], Message("user", "Hello\nyou"), *TALK[1:]], [LOOK, ADD], {}),
        ["message 1 (user) is new: “Hello⏎you”"],
    ),
    "a message less": (([TALK[0], *TALK[2:]], [LOOK, ADD], {}), ["message 1 (user) is missing: “Who?”"]),
    "another role": (
        (changed(1, Message("system", "Who?")), [LOOK, ADD], {}),
        ["message 1 was the user's and is the system's: “Who?”"],
    ),
    "a tool more": ((TALK, [LOOK, ADD, ToolSpec("sub", "", {})], {}), ["tool sub: is new"]),
    "a tool less": ((TALK, [LOOK], {}), ["tool add: is gone"]),
    "a description": (
        (TALK, [ToolSpec("look", "Looks it up.", SCHEMA), ADD], {}),
        ["tool look: description, line 1: “Looks something up.” → “Looks it up.”"],
    ),
    "a schema": (
        (TALK, [with_schema(properties={"q": {"type": "integer"}, "n": {}, "deep": {"anyOf": [{}]}}), ADD], {}),
        [
            'tool look: parameter schema, properties.q.type: "string" → "integer"',
            "tool look: parameter schema, properties.q.maxLength is gone (it was 80)",
            'tool look: parameter schema, properties.deep.anyOf: [{"type":"integer"},{"type":"null"}] → [{}]',
            "tool look: parameter schema, properties.n is new: {}",
        ],
    ),
    "options": (
        (TALK, [LOOK, ADD], {"temperature": 1, "seed": 7}),
        ["option temperature: 0 → 1", "option seed is new: 7"],
    ),
}


def recorded():
    recorder = Recorder()
    llm = recorder.chain(ScriptedLLM(["Ada."]))
    run_virtual(llm.async_chat(TALK, [LOOK, ADD]))
    return recorder.cassette()


@pytest.mark.promise("replay-named")
@pytest.mark.parametrize("case", CASES)
def test_the_difference_is_named(case):
    (messages, tools, options), expected = CASES[case]
    recorder = Recorder()
    given = {"temperature": 0} if options else {}
    run_virtual(recorder.chain(ScriptedLLM(["Ada."])).async_chat(TALK, [LOOK, ADD], **given))
    player = Player(recorder.cassette())
    with pytest.raises(CassetteMismatch):
        run_virtual(player.chain(ScriptedLLM([])).async_chat(messages, tools, **options))
    head, *lines = player.differences()[0].split("\n  ")
    assert head == "request 1 (scripted/scripted) is not as recorded:"
    assert lines == expected


def test_of_a_long_line_the_place_is_shown_where_it_parts():
    recorder = Recorder()
    run_virtual(recorder.chain(ScriptedLLM(["A"])).async_chat("a" * 500 + "b" + "c" * 500))
    player = Player(recorder.cassette())
    with pytest.raises(CassetteMismatch):
        run_virtual(player.chain(ScriptedLLM([])).async_chat("a" * 500 + "B" + "c" * 500))
    shown = f"“…{'a' * 30}b{'c' * 59}…” → “…{'a' * 30}B{'c' * 59}…”"
    assert player.differences() == [
        f"request 1 (scripted/scripted) is not as recorded:\n  message 0 (user): line 1: {shown}"
    ]


def test_the_order_of_tools_does_not_matter():
    player = Player(recorded())
    assert run_virtual(player.chain(ScriptedLLM([])).async_chat(TALK, [ADD, LOOK])).text == "Ada."


def test_parts_of_a_message_and_texts_to_embed_are_named():
    asked = Asked(model="p/m", messages=(Line(role="user", content=[{"text": "a"}, {"text": "b"}]),), texts=("x", "y"))
    now = Asked(model="p/m", messages=(Line(role="user", content=[{"text": "a"}, {"text": "c"}]),), texts=("x", "z"))
    assert differences(asked, now) == ['message 0 (user): content[1].text: "b" → "c"', 'texts to embed: [1]: "y" → "z"']


@pytest.mark.promise("provider-ids")
def test_ids_of_calls_do_not_matter():
    player = Player(recorded())
    call = ToolCall("call_9f3", "look", {"q": "who"})
    messages = [*TALK[:2], Message("assistant", TALK[2].text, tool_calls=(call,))]
    messages.append(Message("tool", TALK[3].text, tool_call_id="call_9f3"))
    assert run_virtual(player.chain(ScriptedLLM([])).async_chat(messages, [LOOK, ADD])).text == "Ada."


def test_ids_given_are_not_taken_already():
    recorder = Recorder()
    llm = recorder.chain(ScriptedLLM([Turn(calls=[("look", {"q": "z"})])]))
    talk = [*TALK[:2], Message("assistant", "", tool_calls=(ToolCall("call_2", "look", {"q": "x"}),))]
    talk.append(Message("tool", "y", tool_call_id="call_2"))
    run_virtual(llm.async_chat(talk))
    again = run_virtual(Player(recorder.cassette()).chain(ScriptedLLM([])).async_chat(talk))
    assert [call.id for call in again.tool_calls] == ["call_2_"]


def test_of_several_requests_the_nearest_is_compared_and_many_lines_are_counted():
    recorder = Recorder()
    llm = recorder.chain(ScriptedLLM(["A", "B"]))
    run_virtual(llm.async_chat([Message("system", "One"), Message("user", "x")]))
    run_virtual(llm.async_chat([Message("system", "Two"), Message("user", "\n".join("abcdefghijkl"))]))
    player = Player(recorder.cassette())
    with pytest.raises(CassetteMismatch):
        run_virtual(
            player.chain(ScriptedLLM([])).async_chat(
                [Message("system", "Two"), Message("user", "\n-\n".join("ABCDEFGHIJKL"))]
            )
        )
    head, *lines = player.differences()[0].split("\n  ")
    assert head.startswith("request 2 ")
    assert len(lines) == 9
    assert lines[-1].startswith("and ")
