"""OpenAI's chat completions: agents and chains as the vendor's SDK, unmodified, meets them."""

from __future__ import annotations

from itertools import product

import pytest
from openai import APIError, BadRequestError, NotFoundError

from shared_libs.atomic.types import ToolCall
from shared_libs.service.faces.hold import Hold
from shared_libs.service.faces.wanted import Said, Voided
from shared_libs.service.faces.work import MOST_BEHIND
from shared_libs.testing import Cut, Healthy, HugeChunk, RateLimited, Refused, ServerError, Unauthorized
from tests.growth import assert_linear
from tests.support import run
from tests.unit.service.faces.ground import ground
from tests.wire_server import WireServer, reply

TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
ASK = [{"role": "user", "content": "hello there"}]


async def folded(stream):
    """Fold a stream as a client does."""
    text, calls, finish, usage, ids = "", {}, None, None, set()
    async for chunk in stream:
        ids.add((chunk.id, chunk.created, chunk.model))
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
            finish = choice.finish_reason or finish
            for call in choice.delta.tool_calls or ():
                kept = calls.setdefault(call.index, [call.id, call.function.name, ""])
                kept[2] += call.function.arguments or ""
    assert len(ids) == 1
    return text, list(calls.values()), finish, usage


@pytest.mark.promise("face-chat")
@pytest.mark.parametrize("model", ["bot", "bot/chain"])
def test_an_answer_streamed_is_the_answer_unstreamed(tmp_path, model):
    async def main():
        async with ground(tmp_path, {"m": Healthy("One two three.")}, bot={}) as at, at.openai() as client:
            whole = await client.chat.completions.create(model=model, messages=ASK)
            stream = await client.chat.completions.create(
                model=model, messages=ASK, stream=True, stream_options={"include_usage": True}
            )
            text, calls, finish, usage = await folded(stream)
        choice = whole.choices[0]
        assert (choice.message.content, choice.finish_reason) == (text, finish) == ("One two three.", "stop")
        assert not calls
        assert whole.model == model
        assert usage.total_tokens == whole.usage.total_tokens > 0

    run(main())


