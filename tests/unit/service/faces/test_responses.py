"""OpenAI's Responses: the vendor's SDK against agents and chains, and a grammar that no run can break."""

from __future__ import annotations

import asyncio
import random

import pytest
from openai import APIStatusError, BadRequestError, NotFoundError

from shared_libs.atomic.types import ToolCall, Usage
from shared_libs.service.faces.responses_events import ResponseEvents
from shared_libs.service.faces.wanted import Began, Called, Ended, Outcome, Said, Thought
from shared_libs.service.problems import Problem
from shared_libs.testing import Cut, Healthy, RateLimited, Silence
from tests.support import run
from tests.unit.service.faces.ground import ground

TOOL = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
PIXEL = "data:image/png;base64,iVBORw0KGgo="
ECHO = {"metadata": {}, "background": False}
ENDS = {"response.completed", "response.incomplete", "response.failed"}
PARTS = {
    "message": ("response.content_part.added", "response.output_text.delta", "response.output_text.done"),
    "reasoning": (
        "response.reasoning_summary_part.added",
        "response.reasoning_summary_text.delta",
        "response.reasoning_summary_text.done",
    ),
    "function_call": (None, "response.function_call_arguments.delta", "response.function_call_arguments.done"),
    "mcp_call": (
        "response.mcp_call.in_progress",
        "response.mcp_call_arguments.delta",
        "response.mcp_call_arguments.done",
    ),
}


def check_grammar(events):
    """Follow a stream as a strict client does; told without our writer. Return the text of its messages."""
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    kinds = [event["type"] for event in events]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] in ENDS
    assert not ENDS & set(kinds[:-1])
    opened, stage, items, said = None, "", [], ""
    for event in events[2:-1]:
        kind = event["type"]
        if kind == "response.output_item.added":
            assert opened is None
            assert event["output_index"] == len(items)
            opened, stage, said = event["item"], "added", ""
            if PARTS[opened["type"]][0] is None:
                stage = "parts"
        elif kind == "response.output_item.done":
            assert opened is not None
            assert stage == "done"
            assert event["item"]["id"] == opened["id"]
            assert event["item"]["status"] in ("completed", "incomplete", "failed")
            items.append(event["item"])
            opened = None
        else:
            assert opened is not None, kind
            assert (event["item_id"], event["output_index"]) == (opened["id"], len(items))
            begins, delta, done = PARTS[opened["type"]]
            if kind == begins:
                assert stage == "added"
                stage = "parts"
            elif kind == delta:
                assert stage == "parts"
                said += event["delta"]
            elif kind == done:
                assert stage == "parts"
                assert (event.get("text") if "text" in event else event["arguments"]) == said
                stage = "done"
            else:
                assert stage == "done", kind
    assert opened is None
    last = events[-1]["response"]
    assert last["output"] == items
    return "".join(item["content"][0]["text"] for item in items if item["type"] == "message")


@pytest.mark.promise("face-responses")
def test_no_run_of_pieces_breaks_the_grammar():
    for seed in range(300):
        check_grammar(drawn(random.Random(seed)))


def drawn(draw):
    """Draw a run of pieces, well or badly behaved, and return the events it became."""
    made = ResponseEvents("resp_1", "bot", ECHO)
    running, count = [], 0
    for _ in range(draw.randrange(30)):
        what = draw.choice("ssttcbbee")
        if what == "s":
            made.take(Said(draw.choice(["a", "\n", "ü", ""])))
        elif what == "t":
            made.take(Thought("hm"))
        elif what == "c":
            made.take(Called(ToolCall("call_1", "f", {"x": 1})))
        elif what == "b":
            count += 1
            running.append(f"c{count}")
            made.take(Began(running[-1], "tool", draw.choice([{}, "raw"])))
        elif running and draw.random() < 0.9:
            ended = running.pop(draw.randrange(len(running)))
            made.take(Ended(ended, "out", draw.random() < 0.3))
        else:
            made.take(Ended("nobody", "out", is_error=False))
    end = draw.choice(["stop", "length", "content_filter", "tool_calls", "fail", "cancel"])
    if end == "fail":
        made.fail(Problem("rate_limited", "no"))
    elif end == "cancel":
        made.cancel()
    else:
        made.take(Outcome(finish=end, usage=Usage(1, 2), facts={"stop_reason": "x"}))
    made.take(Said("late"))
    made.fail(Problem("internal", "late"))
    made.cancel()
    assert made.ended
    return made.events


