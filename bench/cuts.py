"""
Streams whose model breaks off at every byte of its answer, through the service, on every wire.

    python -m bench.cuts [--step BYTES]

Another model stands behind it. A client gets a whole answer, of either, or an error; anything else is counted as lost.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import tempfile
from pathlib import Path

import yaml
from anthropic import AnthropicError, AsyncAnthropic
from openai import AsyncOpenAI, OpenAIError

from shared_libs.testing import Cut, FaultServer, Healthy
from shared_libs.testing.faults.catalogue import Fault
from tests.service import serving

FIRST, SECOND = "one two three four", "another answer"
AT_ONCE = 8


class CutWhereAsked(Fault, frozen=True):
    """Breaks off at the byte that its user names, by a close or, at odd bytes, by a reset."""

    def play(self, exchange):
        """The beginning of an answer."""
        at = int(exchange.body["messages"][-1]["content"])
        return Cut(after_bytes=at, reset=at % 2 == 1, answer=Healthy(FIRST)).play(exchange)


async def chat(openai, _, model, at):
    """Over chat completions."""
    said = [{"role": "user", "content": str(at)}]
    stream = await openai.chat.completions.create(model=model, messages=said, stream=True)
    told = [chunk.choices[0] async for chunk in stream]
    return "".join(one.delta.content or "" for one in told), told[-1].finish_reason == "stop"


async def responses(openai, _, model, at):
    """Over Responses."""
    events = [one async for one in await openai.responses.create(model=model, input=str(at), stream=True)]
    if events[-1].type == "response.failed":
        raise OpenAIError(events[-1].response.error.message)
    return "".join(one.delta for one in events if one.type == "response.output_text.delta"), (
        events[-1].type == "response.completed"
    )


async def messages(_, anthropic, model, at):
    """Over Anthropic's messages."""
    said = [{"role": "user", "content": str(at)}]
    async with anthropic.messages.stream(model=model, max_tokens=50, messages=said) as stream:
        whole = await stream.get_final_message()
    return whole.content[0].text, whole.stop_reason == "end_turn"


async def sweep(served, ask, model, step, size):
    """Count what becomes of a cut at each byte."""
    found, turns = collections.Counter(), asyncio.Semaphore(AT_ONCE)
    async with (
        AsyncOpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as openai,
        AsyncAnthropic(base_url=served.url, api_key="none", max_retries=0) as anthropic,
    ):

        async def one(at):
            async with turns:
                try:
                    text, ended = await ask(openai, anthropic, model, at)
                except (OpenAIError, AnthropicError):
                    found["told as an error"] += 1
                    return
                kinds = {FIRST: "whole, of the first", SECOND: "whole, of the second"}
                found[kinds.get(text, f"LOST {text!r}") if ended else f"LOST: ended without an end, {text!r}"] += 1

        await asyncio.gather(*(one(at) for at in range(0, size, step)))
    return found


async def main(step):
    """Serve, and cut."""
    async with FaultServer({"cut": CutWhereAsked(), "other": Healthy(SECOND)}) as upstream:
        there = {"provider": "openai", "api_key": "k", "base_url": upstream.url("openai")}
        llm = {
            "retry": {"attempts": 1},
            "breaker": {"failures": 1_000_000},
            "chain": [there | {"model": "cut"}, there | {"model": "other"}],
        }
        with tempfile.TemporaryDirectory() as folder:
            text = yaml.safe_dump({"name": "bot", "instructions": "Be brief.", "llm": llm})
            await asyncio.to_thread(Path(folder, "bot.yaml").write_text, text)
            async with serving(Path(folder)) as served:
                for ask in (chat, responses, messages):
                    for model in ("bot", "bot/chain"):
                        found = await sweep(served, ask, model, step, 1_300)
                        told = "; ".join(f"{count} {kind}" for kind, count in found.most_common())
                        print(f"{ask.__name__:10} {model:10} {sum(found.values())} cuts: {told}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--step", type=int, default=1, help="bytes from one cut to the next")
    asyncio.run(main(parser.parse_args().step))
