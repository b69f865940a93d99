"""MCP servers, good and bad: real ones that others wrote, and one of ours that misbehaves on demand."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from shared_libs.agents import ReActAgent
from shared_libs.atomic import Deadline, MisuseError, ToolError, tool
from shared_libs.atomic.llms import ScriptedLLM, Turn
from shared_libs.atomic.scope import use_deadline
from shared_libs.testing.clock import real_time
from shared_libs.tools.mcp import MCPToolset
from tests.support import run, run_virtual

RAW = Path(__file__).parents[2] / "mcp_raw_server.py"


def raw(*modes: str, **options) -> MCPToolset:
    return MCPToolset(command=[sys.executable, str(RAW), *modes], **options)


@asynccontextmanager
async def opened(toolset: MCPToolset):
    try:
        yield {tool.name: tool for tool in await toolset.async_list()}
    finally:
        await toolset.aclose()


async def called(toolset: MCPToolset, name: str, **arguments):
    async with opened(toolset) as tools:
        return await tools[name].async_run(arguments)


def failure(toolset: MCPToolset) -> str:
    async def main():
        try:
            with pytest.raises(ToolError) as caught:
                await toolset.async_list()
        finally:
            await toolset.aclose()
        return str(caught.value)

    return run(main())


# --- servers that others wrote


def others(program, **options):
    """A server takes seconds of CPU until it has begun, of which a busy machine makes a minute."""
    toolset = MCPToolset(command=[program], **options)
    toolset.timeout_s = 100.0
    return toolset


def test_a_real_server_is_listed_and_called():
    async def main():
        async with opened(others("mcp-server-time")) as tools:
            assert set(tools) == {"get_current_time", "convert_time"}
            assert tools["get_current_time"].idempotent
            now = await tools["get_current_time"].async_run({"timezone": "Europe/Rome"})
            wrong = await tools["get_current_time"].async_run({"timezone": "Europe/Nowhere"})
            missing = await tools["get_current_time"].async_run({})
            return json.loads(now.content), wrong, missing

    now, wrong, missing = run(main())
    assert now["timezone"] == "Europe/Rome"
    assert wrong.is_error
    assert "Invalid timezone" in wrong.content
    assert "'timezone' is a required property" in missing.content


def test_an_agent_uses_two_real_servers_together(tmp_path):
    tokyo = ("convert_time", {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"})
    model = ScriptedLLM([Turn(calls=[tokyo, ("git_git_status", {"repo_path": str(tmp_path)})]), "done"])
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    sources = [others("mcp-server-time"), others("mcp-server-git", prefix="git")]

    async def main():
        async with ReActAgent(llm=model, tools=sources) as agent:
            return await agent.async_run("go")

    result = run(main())
    assert result.status == "answered"
    assert "+9.0h" in result.steps[0].observations[0].content
    assert "No commits yet" in result.steps[0].observations[1].content


# --- what a result looks like


def test_a_result_of_several_blocks_is_text():
    result = run(called(raw(), "rich"))
    assert result.content.split("\n") == [
        "a picture:",
        "[image, image/png, 3 bytes; it is not shown]",
        "[resource file:///notes.txt]",
        "noted",
        "[resource file:///blob, binary, 3 bytes; not shown]",
        "[resource file:///far.txt: far]",
    ]


def test_structured_content_is_json_where_there_is_no_text():
    assert run(called(raw(), "structured")).content == '{"answer": 42}'


def test_what_a_server_calls_an_error_is_one():
    result = run(called(raw(), "fails"))
    assert (result.content, result.is_error) == ("the shelf is empty", True)


def test_a_long_result_is_cut_and_an_endless_one_ends_the_connection():
    async def main():
        async with opened(raw()) as tools:
            cut = await tools["huge"].async_run({"size": 500_000})
            endless = await tools["huge"].async_run({"size": 20_000_000})
            after = await tools["echo"].async_run({"text": "again"})
            return cut, endless, after

    cut, endless, after = run(main())
    assert cut.content.endswith("[cut: 468000 of 500000 characters are not shown]")
    assert endless.is_error
    assert "a line of more than 16 MiB" in endless.content
    assert after.content == "again"


def test_arguments_are_checked_against_the_schema_as_it_comes():
    result = run(called(raw(), "echo", text="x" * 101))
    assert result.is_error
    assert "too long, at most 100" in result.content


# --- which tools there are


def test_names_are_made_fit_for_every_provider():
    async def main():
        async with opened(raw("odd-names", prefix="p")) as tools:
            return list(tools)

    names = run(main())
    assert names == ["p_a_b", "p_a_b_2", "p_" + "_" * 62]
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name) for name in names)


def test_only_the_wanted_tools_are_offered_and_a_missing_one_is_told():
    async def main():
        async with opened(raw(tools=["echo", "meta"])) as tools:
            return list(tools)

    assert run(main()) == ["echo", "meta"]
    assert "has no tool ecco; it has: echo, silent" in failure(raw(tools=["ecco"]))


def test_a_tool_whose_schema_is_none_is_left_out(caplog):
    async def main():
        async with opened(raw("bad-schema")) as tools:
            return list(tools)

    assert "odd" not in run(main())
    assert "the tool odd of the MCP server" in caplog.text


def test_hints_and_the_options_of_the_source_are_those_of_its_tools():
    source = raw()
    source.timeout_s, source.sequential, source.needs_approval = 7.0, True, True

    async def main():
        async with opened(source) as tools:
            return tools

    tools = run(main())
    assert tools["echo"].idempotent
    assert not tools["die"].idempotent
    assert (tools["echo"].timeout_s, tools["echo"].sequential, tools["echo"].needs_approval) == (7.0, True, True)


def test_a_list_is_asked_for_once_until_the_server_says_it_changed():
    async def main():
        source = raw()
        async with opened(source) as tools:
            again = await source.async_list()
            heard = json.loads((await tools["heard"].async_run({})).content)
            await tools["grow"].async_run({})
            grown = await source.async_list()
            return list(tools.values()) == list(again), heard.count("tools/list"), [tool.name for tool in grown]

    same, lists, grown = run(main())
    assert same
    assert lists == 1
    assert grown[-1] == "grown"


def test_two_sources_with_one_name_fail_the_run_and_name_the_way_out():
    @tool
    async def echo(text: str) -> str:
        return text

    def agent_with(*tools):
        return ReActAgent(llm=ScriptedLLM(["never asked"]), tools=tools)

    async def main(agent):
        async with agent:
            return await agent.async_run("go")

    result = run(main(agent_with(raw(), raw())))
    assert (result.status, result.stop_reason) == ("failed", "error")
    assert "two tools are called echo" in result.error
    assert "`prefix`" in result.error
    assert "of the agent and of python" in run(main(agent_with(echo, raw()))).error


# --- what a server gets to see


def test_a_server_sees_what_it_is_given_and_none_of_our_keys(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-ours")
    monkeypatch.setenv("LANG", "C.UTF-8")
    seen = json.loads(run(called(raw(env={"GIVEN": "1"}), "environment")).content)
    assert seen["GIVEN"] == "1"
    assert seen["LANG"] == "C.UTF-8"
    assert "OPENAI_API_KEY" not in seen


def test_the_time_left_is_sent_along():
    async def main():
        async with opened(raw()) as tools:
            with use_deadline(Deadline.after(5)):
                return json.loads((await tools["meta"].async_run({})).content)

    assert 0 < run(main())["genai-factory/timeout-seconds"] <= 5


# --- servers that misbehave


@pytest.mark.promise("time-mcp")
def test_a_silent_call_is_an_error_in_time_and_the_server_is_told():
    async def main():
        async with opened(raw()) as tools:
            tools["silent"].timeout_s = 0.3
            slow = await tools["silent"].async_run({})
            heard = await tools["heard"].async_run({})
        return slow, json.loads(heard.content)

    slow, heard = run(main())
    assert slow.is_error
    assert slow.content == "silent did not finish within its 0.3 s"
    assert not slow.still_running
    assert heard[-2:] == ["notifications/cancelled", "tools/call"]


@pytest.mark.promise("time-mcp")
@pytest.mark.parametrize(
    ("mode", "said"), [("silent", "did not answer in time"), ("slow-list", "did not list its tools")]
)
def test_a_server_that_is_silent_from_the_start_costs_one_run_half_its_time_at_most(mode, said):
    async def main():
        source = raw(mode)
        agent = ReActAgent(llm=ScriptedLLM(["without it", "at once"]), tools=[source])
        try:
            if mode == "slow-list":
                with real_time():  # a process starts in its own time
                    await source._server._connected(30)
            return await agent.async_run("go", timeout=1.0), await agent.async_run("go", timeout=1.0)
        finally:
            with real_time():
                await agent.aclose()

    first, second = run_virtual(main())
    assert (first.status, first.answer) == ("answered", "without it")
    assert said in first.error
    assert (second.status, second.answer) == ("answered", "at once")
    assert "it is tried again in" in second.error


@pytest.mark.promise("cancel-wins")
def test_cancelling_a_call_leaves_the_connection_usable():
    async def main():
        async with opened(raw()) as tools:
            silent = asyncio.ensure_future(tools["silent"].async_run({}))
            await tools["echo"].async_run({"text": "on the same connection"})
            silent.cancel()
            with pytest.raises(asyncio.CancelledError):
                await silent
            return json.loads((await tools["heard"].async_run({})).content)

    assert "notifications/cancelled" in run(main())


def test_a_server_that_dies_in_a_call_is_an_observation_and_comes_back():
    async def main():
        async with opened(raw(env={"KEY": "s3cret-key"})) as tools:
            others = asyncio.ensure_future(tools["silent"].async_run({}))
            await tools["echo"].async_run({"text": "the silent call is under way"})
            died = await tools["die"].async_run({})
            lost = await others
            back = await tools["echo"].async_run({"text": "back"})
            died_again = await tools["die"].async_run({})
            waiting = await tools["echo"].async_run({"text": "too soon"})
            return died, lost, back, died_again, waiting

    died, lost, back, died_again, waiting = run(main())
    assert died.is_error
    assert (
        "was lost during the call of die: exit code 3; its stderr ends with: out of luck, with key ***" in died.content
    )
    assert lost.is_error
    assert "was lost during the call of silent" in lost.content
    assert back.content == "back"
    assert died_again.is_error
    assert waiting.is_error or waiting.content == "too soon"


def test_a_server_that_is_dead_at_the_start_is_one_sentence():
    told = failure(raw("dead", env={"KEY": "s3cret-key"}))
    program = Path(sys.executable).name
    assert told == (
        f"the MCP server {program} mcp_raw_server.py cannot be used: exit code 7; "
        "its stderr ends with: no licence found for ***"
    )


def test_a_program_that_is_not_there_is_one_sentence():
    told = failure(MCPToolset(command=["no-such-server"]))
    assert "no-such-server: No such file or directory" in told


def test_a_failed_server_is_left_alone_for_a_while():
    async def main():
        source = raw("dead")
        said = []
        for _ in range(2):
            with pytest.raises(ToolError) as caught:
                await source.async_list()
            said.append(str(caught.value))
        await source.aclose()
        return said

    first, second = run(main())
    assert "exit code 7" in first
    assert "it is tried again in" in second


def test_a_run_goes_on_without_a_dead_server_and_says_so():
    async def main():
        agent = ReActAgent(llm=ScriptedLLM(["without it"]), tools=[raw("dead")])
        try:
            return await agent.async_run("go")
        finally:
            await agent.aclose()

    result = run(main())
    assert result.status == "answered"
    assert result.error.startswith("some tools were missing: the MCP server")


def test_garbage_on_stdout_is_passed_over():
    assert run(called(raw("banner"), "echo", text="heard")).content == "heard"


def test_nothing_of_a_server_reaches_our_terminal(capfd):
    run(called(raw("banner"), "die"))
    assert capfd.readouterr() == ("", "")


@pytest.mark.promise("loop-per-client")
def test_one_source_works_in_one_loop_after_another_and_after_it_was_closed():
    source = raw()

    async def use():
        tools = {tool.name: tool for tool in await source.async_list()}
        return (await tools["echo"].async_run({"text": "x"})).content

    async def use_and_close():
        first = await use()
        await source.aclose()
        await source.aclose()
        second = await use()
        await source.aclose()
        return first, second

    assert run(use()) == "x"
    assert run(use_and_close()) == ("x", "x")


@pytest.mark.promise("no-cross")
def test_many_calls_at_once_get_their_own_answers():
    async def main():
        async with opened(raw()) as tools:
            results = await asyncio.gather(*(tools["echo"].async_run({"text": str(n)}) for n in range(200)))
            return [result.content for result in results]

    assert run(main()) == [str(n) for n in range(200)]


# --- nothing stays behind


@pytest.fixture
def held(tmp_path):
    """A pipe with a name; reading it ends when nobody holds it open any more."""
    path = tmp_path / "held"
    os.mkfifo(path)
    reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    yield path, reading
    os.close(reading)


async def nobody_holds(reading: int) -> bool:
    reader = asyncio.StreamReader()
    with os.fdopen(os.dup(reading), "rb", 0) as pipe:
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), pipe
        )
        try:
            return await asyncio.wait_for(reader.read(1), 10) == b""
        finally:
            transport.close()


@pytest.mark.parametrize("modes", [(), ("stubborn",)])
def test_a_closed_server_is_gone_with_its_children(held, modes):
    path, reading = held

    async def main():
        source = raw(*modes, env={"HELD": str(path)})
        async with opened(source) as tools:
            assert (await tools["spawn"].async_run({})).content == "spawned"
        return await nobody_holds(reading)

    assert run(main())


PARENT = """
import asyncio, sys
from shared_libs.tools.mcp import MCPToolset