async def events_of(stream):
    return [event.model_dump(by_alias=True) async for event in stream]


@pytest.mark.promise("face-responses")
@pytest.mark.parametrize("model", ["bot", "bot/chain"])
def test_a_response_streamed_is_the_response_unstreamed(tmp_path, model):
    async def main():
        async with ground(tmp_path, {"m": Healthy("One two.")}, bot={}) as at, at.openai() as client:
            whole = await client.responses.create(model=model, input="hello")
            events = await events_of(await client.responses.create(model=model, input="hello", stream=True))
            assert check_grammar(events) == whole.output_text == "One two."
            last = events[-1]["response"]
            assert (whole.status, last["status"]) == ("completed", "completed")
            assert whole.usage.total_tokens == last["usage"]["total_tokens"] > 0
            async with client.responses.stream(model=model, input="hello") as stream:
                final = await stream.get_final_response()
            assert final.output_text == "One two."

    run(main())


@pytest.mark.promise("face-responses")
@pytest.mark.parametrize("previous", [False, True])
@pytest.mark.parametrize("stream", [False, True])
def test_a_client_s_tool_comes_back_by_its_output_item(tmp_path, previous, stream):
    call = ToolCall("up_1", "get_weather", {"city": "Rome"})
    own = ToolCall("up_2", "calculator", {"expression": "6*7"})

    async def main():
        scripts = {"m": [Healthy("I look.", (own, call)), Healthy("Sunny, 42.")]}
        async with ground(tmp_path, scripts, bot={"tools": ["calculator"]}) as at, at.openai() as client:
            given = {"model": "bot", "input": "How is it?", "tools": [TOOL]}
            if stream:
                events = await events_of(await client.responses.create(**given, stream=True))
                check_grammar(events)
                first = events[-1]["response"]
            else:
                first = (await client.responses.create(**given)).model_dump(by_alias=True)
            assert [item["type"] for item in first["output"]] == ["mcp_call", "function_call"]
            assert first["output"][0]["output"] == "42"
            asked = first["output"][1]
            result = {"type": "function_call_output", "call_id": asked["call_id"], "output": "sun"}
            if previous:
                given = {"input": [result], "previous_response_id": first["id"]}
            else:
                said = {"type": "function_call", **{name: asked[name] for name in ("call_id", "name", "arguments")}}
                given = {"input": [{"role": "user", "content": "How is it?"}, said, result]}
            second = await client.responses.create(model="bot", tools=[TOOL], **given)
            assert second.output_text == "Sunny, 42."
            sent = at.upstream.requests[-1].body["messages"]
            assert [one["content"] for one in sent if one["role"] == "tool"] == ["42", "sun"]

    run(main())


@pytest.mark.promise("face-responses")
@pytest.mark.parametrize("stream", [False, True])
def test_the_calls_of_a_chain_are_items_behind_its_words(tmp_path, stream):
    calls = tuple(ToolCall(f"up_{city}", "get_weather", {"city": city}) for city in ("Rome", "Oslo"))

    async def main():
        async with ground(tmp_path, {"m": Healthy("I look.", calls)}, bot={}) as at, at.openai() as client:
            given = {"model": "bot/chain", "input": "How is it?", "tools": [TOOL]}
            if stream:
                events = await events_of(await client.responses.create(**given, stream=True))
                check_grammar(events)
                output = events[-1]["response"]["output"]
            else:
                output = (await client.responses.create(**given)).model_dump()["output"]
            assert [item["type"] for item in output] == ["message", "function_call", "function_call"]
            assert [item.get("call_id") for item in output[1:]] == ["up_Rome", "up_Oslo"]

    run(main())


