"""Everything as a user would write it: no type checker has a word to say. Never run; see `test_typing.py`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_type

from fastapi import FastAPI
from pydantic import BaseModel, TypeAdapter
from sqlalchemy.ext.asyncio import AsyncEngine

from shared_libs.agents import (
    AgentEvent,
    AgentResult,
    Decision,
    Event,
    Limits,
    ReActAgent,
    RunFinished,
    TextDelta,
    ToolFinished,
)
from shared_libs.atomic import (
    BaseEvaluator,
    BaseTool,
    Deps,
    Evaluation,
    ImagePart,
    InProcessMemory,
    LLMError,
    LLMResponse,
    Message,
    Resilience,
    ToolResult,
    current_scope,
    tool,
)
from shared_libs.atomic.llms import AnthropicLLM, OllamaLLM, OpenAILLM, ScriptedLLM, Turn
from shared_libs.factory import agent_from_dict, load_agent
from shared_libs.memory import SQLMemory
from shared_libs.observability import RunRecorder


class Answer(BaseModel):
    carrier: str
    delay_min: float


@dataclass
class Route:
    origin: str
    stops: int


class Shop:
    async def count(self, item: str) -> int:
        return len(item)


@tool
async def stock(item: str, shop: Deps[Shop]) -> int:
    """Say how many there are."""
    return await shop.count(item)


@tool(timeout_s=5, sequential=True, isolation="thread", idempotent=True)
def price(item: str, currency: str = "EUR") -> str:
    """Say what it costs."""
    return f"{item} {currency} {current_scope().key}"


class Multiply(BaseTool):
    name = "multiply"
    description = "Multiply two numbers."
    timeout_s = 2.0

    async def execute(self, a: float, b: float) -> float:
        return a * b


class Short(BaseEvaluator):
    name = "short"

    def evaluate(self, answer: str, expected: Any = None, result: AgentResult | None = None) -> Evaluation:
        return Evaluation(1.0, passed=len(answer) < 100, reason="")


def models() -> OpenAILLM:
    local = OllamaLLM("llama3.2", base_url="http://127.0.0.1:11434")
    return OpenAILLM(
        "gpt-5.4-mini",
        api_key="k",
        resilience={"retry": {"attempts": 2}, "strategy": "hedged"},
        fallbacks=[AnthropicLLM("claude-sonnet-5", resilience=Resilience(attempt_timeout_s=20)), local, "ollama/qwen3"],
        options={"temperature": 0.2},
    )


typed = ReActAgent(models(), [stock, price, Multiply()], output_schema=Answer, limits=Limits(timeout_s=30))
plain = ReActAgent(llm="openai/gpt-5.4-mini", instructions="Be brief.", limits={"timeout_s": 5})
by_schema = ReActAgent(llm=models(), output_schema={"type": "object"}, memory=InProcessMemory(window=20))
routes = ReActAgent(llm=models(), output_schema=Route)
loaded = load_agent("configs/flights.yaml", tools=[stock], observers=[RunRecorder("runs.jsonl")])


async def values(engine: AsyncEngine) -> None:
    result = await typed.async_run("Which is the latest?", timeout=10, session_id="s", deps=Shop())
    assert_type(result, AgentResult[Answer])
    assert_type(result.output, Answer | None)
    if result.output is not None:
        assert_type(result.output.delay_min, float)
    assert_type((await routes.async_run("?")).output, Route | None)
    assert_type((await plain.async_run("?", output_schema=Answer)).output, Answer | None)
    assert_type((await typed.async_run("?", output_schema=Route)).output, Route | None)
    assert_type((await plain.async_run("?")).output, Any | None)
    assert_type((await by_schema.async_run("?", output_schema={"type": "array"})).output, Any | None)
    paused = await typed.async_run("?")
    decisions = {call.call_id: Decision(approved=False, reason="no") for call in paused.pending}
    if paused.state is not None:
        assert_type(await typed.async_resume(paused.state, decisions, deps=Shop()), AgentResult[Answer])
    assert_type(result.raise_for_status().answer, str | None)
    assert_type(AgentResult.from_dict(result.to_dict()).status == "answered", bool)
    async with SQLMemory(engine=engine) as memory:
        await memory.async_store("s", [Message("user", "hi"), {"role": "assistant", "content": "hello"}])
        assert_type(await memory.async_load("s", 20), list[Message])


async def questions() -> None:
    image = ImagePart.from_bytes(Path("a.png").read_bytes(), "image/png")
    await plain.async_run(["What is on it?", image])
    await plain.async_run([Message("user", "I am Ann."), {"role": "user", "content": "Who am I?"}])
    await plain.async_run({"role": "user", "content": "Who am I?"})


async def events() -> str:
    said = ""
    async for event in typed.async_stream("?", deps=Shop(), timeout=5):
        assert_type(event, AgentEvent)
        if isinstance(event, TextDelta):
            said += event.text
        elif isinstance(event, ToolFinished):
            assert_type(event.is_error, bool)
        elif isinstance(event, RunFinished):
            assert_type(event.result.answer, str | None)
    reply = await plain.chat("?", session_id=None)
    async for token in reply:
        said += token
    assert_type(await reply, str)
    return said


async def models_and_tools(shop: Shop) -> None:
    async with models() as llm:
        response = await llm.async_chat("hi", tools=[stock, price.spec], timeout=5, output_schema=Answer)
        assert_type(response, LLMResponse)
        async for chunk in llm.async_stream([{"role": "user", "content": "hi"}]):
            said = chunk.text or (chunk.response and chunk.response.text)
            print(said)
    assert_type(await stock("tea", shop), int)
    assert_type(price("tea"), str)
    assert_type(await price.async_run({"item": "tea"}), ToolResult)
    assert_type(tool(price.function, sequential=True)("tea"), str)
    try:
        await plain.llm.async_generate("hi")
    except LLMError as error:
        print(error.attempts, error.causes)


def scripted() -> ReActAgent:
    llm = ScriptedLLM([Turn(calls=[("price", {"item": "tea"})]), "done", LLMError("down")])
    return agent_from_dict({"name": "a", "llm": {"provider": "openai", "model": "m"}}, llm=llm, tools=[price])


app = FastAPI()


@app.post("/ask")
async def ask(question: str) -> AgentResult[Answer]:
    return await typed.async_run(question, deps=Shop())


@app.post("/events")
async def stream(messages: list[Message]) -> AsyncIterator[AgentEvent]:
    async for event in plain.async_stream(messages):
        yield event


def stored(data: dict[str, Any]) -> Event:
    TypeAdapter(list[Message]).validate_python([data])
    return Event.from_dict(data)
