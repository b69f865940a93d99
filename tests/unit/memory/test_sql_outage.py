"""An outage of the store: a typed error, or a queue within its bound; a store that hangs costs its time and no more."""

from __future__ import annotations

import asyncio
import sqlite3
import threading

import msgspec
import pytest

from shared_libs.agents import ReActAgent
from shared_libs.atomic import Deadline, MemoryStoreError, MemoryUnavailable, Message
from shared_libs.atomic.events import Warned
from shared_libs.atomic.llms import ScriptedLLM
from shared_libs.atomic.scope import use_deadline
from shared_libs.atomic.sqlite import sqlite_connection
from shared_libs.memory import SQLMemory
from shared_libs.memory.outbox import Batch, Outbox
from tests.support import run_virtual


def said(number):
    return [Message("user", f"q{number}"), Message("assistant", f"a{number}")]


@pytest.mark.promise("db-outage")
def test_a_server_that_goes_and_comes_back_is_an_error_meanwhile(own_postgres):
    memory = SQLMemory(f"postgresql+asyncpg://owner:secret@{own_postgres.place}")

    async def main():
        await memory.async_store("s", said(1))
        await asyncio.to_thread(own_postgres.stop)
        for call in (memory.async_store("s", said(2)), memory.async_load("s"), memory.async_search("s", "q1")):
            with pytest.raises(MemoryUnavailable) as caught:
                await call
            assert "secret" not in str(caught.value)
        await asyncio.to_thread(own_postgres.start)
        await memory.async_store("s", said(3))
        found = await memory.async_load("s")
        await memory.aclose()
        return found

    assert asyncio.run(main()) == said(1) + said(3)


@pytest.mark.promise("db-outage")
def test_with_a_queue_runs_go_on_and_what_waits_is_stored_in_order(own_postgres):
    memory = SQLMemory(f"postgresql+asyncpg://owner@{own_postgres.place}", on_outage="queue")

    async def main():
        seen = []

        def goes_down(messages):
            own_postgres.stop()  # after the load, before the store
            return "a1"

        agent = ReActAgent(llm=ScriptedLLM([goes_down]), memory=memory, observers=[seen.append])
        result = await agent.async_run("q1", session_id="s")
        assert (result.status, result.error) == ("answered", None)
        assert any(isinstance(event, Warned) and "2 messages wait" in event.message for event in seen)
        await memory.async_store("s", said(2))
        with pytest.raises(MemoryUnavailable):
            await memory.async_load("s")  # a history without what waits would be a wrong one
        await asyncio.to_thread(own_postgres.start)
        found = await memory.async_load("s")
        await memory.async_store("s", said(3))
        found_later = await memory.async_load("s")
        await memory.aclose()
        return found, found_later

    assert asyncio.run(main()) == (said(1) + said(2), said(1) + said(2) + said(3))


@pytest.mark.promise("db-outage")
def test_what_waits_is_stored_without_another_call_once_the_store_answers():
    stored, down = [], asyncio.Event()

    async def write(batch):
        if not down.is_set():
            raise MemoryUnavailable("down")
        stored.append(batch.id)

    async def main():
        outbox = Outbox(write, 10)
        for number in range(3):
            outbox.put(Batch(str(number), "s", said(number)), "down")
        await asyncio.sleep(40)
        assert outbox.messages == 6
        down.set()
        await asyncio.sleep(31)
        return outbox.messages, len(asyncio.all_tasks())

    assert run_virtual(main()) == (0, 1)
    assert stored == ["0", "1", "2"]


@pytest.mark.promise("db-outage")
def test_a_queue_never_grows_beyond_its_bound():
    async def write(batch):
        raise MemoryUnavailable("down")

    async def main():
        outbox = Outbox(write, 5)
        outbox.put(Batch("1", "s", said(1)), "the store is down")
        outbox.put(Batch("2", "s", said(2)), "the store is down")
        with pytest.raises(MemoryUnavailable, match="the store is down; 4 messages wait for it already, of at most 5"):
            outbox.put(Batch("3", "s", said(3)), "the store is down")
        waiting = outbox.messages
        await outbox.aclose(1)
        return waiting, outbox.messages

    assert run_virtual(main()) == (4, 4)


