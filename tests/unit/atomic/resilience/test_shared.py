"""A limit kept with others: in the order of deadlines, refused early, and kept alone when the store is out."""

from __future__ import annotations

import asyncio
import logging

import pytest

from shared_libs.agents import ReActAgent
from shared_libs.atomic import MisuseError, RateLimit, Resilience, Usage
from shared_libs.atomic.errors import RateLimited
from shared_libs.atomic.events import Warned
from shared_libs.atomic.llms import ScriptedLLM, Turn
from shared_libs.limits import SQLLimitStore
from tests.support import run, run_virtual


class Shelf:
    """A store on the loop's clock, which others use as well; it fails or hangs where it is told."""

    def __init__(self, trouble=None):
        self.trouble = trouble
        self.uses = []
        self.tokens = []
        self.asked = 0
        self.closed = 0

    async def take(self, model, limit, places):
        self.asked += 1
        await self._suffer()
        now = asyncio.get_running_loop().time()
        self.uses = [at for at in self.uses if at > now]
        allowed = limit.requests_per_minute or 1_000_000
        if len(self.uses) < allowed and sum(self.tokens) < (limit.tokens_per_minute or 1_000_000):
            self.uses.append(now + 60)
            return []
        opens = self.uses[-allowed:]
        return [opens[n % len(opens)] + 60 * (n // len(opens)) - now for n in range(places)]

    async def book(self, model, tokens):
        await self._suffer()
        self.tokens.append(tokens)

    async def aclose(self):
        self.closed += 1

    async def _suffer(self):
        await asyncio.sleep(0.01)
        if isinstance(self.trouble, Exception):
            raise self.trouble
        if self.trouble == "silence":
            await asyncio.Event().wait()


def limited(script, store, **limit):
    limit = limit or {"requests_per_minute": 1}
    return ScriptedLLM(script, resilience=Resilience(retry={"attempts": 1}, rate_limit=limit | {"store": store}))


def now():
    return asyncio.get_running_loop().time()


@pytest.mark.promise("limit-shared")
def test_who_waits_is_served_in_the_order_of_deadlines():
    async def main():
        llm, log = limited(["x"] * 5, Shelf()), []

        async def one(timeout):
            await llm.async_chat("x", timeout=timeout)
            log.append((timeout, round(now())))

        await one(5)
        calls = [asyncio.create_task(one(timeout)) for timeout in (1000, 300, 500)]
        await asyncio.sleep(1)
        calls.append(asyncio.create_task(one(100)))  # it comes last and has the least time
        await asyncio.gather(*calls)
        return log

    assert run_virtual(main()) == [(5, 0), (100, 60), (300, 120), (500, 180), (1000, 240)]


@pytest.mark.promise("limit-shared")
def test_a_wait_that_cannot_fit_is_refused_at_once_also_behind_others():
    async def main():
        shelf = Shelf()
        llm = limited(["x"] * 3, shelf)
        await llm.async_chat("x")
        waits = asyncio.create_task(llm.async_chat("x", timeout=100))
        await asyncio.sleep(1)
        errors = []
        for timeout in (30, 110):  # before the next place, and before the one after it
            with pytest.raises(
                RateLimited, match="scripted/scripted: not asked: the shared limit is used up for"
            ) as caught:
                await llm.async_chat("x", timeout=timeout)
            errors.append(caught.value)
        refused_at = now()
        await waits
        return errors, refused_at, shelf.asked

    (soon, later), refused_at, asked = run_virtual(main())
    assert refused_at < 1.1
    assert (round(soon.retry_after_s), round(later.retry_after_s)) == (59, 119)
    assert soon.attempts == ()
    assert asked <= 4


@pytest.mark.promise("limit-shared")
def test_what_others_use_counts():
    async def main():
        shelf = Shelf()
        mine, others = limited(["x"] * 2, shelf), limited(["x"] * 2, shelf)
        await others.async_chat("x")
        await mine.async_chat("x", timeout=100)
        return now(), shelf

    at, shelf = run_virtual(main())
    assert round(at) == 60
    assert len(shelf.uses) == 1


def test_tokens_are_told_to_the_store_before_the_answer_is_used():
    async def main():
        shelf = Shelf()
        llm = limited([Turn(text="x", usage=Usage(60, 40, 0, 100))], shelf, tokens_per_minute=1000)
        await llm.async_chat("x")
        return shelf.tokens

    assert run_virtual(main()) == [100]


def test_requests_at_once_are_bounded_in_this_process():
    async def main():
        llm = limited([Turn(text="x", delay_s=1)] * 9, Shelf(), concurrency=3, requests_per_minute=100)
        await asyncio.gather(*(llm.async_chat("x") for _ in range(9)))
        return now()

    assert run_virtual(main()) == pytest.approx(3, abs=0.2)


@pytest.mark.promise("limit-alone")
@pytest.mark.parametrize("trouble", [OSError("the disk is full"), "silence"])
def test_without_its_store_a_process_keeps_the_limit_alone_and_says_so_once(caplog, trouble):
    async def main():
        shelf, events = Shelf(trouble), []
        llm = limited(["x"] * 4, shelf, requests_per_minute=2)
        agent = ReActAgent(llm=llm, observers=[events.append])
        for _ in range(2):
            await agent.async_run("x", timeout=20)
        asked, first = shelf.asked, now()
        await llm.async_chat("x", timeout=100)
        third, shelf.trouble = now(), None
        await llm.async_chat("x", timeout=100)
        return asked, first, third, [event.message for event in events if isinstance(event, Warned)], shelf

    with caplog.at_level(logging.WARNING, "shared_libs"):
        asked, first, third, warned, shelf = run_virtual(main())
    assert (asked, round(third - first)) == (1, 60)
    assert first <= 2.1
    said = "no answer within 2 s" if trouble == "silence" else "the disk is full"
    assert len(warned) == 1
    assert warned[0].startswith(f"the store of the rate limit does not work: {said}; until it does, this process keeps")
    assert [record.getMessage() for record in caplog.records] == [
        warned[0],
        "the limit of scripted scripted is shared again",
    ]
    assert len(shelf.uses) == 1


@pytest.mark.promise("limit-alone")
def test_those_who_wait_when_the_store_goes_out_go_on_alone():
    async def main():
        shelf = Shelf()
        llm = limited(["x"] * 4, shelf)
        await llm.async_chat("x")
        waiting = [asyncio.create_task(llm.async_chat("x", timeout=200 + n)) for n in range(2)]
        await asyncio.sleep(1)
        shelf.trouble = OSError("gone")
        await asyncio.gather(*waiting)
        return now()

    # at 60 the store is asked and is out; the first request left our own window in the same moment
    assert run_virtual(main()) == pytest.approx(120, abs=0.2)


@pytest.mark.promise("limit-alone")
def test_a_real_store_that_cannot_be_opened_costs_a_warning_and_no_answer(caplog, tmp_path):
    async def main():
        llm = limited(["x"], SQLLimitStore(f"sqlite+aiosqlite:///{tmp_path / 'missing' / 'limits.db'}"))
        async with llm:
            return (await llm.async_chat("x")).text

    assert run(main()) == "x"
    assert f"the folder {tmp_path / 'missing'} does not exist; make it" in caplog.text


def test_who_is_in_a_hurry_calls_no_store_out(caplog):
    async def main():
        shelf = Shelf("silence")
        llm = limited(["x"] * 2, shelf)
        with pytest.raises(RateLimited, match="did not answer before the deadline"):
            await llm.async_chat("x", timeout=0.2)
        shelf.trouble = None
        await llm.async_chat("x")
        return shelf.uses

    assert len(run_virtual(main())) == 1
    assert caplog.text == ""


def test_a_place_given_up_goes_to_the_next_and_nothing_is_left():
    async def main():
        llm = limited(["x"] * 3, Shelf())
        await llm.async_chat("x")
        first = asyncio.create_task(llm.async_chat("x", timeout=100))
        second = asyncio.create_task(llm.async_chat("x", timeout=200))
        await asyncio.sleep(1)
        first.cancel()
        await asyncio.wait([first])
        await second
        return now(), len(asyncio.all_tasks())

    at, tasks = run_virtual(main())
    assert (round(at), tasks) == (60, 1)


def test_closing_the_wrapper_closes_the_store():
    async def main():
        shelf = Shelf()
        async with limited(["x"], shelf) as llm:
            await llm.async_chat("x")
        return shelf.closed

    assert run_virtual(main()) == 1


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ({"requests_per_minute": 1, "store": "sqlite+aiosqlite:///x.db"}, "is a LimitStore, such as"),
        ({"concurrency": 1, "store": Shelf()}, "give one of them"),
    ],
)
def test_a_store_has_to_be_one_and_needs_something_to_share(limit, said):
    with pytest.raises(MisuseError, match=said):
        RateLimit(**limit)