@pytest.mark.promise("face-responses")
def test_a_conversation_goes_on_by_the_previous_response(tmp_path):
    async def main():
        async with ground(tmp_path, {"m": [Healthy("Hi Ann."), Healthy("Ann.")]}, bot={}) as at, at.openai() as client:
            first = await client.responses.create(model="bot/chain", input="I am Ann.", instructions="One.")
            await client.responses.create(
                model="bot/chain", input="Who am I?", previous_response_id=first.id, instructions="Two."
            )
            sent = at.upstream.requests[-1].body["messages"]
            assert [one["content"] for one in sent] == ["Two.", "I am Ann.", "Hi Ann.", "Who am I?"]
            items = await client.responses.input_items.list(first.id)
            assert [item.content[0].text for item in items.data] == ["I am Ann."]
            again = await client.responses.retrieve(first.id)
            assert again.output_text == "Hi Ann."
            await client.responses.delete(first.id)
            for missing in (
                client.responses.retrieve(first.id),
                client.responses.create(model="bot", input="x", previous_response_id=first.id),
            ):
                with pytest.raises(NotFoundError):
                    await missing
            assert await client.responses.create(model="bot", input="x", store=False)

    run(main())


@pytest.mark.promise("face-responses")
def test_an_input_may_name_what_a_response_said_before(tmp_path):
    """As the AI SDK does with each turn by default: without its calls, their outputs are refused by every server."""
    call = ToolCall("up_1", "get_weather", {"city": "Rome"})

    async def main():
        scripts = {"m": [Healthy("I look.", (call,)), Healthy("Sunny.")]}
        async with ground(tmp_path, scripts, bot={}) as at, at.openai() as client:
            given = {"model": "bot/chain", "tools": [TOOL]}
            first = await client.responses.create(input="How is it?", **given)
            asked = (await client.responses.input_items.list(first.id)).data[0]
            said, called = first.output
            output = {"type": "function_call_output", "call_id": called.call_id, "output": "sun"}
            named = [{"id": asked.id}, {"type": "item_reference", "id": said.id}, {"id": called.id, "type": None}]
            lost = {"type": "item_reference", "id": "rs_of_another_server"}
            await client.responses.create(input=[*named, lost, output], **given)
            told = at.upstream.requests[-1].body["messages"]
            assert [(one["role"], one["content"]) for one in told] == [
                ("user", "How is it?"),
                ("assistant", "I look."),
                ("tool", "sun"),
            ]
            assert told[1]["tool_calls"][0]["function"]["arguments"] == '{"city":"Rome"}'
            for name in ("msg_of_another_server", f"fc_{'0' * 32}o0", said.id + "0"):
                body = {"model": "bot/chain", "input": [{"role": "user", "content": "x"}, {"id": name}]}
                status, _, told = await at.post("/v1/responses", body)
                assert (status, told["error"]["param"]) == (404, "input[1]")

    run(main())


@pytest.mark.promise("face-responses")
def test_a_choice_of_tools_reaches_the_model_and_a_result_s_image_stands_behind_the_results(tmp_path):
    shown = {"type": "input_image", "image_url": PIXEL}

    async def main():
        async with ground(tmp_path, {"m": Healthy("Hi.")}, bot={}) as at:

            async def sent(**more):
                status, headers, told = await at.post("/v1/responses", {"model": "bot/chain", "input": "x"} | more)
                return (at.upstream.requests[-1].body, headers) if status == 200 else (status, told["error"]["param"])

            two = [TOOL, TOOL | {"name": "other"}]
            some = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "other"}]}
            body, _ = await sent(tools=two, tool_choice=some)
            assert ([one["function"]["name"] for one in body["tools"]], body["tool_choice"]) == (["other"], "required")
            body, headers = await sent(tools=two, tool_choice={"type": "web_search"})
            assert "tool_choice" not in body
            assert headers["x-factory-ignored"] == "tool_choice:web_search"
            assert await sent(tools=two, tool_choice="get_weather") == (400, "tool_choice")
            assert await sent(tools=[TOOL, TOOL]) == (400, "tools")
            calls = [{"type": "function_call", "call_id": one, "name": "f", "arguments": "{}"} for one in "ab"]
            seen = {"type": "function_call_output", "call_id": "a", "output": [shown]}
            plain = {"type": "function_call_output", "call_id": "b", "output": "b"}
            body, _ = await sent(input=[{"role": "user", "content": "x"}, *calls, seen, plain])
            assert [one["role"] for one in body["messages"]] == ["user", "assistant", "tool", "tool", "user"]
            assert body["messages"][-1]["content"] == [{"type": "image_url", "image_url": {"url": PIXEL}}]
            file = {
                "type": "function_call_output",
                "call_id": "a",
                "output": [{"type": "input_file", "file_data": "x"}],
            }
            wrong = await sent(input=[{"role": "user", "content": "x"}, *calls[:1], file])
            assert wrong == (400, "input[2].output[0].type")

    run(main())


