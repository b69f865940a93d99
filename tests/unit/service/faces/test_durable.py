"""Durable runs of every face: a worker does them, and the client meets what it meets of any other agent."""

from __future__ import annotations

import asyncio

import pytest

from shared_libs.atomic.types import ToolCall
from shared_libs.testing import Healthy
from tests.service import at_work, serving
from tests.support import run
from tests.unit.durable.cast import ended, until
from tests.unit.service.faces.ground import ground

TOOL = {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
ASK = [{"role": "system", "content": "Rhyme."}, {"role": "user", "content": "hello there"}]
WEATHER = ToolCall("u2", "get_weather", {"city": "Rome"})
CALLS = [
    Healthy(
        "I look.",
        (ToolCall("u1", "calculator", {"expression": "6*7"}), WEATHER),
    ),
    Healthy("Rome is sunny, and 42."),
]
KEPT = {"durable": True, "tools": ["calculator"]}


async def chatted(at):
    async with at.openai() as client:
        made = await client.chat.completions.create(model="bot", messages=ASK)
    return made.choices[0].message.content, made.choices[0].finish_reason


async def messaged(at):
    given = {"model": "bot", "max_tokens": 99, "system": "Rhyme.", "messages": ASK[1:]}
    async with at.anthropic() as client, client.messages.stream(**given) as streamed:
        made = await streamed.get_final_message()
    return made.content[-1].text, {"end_turn": "stop", "max_tokens": "length"}[made.stop_reason]


async def responded(at):
    given = {"model": "bot", "instructions": "Rhyme.", "input": "hello there"}
    async with at.openai() as client, client.responses.stream(**given) as streamed:
        made = await streamed.get_final_response()
    return made.output_text, {"completed": "stop", "incomplete": "length"}[made.status]


async def called(at):
    from mcp import Client

    async with Client(f"{at.url}/mcp") as client:
        made = await client.call_tool("bot", {"question": "hello there"})
    return made.structured_content["answer"], "stop" if made.structured_content["status"] == "answered" else "length"


WAYS = {
    "chat": chatted,
    "messages streamed": messaged,
    "responses streamed": responded,
    "mcp": called,
}


@pytest.mark.promise("serve-durable")
def test_a_durable_agent_answers_at_every_face_as_any_other_done_by_a_worker(tmp_path):
    async def main():
        async with ground(tmp_path, {"m": Healthy("One two three.")}, bot=KEPT) as at, at_work(tmp_path):
            told = dict(zip(WAYS, await asyncio.gather(*(ask(at) for ask in WAYS.values())), strict=True))
            jobs = await at.service.queue.store.find()
            asked = [seen.body["messages"][0]["content"] for seen in at.upstream.requests]
        return told, jobs, asked

    told, jobs, asked = run(main())
    assert told == dict.fromkeys(WAYS, ("One two three.", "stop"))
    assert [job.status for job in jobs] == ["answered"] * len(WAYS)
    assert sum("Rhyme." in words and words.startswith("Be brief.") for words in asked) == len(WAYS) - 1


@pytest.mark.promise("serve-durable")
def test_a_client_s_tool_pauses_a_durable_run_and_its_result_goes_on_with_it_at_another_server(tmp_path):
    tools = [{"type": "function", "function": TOOL}]

    async def main():
        async with ground(tmp_path, {"m": CALLS}, bot=KEPT) as at, at_work(tmp_path):
            async with at.openai() as client:
                made = await client.chat.completions.create(model="bot", messages=ASK, tools=tools)
            [call] = made.choices[0].message.tool_calls
            assert (call.function.name, call.function.arguments) == ("get_weather", '{"city":"Rome"}')
            back = [
                *ASK,
                {"role": "assistant", "content": None, "tool_calls": [call.model_dump()]},
                {"role": "tool", "tool_call_id": call.id, "content": "sunny"},
            ]
            async with serving(tmp_path) as other:
                body = {"model": "bot", "messages": back, "tools": tools}
                async with other.http.post("/v1/chat/completions", json=body) as answer:
                    resumed, ended = answer.headers["x-factory-resumed"], await answer.json()
                named = []  # the same request at two servers is one run
                for http in (at.http, other.http):
                    body, key = {"model": "bot", "messages": ASK}, {"idempotency-key": "k"}
                    async with http.post("/v1/chat/completions", json=body, headers=key) as answer:
                        named.append((await answer.json())["factory"]["run_id"])
            [job] = [job for job in await at.service.queue.store.find() if job.run_id == resumed]
            return resumed, ended, named, job, [seen.body["messages"] for seen in at.upstream.requests][:2]

    resumed, ended, named, job, asked = run(main())
    assert named[0] == named[1] != resumed
    assert ended["choices"][0]["message"]["content"] == "Rome is sunny, and 42."
    assert (ended["factory"]["run_id"], job.status) == (resumed, "answered")
    assert [message["content"] for message in asked[1] if message["role"] == "tool"] == ["42", "sunny"]


@pytest.mark.promise("serve-durable")
def test_where_no_worker_lives_every_face_answers_by_the_deadline_and_a_client_that_goes_ends_what_it_says(tmp_path):
    body = {"model": "bot", "messages": ASK}

    async def main():
        async with ground(tmp_path, {"m": Healthy("x")}, bot=KEPT, plain={}) as at:
            # all at once, with time enough on a busy machine for each to be queued before its own is over
            soon, store = {"x-request-timeout": "3"}, at.service.queue.store
            (_, _, chat), lines, (_, _, message), (_, _, response), (by_request, _, _) = await asyncio.gather(
                at.post("/v1/chat/completions", body, **soon),
                at.lines("/v1/chat/completions", body | {"stream": True}, **soon),
                at.post("/v1/messages", body | {"messages": ASK[1:], "max_tokens": 9}, **soon),
                at.post("/v1/responses", {"model": "bot", "input": "hello"}, **soon),
                at.post("/v1/chat/completions?durable=1", body | {"model": "plain"}, **soon),
            )
            chained = await at.status("/v1/chat/completions?durable=1", body | {"model": "plain/chain"})
            left = await store.find()
            for said, becomes in (("continue", bool), ("cancel", ended)):
                asking = asyncio.create_task(at.post("/v1/chat/completions", body, **{"x-on-disconnect": said}))
                job = (await until(store.find, wanted=lambda jobs: len(jobs) > len(left)))[0]
                asking.cancel()
                await asyncio.wait([asking])
                left.append(await until(store.get, job.run_id, wanted=becomes))
            return chat, lines, message, response, chained, by_request, left

    chat, lines, message, response, chained, by_request, left = run(main())
    assert chat["choices"][0]["finish_reason"] == "length"
    assert "no worker has begun it yet" in chat["factory"]["error"]
    assert ('"finish_reason":"length"' in lines[-2], lines[-1]) == (True, "data: [DONE]")
    assert (message["stop_reason"], response["status"]) == ("max_tokens", "incomplete")
    assert (chained, by_request) == (400, 200)
    assert [job.status for job in left] == [*["queued"] * 6, "cancelled"]
    assert {job.agent for job in left} == {"bot", "plain"}


@pytest.mark.promise("serve-durable")
def test_a_response_of_the_background_outlives_its_server_and_ends_at_another(tmp_path):
    given = {"model": "bot", "input": "hello there", "instructions": "Rhyme.", "background": True}
    weather = [{"type": "function"} | TOOL]

    async def main():
        async with ground(tmp_path, {"m": CALLS}, bot=KEPT) as at:
            store = at.service.queue.store
            async with at.openai() as client:
                begun = await client.responses.create(**given, tools=weather)
                dropped = await client.responses.create(**given)
            async with serving(tmp_path) as beside:  # the first lives, and makes them too
                # a server that is slow to write it down has told its id before
                paths = [f"/v1/responses/{made.id}" for made in (begun, dropped)]
                found = [await until(beside.get, path, wanted=lambda found: found[0] == 200) for path in paths]
                told = [found[0][2]["status"]]
                async with beside.http.post(f"/v1/responses/{dropped.id}/cancel") as answer:
                    told.append((await answer.json())["status"])
                await until(store.find, wanted=lambda jobs: any(job.ended for job in jobs))
            async with at_work(tmp_path), serving(tmp_path) as other:

                async def look():
                    return (await other.get(f"/v1/responses/{begun.id}"))[2]

                waits = await until(look, wanted=lambda made: made["status"] == "completed")
                [call] = [item for item in waits["output"] if item["type"] == "function_call"]
                result = {"type": "function_call_output", "call_id": call["call_id"], "output": "sunny"}
                body = {"model": "bot", "input": [result], "previous_response_id": begun.id, "tools": weather}
                async with other.http.post("/v1/responses", json=body) as answer:
                    ended = await answer.json()
            async with serving(tmp_path) as late:
                again = (await late.get(f"/v1/responses/{ended['id']}"))[2]
                kept = (await late.get(f"/v1/responses/{begun.id}"))[2]
            jobs = {job.run_id: job.status for job in await store.find()}
            return told, ended, again, kept["status"], jobs

    told, ended, again, kept, jobs = run(main())
    assert told == ["in_progress", "cancelled"]
    assert [item["content"][0]["text"] for item in ended["output"] if item["type"] == "message"] == [
        "Rome is sunny, and 42."
    ]
    assert (again["status"], kept) == ("completed", "completed")
    assert sorted(jobs.values()) == ["answered", "cancelled"]
