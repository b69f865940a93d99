"""Further wrong uses; see `wrong.py`."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from shared_libs.agents import AgentResult, Limits, ReActAgent, RunFinished, TextDelta
from shared_libs.atomic import (
    BaseLLMWrapper,
    BaseMemory,
    InProcessMemory,
    LLMResponse,
    Resilience,
    ToolSpec,
    tool,
)
from shared_libs.atomic.llms import OpenAILLM, ScriptedLLM
from shared_libs.factory import agent_from_dict, load_agent
from shared_libs.memory import SQLMemory
from shared_libs.observability import RunRecorder, RunStore


class Answer(BaseModel):
    carrier: str


class Other(BaseModel):
    x: int


class Mine(BaseLLMWrapper):
    provider = "mine"

    async def _chat(self, messages: str, tools: tuple[ToolSpec, ...], **options: Any) -> LLMResponse:  # wrong
        return LLMResponse(text="x")


class Store(BaseMemory):
    def _load(self, session_id: str, limit: int | None = None) -> list[str]:  # wrong
        return []


agent = ReActAgent("openai/x", output_schema=Answer)
typed: ReActAgent[Other] = ReActAgent("openai/x", output_schema=Answer)  # wrong
ReActAgent("openai/x", tools="calculator")  # wrong
ReActAgent("openai/x", [1])  # wrong
ReActAgent("openai/x", observers=RunRecorder("x"))  # wrong
ReActAgent("openai/x", memory="sqlite:///x.db")  # wrong
ReActAgent("openai/x", limits=5)  # wrong
ReActAgent("openai/x", instruction="x")  # wrong
ReActAgent()  # wrong
ReActAgent(llm=None)  # wrong
ReActAgent("openai/x", timeout_s=5)  # wrong
OpenAILLM()  # wrong
OpenAILLM("m", temperature=0.2)  # wrong
OpenAILLM("m", api_key=5)  # wrong
Resilience(retry=5)  # wrong
Resilience(attempt_timeout_s="30")  # wrong
Limits(max_steps="10")  # wrong
Limits(timeout_s=None)  # wrong
load_agent(5)  # wrong
load_agent("a.yaml", tool=[])  # wrong
agent_from_dict("name: a")  # wrong
InProcessMemory(windows=5)  # wrong
ScriptedLLM("a", 5)  # wrong
SQLMemory(5)  # wrong
RunStore(5)  # wrong


@tool(isolation="thread", timeout_s="5")  # wrong
def a() -> str:
    return ""


@tool
def b(x: int) -> int:
    """B."""
    return x


async def use() -> None:
    result = await agent.async_run("?")
    result.answer.upper()  # wrong
    result.answer = "x"  # wrong
    result.steps.append(None)  # wrong
    result.cost_usd + 1  # wrong
    print(agent.async_run("?").answer)  # wrong
    agent.run("?")  # wrong
    await agent.async_run("?", session_id=5)  # wrong
    await agent.async_run(question="?", timeout="5")  # wrong
    await agent.async_run(["a", 5])  # wrong
    async for event in agent.async_stream("?"):
        if isinstance(event, TextDelta):
            print(event.result)  # wrong
        if isinstance(event, RunFinished):
            print(event.result.answer.strip())  # wrong
    reply = agent.chat("?")
    print(reply.result)  # wrong
    async with OpenAILLM("m") as llm:
        response = await llm.async_chat(5)  # wrong
        print(response.txt)  # wrong
        print((await llm.async_generate("x")).choices)  # wrong
        async for chunk in llm.async_stream("x"):
            print(chunk.delta)  # wrong
            print(chunk.kind == "txt")  # wrong
    await b.async_run("x")  # wrong
    b("x")  # wrong
    print(b.async_run({"x": 1}).content)  # wrong
    m = InProcessMemory()
    await m.async_store("s", "hello")  # wrong
    await m.async_load(5)  # wrong
    await m.async_search("s")  # wrong
    (await m.async_load("s")).upper()  # wrong
    AgentResult.from_dict("x")  # wrong
