"""What a run cost: the answers, each at its own model's price, cached tokens as such; never a guess. Over the wire."""

from __future__ import annotations

import json

import msgspec
import pytest

from shared_libs.agents import ReActAgent
from shared_libs.atomic import Price, Resilience, Usage, tool
from shared_libs.atomic.errors import LLMError
from shared_libs.atomic.llms import AnthropicLLM, OpenAILLM, ScriptedLLM, Turn
from shared_libs.atomic.llms.said_usage import SaidUsage
from shared_libs.observability.otel_words import usage_told
from shared_libs.service.faces.openai_answer import usage_of as as_chat
from shared_libs.service.faces.responses_events import usage_of as as_response
from tests.support import run
from tests.wire_server import WireServer, reply, sse, stream

MINI = Price(input=0.75, cached_input=0.075, output=4.5)
SONNET = Price(input=3.0, cached_input=0.3, output=15.0, cache_write=3.75)
ONCE = Resilience(retry={"attempts": 1})

pytestmark = pytest.mark.promise("cost-true")


@tool
async def look() -> str:
    """Look."""
    return "seen"


def openai_reply(text="", *, calls=(), **usage):
    message = {"role": "assistant", "content": text, "tool_calls": list(calls)}
    finish = "tool_calls" if calls else "stop"
    return reply({"model": "m", "choices": [{"message": message, "finish_reason": finish}], "usage": usage or None})


CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
CACHED = {
    "prompt_tokens": 1_000_000,
    "completion_tokens": 100_000,
    "total_tokens": 1_100_000,
    "prompt_tokens_details": {"cached_tokens": 800_000},
}
ANTHROPIC_USAGE = {
    "input_tokens": 100_000,
    "cache_read_input_tokens": 400_000,
    "cache_creation_input_tokens": 500_000,
    "output_tokens": 10_000,
}


def anthropic_reply(text):
    body = {"type": "message", "model": "c", "content": [{"type": "text", "text": text}], "stop_reason": "end_turn"}
    return reply(body | {"usage": ANTHROPIC_USAGE})


async def asked(plays, make):
    async with WireServer(plays) as server, make(server.url) as llm:
        return await llm.async_chat("x")


def test_tokens_read_from_openais_cache_have_their_own_price():
    response = run(
        asked([openai_reply("Hi.", **CACHED)], lambda url: OpenAILLM("m", base_url=url, api_key="k", price=MINI))
    )
    assert response.usage == Usage(1_000_000, 100_000, 800_000, 1_100_000)
    assert response.cost_usd == pytest.approx(0.2 * 0.75 + 0.8 * 0.075 + 0.1 * 4.5)


def test_tokens_read_from_and_written_to_anthropics_cache_have_their_own_prices():
    response = run(
        asked([anthropic_reply("Hi.")], lambda url: AnthropicLLM("c", base_url=url, api_key="k", price=SONNET))
    )
    assert response.usage == Usage(1_000_000, 10_000, 400_000, 1_010_000, 500_000)
    assert response.cost_usd == pytest.approx(0.1 * 3 + 0.4 * 0.3 + 0.5 * 3.75 + 0.01 * 15)
    hour = msgspec.structs.replace(response.usage, hour_cache_input_tokens=200_000)
    kept = msgspec.structs.replace(SONNET, hour_cache_write=6.0)
    assert kept.cost_usd(hour) == pytest.approx(response.cost_usd + 0.2 * (6 - 3.75))
    assert SONNET.cost_usd(hour) == pytest.approx(response.cost_usd)


@pytest.mark.parametrize(
    ("price", "usage"), [(None, CACHED), (MINI, {})], ids=["the price is unknown", "the server counted nothing"]
)
def test_what_is_unknown_is_not_zero(price, usage):
    response = run(
        asked([openai_reply("Hi.", **usage)], lambda url: OpenAILLM("m", base_url=url, api_key="k", price=price))
    )
    assert response.cost_usd is None


def test_a_model_that_is_free_costs_nothing_whatever_it_counts():
    response = run(ScriptedLLM(["x"], price=Price(input=0, output=0)).async_chat("x"))
    assert response.cost_usd == 0


