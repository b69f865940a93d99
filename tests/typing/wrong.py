"""Wrong uses: each line that ends in "# wrong" is an error to type checkers, and no other one is. Never run."""

from __future__ import annotations

from pydantic import BaseModel

from shared_libs.agents import Decision, Limits, ReActAgent
from shared_libs.atomic import Deps, ImagePart, Message, Resilience, tool
from shared_libs.atomic.llms import OpenAILLM
from shared_libs.memory import SQLMemory


class Answer(BaseModel):
    carrier: str


class Shop:
    name = "shop"


@tool(timout_s=5)  # wrong
def price(item: str) -> str:
    """Say what it costs."""
    return item


@tool(timeout_s=5)
def cost(item: str) -> str:
    """Say what it costs, too: of a tool that is declared wrongly nothing is known."""
    return item


@tool
async def stock(item: str, shop: Deps[Shop]) -> str:
    """Say how many there are."""
    return shop.nme + item  # wrong


agent = ReActAgent("openai/gpt-5.4-mini", output_schema=Answer)


async def uses() -> None:
    result = await agent.async_run("?")
    print(result.output.carrier)  # wrong
    if result.output is not None:
        print(result.output.carier)  # wrong
        print(result.output.carrier + 1)  # wrong
    await agent.async_run("?", timout=5)  # wrong
    await agent.async_run(5)  # wrong
    other: Answer | None = (await agent.async_run("?", output_schema=Shop)).output  # wrong
    print(other, result.stop_reson)  # wrong
    async for event in agent.async_stream("?", session="s"):  # wrong
        print(event.text)  # wrong
    await agent.async_resume({}, {"c1": "yes"})  # wrong
    await stock("tea")  # wrong
    await stock(5, Shop())  # wrong
    cost(5)  # wrong
    Decision("no")  # wrong
    Message("robot", "x")  # wrong
    ImagePart(b"x")  # wrong
    print(result.status == "done")  # wrong


tool(timeout=5)  # wrong
tool(isolation="mars")  # wrong
ReActAgent(llm=OpenAILLM("m"), protocol="json")  # wrong
ReActAgent(llm=OpenAILLM("m"), output_schema=5)  # wrong
OpenAILLM("m", resilience=5)  # wrong
Resilience(strategy="parallel")  # wrong
Limits(timeout=5)  # wrong
SQLMemory(engine="sqlite:///x.db")  # wrong
