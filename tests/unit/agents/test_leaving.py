"""Results, events and messages leave a program as a user writes it: `json`, pydantic, FastAPI; and come back."""

from __future__ import annotations

import json
import typing
from collections.abc import AsyncIterator

import pytest
from fastapi import FastAPI
from fastapi.sse import EventSourceResponse
from fastapi.testclient import TestClient
from pydantic import BaseModel, TypeAdapter, ValidationError

from shared_libs import agents, atomic
from shared_libs.agents import AgentEvent, AgentResult, Decision, Event, ModelFinished, RunFinished
from shared_libs.atomic import ImagePart, LLMResponse, Message, MisuseError, TextPart, Usage
from tests.support import run_virtual
from tests.unit.agents.cast import add, agent, call


class Answer(BaseModel):
    number: int


def a_run():
    """One run with a tool: its events, the last of which has the result."""

    async def main():
        built = agent([call("add", "to be sure", a=1, b=2), "3"], add)
        return [event async for event in built.async_stream("1 + 2?")]

    return run_virtual(main())


EVENTS = a_run()
RESULT = EVENTS[-1].result


@pytest.mark.promise("leaves")
def test_what_a_run_gives_is_json_and_comes_back():
    assert AgentResult.from_dict(json.loads(json.dumps(RESULT.to_dict()))) == RESULT
    for event in EVENTS:
        again = Event.from_dict(json.loads(json.dumps(event.to_dict())))
        assert (type(again), again) == (type(event), event)
    assert RunFinished.from_dict(EVENTS[-1].to_dict()) == EVENTS[-1]


@pytest.mark.promise("leaves")
@pytest.mark.parametrize(
    ("read", "data", "why"),
    [
        (AgentResult.from_dict, {"run_id": "x"}, "AgentResult.*status"),
        (AgentResult.from_dict, RESULT.to_dict() | {"status": "fine"}, "status"),
        (AgentResult.from_dict, None, "AgentResult"),
        (Event.from_dict, {"type": "nothing"}, "no event.*nothing"),
        (Event.from_dict, {"type": "warned"}, "no event.*message"),
        (RunFinished.from_dict, EVENTS[0].to_dict(), "RunFinished"),
        (Message.from_dict, {"role": "usr"}, "Message.*usr"),
    ],
)
def test_what_does_not_fit_is_told(read, data, why):
    with pytest.raises(MisuseError, match=why):
        read(data)


@pytest.mark.promise("leaves")
@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (AgentResult, RESULT),
        (AgentEvent, EVENTS[0]),
        (list[AgentEvent], EVENTS),
        (Message, Message("user", (TextPart("what is it?"), ImagePart("https://example.org/a.png")))),
        (LLMResponse, LLMResponse(text="x", usage=Usage(1, 2))),
        (Decision, Decision(approved=False, reason="on holiday")),
    ],
)
def test_pydantic_writes_reads_and_describes_it(kind, value):
    adapter = TypeAdapter(kind)
    assert adapter.validate_python(value) == value
    assert adapter.validate_python(adapter.dump_python(value)) == value
    assert adapter.validate_json(adapter.dump_json(value)) == value
    for mode in ("validation", "serialization"):
        described = json.dumps(adapter.json_schema(mode=mode))
        assert len(described) > 200
    with pytest.raises(ValidationError):
        adapter.validate_python(3)


@pytest.mark.promise("leaves")
def test_a_schema_has_each_kind_once_under_its_name():
    schema = TypeAdapter(AgentEvent).json_schema(mode="serialization")
    assert {kind.__name__ for kind in typing.get_args(AgentEvent)} <= set(schema["$defs"])
    assert schema["$defs"]["RunFinished"]["properties"]["type"]["const"] == "run_finished"
    assert schema["$defs"]["RunFinished"]["properties"]["result"] == {"$ref": "#/$defs/AgentResult"}
    typed = TypeAdapter(AgentResult[Answer]).json_schema(mode="serialization")
    assert {"$ref": "#/$defs/Answer"} in typed["properties"]["output"]["anyOf"]