def test_a_run_pays_each_answer_at_the_price_of_the_model_that_gave_it():
    """The primary answers the first turn; the second falls back in the middle, and only its answer is paid."""
    cut = {"id": "", "model": "m", "choices": [{"index": 0, "delta": {"content": "Half"}}]}
    counted = {"model": "m", "choices": [], "usage": CACHED}
    plays = [
        openai_reply(calls=[CALL], **CACHED),
        stream(sse(cut, counted)),  # it counts its tokens and then breaks off
    ]

    async def main():
        async with WireServer(plays) as primary, WireServer([anthropic_reply("Done.")]) as other:
            fallback = AnthropicLLM("c", base_url=other.url, api_key="k", price=SONNET)
            llm = OpenAILLM("m", base_url=primary.url, api_key="k", price=MINI, resilience=ONCE, fallbacks=[fallback])
            async with ReActAgent(llm=llm, tools=[look]) as agent:
                return [event async for event in agent.async_stream("go")][-1].result

    result = run(main())
    assert (result.status, result.answer) == ("answered", "Done.")
    first = 0.2 * 0.75 + 0.8 * 0.075 + 0.1 * 4.5
    second = 0.1 * 3 + 0.4 * 0.3 + 0.5 * 3.75 + 0.01 * 15
    assert result.cost_usd == pytest.approx(first + second)
    assert result.usage.total_tokens == 1_100_000 + 1_010_000
    ledger = [(row.model, row.outcome, row.usage and row.usage.total_tokens) for row in result.attempts]
    assert ledger == [("m", "ok", 1_100_000), ("m", "interrupted", 1_100_000), ("c", "ok", 1_010_000)]
    assert json.loads(json.dumps(result.to_dict()))["cost_usd"] == result.cost_usd


def test_a_run_with_an_answer_of_unknown_cost_has_an_unknown_cost():
    async def main():
        known = ScriptedLLM([Turn(calls=[("look", {})], usage=Usage(10, 5, 0, 15)), LLMError("down")], price=MINI)
        known.fallbacks = (ScriptedLLM(["Done."], model="other"),)
        return await ReActAgent(llm=known, tools=[look]).async_run("go")

    result = run(main())
    assert (result.status, result.cost_usd, result.usage.total_tokens) == ("answered", None, 15)


def test_an_answer_that_had_to_be_repaired_costs_both():
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    usage = Usage(1_000_000, 0, 0, 1_000_000)
    turns = [Turn(text="what?", usage=usage), Turn(text='{"n": 1}', usage=usage)]
    response = run(ScriptedLLM(turns, price=MINI).async_chat("x", output_schema=schema))
    assert (response.parsed, response.usage, response.cost_usd) == ({"n": 1}, usage, 1.5)


@pytest.mark.parametrize(
    ("said", "made", "thought"),
    [
        ({"prompt_tokens": 5, "completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 7}}, 9, 7),
        ({"input_tokens": 5, "output_tokens": 9, "output_tokens_details": {"reasoning_tokens": 7}}, 9, 7),
        ({"promptTokenCount": 5, "candidatesTokenCount": 2, "thoughtsTokenCount": 7, "totalTokenCount": 14}, 9, 7),
        # xAI tells what was thought beside what was made; the total has both
        (
            {
                "prompt_tokens": 5,
                "completion_tokens": 2,
                "total_tokens": 14,
                "completion_tokens_details": {"reasoning_tokens": 7},
            },
            9,
            7,
        ),
        ({"prompt_tokens": 5, "completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 99}}, 9, 9),
        ({"prompt_tokens": 5, "completion_tokens": 9, "completion_tokens_details": None}, 9, 0),
    ],
)
def test_what_was_thought_is_told_as_a_part_of_what_was_made(said, made, thought):
    usage = msgspec.convert(said, SaidUsage).neutral()
    assert (usage.output_tokens, usage.reasoning_tokens) == (made, thought)
    assert (usage + usage).reasoning_tokens == 2 * thought
    assert as_chat(usage)["completion_tokens_details"] == {"reasoning_tokens": thought}
    assert as_response(usage)["output_tokens_details"] == {"reasoning_tokens": thought}
    assert usage_told(usage).get("gen_ai.usage.reasoning.output_tokens", 0) == thought
