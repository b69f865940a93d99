"""The contestants: the same work (three calls, an async and a sync tool) by hand, by the bare SDK, and by our agent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

from shared_libs.agents import Limits, ReActAgent
from shared_libs.atomic import Resilience, tool
from shared_libs.atomic.llms import OpenAILLM

QUESTION = "What is 1 + 2, and its double?"
Run = Callable[[], Awaitable[str]]

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "required": ["a", "b"]}
TOOLS = [
    {"type": "function", "function": {"name": name, "description": "A sum.", "parameters": SCHEMA}}
    for name in ("add", "double")
]


async def _add(a: int, b: int) -> int:
    return a + b


def _double(a: int, b: int) -> int:
    return 2 * (a + b)


class ByHand:
    """The loop one writes by hand on aiohttp and orjson: the physical limit, with no timeout, retry or trace."""

    def __init__(self, url: str, *, stream: bool) -> None:
        import aiohttp

        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        self._url = f"{url}/chat/completions"
        self._stream = stream

    async def run(self) -> str:
        import orjson

        messages: list = [{"role": "system", "content": "Use the tools."}, {"role": "user", "content": QUESTION}]
        while True:
            asked = {"model": "bench", "messages": messages, "tools": TOOLS}
            message = await (self._streamed(asked) if self._stream else self._whole(asked))
            if not message.get("tool_calls"):
                return message["content"]
            messages.append(message)
            for call in message["tool_calls"]:
                name, arguments = call["function"]["name"], orjson.loads(call["function"]["arguments"])
                value = await _add(**arguments) if name == "add" else await asyncio.to_thread(_double, **arguments)
                messages.append({"role": "tool", "tool_call_id": call["id"], "content": str(value)})

    async def _whole(self, asked: dict) -> dict:
        import orjson

        headers = {"content-type": "application/json"}
        async with self._session.post(self._url, data=orjson.dumps(asked), headers=headers) as response:
            return orjson.loads(await response.read())["choices"][0]["message"]

    async def _streamed(self, asked: dict) -> dict:
        import orjson

        text, calls = "", []
        headers, body = {"content-type": "application/json"}, orjson.dumps(asked | {"stream": True})
        async with self._session.post(self._url, data=body, headers=headers) as response:
            async for line in response.content:
                if not line.startswith(b"data: {"):
                    continue
                delta = orjson.loads(line[6:])["choices"][0]["delta"]
                text += delta.get("content") or ""
                calls += [
                    {"id": call["id"], "type": "function", "function": call["function"]}
                    for call in delta.get("tool_calls") or ()
                ]
        return {"role": "assistant", "content": text or None} | ({"tool_calls": calls} if calls else {})

    async def aclose(self) -> None:
        await self._session.close()


class Sdk:
    """The loop one writes with the vendor's SDK."""

    def __init__(self, url: str, *, stream: bool) -> None:
        from openai import AsyncOpenAI

        self._client = AsyncOpenAI(api_key="none", base_url=url, max_retries=0)
        self._stream = stream

    async def run(self) -> str:
        messages: list = [{"role": "system", "content": "Use the tools."}, {"role": "user", "content": QUESTION}]
        while True:
            text, calls = await (self._streamed(messages) if self._stream else self._whole(messages))
            if not calls:
                return text
            listed = [
                {"id": i, "type": "function", "function": {"name": name, "arguments": given}}
                for i, name, given in calls
            ]
            messages.append({"role": "assistant", "content": text, "tool_calls": listed})
            for call_id, name, given in calls:
                arguments = json.loads(given)
                value = await _add(**arguments) if name == "add" else await asyncio.to_thread(_double, **arguments)
                messages.append({"role": "tool", "tool_call_id": call_id, "content": str(value)})

    async def _whole(self, messages: list) -> tuple:
        answer = await self._client.chat.completions.create(model="bench", messages=messages, tools=TOOLS)
        message = answer.choices[0].message
        return message.content, [(c.id, c.function.name, c.function.arguments) for c in message.tool_calls or ()]

    async def _streamed(self, messages: list) -> tuple:
        text, calls = "", []
        stream = await self._client.chat.completions.create(model="bench", messages=messages, tools=TOOLS, stream=True)
        async for chunk in stream:
            delta = chunk.choices[0].delta
            text += delta.content or ""
            calls += [(c.id, c.function.name, c.function.arguments) for c in delta.tool_calls or ()]
        return text, calls

    async def aclose(self) -> None:
        await self._client.close()


class Ours:
    """The same as an agent, with everything it does besides."""

    def __init__(self, url: str, *, stream: bool) -> None:
        llm = OpenAILLM("bench", base_url=url, api_key="none", resilience=Resilience())
        tools = [tool(name="add", description="A sum.")(_add), tool(name="double", description="A sum.")(_double)]
        self._agent = ReActAgent(llm=llm, tools=tools, instructions="Use the tools.", limits=Limits(timeout_s=600))
        self._stream = stream

    async def run(self) -> str:
        if not self._stream:
            return (await self._agent.async_run(QUESTION)).raise_for_status().answer or ""
        async for event in self._agent.async_stream(QUESTION):
            last = event
        return last.result.raise_for_status().answer or ""

    async def aclose(self) -> None:
        await self._agent.aclose()
