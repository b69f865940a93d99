"""Recorded against servers over the wire, most of them written by others; replayed when the server is gone."""

from __future__ import annotations

import pytest

from bench.chaos import llmock
from shared_libs.agents import Limits, ReActAgent
from shared_libs.atomic import Resilience, tool
from shared_libs.atomic.events import LoopBlocked
from shared_libs.atomic.llms import AnthropicLLM, OllamaLLM, OpenAILLM
from shared_libs.atomic.types import ToolCall
from shared_libs.testing import Cut, FaultServer, Healthy, RateLimited, ServerError
from shared_libs.testing.cassettes import Player, Recorder, text_of
from shared_libs.testing.cassettes.file import cassette_of
from tests.support import run, run_virtual

KEY = "sk-never-in-a-cassette-1234567890"


@tool
async def get_weather(city: str) -> str:
    """Weather of a city."""
    return f"21 degrees in {city}"


@pytest.fixture(scope="module")
def calm():
    with llmock() as url:
        yield url


async def ask(llm, *, streamed):
    async with ReActAgent(llm=llm, tools=[get_weather], limits=Limits(max_steps=3, timeout_s=200)) as agent:
        if streamed:
            return [event async for event in agent.async_stream("What is the weather in Paris?", run_id="r")]
        return [await agent.async_run("What is the weather in Paris?", run_id="r")]


def shown(events):
    result = getattr(events[-1], "result", events[-1])
    # a machine that stands still for a while is told of, and no part of what is replayed
    told = [
        (type(event).__name__, getattr(event, "text", "")) for event in events if not isinstance(event, LoopBlocked)
    ]
    seen = [seen.content for step in result.steps for seen in step.observations]
    return result.status, result.answer, result.usage, seen, [row.outcome for row in result.attempts], told


@pytest.mark.promise("replay-true", "cassette-secrets")
@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize(
    ("provider", "path", "arguments"),
    [(OpenAILLM, "/v1", {}), (OpenAILLM, "/v1", {"api": "responses"}), (AnthropicLLM, "/anthropic", {})],
)
def test_a_run_with_a_tool_against_a_server_of_others(calm, provider, path, arguments, streamed):
    recorder = Recorder()
    llm = provider("any-model", base_url=calm + path, api_key=KEY, **arguments)
    real = run(ask(recorder.chain(llm), streamed=streamed))
    text = text_of(recorder.cassette())
    player = Player(cassette_of(text))
    gone = provider("any-model", base_url="http://127.0.0.1:9", api_key="another", **arguments)
    again = run_virtual(ask(player.chain(gone), streamed=streamed))
    assert shown(again) == shown(real)
    assert shown(real)[0] == "answered"
    assert "21 degrees in" in shown(real)[3][0]
    assert player.differences() == []
    assert KEY not in text
    assert calm not in text


@pytest.mark.promise("replay-true")
@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize(
    ("provider", "name"), [(OpenAILLM, "openai"), (AnthropicLLM, "anthropic"), (OllamaLLM, "ollama")]
)
def test_faults_of_the_wire_in_every_format(provider, name, streamed):
    call = ToolCall("x", "get_weather", {"city": "Paris"})
    recorder = Recorder()
    policy = Resilience(retry={"attempts": 5, "base_s": 0})

    async def main():
        script = [
            RateLimited(retry_after_s=2),
            ServerError(),
            Cut(),
            Healthy("I look.", tool_calls=(call,)),
            Healthy("Mild."),
        ]
        async with FaultServer({"m": script}) as server:
            llm = provider("m", api_key=KEY, base_url=server.url(name), resilience=policy)
            return await ask(recorder.chain(llm), streamed=streamed)

    real = run_virtual(main())
    player = Player(cassette_of(text_of(recorder.cassette())))
    gone = provider("m", base_url="http://127.0.0.1:9", api_key="another", resilience=policy)
    again = run_virtual(ask(player.chain(gone), streamed=streamed))
    assert shown(again) == shown(real)
    assert len(shown(real)[4]) == 5
    assert shown(real)[1] == "Mild."
    assert player.differences() == []
