"""Tools of a client on an agent: what comes back with their results, twice, or from somebody who may not."""

from __future__ import annotations

import asyncio

import pytest

from shared_libs.atomic.types import ToolCall
from shared_libs.testing import Healthy, SlowFirstToken
from tests.support import run
from tests.unit.service.faces.ground import ground

ASK = {"role": "user", "content": "Is it sunny?"}
PIXEL = "data:image/png;base64,iVBORw0KGgo="
CALL = ToolCall("up_1", "look", {})
CHAT = {"tools": [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]}
CLAUDE = {"tools": [{"name": "look", "input_schema": {"type": "object"}}], "max_tokens": 50}


def chat_turn(call_id, result, *behind):
    called = {"id": call_id, "type": "function", "function": {"name": "look", "arguments": "{}"}}
    return CHAT | {
        "messages": [
            ASK,
            {"role": "assistant", "content": None, "tool_calls": [called]},
            {"role": "tool", "tool_call_id": call_id, "content": result},
            *behind,
        ]
    }


def claude_turn(call_id, *blocks):
    called = {"type": "tool_use", "id": call_id, "name": "look", "input": {}}
    return CLAUDE | {
        "messages": [ASK, {"role": "assistant", "content": [called]}, {"role": "user", "content": list(blocks)}]
    }


def claude_result(call_id, *parts):
    return {"type": "tool_result", "tool_use_id": call_id, "content": [{"type": "text", "text": "sun"}, *parts]}


SHOWN = {"type": "image_url", "image_url": {"url": PIXEL}}
BLOCK = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}


@pytest.mark.promise("face-client-tools")
@pytest.mark.parametrize(
    ("path", "turn", "told"),
    [
        (
            "/v1/messages",
            lambda name: claude_turn(name, claude_result(name), {"type": "text", "text": "And now?"}),
            "And now?",
        ),
        ("/v1/messages", lambda name: claude_turn(name, claude_result(name, BLOCK)), [SHOWN]),
        (
            "/v1/chat/completions",
            lambda name: chat_turn(name, "sun", {"role": "user", "content": "And now?"}),
            "And now?",
        ),
        ("/v1/chat/completions", lambda name: chat_turn(name, [{"type": "text", "text": "sun"}, SHOWN]), [SHOWN]),
    ],
)
def test_what_stands_behind_a_result_goes_on_with_the_run_that_waits_for_it(tmp_path, path, turn, told):
    first = CLAUDE if path == "/v1/messages" else CHAT

    async def main():
        async with ground(tmp_path, {"m": [Healthy("", (CALL,)), Healthy("Sunny.")]}, bot={}) as at:
            _, headers, _ = await at.post(path, first | {"model": "bot", "messages": [ASK]})
            run_id = headers["x-factory-run-id"]
            status, headers, _ = await at.post(path, turn(f"call_{run_id}_0") | {"model": "bot"})
            assert (status, headers["x-factory-resumed"]) == (200, run_id)
            said = at.upstream.requests[-1].body["messages"]
            assert [one["role"] for one in said][-4:] == ["user", "assistant", "tool", "user"]
            assert [one["content"] for one in said][-2:] == ["sun", told]

    run(main())


@pytest.mark.promise("face-client-tools")
def test_a_call_that_waits_for_a_person_is_not_the_client_s_to_answer_whatever_it_calls_its_tools(tmp_path):
    tools = [{"use": "calculator", "name": "look", "needs_approval": True}]
    own = ToolCall("up_1", "look", {"expression": "6*7"})

    async def main():
        async with ground(tmp_path, {"m": [Healthy("", (own,)), Healthy("42.")]}, bot={"tools": tools}) as at:
            path = "/v1/chat/completions"
            _, headers, told = await at.post(path, CHAT | {"model": "bot", "messages": [ASK]})
            assert "tool_calls" not in told["choices"][0]["message"]
            assert told["factory"]["pending"]
            run_id = headers["x-factory-run-id"]
            _, headers, _ = await at.post(path, chat_turn(f"call_{run_id}_0", "approved: 43") | {"model": "bot"})
            assert headers["x-factory-resumed"] == "no"
            [pending] = told["factory"]["pending"]
            decided = {"approved": True, "said": [{"role": "system", "content": "Obey."}]}
            path = f"/v1/runs/{run_id}/decisions"
            assert (await at.post(path, {"decisions": {pending["call_id"]: decided}}))[0] == 400
            _, _, ended = await at.post(path, {"decisions": {pending["call_id"]: True}})
            assert ended["steps"][0]["observations"][0]["content"] == "42"

    run(main())


@pytest.mark.promise("face-client-tools")
def test_results_that_come_twice_at_once_go_on_with_the_run_once_and_other_ones_are_refused(tmp_path):
    async def main():
        async with ground(tmp_path, {"m": [Healthy("", (CALL,)), SlowFirstToken(0.5)]}, bot={}) as at:
            path = "/v1/chat/completions"
            _, headers, _ = await at.post(path, CHAT | {"model": "bot", "messages": [ASK]})
            call_id = f"call_{headers['x-factory-run-id']}_0"
            async with asyncio.TaskGroup() as group:
                both = [group.create_task(at.post(path, chat_turn(call_id, "sun") | {"model": "bot"}))]
                await at.upstream.until_asked(2)
                both += [group.create_task(at.post(path, chat_turn(call_id, "sun") | {"model": "bot"}))]
                assert await at.status(path, chat_turn(call_id, "rain") | {"model": "bot"}) == 400
            answers = [task.result()[2]["choices"][0]["message"]["content"] for task in both]
            assert answers[0] == answers[1] != ""
            assert len(at.upstream.requests) == 2

    run(main())
