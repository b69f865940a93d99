"""Sessions on a real PostgreSQL: what differs from SQLite."""

from __future__ import annotations

import asyncio
import uuid

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from shared_libs.atomic import MemoryUnavailable, Message
from shared_libs.memory import SQLMemory
from tests.postgres import own_name


@pytest.fixture
def url(postgres):
    return f"postgresql+asyncpg://owner@{postgres}"


def run(main):
    """Not on the watched loop: the driver looks for certificates on the disk."""
    return asyncio.run(main)


@pytest.mark.promise("writers")
def test_writers_at_once_lose_nothing_and_do_not_mix(url):
    async def main():
        session = str(uuid.uuid4())
        memories = [SQLMemory(url) for _ in range(4)]
        pairs = [[Message("user", f"q{n}"), Message("assistant", f"a{n}")] for n in range(16)]
        await asyncio.gather(*(memories[n % 4].async_store(session, pair) for n, pair in enumerate(pairs)))
        loaded = await memories[0].async_load(session)
        await asyncio.gather(*(memory.aclose() for memory in memories))
        return [message.text for message in loaded]

    texts = run(main())
    assert len(texts) == 32
    assert all(answer == "a" + question[1:] for question, answer in zip(texts[::2], texts[1::2], strict=True))


def test_messages_come_back_as_they_were_and_are_found(url):
    said = [Message("user", "ÄPFEL \0 and pears"), Message("assistant", "Yes.")]

    async def main():
        session = str(uuid.uuid4())
        memory = SQLMemory(url)
        await memory.async_store(session, said)
        found = await memory.async_load(session), await memory.async_search(session, "äpfel")
        await memory.aclose()
        return found

    assert run(main()) == (said, said[:1])


@pytest.mark.promise("loop-per-client")
def test_one_memory_works_in_two_event_loops_in_a_row(url):
    memory = SQLMemory(url)
    session = str(uuid.uuid4())

    async def store_and_count():
        await memory.async_store(session, [Message("user", "q")])
        found = await memory.async_load(session)
        await memory.aclose()
        return len(found)

    assert [run(store_and_count()), run(store_and_count())] == [1, 2]


def test_a_connection_that_only_reads_is_left_as_that_of_a_standby(url):
    role = own_name("role")

    async def main():
        admin = create_async_engine(url, isolation_level="AUTOCOMMIT")

        async def say(statement):
            async with admin.connect() as connection:
                await connection.execute(text(statement))

        session = str(uuid.uuid4())
        async with SQLMemory(url) as owner:
            await owner.async_store(session, [Message("user", "before")])
        await say(f"CREATE ROLE {role} SUPERUSER LOGIN")
        await say(f"ALTER ROLE {role} SET default_transaction_read_only = on")
        memory = SQLMemory(url.replace("owner@", f"{role}@"))
        with pytest.raises(MemoryUnavailable, match="read-only"):
            await memory.async_store(session, [Message("user", "meanwhile")])
        await say(f"ALTER ROLE {role} RESET default_transaction_read_only")
        await memory.async_store(session, [Message("user", "after")])
        found = await memory.async_load(session)
        await memory.aclose()
        await say(f"DROP ROLE {role}")
        await admin.dispose()
        return [message.text for message in found]

    assert run(main()) == ["before", "after"]
