"""Reading ReAct text as models write it, and streaming the answer out of it."""

from __future__ import annotations

import json

import pytest

from shared_libs.agents.limits import Limits
from shared_libs.agents.protocol import NativeProtocol, TextProtocol
from shared_libs.agents.react_text import final_answer_start, read_react
from shared_libs.agents.run import Run
from shared_libs.agents.speech import NO_ANSWER, Speech
from shared_libs.atomic import LLMChunk, LLMResponse, ToolSpec
from shared_libs.atomic.events import TextDelta
from tests.support import run

pytestmark = pytest.mark.promise("react-parse")

TEXT = {"type": "object", "properties": {"query": {"type": "string"}}}
TWO = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}
TOOLS = [ToolSpec("sql", "Ask.", TEXT), ToolSpec("add", "Add.", TWO), ToolSpec("now", "The time.", {"type": "object"})]
ADD = [("add", {"a": 1, "b": 2})]
SQL = [("sql", {"query": "SELECT 1"})]


CALLS = {
    "as told": ('Thought: I add.\nAction: add\nAction Input: {"a": 1, "b": 2}', ADD),
    "no thought": ('Action: add\nAction Input: {"a": 1, "b": 2}', ADD),
    "a thought without its label": ('I should add.\n\nAction: add\nAction Input: {"a": 1, "b": 2}', ADD),
    "blank lines": ('Thought: hm\n\nAction: add\n\nAction Input:\n\n{"a": 1, "b": 2}\n\n', ADD),
    "windows line ends": ('Thought: hm\r\nAction: add\r\nAction Input: {"a": 1, "b": 2}\r\n', ADD),
    "lower case": ('thought: hm\naction: add\naction input: {"a": 1, "b": 2}', ADD),
    "upper case": ('THOUGHT: hm\nACTION: add\nACTION INPUT: {"a": 1, "b": 2}', ADD),
    "underscores": ('Action: add\nAction_Input: {"a": 1, "b": 2}', ADD),
    "no space in the label": ('Action: add\nActionInput: {"a": 1, "b": 2}', ADD),
    "no space behind the label": ('Thought:hm\nAction:add\nAction Input:{"a":1,"b":2}', ADD),
    "a space before the colon": ('Action : add\nAction Input : {"a": 1, "b": 2}', ADD),
    "indented": ('  Thought: hm\n  Action: add\n  Action Input: {"a": 1, "b": 2}', ADD),
    "numbered": ('Thought 1: hm\nAction 1: add\nAction Input 1: {"a": 1, "b": 2}', ADD),
    "bold labels": ('**Thought:** hm\n**Action:** add\n**Action Input:** {"a": 1, "b": 2}', ADD),
    "bold labels, the colon outside": ('**Action**: add\n**Action Input**: {"a": 1, "b": 2}', ADD),
    "a dash for the colon": ('Action - add\nAction Input - {"a": 1, "b": 2}', ADD),
    "a sign of equality for the colon": ('Action = `add`\nInput = {"a": 1, "b": 2}', ADD),
    "an arrow for the colon": ('Thought: hm\nAction -> add\nAction Input -> {"a": 1, "b": 2}', ADD),
    "elements for bold labels": ('<b>Action:</b> add\n<b>Action Input:</b> {"a": 1, "b": 2}', ADD),
    "a function": ('Function: add\nArguments: {"a": 1, "b": 2}', ADD),
    "headings": ('### Action: add\n### Action Input: {"a": 1, "b": 2}', ADD),
    "a list": ('- Action: add\n- Action Input: {"a": 1, "b": 2}', ADD),
    "a quotation": ('> Action: add\n> Action Input: {"a": 1, "b": 2}', ADD),
    "tool instead of action": ('Tool: add\nTool Input: {"a": 1, "b": 2}', ADD),
    "the name in backticks": ('Action: `add`\nAction Input: {"a": 1, "b": 2}', ADD),
    "the name in bold": ('Action: **add**\nAction Input: {"a": 1, "b": 2}', ADD),
    "the input in backticks": ('Action: add\nAction Input: `{"a": 1, "b": 2}`', ADD),
    "the input in a fence": ('Action: add\nAction Input:\n```json\n{"a": 1, "b": 2}\n```', ADD),
    "the input in a fence never closed": ('Action: add\nAction Input:\n```\n{"a": 1, "b": 2}', ADD),
    "the whole turn in a fence": ('```\nThought: hm\nAction: add\nAction Input: {"a": 1, "b": 2}\n```', ADD),
    "the input below the name": ('Action: add\n{"a": 1, "b": 2}', ADD),
    "a call with JSON": ('Action: add({"a": 1, "b": 2})', ADD),
    "a call with keywords": ("Action: add(a=1, b=2)", ADD),
    "keywords as input": ("Action: add\nAction Input: a=1, b=2", ADD),
    "a call with a text keyword": ('Action: sql(query="SELECT 1")', SQL),
    "a call with text": ('Action: sql("SELECT 1")', SQL),
    "a call with bare text": ("Action: sql(SELECT 1)", SQL),
    "a call with brackets inside": ("Action: sql(SELECT count(*))", [("sql", {"query": "SELECT count(*)"})]),
    "a call in square brackets": ("Action: sql[SELECT 1]", SQL),
    "a call without arguments": ("Action: now()", [("now", {})]),
    "no input": ("Action: now", [("now", {})]),
    "an empty input": ("Action: now\nAction Input:", [("now", {})]),
    "an empty object": ("Action: now\nAction Input: {}", [("now", {})]),
    "input none": ("Action: now\nAction Input: None", [("now", {})]),
    "single quotes": ("Action: add\nAction Input: {'a': 1, 'b': 2}", ADD),
    "a trailing comma": ('Action: add\nAction Input: {"a": 1, "b": 2,}', ADD),
    "JSON cut off": ('Action: add\nAction Input: {"a": 1, "b": 2', ADD),
    "a text cut off": ('Action: sql\nAction Input: {"query": "SELECT 1', SQL),
    "chatter behind the JSON": ('Action: add\nAction Input: {"a": 1, "b": 2}\nI wait for the result.', ADD),
    "an observation made up": (
        'Action: add\nAction Input: {"a": 1, "b": 2}\nObservation: 99\nThought: so\nFinal Answer: 99',
        ADD,
    ),
    "an answer behind an action": ('Action: add\nAction Input: {"a": 1, "b": 2}\nFinal Answer: 99', ADD),
    "two actions": (
        'Action: add\nAction Input: {"a": 1, "b": 2}\nAction: sql\nAction Input: {"query": "SELECT 1"}',
        ADD + SQL,
    ),
    "two actions, the first without input": ("Action: now\nAction: sql\nAction Input: SELECT 1", [("now", {}), *SQL]),
    "bare text for the only parameter": ("Action: sql\nAction Input: SELECT 1", SQL),
    "quoted text for the only parameter": ('Action: sql\nAction Input: "SELECT 1"', SQL),
    "quotes that are a part of the text": (
        "Action: sql\nAction Input: SELECT 1 WHERE a = 'x'",
        [("sql", {"query": "SELECT 1 WHERE a = 'x'"})],
    ),
    "quotes at both ends that do not belong together": (
        "Action: sql\nAction Input: 'a' = 'b'",
        [("sql", {"query": "'a' = 'b'"})],
    ),
    "braces and quotes in a text": (
        'Action: sql\nAction Input: {"query": "SELECT \'}\' || \\"{\\" FROM \\"t\\""} and so on',
        [("sql", {"query": 'SELECT \'}\' || "{" FROM "t"'})],
    ),
    "line breaks in a JSON text": (
        'Action: sql\nAction Input: {"query": "SELECT 1\nFROM t"}',
        [("sql", {"query": "SELECT 1\nFROM t"})],
    ),
    "a label in fenced code": (
        "Action: sql\nAction Input:\n```sql\nSELECT 1\n-- Action: none\n-- Answer: 2\n```\nObservation: 1",
        [("sql", {"query": "SELECT 1\n-- Action: none\n-- Answer: 2"})],
    ),
    "unicode": ('Action: sql\nAction Input: {"query": "café 北京 🙂"}', [("sql", {"query": "café 北京 🙂"})]),
    "escaped unicode": ('Action: sql\nAction Input: {"query": "\\u5317"}', [("sql", {"query": "北"})]),
    "nested": (
        'Action: add\nAction Input: {"a": {"x": [1, {"y": "}"}]}, "b": 2}',
        [("add", {"a": {"x": [1, {"y": "}"}]}, "b": 2})],
    ),
    "German": ('Gedanke: hm\nAktion: add\nAktionseingabe: {"a": 1, "b": 2}', ADD),
    "French": ('Pensée : hm\nAction : add\nEntrée de l\u2019action\u00a0: {"a": 1, "b": 2}', ADD),
    "Spanish": ('Pensamiento: hm\nAcción: add\nEntrada de la acción: {"a": 1, "b": 2}', ADD),
    "Italian": ('Pensiero: hm\nAzione: add\nInput dell\'azione: {"a": 1, "b": 2}', ADD),
    "Portuguese": ('Pensamento: hm\nAção: add\nEntrada da ação: {"a": 1, "b": 2}', ADD),
    "Russian": ('Мысль: hm\nДействие: add\nВходные данные: {"a": 1, "b": 2}\nНаблюдение: 3', ADD),
    "Chinese": ('思考:hm\n行动:add\n行动输入:{"a": 1, "b": 2}\n观察:3', ADD),
    "Japanese": ('思考: hm\n行動: add\n行動入力: {"a": 1, "b": 2}\n観察: 3', ADD),
    "Korean": ('생각: hm\n행동: add\n행동 입력: {"a": 1, "b": 2}\n관찰: 3', ADD),
}


