"""The fields of a chat completions request in the words of every provider of a chain."""

from __future__ import annotations

from functools import partial

import pytest

from shared_libs.atomic import Resilience
from shared_libs.atomic.llms import AnthropicLLM, OllamaLLM, OpenAILLM
from shared_libs.atomic.llms.chat_fields import as_anthropic
from shared_libs.atomic.types import ImagePart, Message, TextPart, ToolCall, ToolSpec
from shared_libs.testing import FaultServer, Healthy, ServerError
from tests.support import run

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
FIELDS = {
    "temperature": 1.5,
    "max_completion_tokens": 99,
    "stop": "END",
    "tool_choice": "required",
    "parallel_tool_calls": False,
    "frequency_penalty": 0.5,
    "user": "ann",
    "made_up": 1,
    "response_format": {"type": "json_schema", "json_schema": {"name": "number", "schema": SCHEMA}},
}
TOOLS = [ToolSpec("look", "Look.", {"type": "object", "properties": {}})]


@pytest.mark.promise("face-fields")
def test_a_fallback_of_another_provider_gets_what_it_has_a_field_for():
    async def main():
        once = Resilience(retry={"attempts": 1})
        async with FaultServer(
            {"a": ServerError(), "b": ServerError(), "c": ServerError(), "d": Healthy('{"n": 1}')}
        ) as up:
            chain = OpenAILLM(
                "a",
                base_url=up.url("openai"),
                resilience=once,
                fallbacks=[
                    OpenAILLM("b", base_url=up.url("openai-responses"), api="responses"),
                    AnthropicLLM("c", base_url=up.url("anthropic"), api_key="k"),
                    OllamaLLM("d", base_url=up.url("ollama")),
                ],
            )
            async with chain:
                answer = await chain.async_chat("Say 1.", TOOLS, chat_fields=FIELDS)
            assert answer.text == '{"n": 1}'
            chat, responses, messages, ollama = (request.body for request in up.requests)
        assert {name: chat.get(name) for name in FIELDS} == FIELDS
        assert responses["max_output_tokens"] == 99
        assert responses["text"]["format"] == {"type": "json_schema", "name": "number", "schema": SCHEMA}
        assert not {"stop", "frequency_penalty", "made_up", "max_completion_tokens"} & responses.keys()
        assert (messages["max_tokens"], messages["temperature"], messages["stop_sequences"]) == (99, 1.0, ["END"])
        assert messages["tool_choice"] == {"type": "any", "disable_parallel_tool_use": True}
        assert messages["metadata"] == {"user_id": "ann"}
        assert messages["output_config"]["format"]["schema"]["required"] == ["n"]
        assert not {"made_up", "frequency_penalty", "response_format"} & messages.keys()
        assert ollama["options"] == {"temperature": 1.5, "num_predict": 99, "stop": ["END"], "frequency_penalty": 0.5}

    run(main())


@pytest.mark.promise("face-fields")
@pytest.mark.parametrize("effort", [["low"], {"of": "low"}, 5, "none", "as much as you like"])
def test_an_effort_that_is_no_word_of_the_provider_is_left_out(effort):
    assert as_anthropic({"reasoning_effort": effort, "max_tokens": 9}) == {"max_tokens": 9}


@pytest.mark.promise("face-fields")
def test_what_stands_beside_a_request_s_words_has_its_place_on_each_wire():
    cached = {"cache_control": {"type": "ephemeral"}}
    both = {"openai": {"image_url": {"detail": "low"}}, "responses": {"detail": "low"}, "anthropic": cached}
    url = "https://example.org/a.png"
    messages = [
        Message("system", (TextPart("Be brief.", {"anthropic": cached}),)),
        Message("user", (TextPart("See"), ImagePart(url, extra=both))),
        Message("assistant", tool_calls=(ToolCall("c", "look"),)),
        Message("tool", "a dot", tool_call_id="c", extra={"anthropic": cached, "openai": {"name": "look"}}),
    ]
    own = {"anthropic": {"max_tokens": 9, "top_k": 3}, "responses": {"truncation": "auto"}}
    fields = {"max_tokens": 9, "top_k": 3}

    async def main():
        asked = {}
        for wire, model in (
            ("openai", OpenAILLM),
            ("responses", partial(OpenAILLM, api="responses")),
            ("anthropic", AnthropicLLM),
        ):
            async with FaultServer({"m": Healthy("Seen.")}) as up:
                there = up.url("openai-responses" if wire == "responses" else wire)
                async with model("m", base_url=there, api_key="k") as llm:
                    assert llm.wire == wire
                    await llm.async_chat(messages, TOOLS, chat_fields=fields, wire_fields=own)
                asked[wire] = up.requests[-1].body
        return asked

    asked = run(main())
    chat, responses, claude = asked["openai"], asked["responses"], asked["anthropic"]
    assert chat["messages"][0]["content"] == "Be brief."
    assert chat["messages"][1]["content"][1] == {"type": "image_url", "image_url": {"detail": "low", "url": url}}
    assert chat["messages"][3]["name"] == "look"
    assert chat["top_k"] == 3
    assert responses["input"][1]["content"][1] == {"type": "input_image", "image_url": url, "detail": "low"}
    assert (responses["truncation"], "max_output_tokens" in responses) == ("auto", False)
    assert claude["system"] == [{"type": "text", "text": "Be brief.", **cached}]
    assert claude["messages"][0]["content"][1] == {"type": "image", "source": {"type": "url", "url": url}, **cached}
    assert claude["messages"][2]["content"][0]["cache_control"] == cached["cache_control"]
    assert (claude["max_tokens"], claude["top_k"]) == (9, 3)
    assert "cache_control" not in str(chat) + str(responses)
