"""A loop that stood still: what came meanwhile is read, and nobody's silence is told of who could not be heard."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest

from shared_libs.agents import ReActAgent
from shared_libs.atomic import BaseLLMWrapper, LLMChunk, LLMResponse, Resilience, tool
from shared_libs.atomic.alarm import Expiry
from shared_libs.atomic.deadline import Deadline
from shared_libs.atomic.errors import DeadlineExceeded, LLMError
from shared_libs.atomic.in_place import within
from shared_libs.atomic.llms import ScriptedLLM
from shared_libs.atomic.scope import Scope, use_scope
from shared_libs.atomic.watchdog import BLOCKED_S
from tests.support import run_virtual


class Far(BaseLLMWrapper):
    """A model at the other end of a socket, whole and streamed."""

    provider = "far"

    def __init__(self, **policy):
        super().__init__("m", resilience=Resilience(retry={"attempts": 1}, **policy))
        self.there, self._here = socket.socketpair()
        self._here.setblocking(False)  # noqa: FBT003 - its only argument

    async def _word(self):
        return (await asyncio.get_running_loop().sock_recv(self._here, 100)).decode()

    async def _chat(self, messages, tools, **options):
        return LLMResponse(text=await self._word())

    async def _stream(self, messages, tools, **options):
        word = await self._word()
        yield LLMChunk("text", word)
        yield LLMChunk("finished", response=LLMResponse(text=word))

    def close(self):
        self.there.close()
        self._here.close()


def stands_still(seconds):
    """Something holds the loop, and nothing on it can act meanwhile."""
    asyncio.get_running_loop().pass_by(seconds)


@pytest.mark.promise("attempt-moment")
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("limit", ["attempt_timeout_s", "first_token_timeout_s", "idle_timeout_s"])
@pytest.mark.parametrize(("stood_s", "later_s"), [(1.5, 0), (1.5, 0.4), (30, 0), (0.2, 0)])
def test_an_answer_that_came_while_the_loop_stood_still_or_soon_after_is_no_silence_of_its_model(
    limit, streamed, stood_s, later_s
):
    async def main():
        llm = Far(**{limit: 1.0})
        call = asyncio.create_task(llm.async_chat("go", **({"on_chunk": lambda _: None} if streamed else {})))
        await asyncio.sleep(0.1)
        if later_s:
            stands_still(stood_s)
            await asyncio.sleep(later_s)
        llm.there.send(b"here")
        if not later_s:
            stands_still(stood_s)
        answer = await call
        llm.close()
        return answer.text, [attempt.outcome for attempt in answer.attempts]

    assert run_virtual(main()) == ("here", ["ok"])


@pytest.mark.promise("attempt-moment")
def test_the_time_that_is_given_back_ends_with_the_deadline_and_with_what_was_lost():
    async def main(seconds):
        llm, loop = Far(attempt_timeout_s=1.0), asyncio.get_running_loop()
        with use_scope(Scope(deadline=Deadline.after(seconds))):
            call = asyncio.create_task(llm.async_chat("go"))
        await asyncio.sleep(0.1)
        stands_still(1.5)
        with pytest.raises(LLMError) as caught:
            await call
        llm.close()
        return round(loop.time(), 2), str(caught.value)

    # it went on at 1.6, which was 0.6 too late
    assert run_virtual(main(60)) == (2.2, "no model answered: far/m: no answer within 2.2 s")
    assert run_virtual(main(1.8))[0] == 1.8
    assert run_virtual(main(1.2))[0] == 1.6  # it was over when the loop went on


def test_what_a_tool_waited_for_is_read_though_its_time_passed_by_while_the_loop_stood_still():
    here, there = socket.socketpair()
    here.setblocking(False)  # noqa: FBT003 - its only argument

    @tool(timeout_s=1)
    async def read() -> str:
        return (await asyncio.get_running_loop().sock_recv(here, 100)).decode()

    async def main():
        results = []
        for said in (b"it came", b""):
            call = asyncio.create_task(read.async_run({}))
            await asyncio.sleep(0.1)
            there.send(said)
            stands_still(5)
            results.append((await call).content)
        return results

    assert run_virtual(main()) == ["it came", "read did not finish within its 1 s"]
    here.close()
    there.close()


def test_the_watchdog_tells_for_how_long_a_loop_stood_still_also_where_no_time_has_passed_by_yet():
    class Patient(Expiry):
        stood_s = 0.0

        def stood_still(self, seconds):
            self.stood_s += seconds

    def hold(event):
        if event.seq == 1:
            threading.Event().wait(2 * BLOCKED_S)

    async def main():
        loop = asyncio.get_running_loop()
        expiry = Patient(loop.time() + 60, "over")
        agent = ReActAgent(llm=ScriptedLLM(["done"]), observers=[hold])
        with within(loop, expiry):
            await agent.async_run("go")
            await asyncio.sleep(0)  # the turn in which the loop answers the watchdog's question
        return expiry.stood_s

    assert asyncio.run(main()) > BLOCKED_S


def test_a_moment_that_comes_in_time_rings_at_once():
    async def main():
        loop = asyncio.get_running_loop()
        with pytest.raises(DeadlineExceeded, match="over"), within(loop, Expiry(1.0, "over")):
            await asyncio.sleep(2)
        return loop.time()

    assert run_virtual(main()) == 1.0