ANSWERS = {
    "as told": ("Thought: I know.\nFinal Answer: It is 3.", "It is 3."),
    "no thought": ("Final Answer: It is 3.", "It is 3."),
    "lower case": ("final answer: It is 3.", "It is 3."),
    "short": ("Answer: It is 3.", "It is 3."),
    "no space in the label": ("FinalAnswer: It is 3.", "It is 3."),
    "bold": ("**Final Answer:** It is 3.", "It is 3."),
    "bold, the colon outside": ("**Final Answer**: It is 3.", "It is 3."),
    "a heading": ("## Final Answer: It is 3.", "It is 3."),
    "below its label": ("Thought: hm\nFinal Answer:\n\nIt is 3.", "It is 3."),
    "of several lines": ("Final Answer: One.\n\nTwo.\n- three", "One.\n\nTwo.\n- three"),
    "labels in it": (
        "Final Answer: Do this:\nAction: press the button\nObservation: it glows\nThought: nice",
        "Do this:\nAction: press the button\nObservation: it glows\nThought: nice",
    ),
    "code in it": (
        "Final Answer: So:\n```python\nprint('Final Answer: 1')\n```\nDone.",
        "So:\n```python\nprint('Final Answer: 1')\n```\nDone.",
    ),
    "JSON in it": ('Final Answer: {"a": 1}', '{"a": 1}'),
    "bold words in it": ("Final Answer: **3** is it", "**3** is it"),
    "behind no action": ("Thought: no tool\nAction: None\nFinal Answer: It is 3.", "It is 3."),
    "behind no action and no input": ("Action: N/A\nAction Input: N/A\nFinal Answer: It is 3.", "It is 3."),
    "as an action": ("Thought: I know.\nAction: Final Answer\nAction Input: It is 3.", "It is 3."),
    "as an action on one line": ("Action: Final Answer: It is 3.", "It is 3."),
    "as an action, below": ("Action: Final Answer\nIt is 3.", "It is 3."),
    "as an action of the first paper": ("Action: Finish[It is 3.]", "It is 3."),
    "in a fence": ("```\nThought: hm\nFinal Answer: It is 3.\n```", "It is 3."),
    "without any label": ("It is 3.", "It is 3."),
    "a rule of dashes": ("Final Answer: a\n" + "-" * 60 + "\nb", "a\n" + "-" * 60 + "\nb"),
    "a table": ("| a | b |\n|---|---|\n| 1 | 2 |", "| a | b |\n|---|---|\n| 1 | 2 |"),
    "German": ("Gedanke: klar\nEndgültige Antwort: Drei.", "Drei."),
    "French": ("Pensée : oui\nRéponse finale\u00a0: trois", "trois"),
    "French, a narrow space": ("Réponse finale\u202f: trois", "trois"),
    "Spanish": ("Pensamiento: sí\nRespuesta final: tres", "tres"),
    "Italian": ("Pensiero: sì\nRisposta finale: tre", "tre"),
    "Portuguese": ("Pensamento: sim\nResposta final: três", "três"),
    "Russian": ("Мысль: да\nОкончательный ответ: три", "три"),
    "Chinese": ("思考:知道了\n最终答案:三", "三"),
    "Chinese, a wide colon": ("最终答案\uff1a三", "三"),
    "Japanese": ("思考: はい\n最終回答: 三", "三"),
    "Korean": ("생각: 네\n최종 답변: 셋", "셋"),
}