@pytest.mark.promise("face-responses")
def test_a_response_of_the_background_is_followed_and_resumed(tmp_path):
    async def main():
        async with ground(tmp_path, {"m": Healthy("One two three.")}, bot={}) as at, at.openai() as client:
            begun = await client.responses.create(model="bot", input="hello", background=True)
            assert begun.status in ("queued", "in_progress")
            events = await events_of(await client.responses.retrieve(begun.id, stream=True))
            assert check_grammar(events) == "One two three."
            for after in (0, 3, len(events) - 2):
                rest = await events_of(await client.responses.retrieve(begun.id, stream=True, starting_after=after))
                assert rest == events[after + 1 :]
            with pytest.raises(BadRequestError):
                await client.responses.create(model="bot", input="x", background=True, store=False)

    run(main())


@pytest.mark.promise("face-responses")
def test_a_response_of_the_background_is_cancelled_and_so_is_its_model(tmp_path):
    async def main():
        async with ground(tmp_path, {"m": Silence()}, mute={}) as at, at.openai() as client:
            silent = await client.responses.create(model="mute", input="hello", background=True)
            follower = asyncio.create_task(
                events_of(await client.responses.retrieve(silent.id, stream=True)),
            )
            await at.upstream.until_asked(1)
            cancelled = await client.responses.cancel(silent.id)
            assert cancelled.status == "cancelled"
            assert (await follower)[-1]["response"]["status"] == "cancelled"
            await at.upstream.until_left()

    run(main())


@pytest.mark.promise("face-responses")
def test_what_means_nothing_is_named_and_what_cannot_be_is_refused(tmp_path):
    async def main():
        async with ground(tmp_path, {"m": Healthy("Hi.")}, bot={}) as at:
            body = {
                "model": "bot",
                "input": [
                    {"role": "developer", "content": "Short."},
                    {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"},
                    {"type": "custom_tool_call", "call_id": "c", "name": "n", "input": "i"},
                    {"role": "user", "content": [{"type": "input_text", "text": "hello"}]},
                ],
                "tools": [TOOL, {"type": "web_search"}, {"type": "namespace", "name": "x", "tools": []}],
                "include": ["reasoning.encrypted_content"],
                "prompt_cache_key": "k",
                "client_metadata": {"a": "b"},
                "reasoning": {"effort": "low", "summary": "auto"},
            }
            status, headers, told = await at.post("/v1/responses", body)
            assert (status, told["status"]) == (200, "completed")
            for name in ("tools:web_search", "tools:namespace", "input:custom_tool_call"):
                assert name in headers["x-factory-ignored"]
            for wrong, param in (
                ({"input": []}, "input"),
                ({"input": [{"role": "king", "content": "x"}]}, "input[0].role"),
                ({"conversation": "c"}, "conversation"),
                ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input[0].content[0].type"),
                ({"previous_response_id": "resp_0"}, "previous_response_id"),
            ):
                status, _, told = await at.post("/v1/responses", {"model": "bot", "input": "x"} | wrong)
                assert (status, told["error"]["param"]) == (404 if "previous" in param else 400, param)

    run(main())


@pytest.mark.promise("face-streams")
def test_a_response_that_breaks_off_has_failed(tmp_path):
    async def main():
        scripts = {"m": Cut(answer=Healthy("word " * 200)), "full": RateLimited(7)}
        async with ground(tmp_path, scripts, bot={}, full={"llm": ["full"]}) as at, at.openai() as client:
            events = await events_of(await client.responses.create(model="bot/chain", input="x", stream=True))
            check_grammar(events)
            assert events[-1]["type"] == "response.failed"
            assert events[-1]["response"]["error"]["code"] == "server_error"
            for stream in (False, True):
                with pytest.raises(APIStatusError) as limited:
                    await client.responses.create(model="full/chain", input="x", stream=stream)
                assert limited.value.status_code == 429

    run(main())
