"""Runs as somebody elsewhere sees them happen."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from shared_libs.atomic import MisuseError, tool
from shared_libs.atomic.llms import ScriptedLLM, Turn
from shared_libs.durable import follow
from shared_libs.durable.database import ask
from shared_libs.durable.following import LIVE_CHANNEL
from shared_libs.durable.store import RUN_CHANNEL
from tests.unit.durable.cast import agent, answers, by_length, ended, looks_twice, opened, submit, turn, until, working


async def gathered(events, into):
    async for event in events:
        into.append(event)
    return into


@pytest.mark.promise("durable-followed")
def test_every_event_is_told_once_in_order_also_to_who_comes_late_or_comes_back(url):
    async def main():
        async with opened(url) as store:
            await submit(store, "r")
            early = asyncio.create_task(gathered(follow(url, "r"), []))
            async with working(url, looks_twice()):
                seen = await early
            late = await gathered(follow(url, "r"), [])
            rest = await gathered(follow(url, "r", after=late[4]["seq"]), [])
            with pytest.raises(MisuseError, match="no run"):
                await gathered(follow(url, "nobody"), [])
            with pytest.raises(MisuseError, match="no run"):
                await gathered(follow(url, "r", team="others"), [])
            return seen, late, rest

    seen, late, rest = asyncio.run(main())
    stored = [event for event in seen if event["type"] != "text_delta"]
    assert stored == late
    assert rest == late[5:]
    assert [event["seq"] for event in seen] == sorted({event["seq"] for event in seen})
    assert [event["content"] for event in seen if event["type"] == "tool_finished"] == ["saw 1", "saw 2"]
    assert seen[-1]["type"] == "run_finished"
    assert [row["content"] for step in seen[-1]["result"]["steps"] for row in step["observations"]] == [
        "saw 1",
        "saw 2",
    ]


@pytest.mark.promise("durable-followed")
def test_pieces_of_text_come_while_the_model_speaks_and_a_lost_line_costs_no_event(new_postgres):
    url = new_postgres
    asked, begin, spoken = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @tool
    async def look() -> str:
        asked.set()
        await begin.wait()
        return "seen"

    class Speaks(ScriptedLLM):
        async def _stream(self, *arguments, **more):
            async for chunk in super()._stream(*arguments, **more):
                yield chunk
                if chunk.kind == "text" and not spoken.is_set():
                    await spoken.wait()

    build = agent(lambda: Speaks([turn(("a", "look", {})), Turn(text="one two three four")]), [look])

    async def main():
        async with opened(url) as store:
            await submit(store, "r")
            seen = []
            async with working(url, build):
                await asked.wait()  # who comes late hears the next answer
                following = asyncio.create_task(gathered(follow(url, "r"), seen))
                await until(followed, store, "r")
                begin.set()
                # the model goes on when its first piece has been seen elsewhere
                await until(lambda: asyncio.sleep(0, [e for e in seen if e["type"] == "text_delta"]))
                (lines,) = await store.database.one(ask_to_cut())
                spoken.set()
                await following
            return seen, lines["cut"]

    seen, cut = asyncio.run(main())
    assert cut >= 2  # the worker's line and the follower's
    assert seen[-1]["type"] == "run_finished"
    assert seen[-1]["result"]["answer"] == "one two three four"
    assert [event["type"] for event in seen].count("model_finished") == 2


async def followed(store, run_id):
    """Whether the worker knows it: it beats each fifth of a lease, and is called at once where the database can."""
    rows = await store.database.one(
        ask(
            """SELECT 1 FROM factory_jobs j JOIN factory_workers w ON w.executor = j.executor
               WHERE run_id = $1 AND followed_until > CLOCK AND beat_at > followed_until - 14.5""",
            run_id,
        )
    )
    return bool(rows)


def ask_to_cut():
    return ask(
        """SELECT count(pg_terminate_backend(pid)) AS cut FROM pg_stat_activity
           WHERE datname = current_database() AND query ILIKE 'LISTEN%'"""
    )


@pytest.mark.promise("durable-followed")
def test_a_piece_that_is_faster_than_the_events_before_it_waits_for_them(new_postgres):
    piece = {"type": "text_delta", "run_id": "r", "seq": 3, "at_s": 0.1, "step": 1, "text": "word", "behind": 2}

    async def main():
        async with opened(new_postgres) as store:
            await submit(store, "r", followed=True)
            seen = []
            following = asyncio.create_task(gathered(follow(new_postgres, "r"), seen))
            await until(store.database.one, listens(), wanted=lambda rows: rows[0]["lines"] == 1)
            await store.call(LIVE_CHANNEL, msgspec.json.encode(piece).decode())
            await store.database.run(lambda: written(1, 2, 4))
            await store.call(RUN_CHANNEL, "r")
            await following
            return seen

    seen = asyncio.run(main())
    assert [event["seq"] for event in seen] == [1, 2, 3, 4]
    assert seen[2] == {name: value for name, value in piece.items() if name != "behind"}


def listens():
    return ask(
        """SELECT count(*) AS lines FROM pg_stat_activity
           WHERE datname = current_database() AND query ILIKE 'LISTEN%live%'"""
    )


def written(*numbers):
    for number in numbers:
        event = {"type": "step_started", "run_id": "r", "seq": number, "at_s": 0.0, "step": 1}
        yield ask("INSERT INTO factory_events VALUES ('r', $1, $2)", number, msgspec.json.encode(event).decode())
    yield ask("UPDATE factory_jobs SET status = 'failed', ended_at = CLOCK")


@pytest.mark.promise("durable-followed")
def test_who_follows_a_run_that_waits_follows_it_on(url):
    @tool(needs_approval=True)
    async def pay(amount: int) -> str:
        return f"paid {amount}"

    build = agent(lambda: by_length(turn(("a", "pay", {"amount": 1})), "done"), [pay])

    async def main():
        async with opened(url) as store:
            await submit(store, "r")
            following = asyncio.create_task(gathered(follow(url, "r"), []))
            async with working(url, build):
                await until(store.get, "r", wanted=lambda job: job.status == "waiting")
                await store.decide("r", {"a": {"approved": True}})
                await until(store.get, "r", wanted=ended)
            return await following

    seen = asyncio.run(main())
    ends = [event["result"]["status"] for event in seen if event["type"] == "run_finished"]
    assert ends == ["paused", "answered"]


def test_answers_are_there(url):
    """A run that ended before anybody followed it is told whole, at once."""

    async def main():
        async with opened(url) as store:
            await submit(store, "r")
            async with working(url, answers("x")):
                await until(store.get, "r", wanted=ended)
        return await gathered(follow(url, "r"), [])

    assert asyncio.run(main())[-1]["result"]["answer"] == "x"


@pytest.mark.promise("durable-followed")
def test_who_submits_and_follows_hears_the_first_word(new_postgres):
    url, heard = new_postgres, asyncio.Event()
    said = Turn(text="one two three four five six", chunk_delay_s=0.06)  # longer than pieces are gathered

    class Speaks(ScriptedLLM):
        async def _stream(self, *arguments, **more):
            async for chunk in super()._stream(*arguments, **more):
                yield chunk
                if chunk.kind == "text":
                    await heard.wait()

    async def main():
        async with opened(url) as store, working(url, agent(lambda: Speaks([said]))):
            await submit(store, "r", followed=True)
            await until(store.get, "r", wanted=lambda job: job.status == "running")
            pieces = []
            async for event in follow(url, "r"):
                heard.set()
                pieces += [event["text"]] if event["type"] == "text_delta" else []
            return "".join(pieces)

    words = asyncio.run(main())
    assert words != ""  # though nobody had followed when the model was asked
    assert said.text.endswith(words)  # and none is too late for the event that ends the turn
