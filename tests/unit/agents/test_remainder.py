"""What was cut off an observation can be read on, by the run that saw it."""

from __future__ import annotations

from shared_libs.agents import ReActAgent
from shared_libs.agents.remainder import KEPT_CHARS, ReadRest
from shared_libs.atomic import tool
from shared_libs.atomic.llms import ScriptedLLM, Turn
from tests.support import run_virtual

TEXT = "".join(f"{number:06d}\n" for number in range(100))


def reading(*turns, text=TEXT, tools=()):
    """Run an agent whose tool says too much, and return the result and the tools each request offered."""

    @tool(max_observation_chars=200)
    async def long() -> str:
        return text

    llm = ScriptedLLM([Turn(calls=[("long", {})]), *turns, "done"])
    result = run_virtual(ReActAgent(llm=llm, tools=[long, *tools]).async_run("go"))
    assert result.status == "answered", result
    seen = [observation for step in result.steps for observation in step.observations]
    return seen, [[spec.name for spec in specs] for specs in llm.tools]


def rest(offset, output="call_1_1"):
    return Turn(calls=[("read_rest", {"output": output, "offset": offset})])


def test_the_note_at_the_cut_says_how_to_read_on_and_that_works():
    (cut, more), offered = reading(rest(200))
    note = '\n[cut: 500 of 700 characters are not shown; read_rest(output="call_1_1", offset=200) reads on]'
    assert cut.content == TEXT[:200] + note
    assert (more.content, more.is_error) == (TEXT[200:], False)
    assert offered == [["long"], ["long", "read_rest"], ["long", "read_rest"]]


def test_a_very_long_rest_comes_in_parts_that_name_the_next():
    text = "x" * 100_000
    (_, first, last), _ = reading(rest(200), rest(80_000), text=text)
    shown, note = first.content.rsplit("\n", 1)
    following = 200 + len(shown)
    assert len(first.content) <= 32_000
    assert (
        note == f'[{100_000 - following} of 100000 characters follow: read_rest(output="call_1_1", offset={following})]'
    )
    assert last.content == "x" * 20_000


def test_a_wrong_call_says_what_there_is():
    (_, unknown, beyond), _ = reading(rest(0, "call_9_9"), rest(700))
    assert unknown.content == "no output 'call_9_9' is kept; there are: call_1_1"
    assert beyond.content == "the output has 700 characters; offset is from 0 to 699"


def test_a_tool_of_that_name_of_the_agent_s_own_is_left_alone():
    @tool
    async def read_rest() -> str:
        return "mine"

    (cut, own), _ = reading(Turn(calls=[("read_rest", {})]), tools=[read_rest])
    assert cut.content.endswith("[cut: 500 of 700 characters are not shown]")
    assert own.content == "mine"


def test_what_is_kept_is_bounded_and_the_oldest_goes_first():
    reader = ReadRest()
    assert reader.keep("a", "x" * (KEPT_CHARS - 1))
    assert reader.keep("b", "y" * 2)
    assert not reader.keep("c", "z" * (KEPT_CHARS + 1))
    assert "there are: b" in run_virtual(reader.async_run({"output": "a", "offset": 0})).content
