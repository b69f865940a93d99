"""What spans tell of a request: its fields by the names of the conventions, its messages as far as there is room."""

from __future__ import annotations

import json

import pytest
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes

from shared_libs.agents import ReActAgent
from shared_libs.atomic import tool
from shared_libs.atomic.events import ModelAsked, WithRequests
from shared_libs.atomic.llms import ScriptedLLM
from shared_libs.atomic.llms.scripted_llm import Turn
from shared_libs.atomic.types import ImagePart, Message, TextPart, ToolSpec
from shared_libs.observability import OpenTelemetry
from shared_libs.observability.otel_requests import Requests
from tests.support import run_virtual

KNOWN = {value for name, value in vars(gen_ai_attributes).items() if name.startswith("GEN_AI_")}


@tool
async def look(place: str) -> str:
    """Look something up."""
    return place


@pytest.mark.promise("otel")
def test_the_fields_of_a_request_are_told_by_the_names_of_the_conventions():
    json_text = {"format": {"type": "json_schema"}}
    for options, told in [
        (
            {"temperature": 0.2, "top_p": 1, "top_k": 5},
            {"request.temperature": 0.2, "request.top_p": 1, "request.top_k": 5},
        ),
        (
            {"seed": 7, "n": 2, "stop": "END"},
            {"request.seed": 7, "request.choice.count": 2, "request.stop_sequences": ("END",)},
        ),
        (
            {"max_completion_tokens": 9, "frequency_penalty": 0},
            {"request.max_tokens": 9, "request.frequency_penalty": 0},
        ),
        ({"max_output_tokens": 9, "text": json_text}, {"request.max_tokens": 9, "output.type": "json"}),
        ({"options": {"num_predict": 9, "stop": ["a"]}}, {"request.max_tokens": 9, "request.stop_sequences": ("a",)}),
        ({"response_format": {"type": "json_object"}}, {"output.type": "json"}),
        ({"temperature": "warm", "max_tokens": True, "top_p": float("nan"), "stop": 5, "response_format": "json"}, {}),
    ]:
        exporter, tracers, heard = InMemorySpanExporter(), TracerProvider(), []
        tracers.add_span_processor(SimpleSpanProcessor(exporter))
        observer = OpenTelemetry(tracers, NoOpMeterProvider(), contents=False)
        for others in ([], [WithRequests(heard.append)]):
            llm = ScriptedLLM([Turn(calls=[("look", {"place": "a"})]), "Done."], model="m")
            llm.options = options
            run_virtual(ReActAgent(llm=llm, tools=[look], observers=[observer, *others]).async_run("q"))
        wanted = {f"gen_ai.{name}": value for name, value in told.items()}
        asked = [span.attributes for span in exporter.get_finished_spans() if span.name == "chat m"]
        assert len(asked) == 4  # beside who wants whole requests too, where the second says only that they are the same
        requests = [event for event in heard if isinstance(event, ModelAsked)]
        assert [len(request.messages) > 0 for request in requests] == [True, True]
        assert requests[1].options is None
        for attributes in asked:
            found = {name for name in attributes if name.startswith(("gen_ai.request.", "gen_ai.output."))}
            assert {name: attributes[name] for name in found - {"gen_ai.request.model"}} == wanted
        assert set(wanted) <= KNOWN


def asked(seq, messages, base=None, kept=0, **more):
    return ModelAsked(provider="p", model="m", seq=seq, base=base, kept=kept, messages=messages, **more)


def texts(told):
    said = json.loads(told["gen_ai.input.messages"])
    return [message["parts"][-1]["content"].partition(":")[0] for message in said]


def test_a_long_conversation_keeps_what_it_begins_with_and_its_end():
    requests = Requests()
    messages = [Message("user", f"{number}:{'word ' * 200}") for number in range(100)]
    requests.told(asked(1, messages[:90]), contents=True)
    kept = texts(requests.told(asked(2, messages[90:], 1, 90), contents=True))
    assert kept == ["0", *map(str, range(100 - len(kept) + 1, 100))]
    assert 10 < len(kept) < 40
    assert texts(requests.told(asked(3, messages[5:6], 2, 2), contents=True)) == ["0", "1", "5"]
    assert texts(requests.told(asked(4, messages[7:8], 99, 2), contents=True)) == ["7"]  # of what nobody knows


def test_images_are_named_and_tools_told_as_far_as_there_is_room():
    image = ImagePart.from_bytes(b"x" * 9_000)
    tools = [ToolSpec(f"t{number}", "long " * 1_000, {"type": "object"}) for number in range(20)]
    told = Requests().told(asked(1, [Message("user", (TextPart("What?"), image))], tools=tools), contents=True)
    [message] = json.loads(told["gen_ai.input.messages"])
    assert [part["type"] for part in message["parts"]] == ["uri", "text"]
    assert "sha256" in message["parts"][0]["uri"]
    assert 2 < len(json.loads(told["gen_ai.tool.definitions"])) < 20
    assert "gen_ai.input.messages" not in Requests().told(asked(1, [Message("user", "secret")]), contents=False)()
