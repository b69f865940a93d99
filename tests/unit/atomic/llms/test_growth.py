"""What a server streams costs work in proportion to its size, in whatever shape it comes."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest

from shared_libs.atomic import Resilience
from shared_libs.atomic.errors import LLMError
from shared_libs.atomic.llms.anthropic_answer import AnthropicAnswer
from shared_libs.atomic.llms.event_stream import EventStream
from shared_libs.atomic.llms.framing import AnyFraming
from shared_libs.atomic.llms.openai_format import OpenAIAnswer
from shared_libs.atomic.llms.openai_llm import OpenAILLM
from shared_libs.atomic.llms.openai_responses import ResponsesAnswer
from shared_libs.atomic.llms.structured import OutputSchema
from shared_libs.atomic.types import Message
from tests.growth import assert_linear
from tests.support import run
from tests.wire_server import WireServer, stream


def delta(**fields):
    return [{"choices": [{"index": 0, "delta": fields}]}]


def call(k, **more):
    return delta(tool_calls=[{"function": {"name": "f", "arguments": "{}"}, **more}])


def item(k, **more):
    said = {"type": "function_call", "id": f"i{k}", "call_id": f"c{k}", "name": "f", "arguments": ""}
    return [
        {"type": "response.output_item.added", "item": said, **more},
        {"type": "response.function_call_arguments.delta", "item_id": f"i{k}", "delta": "{}", **more},
    ]


def block(k):
    said = {"type": "tool_use", "id": f"t{k}", "name": "f", "input": {}}
    return [
        {"type": "content_block_start", "index": k, "content_block": said},
        {"type": "content_block_stop", "index": k},
    ]


STREAMS = {
    "calls, each at its place": (OpenAIAnswer, lambda k: call(k, index=k, id=f"c{k}")),
    "calls without place and id": (OpenAIAnswer, call),
    "reasoning that goes back": (OpenAIAnswer, lambda k: delta(reasoning_details=[{"index": k, "text": "a"}])),
    "items, each at its place": (ResponsesAnswer, lambda k: item(k, output_index=k)),
    "items without place": (ResponsesAnswer, item),
    "blocks": (AnthropicAnswer, block),
}


@pytest.mark.promise("work-bounded")
@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_costs_in_proportion_to_its_length(name):
    kind, events_of = STREAMS[name]

    def read(events):
        answer = kind([], ["x"])
        with contextlib.suppress(LLMError):  # more than any model says: refused, which is an end too
            for event in events:
                answer.take(event)
            answer.response()

    assert_linear(read, lambda n: [json.dumps(event).encode() for k in range(n) for event in events_of(k)])


@pytest.mark.promise("work-bounded")
def test_an_answer_that_broke_off_behind_a_run_of_digits_costs_in_proportion_to_its_length():
    schema = OutputSchema({"type": "object", "properties": {"a": {"type": "string"}}})
    assert_linear(schema.fitting_part, lambda n: f'{{"a": "{"0" * n} x', start=1 << 12)


async def heard(llm):
    async for _ in llm.async_stream([Message("user", "q")]):
        pass


@pytest.mark.promise("work-bounded")
@pytest.mark.parametrize("streamed", [False, True])
def test_the_loop_has_its_turn_between_events_that_are_there_already(streamed):
    turns = 0

    async def main():
        nonlocal turns
        async with WireServer([stream([b"data: {}\n\n" * 5000])]) as server:
            llm = OpenAILLM(model="m", base_url=server.url, api_key="k", resilience=Resilience(retry={"attempts": 1}))
            under_way = asyncio.ensure_future(heard(llm) if streamed else llm.async_chat([Message("user", "q")]))
            await server.until(lambda: bool(server.requests))
            while not under_way.done():
                turns += 1
                await asyncio.sleep(0)
            await llm.aclose()
            assert isinstance(under_way.exception(), LLMError)

    run(main())
    assert turns > 20  # one for each 250 events, and some for the connection


@pytest.mark.promise("work-bounded")
def test_of_many_servers_that_send_large_events_none_holds_the_loop_for_more_than_some():
    large = b"data: " + b"x" * 10_000 + b"\n\n"

    async def main():
        came = [large * 25, b"data: " + b"y" * 200_000 + b"\n\n", b""]
        loop, turns = asyncio.get_running_loop(), 0

        def tick():
            nonlocal turns
            turns += 1
            loop.call_soon(tick)

        async def read():
            return came.pop(0)

        tick()
        return [(sum(map(len, payloads)), turns) async for payloads in EventStream(read, AnyFraming())]

    seen = run(main())
    assert [size for size, _ in seen] == [30_000] * 8 + [10_000, 200_000, 0]  # one alone may be larger
    assert len({turn for _, turn in seen[:9]}) == 9