@pytest.mark.parametrize("name", CALLS)
def test_calls_are_read_as_models_write_them(name):
    text, expected = CALLS[name]
    found = read_react(text, TOOLS)
    assert [(call.name, call.arguments) for call in found.calls] == expected
    assert [call.malformed for call in found.calls] == [None] * len(expected)
    assert found.answer is None


@pytest.mark.parametrize("name", ANSWERS)
def test_answers_are_read_as_models_write_them(name):
    text, expected = ANSWERS[name]
    found = read_react(text, TOOLS)
    assert (found.answer, found.calls) == (expected, ())


def test_the_thought_is_what_stands_before():
    assert read_react("First.\nThought: Second.\nFinal Answer: x", ()).thought == "First.\nSecond."
    assert read_react('Thought: **I** add.\nAction: add\nAction Input: {"a": 1}', ()).thought == "**I** add."


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  \n",
        "Thought: hm",
        "Final Answer:",
        "Final Answer: \n",
        "Thought: hm\nObservation: 3\nFinal Answer: 3",
        "Action: None",
    ],
)
def test_neither_a_call_nor_an_answer_is_neither(text):
    found = read_react(text, TOOLS)
    assert (found.calls, found.answer) == ((), None)


@pytest.mark.parametrize(
    "given",
    [
        '{"a": 1, "b"',
        "{'a': true}",
        "{[1]: 2}",
        "{'a': 1+2j}",
        "{'a': ...}",
        '{"a": ' + "[" * 5000,
        '{"a": ' * 5000,
        "{1: 2}",
        "[1, 2]",
        "some words",
        "a = b = c",
        "{'a': '\0'}}}",
    ],
)
def test_what_is_no_object_is_kept_for_the_model_to_see(given):
    (call,) = read_react(f"Action: add\nAction Input: {given}", TOOLS).calls
    json.dumps(call.input)
    assert call.malformed == given.strip() or call.arguments == {"a": "\0"}


