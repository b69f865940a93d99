"""`SQLMemory` on the application's engine, at the addresses platforms give, for a role that may make no tables."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import StaticPool

from shared_libs.atomic import Message, MisuseError, RateLimit
from shared_libs.atomic.database_url import database_url
from shared_libs.atomic.postgres import engine_arguments
from shared_libs.cli import main
from shared_libs.limits import SQLLimitStore
from shared_libs.memory import SQLMemory
from tests.postgres import own_name

ONE = [Message("user", "hi"), Message("assistant", "hello")]


@pytest.fixture(params=["file", "in memory", "postgres"])
def make_engine(request, tmp_path):
    def make():
        if request.param == "postgres":
            return create_async_engine(f"postgresql+asyncpg://owner@{request.getfixturevalue('postgres')}")
        if request.param == "file":
            return create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/app.db")
        return create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)

    return make


@pytest.mark.promise("own-engine")
def test_the_application_s_engine_is_shared_and_stays_open(make_engine, request):
    session = f"engine-{request.node.name}"

    async def main():
        engine = make_engine()
        async with SQLMemory(engine=engine) as memory:
            await asyncio.gather(*(memory.async_store(session, ONE) for _ in range(10)))
            await memory.async_store(session, ONE, after=20)
            assert len(await memory.async_load(session)) == 22
            assert [found.text for found in await memory.async_search(session, "hello", k=1)] == ["hello"]
        async with engine.begin() as connection:  # it goes on working after the memory was closed
            rows = await connection.execute(
                text("select count(*) from factory_messages where session_id = :session"), {"session": session}
            )
            assert rows.scalar() == 22
        await engine.dispose()

    asyncio.run(main())


@pytest.mark.promise("own-engine")
def test_an_application_that_begins_its_transactions_itself_may(tmp_path):
    from sqlalchemy import event

    async def main():
        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/app.db")

        @event.listens_for(engine.sync_engine, "connect")
        def _plain(connection, _):
            connection.isolation_level = None

        @event.listens_for(engine.sync_engine, "begin")
        def _begin(connection):
            connection.exec_driver_sql("BEGIN")

        memory = SQLMemory(engine=engine)
        await memory.async_store("s", ONE)
        assert len(await memory.async_load("s")) == 2
        async with engine.connect() as connection:
            assert (await connection.execute(select(1))).scalar() == 1
        await engine.dispose()

    asyncio.run(main())


def test_what_is_no_engine_is_refused():
    with pytest.raises(MisuseError, match="not both"):
        SQLMemory("sqlite:///x.db", engine=create_async_engine("sqlite+aiosqlite://"))
    with pytest.raises(MisuseError, match="not a str"):
        SQLMemory(engine="sqlite:///x.db")


@pytest.mark.promise("database-urls")
@pytest.mark.parametrize(
    ("url", "address", "arguments"),
    [
        ("postgres://u:p@h/d", "postgresql+asyncpg://u:p@h/d", {}),
        ("postgresql://u@h:5/d?ssl=require", "postgresql+asyncpg://u@h:5/d?ssl=require", {}),
        (
            "postgres://u@h/d?sslmode=require&channel_binding=require",
            "postgresql+asyncpg://u@h/d",
            {"sslmode": "require"},
        ),
        ("postgresql://u@h/d?connect_timeout=3", "postgresql+asyncpg://u@h/d", {"timeout": 3.0}),
        (
            "postgres://u@h/d?pgbouncer=true",
            "postgresql+asyncpg://u@h/d?prepared_statement_cache_size=0",
            {"statement_cache_size": 0},
        ),
        (
            "postgres://u:p@h1,h2:6/d",
            "postgresql+asyncpg://u:p@/d",
            {"target_session_attrs": "read-write"},
        ),
        ("sqlite:///a.db", "sqlite+aiosqlite:///a.db", {}),
    ],
)
def test_an_address_is_read_as_platforms_give_it(url, address, arguments):
    read = database_url(url, "memory url")
    assert (read.url.render_as_string(hide_password=False), read.options | read.libpq) == (address, arguments)


@pytest.mark.promise("database-urls")
@pytest.mark.parametrize(
    ("url", "dsn"),
    [
        ("postgres://u:p/a#s?s@h:5/d?ssl=require", "postgresql://u:p%2Fa%23s%3Fs@h:5/d?sslmode=require"),
        ("postgresql://u@[::1]:5/d", "postgresql://u@[::1]:5/d"),
        ("postgresql://u@/d?host=/tmp/x", "postgresql://u@/d?host=%2Ftmp%2Fx"),
        ("postgresql://u@h/d?host=a:1&host=b:2", "postgresql://u@h/d?host=a%3A1%2Cb%3A2"),
        ("postgres://u@h/d?pgbouncer=true&sslmode=prefer", "postgresql://u@h/d?sslmode=prefer"),
        ("postgresql://u@h:/d", "postgresql://u@h/d"),
        ("postgres://u:p/a#@b@h/d", "postgresql://u:p%2Fa%23%40b@h/d"),
        ("postgres://u@h1,h2:6/d", "postgresql://u@h1:5432,h2:6/d?target_session_attrs=read-write"),
        ("postgres://u@[::1],h2/d?port=7", "postgresql://u@[::1]:7,h2:7/d?target_session_attrs=read-write"),
        (
            "postgres://u@/d?host=h1,h2&port=6,7&target_session_attrs=any",
            "postgresql://u@h1:6,h2:7/d?target_session_attrs=any",
        ),
        ("postgres://u@/d?host=/tmp/x,/tmp/y", "postgresql://u@/d?host=%2Ftmp%2Fx%2C%2Ftmp%2Fy"),
    ],
)
def test_what_uses_asyncpg_alone_reads_the_same_address(url, dsn):
    read = database_url(url, "run store")
    assert read.dsn == dsn
    assert "p/a#" not in repr(read)
    assert "b@" not in repr(read)


@pytest.mark.promise("database-urls")
@pytest.mark.parametrize("hosts", ["h1,h2/d?port=1,2,3", "h1:x,h2/d", ",h2/d", "h1,h2/d?port=one"])
def test_hosts_that_cannot_be_told_apart_are_refused(hosts):
    with pytest.raises(MisuseError, match=r"hosts?, and|is no host"):
        database_url(f"postgresql://u:hunter2@{hosts}", "run store")


@pytest.mark.promise("database-urls")
@pytest.mark.parametrize("url", ["mysql://me:hunter2@h/d", "postgresql+psycopg://me:hunter2@h/d", "hunter2", None])
def test_another_address_is_refused_without_its_password(url):
    with pytest.raises(MisuseError, match="allowed are sqlite") as caught:
        database_url(url, "memory url")
    assert "hunter2" not in str(caught.value)


@pytest.mark.promise("database-urls")
@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+asyncpg"])
def test_a_real_server_takes_every_form(postgres, scheme):
    url = f"{scheme}://owner@{postgres}&sslmode=prefer&application_name=app&connect_timeout=5&gssencmode=disable"

    async def main():
        memory, limits = SQLMemory(url), SQLLimitStore(url)
        await memory.async_store(f"urls-{scheme}", ONE)
        assert len(await memory.async_load(f"urls-{scheme}")) == 2
        assert await limits.take(f"urls-{scheme}", RateLimit(requests_per_minute=5), 1) == []
        await memory.aclose()
        await limits.aclose()

    asyncio.run(main())


@pytest.mark.promise("tables-ahead")
def test_a_role_that_may_make_no_tables_uses_those_that_were_made_ahead(postgres, capsys):
    database, role = own_name("ahead"), own_name("app")
    place = postgres.replace("/postgres?", f"/{database}?")
    owner, app = f"postgresql://owner@{place}", f"postgresql://{role}@{place}"

    async def sql(url, *statements):
        at = database_url(url, "test")
        engine = create_async_engine(at.url, connect_args=engine_arguments(at), isolation_level="AUTOCOMMIT")
        async with engine.connect() as connection:
            for statement in statements:
                await connection.execute(text(statement))
        await engine.dispose()

    asyncio.run(sql(f"postgresql://owner@{postgres}", f"create database {database}", f"create role {role} login"))
    assert main(["tables", owner]) == 0
    told = capsys.readouterr().out
    assert "memory: ready" in told
    assert "limits: ready" in told
    assert "runs: ready" in told
    assert main(["tables", owner, "--only", "limits"]) == 0
    every = f"grant select, insert, update, delete on all tables in schema public to {role}"
    asyncio.run(sql(owner, every, f"grant usage on all sequences in schema public to {role}"))

    async def use():
        memory, limits = SQLMemory(app), SQLLimitStore(app)
        await memory.async_store("s", ONE)
        assert len(await memory.async_load("s")) == 2
        assert await limits.take("m", RateLimit(requests_per_minute=5), 1) == []
        await memory.aclose()
        await limits.aclose()

    asyncio.run(use())


def test_tables_in_a_file(tmp_path, capsys):
    assert main(["tables", f"sqlite:///{tmp_path}/factory.db"]) == 0
    assert main(["tables", "mysql://x"]) == 2
    assert "factory tables: allowed are sqlite" in capsys.readouterr().err