def test_every_event_and_result_is_exported():
    names = {kind.__name__ for kind in typing.get_args(AgentEvent)}
    assert names | {"AgentEvent", "AgentResult", "Event", "EventSink", "decode_event"} <= set(agents.__all__)
    assert all(hasattr(getattr(atomic, name), "from_dict") for name in ("Message", "LLMResponse", "LLMChunk", "Usage"))


def a_service():
    """A service as its author writes it, without knowing of us."""
    app = FastAPI()

    def one():
        return agent([call("add", "to be sure", a=1, b=2), "3"], add)

    @app.get("/bare")
    async def bare():
        return await one().async_run("1 + 2?")

    @app.get("/typed")
    async def typed() -> AgentResult:
        return await one().async_run("1 + 2?")

    @app.get("/model", response_model=AgentResult)
    async def model():
        return await one().async_run("1 + 2?")

    @app.get("/picked", response_model=AgentResult, response_model_include={"answer", "error", "usage"})
    async def picked():
        return await one().async_run("1 + 2?")

    @app.get("/short", response_model=AgentResult, response_model_exclude={"steps"}, response_model_exclude_none=True)
    async def short():
        return await one().async_run("1 + 2?")

    @app.get("/inside")
    async def inside():
        return {"result": await one().async_run("1 + 2?")}

    @app.get("/events", response_class=EventSourceResponse)
    async def events() -> AsyncIterator[AgentEvent]:
        async for event in one().async_stream("1 + 2?"):
            yield event

    @app.post("/talk")
    async def talk(messages: list[Message]) -> AgentResult:
        return await agent(["yes"]).async_run(messages)

    return TestClient(app)


@pytest.mark.promise("leaves")
def test_a_fastapi_route_returns_it_however_it_is_written():
    with a_service() as client:
        for route in ("bare", "typed", "model"):
            told = client.get(f"/{route}")
            assert told.status_code == 200
            assert AgentResult.from_dict(told.json()).answer == "3"
        assert client.get("/picked").json().keys() == {"answer", "error", "usage"}
        left = client.get("/short").json()
        assert left["answer"] == "3"
        assert not {"steps", "error"} & left.keys()
        assert client.get("/inside").json()["result"]["answer"] == "3"
        names = set(client.get("/openapi.json").json()["components"]["schemas"])
        assert {"AgentResult", "Step", "Action", "Message", "RunFinished"} <= names


@pytest.mark.promise("leaves")
def test_a_fastapi_route_streams_the_events():
    with a_service() as client:
        lines = client.get("/events").text.splitlines()
    told = [Event.from_dict(json.loads(line[6:])) for line in lines if line.startswith("data: ")]
    assert [type(event) for event in told] == [type(event) for event in EVENTS]
    assert told[-1].result.answer == "3"


@pytest.mark.promise("leaves")
def test_a_fastapi_route_takes_messages():
    with a_service() as client:
        question = [{"role": "user", "content": [{"type": "text", "text": "well?"}]}]
        assert client.post("/talk", json=question).json()["answer"] == "yes"
        refused = client.post("/talk", json=[{"role": "usr", "content": "well?"}])
        assert refused.status_code == 422
        assert "usr" in refused.text


@pytest.mark.promise("leaves")
def test_a_response_that_was_parsed_is_plain_data_too():
    response = LLMResponse(text='{"number": 3}', parsed=Answer(number=3))
    event = ModelFinished(step=1, response=response)
    assert json.loads(json.dumps(event.to_dict()))["response"]["parsed"] == {"number": 3}


@pytest.mark.promise("shown")
def test_a_result_is_readable():
    told = str(RESULT)
    assert told.splitlines()[0].startswith("answered (final_answer) in 0.00 s: 2 steps, 1 tool calls, 0 tokens")
    assert told.splitlines()[-1] == "3"
    assert repr(RESULT).startswith("AgentResult(run_id=")
    assert len(repr(AgentResult(run_id="r", status="failed", stop_reason="error", answer="x" * 9999))) < 500
