"""What no database can keep, and what no worker can make: it is refused, or told, and keeps no other run."""

from __future__ import annotations

import asyncio
import re
from functools import reduce

import pytest

from shared_libs.atomic import LLMError, MisuseError
from shared_libs.atomic.errors import ConfigError
from shared_libs.atomic.llms import ScriptedLLM
from shared_libs.durable import JobStore, StoreUnavailable, Worker
from shared_libs.durable.database import ask, open_database
from shared_libs.durable.holding import Holder
from tests.postgres import own_name
from tests.unit.durable.cast import agent, answers, ended, opened, submit, until, working


@pytest.mark.promise("durable-queue")
def test_a_run_is_left_to_workers_that_have_what_it_needs(url):
    def lacks(claim, sinks):
        raise ConfigError(["a.yaml:3:1: tools[0].use: 'mcp' needs the extra: pip install genai-factory[mcp]"])

    async def main():
        async with opened(url) as store:
            await submit(store, "r")
            async with working(url, lacks):
                job = await until(store.get, "r", wanted=lambda job: job.why)
                assert (job.status, job.executor) == ("queued", None)
                assert "needs the extra" in job.why
                async with working(url, answers()):
                    return await until(store.get, "r", wanted=ended)

    assert asyncio.run(main()).status == "answered"


@pytest.mark.promise("durable-away")
def test_a_store_that_cannot_be_reached_is_told_before_anything_is_asked(tmp_path):
    built = []

    async def main(url):
        with pytest.raises(StoreUnavailable, match="store of durable runs"):
            await JobStore(url).aopen()
        with pytest.raises(StoreUnavailable):
            await Worker(url, lambda *_: built.append(1)).run()

    asyncio.run(main(f"sqlite+aiosqlite:///{tmp_path}/nowhere/durable.db"))
    asyncio.run(main("postgresql+asyncpg://owner:secret@127.0.0.1:1/x"))
    for url in ("sqlite+aiosqlite://", "mysql://x", "nonsense"):
        with pytest.raises(MisuseError, match="allowed are"):
            JobStore(url)
    assert built == []


@pytest.mark.promise("durable-queue")
def test_the_time_of_a_run_that_nobody_could_do_yet_has_not_begun(url):
    def refuse(claim, sinks):
        raise ConfigError(["it lacks a tool"])

    async def main():
        async with opened(url) as store:
            await submit(store, "r")
            async with working(url, refuse):
                refused = await until(store.get, "r", wanted=lambda job: job.why is not None)
            assert len(await Holder(store.database, "able").claim(1)) == 1
            return refused, await store.get("r")

    refused, job = asyncio.run(main())
    assert (refused.status, refused.first_at) == ("queued", None)
    assert "lacks a tool" in refused.why
    assert job.first_at == pytest.approx(job.claimed_at, abs=1e-3)


@pytest.mark.promise("durable-queue")
@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"priority": 10**12}, "priority is a number from -1,000,000"),
        ({"delay_s": float("nan")}, "delay_s is a number of seconds from 0 on"),
        ({"delay_s": -5.0}, "delay_s is a number"),
        *(({"timeout_s": odd}, "timeout_s is a positive number") for odd in (float("inf"), 1e300)),
        ({"session_id": "\0"}, "session_id is printable text"),
        ({"agent_limit": 0}, "agent_limit is a number from 1"),
        ({"key_limit": 2**40}, "key_limit is a number from 1"),
        ({"question": object()}, "question, definition and extras are JSON"),
        (
            {"question": reduce(lambda inner, _: [inner], range(1_000_000), [])},
            "question, definition and extras are JSON",
        ),
        *(({"run_id": run_id}, "a run's id is up to 200") for run_id in ("", "a/b", "x" * 201, "a\nb")),
    ],
)
def test_what_no_database_can_keep_is_refused_before_it_is_accepted(tmp_path, more, says):
    async def main():
        async with opened(f"sqlite:///{tmp_path}/durable.db") as store:
            with pytest.raises(MisuseError, match=says):
                await submit(store, **{"run_id": "r"} | more)
            with pytest.raises(MisuseError, match="the decision on 'a' is True, False or a Decision"):
                await store.decide("r", {"a": "maybe"})

    asyncio.run(main())


@pytest.mark.promise("durable-queue")
def test_words_that_no_column_holds_end_a_run_or_tell_what_it_lacks(url):
    def say(messages):
        raise LLMError("nothing \0 \ud800 here", provider="p", model="m")

    def lacks(claim, sinks):
        if claim.agent == "lacking":
            raise RuntimeError("it lacks \0 \udcff")
        return agent(lambda: ScriptedLLM([say] * 9))(claim, sinks)

    async def main():
        async with opened(url) as store, working(url, lacks):
            await submit(store, "r")
            await submit(store, "lacking", agent="lacking", definition={"name": "lacking"})
            failed = await until(store.get, "r", wanted=ended)
            return failed, await until(store.get, "lacking", wanted=lambda job: job.why)

    failed, lacking = asyncio.run(main())
    assert (failed.status, lacking.status) == ("failed", "queued")
    assert "nothing" in failed.why
    assert "it lacks" in lacking.why


@pytest.mark.promise("durable-queue")
def test_what_one_run_wants_beside_its_definition_keeps_no_other_from_being_done(url):
    async def main():
        async with opened(url) as store:
            await submit(store, "odd", extras={"of": "another kind"})
            await submit(store, "plain")
            async with working(url, answers()):
                plain = await until(store.get, "plain", wanted=ended)
                return plain, await store.get("odd")

    plain, odd = asyncio.run(main())
    assert (plain.status, odd.status) == ("answered", "queued")
    assert "beside its definition" in odd.why


@pytest.mark.promise("durable-away")
def test_a_database_that_does_not_hold_every_text_is_refused_before_a_run_fails_for_it(new_postgres):
    name = own_name("latin")

    async def main():
        owner = open_database(new_postgres)
        await owner.one(ask(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'"))
        await owner.aclose()
        store = JobStore(re.sub(r"@/\w+", f"@/{name}", new_postgres))
        try:
            with pytest.raises(MisuseError, match="encoding LATIN1 does not hold every text"):
                await store.aopen()
        finally:
            await store.aclose()

    asyncio.run(main())
