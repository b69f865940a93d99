"""What a server streams costs work in proportion to its size, in whatever shape it comes."""

from __future__ import annotations

import contextlib
import json

import pytest

from shared_libs.atomic.errors import LLMError
from shared_libs.atomic.llms.anthropic_answer import AnthropicAnswer
from shared_libs.atomic.llms.openai_format import OpenAIAnswer
from shared_libs.atomic.llms.openai_responses import ResponsesAnswer
from shared_libs.atomic.llms.structured import OutputSchema
from tests.growth import assert_linear


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