@pytest.mark.promise("face-client-tools")
@pytest.mark.parametrize("stream", [False, True])
def test_a_client_s_tool_on_an_agent_pauses_the_run_and_its_result_goes_on_with_it(tmp_path, stream):
    call = ToolCall("up_1", "get_weather", {"city": "Rome"})
    own = ToolCall("up_2", "calculator", {"expression": "6*7"})

    async def main():
        scripts = {"m": [Healthy("I look.", (own, call)), Healthy("Rome is sunny, and 42.")]}
        async with ground(tmp_path, scripts, bot={"tools": ["calculator"]}) as at, at.openai() as client:
            create = client.chat.completions.create
            if stream:
                _, calls, finish, _ = await folded(await create(model="bot", messages=ASK, tools=[TOOL], stream=True))
                [(call_id, name, arguments)] = calls
            else:
                choice = (await create(model="bot", messages=ASK, tools=[TOOL])).choices[0]
                finish, [made] = choice.finish_reason, choice.message.tool_calls
                call_id, name, arguments = made.id, made.function.name, made.function.arguments
            assert (finish, name, arguments) == ("tool_calls", "get_weather", '{"city":"Rome"}')
            asked = {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
            messages = [
                *ASK,
                {"role": "assistant", "content": None, "tool_calls": [asked]},
                {"role": "tool", "tool_call_id": call_id, "content": "sunny"},
            ]
            answer = await create(model="bot", messages=messages, tools=[TOOL])
            assert answer.choices[0].message.content == "Rome is sunny, and 42."
            assert answer.factory["run_id"] in call_id
            said = at.upstream.requests[-1].body["messages"]
            assert [one["content"] for one in said if one["role"] == "tool"] == ["42", "sunny"]

    run(main())


@pytest.mark.promise("face-client-tools")
def test_results_for_a_run_that_nobody_knows_are_the_history_of_a_new_one(tmp_path):
    call_id = f"call_{'0' * 32}_0"

    async def main():
        async with ground(tmp_path, {"m": Healthy("Sunny.")}, bot={}) as at:
            asked = {"id": call_id, "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
            messages = [
                *ASK,
                {"role": "assistant", "content": None, "tool_calls": [asked]},
                {"role": "tool", "tool_call_id": call_id, "content": "sunny"},
            ]
            status, headers, told = await at.post(
                "/v1/chat/completions", {"model": "bot", "messages": messages, "tools": [TOOL]}
            )
            assert (status, headers["x-factory-resumed"]) == (200, "no")
            assert told["choices"][0]["message"]["content"] == "Sunny."
            assert [one["role"] for one in at.upstream.requests[-1].body["messages"]][-3:] == [
                "user",
                "assistant",
                "tool",
            ]

    run(main())


@pytest.mark.promise("face-chat")
def test_fields_reach_a_chain_and_an_agent_names_what_it_ignores(tmp_path):
    fields = {"temperature": 0.5, "logit_bias": {"5": 1}, "seed": 7, "made_up": [1], "presence_penalty": 0}

    async def main():
        async with ground(tmp_path, {"m": Healthy("Hi.")}, bot={}) as at:
            body = {"messages": ASK, **fields}
            await at.post("/v1/chat/completions", body | {"model": "bot/chain"})
            sent = at.upstream.requests[-1].body
            assert {name: sent.get(name) for name in fields} == fields
            _, headers, _ = await at.post("/v1/chat/completions", body | {"model": "bot"})
            assert headers["x-factory-ignored"] == "logit_bias, made_up"
            sent = at.upstream.requests[-1].body
            assert (sent["temperature"], sent["seed"]) == (0.5, 7)
            assert "made_up" not in sent

    run(main())


def tool(name):
    return {"type": "function", "function": {"name": name}}


@pytest.mark.promise("face-chat")
@pytest.mark.parametrize("model", ["bot", "bot/chain"])
def test_the_images_of_results_are_shown_and_a_choice_of_some_tools_is_those(tmp_path, model):
    pixel = "data:image/png;base64,iVBORw0KGgo="
    shown = [{"type": "text", "text": "here"}, {"type": "image_url", "image_url": pixel}]
    calls = [{"id": name, "type": "function", "function": {"name": "look", "arguments": "{}"}} for name in "ab"]
    messages = [
        *ASK,
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "tool_call_id": "a", "content": shown},
        {"role": "tool", "tool_call_id": "b", "content": "b"},
    ]
    some = {"mode": "auto", "tools": [{"type": "function", "function": {"name": "get_weather"}}]}
    asked = {"tools": [TOOL, tool("look")], "tool_choice": {"type": "allowed_tools", "allowed_tools": some}}

    async def main():
        async with ground(tmp_path, {"m": Healthy("Seen.")}, bot={}) as at:
            body = {"model": model, "messages": messages, **asked}
            assert await at.status("/v1/chat/completions", body) == 200
            sent = at.upstream.requests[-1].body
            assert [one["role"] for one in sent["messages"]][-5:] == ["user", "assistant", "tool", "tool", "user"]
            assert [one["content"] for one in sent["messages"]][-3:-1] == ["here", "b"]
            assert sent["messages"][-1]["content"] == [{"type": "image_url", "image_url": {"url": pixel}}]
            assert [one["function"]["name"] for one in sent["tools"]] == ["get_weather"]

    run(main())


@pytest.mark.promise("face-errors")
def test_what_is_refused_is_an_error_of_the_sdk(tmp_path):
    async def main():
        async with ground(tmp_path, {"m": Healthy("Hi.")}, bot={}) as at, at.openai() as client:
            create = client.chat.completions.create
            with pytest.raises(NotFoundError) as missing:
                await create(model="nobody", messages=ASK)
            assert missing.value.code == "model_not_found"
            for wrong, param in (
                ({"n": 2}, "n"),
                ({"messages": []}, "messages"),
                ({"messages": [{"role": "king", "content": "x"}]}, "messages[0].role"),
                ({"temperature": 9}, "temperature"),
                ({"max_tokens": 5.5}, "max_tokens"),
                ({"response_format": {"type": "xml"}}, "response_format"),
                ({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}, "response_format"),
                ({"tool_choice": "get_weather"}, "tool_choice"),
                ({"tools": [tool("f"), tool("g"), tool("f")]}, "tools"),
            ):
                with pytest.raises(BadRequestError) as refused:
                    await create(**({"model": "bot", "messages": ASK} | wrong))
                assert refused.value.param == param
            # without the SDK, which takes ten seconds to write so much
            for wrong in ({"messages": ASK * 10_001}, {"tools": [tool(f"f{number}") for number in range(2_001)]}):
                body = {"model": "bot", "messages": ASK} | wrong
                status, _, told = await at.post("/v1/chat/completions", body)
                assert (status, told["error"]["param"]) == (400, *wrong)

    run(main())


SIGNED = {"extra_content": {"google": {"thought_signature": "SIG"}}}
LOOKED = {"id": "c", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}, **SIGNED}


