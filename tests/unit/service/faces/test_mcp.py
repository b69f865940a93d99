"""The service as an MCP server: the protocol's own client, and what a browser is kept from."""

from __future__ import annotations

import asyncio
import json

import pytest
from mcp import Client
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, ElicitResult

from shared_libs.atomic.types import ToolCall
from shared_libs.testing import Healthy, ServerError
from tests.support import run
from tests.unit.service.faces.ground import ground

SHAPE = {
    "type": "object",
    "properties": {"cities": {"type": "array", "items": {"$ref": "#/$defs/city"}}},
    "required": ["cities"],
    "$defs": {"city": {"type": "string"}},
}
CALL = ToolCall("c1", "calculator", {"expression": "6*7"})


@pytest.mark.promise("face-mcp")
def test_every_agent_is_a_tool_with_progress(tmp_path):
    async def main():
        scripts = {"m": [Healthy("I count.", (CALL,)), Healthy("42.")], "down": ServerError()}
        agents = {"bot": {"tools": ["calculator"], "description": "Counts."}, "ill": {"llm": ["down"]}}
        async with ground(tmp_path, scripts, **agents) as at:
            told = []

            async def progress(done, total, message):
                told.append(message)

            async with Client(f"{at.url}/mcp") as client:
                listed = (await client.list_tools()).tools
                assert [(tool.name, tool.description) for tool in listed] == [
                    ("bot", "Counts."),
                    ("ill", "Asks the agent 'ill', in words."),
                ]
                result = await client.call_tool("bot", {"question": "What is 6*7?"}, progress_callback=progress)
                assert result.content[0].text == "42."
                assert not result.is_error
                assert result.structured_content["status"] == "answered"
                assert told[0] == "bot begins"
                assert any(message.startswith("calculator(") for message in told)
                for name, given, says in (
                    ("ill", {"question": "x"}, "m"),
                    ("bot", {"question": ""}, "question"),
                    ("bot", {"question": "x", "session_id": "s"}, "no memory"),
                    ("bot", {"question": "x", "sesion": "s"}, "session_id"),
                    ("nobody", {"question": "x"}, "there is no tool"),
                ):
                    failed = await client.call_tool(name, given)
                    assert failed.is_error
                    assert says in failed.content[0].text

    run(main())


@pytest.mark.promise("face-mcp")
def test_what_an_agent_answers_in_a_shape_is_told_and_given_as_a_value(tmp_path):
    async def main():
        scripts = {"m": Healthy('{"cities": ["Rome"]}'), "wrong": Healthy('{"cities": [1]}')}
        agents = {"plain": {}, "typed": {"output_schema": SHAPE}, "unfit": {"output_schema": SHAPE, "llm": ["wrong"]}}
        async with ground(tmp_path, scripts, **agents) as at, Client(f"{at.url}/mcp") as client:
            await client.list_tools()  # the client holds each result to the schema that was told
            return [(await client.call_tool(name, {"question": "Which?"})).structured_content for name in agents]

    plain, typed, unfit = run(main())
    assert (plain["output"], typed["output"], unfit["output"]) == (None, {"cities": ["Rome"]}, None)
    assert unfit["status"] == "failed"
    assert "cities" in unfit["error"]


@pytest.mark.promise("face-mcp")
def test_a_rebound_name_is_not_answered_nor_is_a_stream_opened_in_which_nothing_can_come(tmp_path):
    ask = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    accept = {"accept": "application/json, text/event-stream", "mcp-protocol-version": "2025-06-18"}

    async def main():
        async with ground(tmp_path, {"m": Healthy()}, bot={}) as at:
            tried = ({}, {"host": "evil.example"}, {"origin": "http://evil.example"})
            posted = [await at.status("/mcp", ask, **accept, **extra) for extra in tried]
            async with at.http.get("/mcp", headers=accept) as answer:  # a stream of nothing would outlast a drain
                return posted, answer.status, answer.headers["allow"]

    assert run(main()) == ([200, 403, 403], 405, "POST")


