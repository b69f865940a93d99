"""Further programs as users write them; see `uses.py`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from enum import Enum
from functools import partial
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypedDict, TypeVar, assert_type

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, Field

from shared_libs.agents import (
    Action,
    AgentEvent,
    AgentResult,
    EventSink,
    LimitReached,
    Limits,
    Observation,
    ReActAgent,
    Reply,
    RunStarted,
    Step,
)
from shared_libs.atomic import BaseLLMWrapper, BaseMemory, LLMResponse, Message, ToolSpec, tool
from shared_libs.atomic.llms import OpenAILLM, ScriptedLLM
from shared_libs.atomic.types import LLMChunk
from shared_libs.durable import JobStore
from shared_libs.factory import load_agent
from shared_libs.observability import RunStore, log_events
from shared_libs.retrieval import Collection

T = TypeVar("T", bound=BaseModel)


class Colour(Enum):
    RED = "red"


class Point(NamedTuple):
    x: int
    y: int


class Options(TypedDict, total=False):
    limit: int


class A(BaseModel):
    kind: Literal["a"]


class B(BaseModel):
    kind: Literal["b"]


class Page(BaseModel, Generic[T]):
    items: list[T]


@tool
def paint(
    colour: Colour, at: Point, options: Options, size: Annotated[int, Field(ge=1)] = 1, note: str | None = None
) -> Point:
    """Paint."""
    return at


@tool(needs_approval=True)
async def find(kind: Literal["a", "b"]) -> A | B:
    """Find."""
    return A(kind="a") if kind == "a" else B(kind="b")


class Service:
    @tool
    def ping(self, host: str) -> bool:
        """Ping."""
        return bool(host)


class Mine(BaseLLMWrapper):
    provider = "mine"

    async def _chat(self, messages: list[Message], tools: tuple[ToolSpec, ...], **options: Any) -> LLMResponse:
        return LLMResponse(text="x")

    async def _stream(
        self, messages: list[Message], tools: tuple[ToolSpec, ...], **options: Any
    ) -> AsyncGenerator[LLMChunk, None]:
        yield LLMChunk("text", text="x")


class Redis(BaseMemory):
    async def _store(self, session_id: str, messages: list[Message]) -> None: ...
    async def _load(self, session_id: str, limit: int | None = None) -> list[Message]:
        return []

    async def _search(self, session_id: str, query: str, k: int) -> list[Message]:
        return []


def sink(event: AgentEvent) -> None:
    print(event.run_id, event.seq, event.at_s)


class Counter:
    def __init__(self) -> None:
        self.n = 0

    def __call__(self, event: AgentEvent) -> None:
        self.n += isinstance(event, RunStarted)


sinks: list[EventSink] = [sink, Counter(), log_events()]
agent = ReActAgent(Mine("m"), [paint, find, Service().ping], observers=[sink, Counter()], memory=Redis())


def plain_function(a: int) -> int:
    """Double."""
    return 2 * a


agent2 = ReActAgent("openai/x", [plain_function, paint])
agent3 = ReActAgent("openai/x", (plain_function,), output_schema=list[A])
agent5 = ReActAgent("openai/x", output_schema=Page[A])
agent6: ReActAgent[A] = ReActAgent("openai/x", output_schema=A)
agent7: ReActAgent[Any] = ReActAgent("openai/x")


def generic(schema: type[T]) -> ReActAgent[T]:
    return ReActAgent("openai/x", output_schema=schema)


async def ask(schema: type[T], question: str) -> T | None:
    result = await generic(schema).async_run(question)
    assert_type(result, AgentResult[T])
    return result.output


async def results() -> None:
    result = await agent6.async_run("?")
    for step in result.steps:
        assert_type(step, Step)
        for action, seen in zip(step.actions, step.observations, strict=True):
            assert_type(action, Action)
            assert_type(seen, Observation)
            print(action.tool, action.input, seen.content, seen.is_error)
    assert_type(result.usage.total_tokens, int)
    assert_type(result.cost_usd, float | None)
    for attempt in result.attempts:
        print(attempt.provider, attempt.model)
    match result.status:
        case "answered" | "partial":
            print(result.answer)
        case "failed" | "cancelled" | "paused":
            print(result.error)
    many = await asyncio.gather(agent6.async_run("a"), agent6.async_run("b"))
    assert_type(many, tuple[AgentResult[A], AgentResult[A]])
    tasks = [asyncio.create_task(agent6.async_run(q)) for q in "ab"]
    assert_type(await tasks[0], AgentResult[A])
    async with asyncio.timeout(5), agent6 as opened:
        await opened.async_run("?")
    async with AsyncExitStack() as stack:
        a = await stack.enter_async_context(agent6)
        assert_type(a, ReActAgent[A])


async def stream_it() -> None:
    async for event in agent.async_stream("?"):
        match event:
            case RunStarted(question=q):
                print(q)
            case LimitReached(stop_reason=s, why=w):
                print(s, w)
            case _:
                pass
    reply: Reply = await agent.chat("?")
    print(await reply, (reply.result.answer if reply.result else None))


async def embeddings() -> npt.NDArray[np.float32]:
    return await OpenAILLM("m").async_embed(["a"])


async def stores() -> None:
    async with RunStore("sqlite:///x.db") as store:
        page = await store.async_list(limit=3)
        for row in page.rows:
            print(row.run_id, row.status, row.elapsed_s)
    async with JobStore("sqlite:///x.db") as jobs:
        print(jobs)
    collection = Collection("a", tenant="t", stores="sqlite:///x.db")
    found = await collection.async_search("q")
    print([hit.text for hit in found.hits])


def built() -> ReActAgent[Any]:
    return load_agent("a.yaml")


handlers: Mapping[str, Callable[[str], Awaitable[AgentResult[Any]]]] = {
    "a": agent7.async_run,
    "b": partial(agent7.async_run, timeout=5),
}
limits: Limits = Limits(max_cost_usd=0.1, max_tokens=None)
script = ScriptedLLM(["a", lambda messages: str(len(messages))])
