"""Lines to a PostgreSQL that are cut without a word, go to one of several servers, or through a pooler."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from shared_libs.atomic import postgres, tool
from shared_libs.atomic.database_url import database_url
from shared_libs.durable import StoreUnavailable
from shared_libs.durable.database import ask, open_database, persistently
from shared_libs.durable.store import WORKER_CHANNEL
from shared_libs.retrieval.stores.postgres_database import PostgresDatabase
from tests.postgres import own_name
from tests.unit.durable.cast import agent, by_length, ended, opened, submit, turn, until, working


class Wire:
    """A port of loopback that leads to a server's socket; cut, it is silent, and says nothing of an end."""

    def __init__(self, url):
        _, _, self._place = url.partition("owner@/")
        self._lines, self._taking, self._ends = {}, set(), []

    @property
    def place(self):
        return f"127.0.0.1:{self.port}"

    @property
    def url(self):
        return f"postgresql://owner@{self.place}/{self._place.partition('?')[0]}"

    def cut(self):
        """Cut the lines that there are; those that are laid from now on carry."""
        for line in self._lines.values():
            line.cancel()

    def mend(self):
        """Carry on with what was sent meanwhile."""
        for pair, line in self._lines.items():
            if line.cancelled():
                self._lines[pair] = asyncio.ensure_future(self._carry(*pair))

    async def _carry(self, reader, writer):
        while piece := await reader.read(65536):
            writer.write(piece)
        writer.close()

    async def _take(self, reader, writer):
        self._ends.append(writer)
        self._taking.add(asyncio.current_task())
        there = await asyncio.open_unix_connection(f"{self._place.partition('host=')[2]}/.s.PGSQL.5432")
        self._ends.append(there[1])
        for pair in ((reader, there[1]), (there[0], writer)):
            self._lines[pair] = asyncio.ensure_future(self._carry(*pair))

    @asynccontextmanager
    async def laid(self):
        server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            await asyncio.gather(*self._taking)
            self.cut()
            for end in self._ends:
                end.transport.abort()
            await asyncio.gather(*self._lines.values(), return_exceptions=True)


@pytest.mark.promise("durable-fence")
def test_stores_in_two_schemas_of_a_database_hear_nothing_of_each_other(new_postgres):
    """Runs may be called the same in both, as those of a schedule are: who cancels one does not cancel the other."""
    roles = [own_name("staging"), own_name("production")]

    async def main():
        async with opened(new_postgres) as third, AsyncExitStack() as stack:
            for role in roles:
                await third.database.one(ask(f"CREATE ROLE {role} LOGIN"))
                await third.database.one(ask(f"CREATE SCHEMA {role} AUTHORIZATION {role}"))
                await third.database.one(ask(f"ALTER ROLE {role} SET search_path TO {role}"))
            urls = [new_postgres.replace("owner@", f"{role}@") for role in roles]
            stores = [third, *[await stack.enter_async_context(opened(url)) for url in urls]]
            heard = [asyncio.Queue() for _ in stores]
            for store, queue in zip(stores, heard, strict=True):
                await store.listen(WORKER_CHANNEL, queue.put_nowait)
            for number, store in enumerate(stores):  # a PostgreSQL tells everybody all in this order
                await store.call(WORKER_CHANNEL, f"cancel:{number}")
            return [await queue.get() for queue in heard], [queue.qsize() for queue in heard[:-1]]

    assert asyncio.run(main()) == ([f"cancel:{number}" for number in range(3)], [0, 0])


@pytest.mark.promise("durable-away")
def test_a_line_that_is_cut_without_a_word_costs_no_lease(new_postgres):
    """The line is silent, as TCP is for long after a loss; a new one is heard."""
    inside, gate = asyncio.Event(), asyncio.Event()

    @tool
    async def look(amount: int) -> str:
        inside.set()
        await gate.wait()
        return f"saw {amount}"

    build = agent(lambda: by_length(turn(("a", "look", {"amount": 1})), "done"), [look])

    async def main():
        async with Wire(new_postgres).laid() as wire, opened(new_postgres) as store:
            await submit(store, "r")
            async with working(wire.url, build, lease_s=4.0) as worker:
                await inside.wait()
                async with working(new_postgres, build, lease_s=4.0) as other:
                    await other.started.wait()
                    wire.cut()
                    cut_at = worker.beat_age_s
                    await until(lambda: asyncio.sleep(0, worker.beat_age_s > cut_at + 0.5))
                    await until(lambda: asyncio.sleep(0, worker.beat_age_s < 0.5))
                    wire.mend()
                    gate.set()
                    return await until(store.get, "r", wanted=ended)

    job = asyncio.run(main())
    assert (job.status, job.epoch) == ("answered", 1)


