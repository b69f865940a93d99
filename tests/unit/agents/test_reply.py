"""`chat`: a reply that streams and can be awaited."""

from __future__ import annotations

import asyncio

import pytest

from shared_libs.agents import RunError
from shared_libs.atomic import LLMError
from shared_libs.atomic.llms import Turn
from tests.support import run, run_virtual
from tests.unit.agents.cast import add, agent, call


def test_a_reply_streams_and_can_be_awaited_any_number_of_times():
    async def main():
        reply = await agent(["one two three"]).chat("go")
        first = [token async for token in reply]
        second = [token async for token in reply]
        return first, second, await reply, await reply, reply.result

    first, second, text, again, result = run(main())
    assert first == second == ["one", " two", " three"]
    assert text == again == "one two three"
    assert result.status == "answered"


def test_a_reply_leaves_the_thoughts_out():
    async def main():
        reply = await agent([call("add", "I think I add.", a=1, b=2), "It is 3."], add).chat("go")
        return [token async for token in reply], await reply

    tokens, text = run(main())
    assert "".join(tokens) == text == "It is 3."


def test_a_reply_without_tools_comes_word_by_word():
    async def main():
        reply = await agent([Turn(text="one two", chunk_delay_s=5)]).chat("go")
        return await anext(aiter(reply)), asyncio.get_running_loop().time()

    assert run_virtual(main()) == ("one", 5)


def test_a_failed_reply_raises_for_every_reader():
    async def main():
        reply = await agent([LLMError("no")]).chat("go")
        for _ in range(2):
            with pytest.raises(RunError, match="no"):
                await reply
        with pytest.raises(RunError, match="no"):
            async for _ in reply:
                pass

    run(main())
