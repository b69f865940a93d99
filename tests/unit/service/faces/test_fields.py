"""
Every field that a vendor's SDK can send reaches a chain's model, is named as ignored, or is refused.

The fields are read from the SDKs' own types, so that one of tomorrow is asked for here too.
"""

from __future__ import annotations

import copy
import typing

import anthropic.types as anthropic
import openai.types.chat as chat
import openai.types.responses as responses
import pytest
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming
from openai.types.chat.chat_completion_content_part_image_param import ImageURL
from openai.types.chat.chat_completion_message_function_tool_call_param import Function
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming
from openai.types.responses.response_create_params import ResponseCreateParamsNonStreaming
from openai.types.responses.response_input_item_param import FunctionCallOutput
from openai.types.shared_params import FunctionDefinition, Reasoning

from shared_libs.testing import Healthy
from tests.support import run
from tests.unit.service.faces.ground import ground

PIXEL = "data:image/png;base64,iVBORw0KGgo="
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FUNCTION = {"name": "look", "description": "Looks.", "parameters": SCHEMA}
OBJECT = {"type": "json_schema", "name": "o", "schema": SCHEMA}

CHAT = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "See"}, {"type": "image_url", "image_url": {"url": PIXEL}}],
        },
        {
            "role": "assistant",
            "content": "I look.",
            "tool_calls": [{"id": "c", "type": "function", "function": {"name": "look", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "c", "content": "a dot"},
        {"role": "developer", "content": "Be briefer."},
        {"role": "user", "content": "So?"},
    ],
    "tools": [{"type": "function", "function": FUNCTION}],
    "stream_options": {"include_usage": True},
    "stream": True,
}
RESPONSE = {
    "input": [
        {
            "role": "user",
            "content": [{"type": "input_text", "text": "See"}, {"type": "input_image", "image_url": PIXEL}],
        },
        {"role": "assistant", "content": [{"type": "output_text", "text": "I look."}]},
        {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "a dot"},
        {"role": "user", "content": "So?"},
    ],
    "tools": [{"type": "function", **FUNCTION}],
    "reasoning": {},
    "text": {},
}
MESSAGE = {
    "max_tokens": 50,
    "system": [{"type": "text", "text": "Be brief."}],
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "See"},
                {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}},
                {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "A dot."}},
                {
                    "type": "search_result",
                    "source": "here",
                    "title": "Dots",
                    "content": [{"type": "text", "text": "Dots are small."}],
                },
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "s"},
                {"type": "tool_use", "id": "c", "name": "look", "input": {}},
            ],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": "a dot"}]},
    ],
    "tools": [{"name": "look", "description": "Looks.", "input_schema": SCHEMA}],
    "thinking": {"type": "enabled", "budget_tokens": 20},
    "output_config": {},
    "metadata": {},
}

PATHS = {"openai": "/v1/chat/completions", "responses": "/v1/responses", "anthropic": "/v1/messages"}
BODIES = {"openai": CHAT, "responses": RESPONSE, "anthropic": MESSAGE}

PLACES = [
    ("openai", (), CompletionCreateParamsNonStreaming),
    ("openai", ("stream_options",), chat.ChatCompletionStreamOptionsParam),
    ("openai", ("messages", 0), chat.ChatCompletionSystemMessageParam),
    ("openai", ("messages", 1), chat.ChatCompletionUserMessageParam),
    ("openai", ("messages", 1, "content", 0), chat.ChatCompletionContentPartTextParam),
    ("openai", ("messages", 1, "content", 1), chat.ChatCompletionContentPartImageParam),
    ("openai", ("messages", 1, "content", 1, "image_url"), ImageURL),
    ("openai", ("messages", 2), chat.ChatCompletionAssistantMessageParam),
    ("openai", ("messages", 2, "tool_calls", 0), chat.ChatCompletionMessageFunctionToolCallParam),
    ("openai", ("messages", 2, "tool_calls", 0, "function"), Function),
    ("openai", ("messages", 3), chat.ChatCompletionToolMessageParam),
    ("openai", ("messages", 4), chat.ChatCompletionDeveloperMessageParam),
    ("openai", ("tools", 0), chat.ChatCompletionFunctionToolParam),
    ("openai", ("tools", 0, "function"), FunctionDefinition),
    ("responses", (), ResponseCreateParamsNonStreaming),
    ("responses", ("reasoning",), Reasoning),
    ("responses", ("text",), responses.ResponseTextConfigParam),
    ("responses", ("input", 0), responses.EasyInputMessageParam),
    ("responses", ("input", 0, "content", 0), responses.ResponseInputTextParam),
    ("responses", ("input", 0, "content", 1), responses.ResponseInputImageParam),
    ("responses", ("input", 1), responses.ResponseOutputMessageParam),
    ("responses", ("input", 1, "content", 0), responses.ResponseOutputTextParam),
    ("responses", ("input", 2), responses.ResponseFunctionToolCallParam),
    ("responses", ("input", 3), FunctionCallOutput),
    ("responses", ("tools", 0), responses.FunctionToolParam),
    ("anthropic", (), MessageCreateParamsNonStreaming),
    ("anthropic", ("system", 0), anthropic.TextBlockParam),
    ("anthropic", ("messages", 0), anthropic.UserMessageParam),
    ("anthropic", ("messages", 0, "content", 0), anthropic.TextBlockParam),
    ("anthropic", ("messages", 0, "content", 1), anthropic.ImageBlockParam),
    ("anthropic", ("messages", 0, "content", 2), anthropic.DocumentBlockParam),
    ("anthropic", ("messages", 0, "content", 3), anthropic.SearchResultBlockParam),
    ("anthropic", ("messages", 1, "content", 0), anthropic.ThinkingBlockParam),
    ("anthropic", ("messages", 1, "content", 1), anthropic.ToolUseBlockParam),
    ("anthropic", ("messages", 2, "content", 0), anthropic.ToolResultBlockParam),
    ("anthropic", ("tools", 0), anthropic.ToolParam),
    ("anthropic", ("thinking",), anthropic.ThinkingConfigEnabledParam),
    ("anthropic", ("output_config",), anthropic.OutputConfigParam),
    ("anthropic", ("metadata",), anthropic.MetadataParam),
]

