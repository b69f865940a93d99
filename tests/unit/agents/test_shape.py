"""Agents that return values: `output_schema` on the agent, the run and in YAML; `result.output`."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import json
import math
from typing import Annotated, Generic, Literal, TypeVar

import pydantic
import pytest

from shared_libs.agents import AgentResult, Decision, ReActAgent, StreamRestarted
from shared_libs.atomic import InProcessMemory, MisuseError, tool
from shared_libs.atomic.llms import AnthropicLLM, OllamaLLM, OpenAILLM, ScriptedLLM, Turn
from shared_libs.atomic.llms.structured import OutputSchema
from shared_libs.atomic.types import Message, Thinking
from shared_libs.factory import agent_from_dict
from shared_libs.tools.agent import AgentTool
from tests.support import is_valid_history, run_virtual
from tests.unit.agents.cast import NO_RETRY, add, agent, call, wait_

T = TypeVar("T")


class City(pydantic.BaseModel):
    name: str
    people: int
    tags: list[str] = []


BONN = '{"name": "Bonn", "people": 3}'
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "people": {"type": "integer"}},
    "required": ["name", "people"],
}


def asked(script, *tools, question="?", options=None, **settings):
    return run_virtual(agent(script, *tools, **settings).async_run(question, **(options or {})))


@pytest.mark.promise("output-fits")
@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("tools", [(), (add,)])
def test_an_answer_comes_as_the_type_that_was_asked_for(native, tools):
    answer = BONN if native or not tools else f"Thought: so\nFinal Answer: {BONN}"
    steps = [] if not tools else [call("add", a=1, b=2) if native else 'Action: add\nAction Input: {"a": 1, "b": 2}']
    llm = ScriptedLLM([*steps, answer], native_tools=native, resilience=NO_RETRY)
    result = asked(llm, *tools, output_schema=City)
    assert (result.status, result.output) == ("answered", City(name="Bonn", people=3))
    assert result.output_data == {"name": "Bonn", "people": 3, "tags": []}
    assert all(any('"people"' in message.text for message in request) for request in llm.requests)
    again = AgentResult.from_dict(json.loads(json.dumps(result.to_dict())))
    assert again.output == result.output_data


@pytest.mark.promise("output-fits")
@pytest.mark.parametrize("wanted", [City, SCHEMA, dataclasses.make_dataclass("Town", [("name", str), ("people", int)])])
def test_a_run_may_ask_for_a_shape_of_its_own(wanted):
    result = asked([BONN], options={"output_schema": wanted}, output_schema={"type": "array"})
    assert result.output == (wanted(name="Bonn", people=3) if isinstance(wanted, type) else json.loads(BONN))


@pytest.mark.promise("output-fits")
@pytest.mark.parametrize(
    "wrong", ["Bonn", '{"name": "Bonn"}', '{"name": "Bonn", "people": "many"}', "```json\n[]\n```", "{", "null"]
)
@pytest.mark.parametrize("wanted", [City, SCHEMA])
def test_a_wrong_answer_is_sent_back_once_without_tools(wrong, wanted):
    llm = ScriptedLLM([call("add", a=1, b=2), wrong, BONN], resilience=NO_RETRY)
    memory = InProcessMemory()
    built = agent(llm, add, output_schema=wanted, memory=memory)

    async def main():
        events = [event async for event in built.async_stream("?", session_id="s")]
        return events, await memory.async_load("s")

    events, stored = run_virtual(main())
    result = events[-1].result
    assert (result.status, result.output_data["people"]) == ("answered", 3)
    assert llm.tools[-1] == ()
    assert any(message.text.startswith("That is not valid: ") for message in llm.requests[-1])
    assert [event.reason for event in events if isinstance(event, StreamRestarted)][-1].startswith(
        "the answer does not"
    )
    assert [message.text for message in stored if message.role == "assistant"][-1] == BONN
    assert is_valid_history(stored)
    assert not any(message.text.startswith("That is not valid") for message in stored)
    assert len(result.steps) == 2


@pytest.mark.promise("output-fits")
def test_an_answer_that_is_wrong_twice_has_failed_and_says_why():
    result = asked(['{"name": "Bonn"}', '{"name": "Bonn", "people": "x"}'], output_schema=City)
    assert (result.status, result.stop_reason, result.output) == ("failed", "error", None)
    assert "people" in result.error
    assert result.partial_output == {"name": "Bonn"}
    assert result.answer == '{"name": "Bonn", "people": "x"}'


@pytest.mark.promise("output-partial")
def test_at_the_deadline_the_last_word_has_the_shape():
    llm = ScriptedLLM([call("wait", seconds=50), BONN], resilience=NO_RETRY)
    result = asked(llm, wait_, output_schema=City, limits={"timeout_s": 10})
    assert (result.status, result.stop_reason, result.output) == ("partial", "deadline", City(name="Bonn", people=3))
    assert "in its shape" in llm.requests[-1][-2].text
    assert result.error is None


@pytest.mark.promise("output-partial")
@pytest.mark.parametrize(
    ("last", "part", "missing"),
    [
        (['{"name": "Bonn"}', '{"name": "Bonn"}'], {"name": "Bonn"}, "people"),
        ([Turn(text='{"name": "Bonn", "people": 12', chunk_delay_s=0.7)], {"name": "Bonn"}, "people"),
        ([Turn(text="x", delay_s=math.inf)], None, "not JSON"),
        (["I do not know", "really"], None, "not JSON"),
    ],
)
@pytest.mark.parametrize("wanted", [City, SCHEMA])
def test_at_the_deadline_what_fits_is_returned_and_it_says_what_is_missing(last, part, missing, wanted):
    llm = ScriptedLLM([call("wait", seconds=50), *last], resilience=NO_RETRY)
    result = asked(llm, wait_, output_schema=wanted, limits={"timeout_s": 10})
    assert (result.status, result.stop_reason, result.output) == ("partial", "deadline", None)
    assert result.partial_output == part
    assert missing in result.error
    assert "output_schema" in result.error
    assert result.elapsed_s <= 10


class Leaf(pydantic.BaseModel):
    kind: Literal["leaf"]
    size: int
    name: str


class Branch(pydantic.BaseModel):
    kind: Literal["branch"]
    parts: list[Branch | Leaf] = []
    name: str


Node = pydantic.RootModel[Annotated[Leaf | Branch, pydantic.Field(discriminator="kind")]]


@pytest.mark.promise("output-fits")
@pytest.mark.parametrize(
    ("wanted", "said", "part"),
    [
        (Branch, '{"kind": "branch", "parts": [', {"kind": "branch", "parts": []}),  # its schema is a reference
        ({"$ref": "#/$defs/City", "$defs": {"City": SCHEMA}}, '{"name": "Bonn", "people"', {"name": "Bonn"}),
        ({"allOf": [SCHEMA]}, '{"name": "Bonn", "people": "3"}', {"name": "Bonn"}),
        ({"anyOf": [SCHEMA, {"type": "object"}], "required": ["x"]}, '{"name": "Bonn"}', None),
        (Node, '{"kind": "leaf", "size": "big", "name"', {"kind": "leaf"}),
        (pydantic.RootModel[dict[str, int]], '{"a": 1, "b": "x", "c": 2', {"a": 1}),
        ({"type": ["array", "null"], "items": {"type": "integer"}}, '[1, "x", 2]', [1, 2]),
        (SCHEMA, '["Bonn"]', None),
    ],
)
def test_what_fits_is_kept_of_every_form_of_schema(wanted, said, part):
    assert OutputSchema(wanted).fitting_part(said)[0] == part


@pytest.mark.promise("output-fits")
def test_the_answer_that_comes_without_its_label_is_taken():
    llm = ScriptedLLM([BONN], native_tools=False, resilience=NO_RETRY)
    assert asked(llm, add, output_schema=City).output == City(name="Bonn", people=3)


@pytest.mark.promise("output-fits")
@pytest.mark.parametrize("where", ["agent", "run", "resume"])
def test_a_run_that_was_paused_still_has_its_shape(where):
    @tool(needs_approval=True)
    async def write(note: str) -> str:
        """Write."""
        return note

    def built():
        script = [BONN] if built.begun else [call("write", note="x")]
        built.begun = True
        return agent(script, write, **({"output_schema": City} if where == "agent" else {}))

    built.begun = False

    async def main():
        first = await built().async_run("?", **({} if where == "agent" else {"output_schema": City}))
        assert first.status == "paused", first
        assert first.output is None
        kept = json.dumps(first.state)
        decisions = {first.pending[0].call_id: Decision(approved=True)}
        return await built().async_resume(kept, decisions, **({"output_schema": City} if where == "resume" else {}))

    result = run_virtual(main())
    assert result.status == "answered"
    fits = City(name="Bonn", people=3)
    assert result.output == (json.loads(BONN) if where == "run" else fits)


def test_a_shape_in_a_definition():
    definition = {"name": "a", "llm": {"provider": "openai", "model": "m"}, "output_schema": SCHEMA}
    built = agent_from_dict(definition, llm=ScriptedLLM(["no", BONN], resilience=NO_RETRY))
    assert run_virtual(built.async_run("?")).output == json.loads(BONN)


@pytest.mark.promise("output-fits")
def test_a_sub_agent_hands_its_output_back():
    inner = agent([f"Here it is: {BONN}"], output_schema=City, name="inner")
    llm = ScriptedLLM([call("inner", question="?"), "done"], resilience=NO_RETRY)
    result = asked(llm, AgentTool(inner, description="asks"))
    assert json.loads(result.steps[0].observations[0].content) == {"name": "Bonn", "people": 3, "tags": []}
    wrong = agent(["no", "no"], output_schema=City, name="inner")
    result = asked([call("inner", question="?"), "done"], AgentTool(wrong, description="asks"))
    assert result.steps[0].observations[0].is_error


@pytest.mark.promise("output-fits")
@pytest.mark.parametrize(
    "said",
    [
        f"<think>maybe {{}}</think>{BONN}",
        f"Sure:\n```json\n{BONN}\n```\nAnything else?",
        f"<|channel|>final<|message|>{BONN}",
        f"\n\n  {BONN}  ",
    ],
)
def test_what_models_write_around_an_answer_is_no_part_of_it(said):
    assert asked([said], output_schema=City).output == City(name="Bonn", people=3)


@pytest.mark.promise("output-fits")
def test_thoughts_and_calls_written_out_are_no_wrong_answer():
    written = '<tool_call>{"name": "add", "arguments": {"a": 1, "b": 2}}</tool_call>'
    llm = ScriptedLLM([written, BONN], resilience=NO_RETRY)
    result = asked(llm, add, output_schema=City)
    assert (result.output.people, len(llm.requests)) == (3, 2)


class Tree(pydantic.BaseModel):
    children: list[Tree] = []


class Unwritable(pydantic.BaseModel):
    call: pydantic.SkipValidation[object] = None
    people: int

    @pydantic.field_validator("people")
    @classmethod
    def _broken(cls, people):
        return {3: people}[people]


@pytest.mark.promise("output-fits")
def test_what_is_hostile_is_bounded():
    deep = '{"children": [' * 5000 + "]}" * 5000
    result = asked([deep, deep], output_schema=Tree)
    assert result.status == "failed"
    wide = {"anyOf": [{"type": "array", "items": {"$ref": "#"}}] * 30}
    result = asked(["[" * 60 + "1" + "]" * 60] * 2, output_schema=wide)
    assert (result.status, result.partial_output) == ("failed", None)
    result = asked(['{"people": 4}', '{"people": 3}'], output_schema=Unwritable)
    assert result.output.people == 3


class Sum(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    people: float
    day: int = pydantic.Field(1, validation_alias="d", serialization_alias="D")
    note: str = "-"

    @pydantic.computed_field
    @property
    def twice(self) -> float:
        return {3: 6, math.inf: math.inf}[self.people]

    @pydantic.field_validator("people")
    @classmethod
    def _leaves(cls, people):
        raises = {1: asyncio.CancelledError, 2: SystemExit}.get(people)
        if raises is not None:
            raise raises
        return people


Verdict = pydantic.RootModel[enum.Enum("Word", {"YES": "yes", "NO": "no"})]


@dataclasses.dataclass
class Of(Generic[T]):
    people: T


@pytest.mark.promise("output-fits")
@pytest.mark.parametrize(
    ("wanted", "said", "data", "asked_again"),
    [
        (Sum, '{"people": 3, "d": 4}', {"people": 3, "d": 4}, False),  # its type refuses what it writes itself
        (Sum, '{"people": 5}', {"people": 5}, False),  # and this it cannot write
        (Sum, '{"people": "inf"}', {"people": "inf"}, False),  # no number of JSON
        (Sum, '{"people": 1}', {"people": 3}, True),  # a validator's cancellation is nobody's
        (Sum, '{"people": 2}', {"people": 3}, True),
        (Of[int], BONN, {"people": 3}, False),
        ({"enum": ["yes", "no"]}, "```\nno\n```", "no", False),
        (Verdict, " yes\n", "yes", False),
        (SCHEMA, f"```json\n{BONN}\n```\nNo:\n```json\n{BONN.replace('3', '4')}\n```", {"people": 3}, True),
        (SCHEMA, f"```json\n{BONN}\n```\nas in:\n```python\nf([1])\n```", json.loads(BONN), False),
    ],
)
def test_what_is_kept_of_an_answer_is_what_its_type_reads_again(wanted, said, data, asked_again):
    llm = ScriptedLLM([said, '{"people": 3, "name": "Bonn"}' if wanted is SCHEMA else '{"people": 3}'])
    result = asked(llm, output_schema=wanted)
    assert (result.status, len(llm.requests)) == ("answered", 1 + asked_again)
    assert data == (result.output_data if isinstance(data, str) else {key: result.output_data[key] for key in data})
    again = json.loads(json.dumps(result.to_dict(), allow_nan=False))["output"]
    assert isinstance(wanted, dict) or pydantic.TypeAdapter(wanted).validate_json(json.dumps(again)) == result.output


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        (int, "not <class 'int'>"),
        ("City", "not 'City'"),
        (City(name="x", people=1), "not City"),
        (list[City], "RootModel"),
        ({"type": "nonsense"}, "not a JSON Schema"),
        ({"name": {"type": "string"}}, "no word of one, but 'name'"),
        ({"name": "city", "strict": True, "schema": SCHEMA}, "no word of one, but 'name'"),
        ({"$ref": "https://example.org/x"}, "leads out"),
        (pydantic.create_model("Odd", call=(type(print), ...), __config__={"arbitrary_types_allowed": True}), "Odd"),
    ],
)
def test_what_is_no_shape_is_refused_at_once(wanted, why):
    with pytest.raises(MisuseError, match=why):
        ReActAgent(llm=ScriptedLLM([]), output_schema=wanted)
    with pytest.raises(MisuseError, match=why):
        run_virtual(agent([]).async_run("?", output_schema=wanted))


@pytest.mark.promise("output-fits")
def test_a_provider_that_can_is_held_to_the_shape_and_told_otherwise_where_that_would_keep_it_from_tools():
    shape, question, tools = OutputSchema(City), [Message("system", "s"), Message("user", "?")], (add.spec,)
    own = OpenAILLM("gpt-5.4", api_key="k")._request(question, tools, {"output_schema": shape})
    assert own["response_format"]["json_schema"]["name"] == "City"
    other = OpenAILLM("m", base_url="http://127.0.0.1:1/v1")
    beside = other._request(question, tools, {"output_schema": shape})
    assert "response_format" not in beside
    assert '"people"' in beside["messages"][0]["content"]
    assert other._request(question, (), {"output_schema": shape})["response_format"]["type"] == "json_schema"
    claude = AnthropicLLM("claude-sonnet-5", api_key="k")._request(question, tools, {"output_schema": shape})
    assert claude["output_config"]["format"]["type"] == "json_schema"
    local = OllamaLLM("m")._request(question, tools, {"output_schema": shape})
    assert "format" not in local
    assert '"people"' in local["messages"][0]["content"]


def test_a_reply_in_a_shape_ends_with_the_right_one():
    async def main():
        reply = await agent(["no", BONN], output_schema=City).chat("?")
        text = await reply
        return text, reply.result

    text, result = run_virtual(main())
    assert text == BONN
    assert result.output == City(name="Bonn", people=3)


def test_the_reasoning_of_a_repaired_answer_is_not_sent_for_another_one():
    llm = ScriptedLLM(["no", BONN], resilience=NO_RETRY)
    asked(llm, output_schema=City)
    assert not any(isinstance(block, Thinking) for message in llm.requests[-1] for block in message.thinking)