def test_broken_json_is_not_taken_for_the_text_of_the_only_parameter():
    (call,) = read_react('Action: sql\nAction Input: {"query" "SELECT 1"}', TOOLS).calls
    assert call.malformed == '{"query" "SELECT 1"}'


def test_a_tool_may_be_called_as_an_answer_is():
    tools = [ToolSpec("finish", "", TEXT)]
    (call,) = read_react("Action: finish\nAction Input: now", tools).calls
    assert (call.name, call.arguments) == ("finish", {"query": "now"})


@pytest.mark.parametrize(
    "piece",
    ["-", "*", "> ", "# ", " ", "\t", "\n", "`", "```\n", "{", "[", "(", "'", '"', "\\", "Action: ", "a", "\u5317"],
)
@pytest.mark.parametrize("before", ["", "Action: a", "Action: add\nAction Input: ", "Action: add\nAction Input: {"])
def test_a_huge_turn_is_read_in_no_time(before, piece):
    text = before + piece * (60_000 // len(piece)) + "x"
    read_react(text, TOOLS)
    final_answer_start(text)


def test_many_thousand_labels_are_read():
    assert len(read_react("Action: now\n" * 20_000, TOOLS).calls) == 20_000
    assert read_react("Thought: x\n" * 20_000, TOOLS).answer is None


def streamed(text, cuts, protocol=TextProtocol):
    """What listeners hear of the answer when the text comes in pieces cut at `cuts`."""
    said = []
    hear = [lambda event: said.append(event.text) if isinstance(event, TextDelta) else None]
    turn = Run("r", 10, Limits(), hear, stores=False)
    turn.listen(protocol().answer_start)
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        turn.hear(LLMChunk("text", text[start:end]))
    assert turn.answer_so_far.startswith("".join(said))
    return "".join(said)


@pytest.mark.parametrize("name", sorted({*CALLS, *ANSWERS}))
def test_what_is_streamed_is_the_answer_however_it_is_cut(name):
    for text, _ in filter(None, (CALLS.get(name), ANSWERS.get(name))):
        answer = read_react(text, TOOLS).answer

        async def main(text=text):
            cuts = [[], *([cut] for cut in range(1, len(text))), list(range(1, len(text)))]
            return {streamed(text, cut) for cut in cuts}

        # without its label, in a fence or as an action an answer shows only at the end of the turn
        expected = "" if final_answer_start(text) in (None, NO_ANSWER) else answer
        assert run(main()) == {expected}


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Thought: I know.\nFinal Answer: It is\n42.", "It is\n42."),
        ("Thought: I know.\nAnd more.\n\nFinal Answer: 42", "42"),
        ("Thought: I look.\nAction: add\nAction Input: {}", ""),
        ("A thought: 42.\nFinal Answer: yes", "A thought: 42.\nFinal Answer: yes"),
    ],
)
def test_a_model_told_in_words_behind_native_ones_is_streamed_as_it_writes(text, answer):
    async def main():
        cuts = [[], *([cut] for cut in range(1, len(text))), list(range(1, len(text)))]
        return {streamed(text, cut, NativeProtocol) for cut in cuts}

    assert run(main()) == {answer}
    assert (NativeProtocol().read(LLMResponse(text=text), TOOLS).answer or "") == answer


@pytest.mark.promise("work-bounded")
@pytest.mark.parametrize("piece", ["word ", "a: b\n", "Thought: x\n", "x:"])
def test_hearing_a_turn_is_work_that_grows_with_its_text_alone(piece):
    """Each piece is looked at for a label with the line it stands in, and never with all that came before."""

    def looked_at(pieces):
        seen = []

        def answer_start(text, new=None):
            seen.append(len(text))
            return final_answer_start(text, new)

        speech = Speech(answer_start)
        for _ in range(pieces):
            speech.hear(piece)
        return sum(seen)

    if "\n" in piece:
        assert looked_at(2000) < 2.5 * looked_at(1000)
    native = Speech(lambda text, new: 0)
    assert [native.hear(piece) for _ in range(3)] == [("", piece)] * 3
    assert native.text == native.answer == piece * 3
