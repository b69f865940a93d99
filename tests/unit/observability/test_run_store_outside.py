"""The store of runs beside what is outside a program: other processes, a child, a server that is away, rights."""

from __future__ import annotations

import asyncio
import inspect
import sqlite3
import subprocess
import sys
from contextlib import closing
from textwrap import dedent

import asyncpg
import pytest

from shared_libs.agents import ReActAgent
from shared_libs.atomic.errors import RunStoreError, RunStoreUnavailable
from shared_libs.atomic.events import Warned
from shared_libs.atomic.llms import ScriptedLLM
from shared_libs.observability import RunStore
from tests.postgres import own_name
from tests.support import run
from tests.unit.observability.kept import in_store, names, record, told

SECRET = "sk-abcdefghijklmnopqrst"


_PROGRAM = f"""
import os
import sys
from datetime import UTC, datetime
from shared_libs.atomic.events import RunFinished, RunStarted
from shared_libs.atomic.results import AgentResult
from shared_libs.observability.run_store import RunStore

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)

{inspect.getsource(told)}
{inspect.getsource(record)}
url, name = sys.argv[1:]
"""


def program(url, how, name="p", **options):
    """Start a process that records, as its code says."""
    return subprocess.Popen([sys.executable, "-c", _PROGRAM + dedent(how), url, name], text=True, **options)


@pytest.mark.promise("runs-kept")
def test_processes_write_to_one_file_and_what_is_left_is_written_at_the_end_of_the_program(url):
    how = """
    store = RunStore(url)
    for number in range(100):
        record(store, *told(f"{name}-{number}"))
    """
    writers = [program(url, how, name) for name in ("one", "two")]
    assert [writer.wait(60) for writer in writers] == [0, 0]

    async def use(store):
        page = await store.async_list(limit=500)
        assert sorted(names(page)) == sorted(f"{name}-{number}" for name in ("one", "two") for number in range(100))

    in_store(url, use)


@pytest.mark.promise("runs-followed")
def test_a_run_of_another_process_is_followed_and_one_that_was_killed_is_told_from_one_under_way(url):
    how = """
    store = RunStore(url)
    first, last = told("live", at=datetime.now(UTC))
    record(store, first, *told("old"), [*told("gone")][0])
    store.close()
    print("begun", flush=True)
    input()
    record(store, last)
    """
    with program(url, how, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout.readline() == "begun\n"

        async def use(store):
            assert names(await store.async_list(status="running")) == ["live"]
            assert names(await store.async_list(status="unfinished")) == ["gone"]
            assert (await store.async_get("gone")).status == "unfinished"
            seen = []
            async with asyncio.timeout(30):
                async for event in store.follow("live"):
                    seen.append(event["type"])
                    if len(seen) == 1:
                        await asyncio.to_thread(writer.communicate, "go on\n")
            assert seen == ["run_started", "run_finished"]

        in_store(url, use)


@pytest.mark.promise("runs-never-wait")
def test_while_another_process_holds_the_file_runs_go_on_and_are_kept_afterwards(url, tmp_path, caplog):
    async def use(store):
        with closing(sqlite3.connect(tmp_path / "kept" / "runs.db")) as other:
            other.execute("BEGIN IMMEDIATE")
            agent = ReActAgent(llm=ScriptedLLM(["yes"]), observers=[store.observer()])
            result = await agent.async_run("Does it wait?", run_id="r")
            assert result.answer == "yes"
            assert not await store.flush(0.1)
            other.rollback()
        assert await store.flush(30)
        assert names(await store.async_list()) == ["r"]

    in_store(url, use)


@pytest.mark.promise("runs-never-wait")
def test_a_store_that_is_away_costs_no_more_than_its_queue_and_what_is_lost_is_told(tmp_path, caplog):
    (tmp_path / "file").write_text("no folder")
    store = RunStore(f"sqlite:///{tmp_path}/file/runs.db")
    for number in range(20_600):
        store.record(Warned(run_id="r", seq=number, message="m"))
    assert store.lost >= 10
    assert store.close(10)
    assert store.lost == 20_600
    assert any("what is recorded waits, up to 20000 events" in message for message in caplog.messages)
    assert "is not complete: " in caplog.messages[-1]
    assert str(tmp_path) in caplog.messages[-1]
    with pytest.raises(RunStoreError, match=r"runs\.db: "):
        run(store.aopen())


@pytest.mark.promise("runs-kept")
def test_a_forked_child_writes_its_own(url):
    how = """
    store = RunStore(url)
    record(store, *told("parent"))
    store._writer.flush(10)
    if child := os.fork():
        os.waitpid(child, 0)
        record(store, *told("again"))
    else:
        record(store, *told("child"))
    """
    with program(url, how) as forking:
        assert forking.wait(60) == 0

    async def use(store):
        assert sorted(names(await store.async_list())) == ["again", "child", "parent"]

    in_store(url, use)


@pytest.mark.promise("runs-kept")
def test_a_role_without_the_right_to_make_tables_uses_those_there_are(postgres_url, postgres):
    role = own_name("plain")

    async def prepare():
        async with RunStore(postgres_url):
            connection = await asyncpg.connect(postgres_url)
            await connection.execute(f"CREATE ROLE {role} LOGIN")
            await connection.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}")
            await connection.close()

    async def use(store):
        record(store, *told("r"))
        assert await store.flush()
        assert names(await store.async_list()) == ["r"]

    asyncio.run(prepare())
    in_store(f"postgres://{role}:{SECRET}@{postgres}", use)


@pytest.mark.promise("runs-never-wait")
def test_runs_of_a_server_that_is_down_are_kept_when_it_is_back(own_postgres, caplog):
    async def main():
        async with RunStore(f"postgresql://owner:{SECRET}@{own_postgres.place}") as store:
            own_postgres.stop()
            record(store, *told("r"))
            assert not await store.flush(0.5)
            with pytest.raises(RunStoreUnavailable) as caught:
                await store.async_list()
            own_postgres.start()
            assert await store.flush(60)
            assert names(await store.async_list()) == ["r"]
            assert store.lost == 0
            return str(caught.value)

    said = asyncio.run(main())
    assert SECRET not in said + caplog.text
    assert [message.partition(": ")[2] for message in caplog.messages if "waits" in message] != []
    assert "takes events again; 0 were lost meanwhile" in caplog.messages[-1]