def test_what_the_store_refuses_does_not_stand_in_the_way_of_the_rest(caplog):
    stored = []

    async def write(batch):
        if batch.id == "1":
            raise MemoryStoreError("refused")
        stored.append(batch.id)

    async def main():
        outbox = Outbox(write, 10)
        for number in ("1", "2"):
            outbox.put(Batch(number, "s", said(1)), "down")
        await outbox.flush()

    run_virtual(main())
    assert stored == ["2"]
    assert "2 messages of session 's' are lost" in caplog.text


def test_a_batch_whose_answer_was_lost_is_stored_once(store_url, session):
    async def main():
        memory = SQLMemory(store_url)
        batch = Batch("b" * 32, session, said(1))
        await memory._write(batch)
        await memory._write(msgspec.structs.replace(batch, waited=True))
        found = await memory.async_load(session)
        await memory.aclose()
        return found

    assert asyncio.run(main()) == said(1)


@pytest.mark.promise("time-total")
@pytest.mark.parametrize("policy", ["error", "queue"])
def test_a_locked_file_holds_a_store_until_its_deadline_and_then_works_again(tmp_path, policy):
    file = tmp_path / "s.db"
    memory = SQLMemory(f"sqlite+aiosqlite:///{file}", on_outage=policy)

    async def main():
        await memory.async_store("s", said(1))
        locker = sqlite3.connect(file, isolation_level=None)
        locker.execute("BEGIN EXCLUSIVE")
        with use_deadline(Deadline.after(0.2)):
            if policy == "queue":
                await memory.async_store("s", said(2))
            else:
                with pytest.raises(MemoryUnavailable, match=r"did not store within 0\.\d+ s"):
                    await memory.async_store("s", said(2))
        locker.execute("ROLLBACK")
        locker.close()
        found = await memory.async_load("s")
        await memory.aclose()
        return found

    assert asyncio.run(main()) == said(1) + (said(2) if policy == "queue" else [])


@pytest.mark.promise("time-total")
def test_a_locked_table_holds_load_and_store_until_their_deadline(postgres, session):
    memory = SQLMemory(f"postgresql+asyncpg://owner@{postgres}", pool_size=1)

    async def main():
        import asyncpg

        await memory.async_store(session, said(1))
        other = await asyncpg.connect(user="owner", database="postgres", host=postgres.partition("host=")[2])
        await other.execute("BEGIN; LOCK TABLE factory_messages IN ACCESS EXCLUSIVE MODE")
        for call in (memory.async_load(session), memory.async_store(session, said(2))):
            with use_deadline(Deadline.after(0.2)), pytest.raises(MemoryUnavailable, match="within"):
                await call
        agent = ReActAgent(llm=ScriptedLLM(["never asked"]), memory=memory)
        result = await agent.async_run("q", session_id=session, timeout=0.5)
        assert result.status in ("failed", "partial")
        await other.execute("ROLLBACK")
        await other.close()
        found = await memory.async_load(session)
        await memory.aclose()
        return found

    assert asyncio.run(main()) == said(1)


@pytest.mark.promise("time-total")
def test_a_call_that_outlives_its_event_loop_ends_in_silence_and_closes_its_file(tmp_path):
    """What a thread raises is an error here, and so is a connection that nobody closed."""
    begun, gate, opened = threading.Event(), threading.Event(), []

    def connect():
        begun.set()
        gate.wait(10)
        opened.append(sqlite3.connect(tmp_path / "s.db", check_same_thread=False))
        return opened[0]

    connection = sqlite_connection(connect)

    async def main():
        opening = asyncio.ensure_future(aopen(connection))
        await asyncio.to_thread(begun.wait, 10)
        assert not opening.done()

    async def aopen(connection):
        await connection

    asyncio.run(main())
    gate.set()
    connection._thread.join(10)
    assert not connection._thread.is_alive()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        opened[0].execute("SELECT 1")