@pytest.mark.promise("face-chat")
@pytest.mark.parametrize("stream", [False, True])
def test_what_a_model_gave_with_its_calls_reaches_the_client_and_comes_back_to_it(tmp_path, stream):
    said = {"role": "assistant", "content": None, "tool_calls": [LOOKED], "reasoning_details": [{"data": "D"}]}
    answer = {"model": "m", "choices": [{"index": 0, "message": said, "finish_reason": "tool_calls"}]}

    async def main():
        async with WireServer([reply(answer)] * 2) as vendor:
            there = {"provider": "openai", "model": "m", "base_url": vendor.url, "api_key": "k", "options": {"seed": 1}}
            llm = {"chain": [there], "retry": {"attempts": 1}}
            async with ground(tmp_path, {"m": Healthy()}, bot={"llm": llm}) as at, at.openai() as client:
                asked = {"model": "bot/chain", "tools": [TOOL]}
                if stream:
                    async with client.chat.completions.stream(**asked, messages=ASK) as events:
                        made = await events.get_final_completion()
                else:
                    made = await client.chat.completions.create(**asked, messages=ASK)
                turn = made.choices[0].message.model_dump(exclude_none=True, exclude_unset=True)
                result = {"role": "tool", "tool_call_id": "c", "content": "sun"}
                await client.chat.completions.create(**asked, messages=[*ASK, turn, result])
            return vendor.requests[-1].body["messages"][1]

    told = run(main())
    assert told["tool_calls"][0]["extra_content"] == SIGNED["extra_content"]
    assert told["reasoning_details"] == [{"data": "D"}]


@pytest.mark.promise("face-streams")
def test_a_stream_that_breaks_ends_in_an_error_and_never_merely_ends(tmp_path):
    long = "word " * 200

    async def main():
        scripts = {"m": Cut(answer=Healthy(long))}
        async with ground(tmp_path, scripts, bot={}) as at, at.openai() as client:
            stream = await client.chat.completions.create(model="bot/chain", messages=ASK, stream=True)
            with pytest.raises(APIError):
                await folded(stream)
            lines = await at.lines("/v1/chat/completions", {"model": "bot/chain", "messages": ASK, "stream": True})
            assert lines[-1] == "data: [DONE]"
            assert '"error"' in lines[-2]

    run(main())


@pytest.mark.promise("face-streams")
def test_a_refusal_keeps_its_wait_and_its_status(tmp_path):
    path = "/v1/chat/completions"

    async def main():
        scripts = {"m": [RateLimited(7)] * 6 + [Refused()] * 3, "keyless": Unauthorized(), "ill": ServerError()}
        scripts |= {"full": RateLimited(), "well": Healthy("At last.")}
        agents = {
            "bot": {},
            "closed": {"llm": ["keyless", "m"]},
            "ill": {"llm": ["ill"]},
            "two": {"llm": ["full", "well"]},
        }
        async with ground(tmp_path, scripts, **agents) as at:
            for model in ("bot/chain", "bot"):
                status, headers, told = await at.post("/v1/responses", {"model": model, "input": "hello there"})
                assert (status, headers["retry-after"], told["error"]["code"]) == (429, "7", "rate_limit_exceeded")
            for stream, model in product((False, True), ("bot/chain", "bot")):
                status, headers, told = await at.post(path, {"model": model, "messages": ASK, "stream": stream})
                assert (status, headers["retry-after"], told["error"]["code"]) == (429, "7", "rate_limit_exceeded")
            for model in ("bot/chain", "bot"):
                status, headers, told = await at.post(path, {"model": model, "messages": ASK})
                assert (status, headers["x-should-retry"]) == (429, "false")
                assert told["error"]["code"] == "insufficient_quota"
            for model in (*["ill/chain"] * 6, "ill"):  # of which no model may be asked now
                status, headers, told = await at.post(path, {"model": model, "messages": ASK})
                assert (status, told["error"]["code"]) == (503, "upstream_unavailable")
            assert headers["retry-after-ms"]
            for model in ("two", "two/chain"):  # a provider that is full is so whoever stands in for it
                assert (await at.post(path, {"model": model, "messages": ASK}))[0] == 200
                assert at.service.admission.told()[model]["slots"] == 70
            # where none of several models helps later, that is told too; where they stand is not
            status, headers, told = await at.post(path, {"model": "closed/chain", "messages": ASK})
            assert (status, headers["x-should-retry"], told["error"]["code"]) == (502, "false", "upstream_failed")
            assert ("asked http://<address>/v1" in told["error"]["message"], "127.0.0.1" in str(told)) == (True, False)

    run(main())