VALUES = {
    **dict.fromkeys(("temperature", "top_p", "frequency_penalty", "presence_penalty"), 0.37),
    **dict.fromkeys(("max_tokens", "max_completion_tokens", "max_output_tokens"), 370),
    **dict.fromkeys(("parallel_tool_calls", "is_error"), True),
    **{
        name: {"of": "mine"}
        for name in ("metadata", "text", "reasoning", "stream_options", "thinking", "output_config")
    },
    "stop_sequences": ["mine"],
    "include": ["mine"],
    ("openai", "tool_choice"): "required",
    ("responses", "tool_choice"): "required",
    ("anthropic", "tool_choice"): {"type": "any"},
    "response_format": {"type": "json_schema", "json_schema": {"name": "o", "schema": SCHEMA}},
    ("responses", "format"): OBJECT,
    ("anthropic", "format"): OBJECT,
    ("anthropic", "effort"): "low",
}
"""What a field is given that must not be any text."""

DONE_HERE = {
    "openai": {"model", "n", "stream"},
    "responses": {"model", "stream", "background", "store", "metadata", "stream_options", "instructions"},
    "anthropic": {"model", "stream"},
}
"""What is no model's."""

ECHOED = {"responses": {"id", "status", "annotations", "logprobs"}}
"""What an answer has, and its client sends back with it."""


def fields():
    """Every field of every type that the base requests do not have."""
    for wire, place, kind in PLACES:
        there = BODIES[wire]
        for step in place:
            there = there[step]
        left = DONE_HERE[wire] if not place else ECHOED.get(wire, set())
        for name in sorted(typing.get_type_hints(kind).keys() - there.keys() - left):
            yield wire, place, name


def with_field(wire, place, name):
    body = copy.deepcopy(BODIES[wire])
    there = body
    for step in place:
        there = there[step]
    there[name] = VALUES.get((wire, name), VALUES.get(name, "mine"))
    return body


@pytest.mark.promise("face-chat")
def test_every_field_of_the_sdks_reaches_a_chain_s_model_or_is_named_or_refused(tmp_path):
    def on(provider, **own):
        told = {"provider": provider, "model": "m", "api_key": "k", **own}
        return {"llm": lambda upstream: {"chain": [told | {"base_url": upstream.url(provider)}]}}

    agents = {"openai": on("openai"), "responses": on("openai", api="responses"), "anthropic": on("anthropic")}

    async def main():
        lost = []
        async with ground(tmp_path, {"m": Healthy("Seen.")}, **agents) as at:

            async def asked(wire, body):
                at.upstream.requests.clear()
                async with at.http.post(PATHS[wire], json=body | {"model": f"{wire}/chain"}) as answer:
                    await answer.read()
                    named = answer.headers.get("x-factory-ignored", "")
                    return answer.status, named, [one.body for one in at.upstream.requests][-1:]

            plain = {wire: (await asked(wire, body))[2] for wire, body in BODIES.items()}
            assert all(plain.values())
            for wire, place, name in fields():
                status, named, reached = await asked(wire, with_field(wire, place, name))
                if status == 200 and name not in named and reached == plain[wire]:
                    lost.append((wire, *place, name))
                elif status >= 500:
                    lost.append((status, wire, *place, name))
        assert not lost

    run(main())


@pytest.mark.promise("face-errors")
def test_a_field_that_no_request_could_have_is_the_client_s_fault_and_no_model_s(tmp_path):
    user = {"role": "user", "content": "So?"}
    part = {"type": "output_text", "text": "I look.", "content": [1]}
    wrong = [
        ("openai", {"messages": [user | {"name": 5}]}),
        *(("openai", {"messages": [user], name: {}}) for name in ("self", "output_schema")),
        *(("responses", {"input": "So?", name: [user]}) for name in ("messages", "self", "output_schema")),
        ("responses", {"input": "So?", "include": 0}),
    ]
    odd = {"input": [{"role": "assistant", "content": [part]}, {"role": "user", "content": "So?"}]}

    async def main():
        told = {"provider": "openai", "api": "responses", "model": "m", "api_key": "k"}
        llm = {"llm": lambda upstream: {"chain": [told | {"base_url": upstream.url("openai")}]}}
        async with ground(tmp_path, {"m": Healthy("Seen.")}, bot=llm) as at:
            statuses = [await at.status(PATHS[wire], body | {"model": "bot/chain"}) for wire, body in wrong]
            assert statuses == [400] * len(wrong)
            assert not at.upstream.requests
            assert await at.status(PATHS["responses"], odd | {"model": "bot/chain"}) == 200

    run(main())