async def main():
    source = MCPToolset(command=sys.argv[2:], env={"HELD": sys.argv[1]})
    tools = {tool.name: tool for tool in await source.async_list()}
    await tools["spawn"].async_run({})
    print("ready", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def test_a_server_is_gone_with_its_children_when_our_process_is_killed(held):
    path, reading = held

    async def main():
        ours = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", PARENT, str(path), sys.executable, str(RAW), "stubborn"),
            stdout=asyncio.subprocess.PIPE,
            env=dict(os.environ, PYTHONPATH=str(RAW.parents[1])),
        )
        assert (await ours.stdout.readline()).strip() == b"ready"
        ours.send_signal(signal.SIGKILL)
        await ours.wait()
        return await nobody_holds(reading)

    assert run(main())


# --- what may be said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "exactly one of `command` and `url`"),
        ({"command": ["a"], "url": "http://h/mcp"}, "exactly one of `command` and `url`"),
        ({"command": []}, r"such as \[mcp-server-time\]"),
        ({"url": "ftp://h"}, "http:// or https://"),
        ({"command": ["a"], "headers": {"a": "b"}}, "headers go with `url`"),
        ({"url": "http://h/mcp", "env": {"a": "b"}}, "env goes with `command`"),
        ({"command": ["a"], "prefix": "a b"}, "prefix is up to 32"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, said):
    with pytest.raises(MisuseError, match=said):
        MCPToolset(**options)