@pytest.mark.promise("durable-away")
def test_the_system_watches_every_line_to_a_server(new_postgres):
    def watched(connection):
        line = connection._transport.get_extra_info("socket")
        return [
            line.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
            line.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
            line.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
        ]

    async def main():
        async with Wire(new_postgres).laid() as wire:
            at = database_url(wire.url, "it")
            connection = await postgres.connect(at)
            told = [watched(connection)]
            connection.terminate()
            engine = create_async_engine(at.url, connect_args=postgres.engine_arguments(at))
            async with engine.connect() as line:
                raw = await line.get_raw_connection()
                told.append(watched(raw.driver_connection))
            await engine.dispose()
            collections = PostgresDatabase(wire.url)
            async with collections.reading() as line:
                told.append(watched(line))
            await collections.aclose()
            return told

    assert asyncio.run(main()) == [[1, 10, 10_000]] * 3


@pytest.mark.promise("durable-away")
def test_of_several_servers_the_one_that_writes_is_found_whatever_the_others_do(new_postgres):
    """One is not there, one is there and says nothing, one only reads."""

    async def main():
        with socket.create_server(("127.0.0.1", 0)) as silent, socket.create_server(("127.0.0.1", 0)) as gone:
            nobody = f"127.0.0.1:{gone.getsockname()[1]}"
            gone.close()
            async with Wire(new_postgres).laid() as wire:
                hosts = [f"127.0.0.1:{silent.getsockname()[1]}", nobody, wire.place]
                url = wire.url.replace(wire.place, ",".join(hosts))
                database = open_database(url)
                ((it,),) = await database.one(ask("SELECT 1"))
                await database.aclose()
                reader = open_database(f"{url}&target_session_attrs=read-only".replace("&", "?", 1))
                with pytest.raises(StoreUnavailable):
                    await reader.one(ask("SELECT 1"))
                await reader.aclose()
                return it

    assert asyncio.run(main()) == 1


@pytest.mark.promise("durable-away")
def test_a_server_that_only_reads_is_left_for_the_one_that_writes(new_postgres):
    """A primary that has become a standby keeps its connections, and an answer such as this one is all it says."""
    name = new_postgres.partition("owner@/")[2].partition("?")[0]
    more = "CREATE TABLE IF NOT EXISTS more (it INTEGER)"

    async def main():
        database, other = open_database(new_postgres, connections=1), open_database(new_postgres, connections=1)
        await other.one(ask(f"ALTER DATABASE {name} SET default_transaction_read_only = on"))
        with pytest.raises(StoreUnavailable, match="read-only"):
            await database.one(ask(more))
        await other.one(ask(f"ALTER DATABASE {name} RESET default_transaction_read_only"))
        await persistently(lambda: database.one(ask(more)))
        for one in (database, other):
            await one.aclose()

    async def bounded():
        async with asyncio.timeout(20):
            await main()

    asyncio.run(bounded())


@pytest.mark.promise("durable-away")
def test_a_pooler_that_mixes_up_statements_is_away_and_told_how_to_be_written(new_postgres):
    async def main():
        database = open_database(new_postgres)
        with pytest.raises(StoreUnavailable, match="pgbouncer=true"):
            await database.one(ask("EXECUTE another_ones"))
        await database.aclose()

    asyncio.run(main())


@pytest.mark.promise("durable-drain")
def test_a_worker_that_is_cut_off_while_the_database_is_away_leaves_and_loses_nothing(own_postgres):
    url = f"postgresql+asyncpg://owner@{own_postgres.place}"
    inside, bodies = asyncio.Event(), []

    @tool
    async def look(amount: int) -> str:
        bodies.append(amount)
        inside.set()
        return f"saw {amount}"

    build = agent(lambda: by_length(turn(("a", "look", {"amount": 1})), "done"), [look])

    async def main():
        async with opened(url) as store:
            await submit(store, "r")
            async with asyncio.timeout(30), working(url, build) as worker:
                await inside.wait()
                await asyncio.to_thread(own_postgres.stop)
                worker.drain()
                worker.cut_off()
            await asyncio.to_thread(own_postgres.start)
            async with working(url, build):
                return await until(store.get, "r", wanted=ended)

    assert asyncio.run(main()).status == "answered"


@pytest.mark.promise("durable-away")
def test_who_listens_as_the_server_ends_the_line_is_told_so_and_goes_on(new_postgres):
    """The driver has heard the end, and the line is not closed yet: it takes what it is asked then ill."""

    cut = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()"""

    async def main():
        database, other = open_database(new_postgres), open_database(new_postgres, connections=1)
        for _ in range(10):  # the moment is missed in half of them
            works = await database.listen("here", print)
            cutting = asyncio.create_task(other.one(ask(cut)))
            while works():
                with suppress(StoreUnavailable):
                    await database.listen("there", print)
                await asyncio.sleep(0)
            await cutting
        await asyncio.gather(database.aclose(), other.aclose())

    asyncio.run(main())