@pytest.mark.promise("face-mcp")
def test_many_clients_at_once_and_none_is_left_behind(tmp_path):
    async def main():
        async with ground(tmp_path, {"m": Healthy("Hi.")}, bot={}) as at:

            async def one():
                async with Client(f"{at.url}/mcp") as client:
                    return (await client.call_tool("bot", {"question": "hello"})).content[0].text

            assert await asyncio.gather(*(one() for _ in range(5))) == ["Hi."] * 5
            assert len(at.service.runs) == 0

    run(main())


@pytest.mark.promise("face-mcp", "serve-approves")
def test_who_sits_at_a_client_that_can_ask_approves_and_other_clients_are_told_where(tmp_path):
    turns = [[Healthy("", (CALL,)), Healthy(text)] for text in ("42.", "As you wish.")]
    answers = {
        "accept": ElicitResult(action="accept", content={"approved": True}),
        "refuse": ElicitResult(action="accept", content={"approved": False, "reason": "not today"}),
        "cancel": ElicitResult(action="cancel"),
    }

    async def main():
        agents = {"bot": {"tools": [{"use": "calculator", "needs_approval": True}]}}
        async with ground(tmp_path, {"m": [*turns[0], *turns[1], turns[0][0], turns[0][0]]}, **agents) as at:
            told, asked = [], []
            for name in (*answers, None):

                async def answer(_, params, name=name):
                    asked.append(params.message)
                    return answers[name]

                async with Client(f"{at.url}/mcp", elicitation_callback=answer if name else None) as client:
                    told.append(await client.call_tool("bot", {"question": "What is 6*7?"}))
            run_id = told[1].structured_content["run_id"]
            async with at.http.get(f"/v1/runs/{run_id}") as answer:
                return told, asked, await answer.text()

    told, asked, refused = run(main())
    assert [(result.is_error, result.content[0].text[:12]) for result in told] == [
        (False, "42."),
        (False, "As you wish."),
        (True, "Nothing was "),
        (False, "This waits f"),
    ]
    assert asked == ['May the tool calculator be called with {"expression":"6*7"}?'] * 3
    assert "not today" in refused


@pytest.mark.promise("face-mcp")
def test_every_collection_is_a_tool_that_finds_passages_and_its_documents_and_runs_are_read(tmp_path):
    shelf = "collections: {the manual: {url: 'sqlite:///%s/manual.db', embedder: null}}"

    async def main():
        await asyncio.to_thread((tmp_path / "shelf.yaml").write_text, shelf % tmp_path)
        async with ground(tmp_path, {"m": Healthy("Hi.")}, bot={}) as at:
            document = {"source": "leave.md", "text": "Everyone has 25 days of leave a year."}
            assert await at.status("/v1/collections/the%20manual/index", {"documents": [document]}) == 200
            async with Client(f"{at.url}/mcp") as client:
                assert [tool.name for tool in (await client.list_tools()).tools] == ["bot", "retrieve_the_manual"]
                found = (await client.call_tool("retrieve_the_manual", {"query": "days of leave"})).structured_content
                assert found["passages"][0]["text"] == document["text"]
                for name, given, says in (
                    ("retrieve_the_manual", {}, "query"),
                    ("retrieve_the_manual", {"query": "x", "passages": 51}, "1 to 50"),
                    ("retrieve_the_manual", {"query": "x", "k": 1}, "passages"),
                    ("retrieve_none", {"query": "x"}, "retrieve_the_manual"),
                ):
                    failed = await client.call_tool(name, given)
                    assert failed.is_error
                    assert says in failed.content[0].text
                (listed,) = (await client.list_resources()).resources
                templates = (await client.list_resource_templates()).resource_templates
                assert (listed.name, len(templates)) == ("leave.md", 2)
                assert (await client.read_resource(listed.uri)).contents[0].text == document["text"]
                run_id = (await client.call_tool("bot", {"question": "hello"})).structured_content["run_id"]
                (read,) = (await client.read_resource(f"factory://runs/{run_id}")).contents
                assert (read.mime_type, json.loads(read.text)["answer"]) == ("application/json", "Hi.")
                for uri in (
                    "test://x",
                    "factory://runs/nobody",
                    f"{listed.uri}x",
                    "factory://collections/x/documents/1",
                ):
                    with pytest.raises(MCPError) as wrong:
                        await client.read_resource(uri)
                    assert (wrong.value.code, wrong.value.error.data) == (INVALID_PARAMS, {"uri": uri})

    run(main())
