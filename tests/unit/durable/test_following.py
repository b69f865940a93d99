"""Runs as somebody elsewhere sees them happen."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import msgspec
import pytest

from shared_libs.atomic import MisuseError, tool
from shared_libs.atomic.events import TextDelta
from shared_libs.atomic.llms import ScriptedLLM, Turn
from shared_libs.durable import follow
from shared_libs.durable.database import ask
from shared_libs.durable.following import LIVE_CHANNEL, Following, Outlet, Piece
from shared_libs.durable.holding import NOW, Holder
from shared_libs.durable.store import to_json
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
    told = "".join(event["text"] for event in seen if event["type"] == "text_delta")
    assert "one two three four".startswith(told)  # nothing is left out between two pieces: what follows comes whole
    assert [event["type"] for event in seen].count("model_finished") == 2


@pytest.mark.promise("durable-followed")
def test_a_piece_that_is_heard_before_the_event_it_comes_behind_is_stored_waits_for_it(new_postgres):
    def event(kind, seq, **more):
        return seq, to_json({"type": kind, "run_id": "r", "seq": seq, "at_s": 0.0} | more)

    def piece(seq, after, at=0):
        return to_json(Piece(TextDelta(run_id="r", seq=seq, text=str(seq)), 1, 0, at, after))

    async def main():
        async with opened(new_postgres) as store:
            await submit(store, "r")
            holder, seen = Holder(store.database, "w"), []
            await holder.beat("w", 60, 1, draining=False)
            (claim,) = await holder.claim(1)
            following = asyncio.create_task(gathered(follow(new_postgres, "r"), seen))
            # who hears the last of them has heard all: calls come in the order they were made
            for told in (piece(3, 2, at=1), piece(5, 4, at=2), piece(1, 0)):
                await until(listens, store)
                await store.call(LIVE_CHANNEL, told)
            await until(lambda: asyncio.sleep(0, seen))
            await holder.keep(claim, [], [event("thought", 2, step=1, text="well")])
            await until(lambda: asyncio.sleep(0, seen), wanted=lambda seen: len(seen) == 3)
            await holder.keep(claim, [], [event("run_started", 4)])
            ends = {"status": "answered", "executor": None, "ended_at": NOW}
            await holder.move(claim, ends, [event("run_finished", 6, result={})])
            async with asyncio.timeout(20):
                return await following

    told = [(event["seq"], event["type"]) for event in asyncio.run(main())]
    assert told[:3] == [(1, "text_delta"), (2, "thought"), (3, "text_delta")]
    # the fifth was of an execution that has ended
    assert told[3:] == [(4, "stream_restarted"), (4, "run_started"), (6, "run_finished")]


async def listens(store):
    row = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle' AND query ILIKE $1"
    return bool(await store.database.one(ask(row, f"LISTEN%{LIVE_CHANNEL}%")))


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
def test_who_follows_a_turn_that_is_under_way_hears_it_from_its_first_word_on(new_postgres):
    url, heard, spoken = new_postgres, asyncio.Event(), asyncio.Event()
    said = Turn(text="one two three four five six", chunk_delay_s=0.06)  # longer than pieces are gathered

    class Speaks(ScriptedLLM):
        async def _stream(self, *arguments, **more):
            async for chunk in super()._stream(*arguments, **more):
                yield chunk
                if chunk.kind == "text":
                    spoken.set()
                    await heard.wait()

    async def main():
        async with opened(url) as store, working(url, agent(lambda: Speaks([said]))):
            await submit(store, "r", followed=True)
            await spoken.wait()
            pieces = []
            async for event in follow(url, "r"):
                heard.set()
                pieces += [event["text"]] if event["type"] == "text_delta" else []
            return "".join(pieces)

    words = asyncio.run(main())
    assert words == said.text  # though nobody had followed when the model was asked, and none is too late for its end


@pytest.mark.promise("durable-followed")
def test_who_follows_a_run_hears_that_its_store_was_set_back_and_what_comes_instead(tmp_path):
    """A backup that is restored, or a standby that lacks the last seconds."""

    async def main():
        async with opened(f"sqlite:///{tmp_path}/durable.db") as store:
            await submit(store, "r")

            async def tells(seqs, of):
                for seq in seqs:
                    event = {"type": "thought", "run_id": "r", "seq": seq, "at_s": 0.0, "step": 1, "text": of}
                    await store.database.one(
                        ask("INSERT INTO factory_events (run_id, seq, event) VALUES ('r', $1, $2)", seq, to_json(event))
                    )

            await tells([1, 2, 3], "old")
            async with asyncio.timeout(10), aclosing(Following(store).follow("r")) as events:
                seen = [await anext(events) for _ in range(3)]
                await store.database.one(ask("DELETE FROM factory_events WHERE seq > 1"))
                seen.append(await anext(events))
                await tells([2, 3], "new")
                return seen + [await anext(events) for _ in range(2)]

    seen = asyncio.run(main())
    assert [(one["seq"], one.get("text", one["type"])) for one in seen] == [
        *((1, "old"), (2, "old"), (3, "old")),
        *((1, "stream_restarted"), (2, "new"), (3, "new")),
    ]


@pytest.mark.promise("durable-followed")
def test_pieces_of_text_come_whole_whatever_their_characters_take_in_a_call(new_postgres):
    text, heard = "\x01" * 3000, []

    async def main():
        async with opened(new_postgres) as store:
            await store.listen(
                LIVE_CHANNEL, lambda told: heard.append(msgspec.json.decode(told, type=Piece).words.text)
            )
            outlet = Outlet(store)
            outlet.put(Piece(TextDelta(run_id="\N{GRINNING FACE}" * 200, seq=1, text=text), 1, 0, 0, 0))
            await outlet.flush()
            await until(lambda: asyncio.sleep(0, "".join(heard) == text))

    asyncio.run(main())