@pytest.mark.promise("face-streams")
def test_a_piece_longer_than_what_may_wait_reaches_a_client_that_reads(tmp_path):
    async def main():
        async with ground(tmp_path, {"m": HugeChunk()}, bot={}) as at:
            lines = await at.lines("/v1/chat/completions", {"model": "bot/chain", "messages": ASK, "stream": True})
            assert len(max(lines, key=len)) > MOST_BEHIND
            assert lines[-1] == "data: [DONE]"

    run(main())


@pytest.mark.promise("face-chat")
def test_models_are_listed_and_found_by_names_with_slashes(tmp_path):
    async def main():
        async with ground(tmp_path, {"m": Healthy("Hi.")}, bot={}) as at, at.openai() as client:
            assert [one.id async for one in client.models.list()] == ["bot", "bot/chain"]
            assert (await client.models.retrieve("bot/chain")).id == "bot/chain"

    run(main())


ERRANDS = {
    "### Task:\nGenerate a concise, 3-5 word title with an emoji summarizing the chat history.": True,
    "### Task:\nGenerate 1-3 broad tags categorizing the main themes": True,
    "### Task:\nSuggest 3-5 relevant follow-up questions or prompts": True,
    "Provide a concise, 5-word-or-less title for the conversation, using title case": True,
    "Please generate a four to five word title summarizing our conversation without any lead-in": True,
    "Based on the chat history, give this conversation a name. Keep it short": True,
    "Based on the conversation so far, provide a concise description of this session in 4 words or less.": True,
    "SYSTEM You are a title generator. You output ONLY a thread title. Nothing else.": True,
    "SYSTEM \n    - you will generate a short title based on the first message a user begins": True,
    "SYSTEM 你是一名擅长会话的助理，你需要将用户的会话总结为 10 个字以内的标题": True,
    "SYSTEM You are a helpful assistant. You write titles of conversations well.": False,
    "What is the title of the book?": False,
    "Write a short title for my novel.": False,
    "Write a title deed.": False,
}


@pytest.mark.promise("face-chat")
def test_errands_of_chat_uis_go_to_the_agent_s_bare_models(tmp_path):
    async def main():
        async with ground(tmp_path, {"m": Healthy("A title")}, bot={"tools": ["calculator"]}) as at:
            for number, (text, routed) in enumerate(ERRANDS.items()):
                system = text.removeprefix("SYSTEM ") if text.startswith("SYSTEM ") else None
                talk = [{"role": "user", "content": "What is this project?" if system else text}]
                first = [{"role": "system", "content": system}] if system else []
                path, body = (
                    ("/v1/chat/completions", {"messages": first + talk}),
                    ("/v1/messages", {"messages": talk, "max_tokens": 9} | ({"system": system} if system else {})),
                    ("/v1/responses", {"input": talk, "instructions": system}),
                )[number % 3]
                _, headers, _ = await at.post(path, body | {"model": "bot"})
                assert (text, headers.get("x-factory-routed")) == (text, "bot/chain" if routed else None)
                assert ("tools" in at.upstream.requests[-1].body) is not routed

    run(main())


@pytest.mark.promise("work-bounded")
def test_a_long_answer_costs_each_of_its_pieces_once():
    def held(pieces):
        hold = Hold()
        for piece in pieces:
            hold.take(piece, 0.0)
        hold.take(Voided("again"), 0.0)
        for piece in pieces:
            hold.take(piece, 0.0)

    assert_linear(held, lambda n: [Said("x" * 100)] * n)  # little memory: pages that are new cost more
