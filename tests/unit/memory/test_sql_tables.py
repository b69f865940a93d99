"""The tables: made by whoever comes first, brought to their newest form, never taken from a newer version."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine

from shared_libs.atomic import MemoryStoreError, Message
from shared_libs.memory import SQLMemory
from shared_libs.memory.tables import SCHEMA, _scripts
from tests.nursery import ROOT, Program
from tests.postgres import own_name
from tests.support import run

OLD = """
CREATE TABLE factory_messages (
    session_id VARCHAR(255) NOT NULL, position INTEGER NOT NULL, message TEXT NOT NULL, words TEXT NOT NULL,
    created_at VARCHAR(32) NOT NULL, PRIMARY KEY (session_id, position)
)
"""
OLD_ROW = """
INSERT INTO factory_messages VALUES ('old', 1, '{"role":"user","content":"hello"}', 'hello', '2026-01-01T00:00:00')
"""
FIRST = """
import asyncio, sys
from shared_libs.atomic import Message
from shared_libs.memory import SQLMemory
async def main():
    memory = SQLMemory(sys.argv[1])
    print("ready", flush=True)
    sys.stdin.readline()
    await memory.async_store("s", [Message("user", "q")])
    await memory.aclose()
asyncio.run(main())
"""


@pytest.fixture
def empty_url(request, tmp_path, store_url):
    """Give a database without any tables."""
    if store_url.startswith("sqlite"):
        return store_url

    database = own_name("fresh")

    async def fresh():
        engine = create_async_engine(store_url, isolation_level="AUTOCOMMIT")
        async with engine.connect() as connection:
            await connection.execute(text(f"CREATE DATABASE {database}"))
        await engine.dispose()

    asyncio.run(fresh())
    return store_url.replace("/postgres?", f"/{database}?")


def execute(url, *statements):
    async def main():
        engine = create_async_engine(url)
        async with engine.begin() as connection:
            for statement in statements:
                await connection.execute(text(statement))
        await engine.dispose()

    asyncio.run(main())


def load(url, session):
    async def main():
        memory = SQLMemory(url)
        try:
            return await memory.async_load(session)
        finally:
            await memory.aclose()

    return asyncio.run(main())


def test_the_newest_step_is_the_form_the_code_works_with():
    scripts = _scripts()
    assert scripts.get_heads() == [SCHEMA]
    assert [step.revision for step in scripts.walk_revisions()] == [str(n) for n in range(int(SCHEMA), 0, -1)]


def test_the_steps_end_in_the_tables_the_code_declares(tmp_path):
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    from shared_libs.memory.tables import MESSAGES

    run(SQLMemory(f"sqlite+aiosqlite:///{tmp_path}/s.db").async_load("s"))
    engine = create_engine(f"sqlite:///{tmp_path}/s.db")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": "factory_schema_version"})
        assert compare_metadata(context, MESSAGES.metadata) == []
    engine.dispose()


def test_four_processes_make_the_tables_at_once(empty_url):
    writers = [
        Program(
            ["-c", FIRST, empty_url],
            cwd=ROOT,
            env=dict(os.environ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(4)
    ]
    for writer in writers:
        writer.stdout.readline()
    for writer in writers:
        writer.stdin.write(b"\n")
        writer.stdin.flush()
    for writer in writers:
        _, told = writer.communicate(timeout=60)
        assert writer.returncode == 0, told.decode()
    assert load(empty_url, "s") == [Message("user", "q")] * 4


def test_tables_from_before_the_versions_are_taken_over_with_their_messages(empty_url):
    execute(empty_url, OLD, OLD_ROW)
    assert load(empty_url, "old") == [Message("user", "hello")]
    assert load(empty_url, "old") == [Message("user", "hello")]


def test_tables_of_a_newer_version_are_left_alone(empty_url):
    assert load(empty_url, "s") == []
    execute(empty_url, "UPDATE factory_schema_version SET version_num = '99'")
    for _ in range(2):
        with pytest.raises(
            MemoryStoreError, match="form '99', of a newer version of genai-factory; this one knows 1 to"
        ):
            load(empty_url, "s")


def test_tables_that_are_ready_need_no_migration_library(tmp_path):
    url = f"sqlite+aiosqlite:///{tmp_path}/s.db"
    run(SQLMemory(url).async_load("s"))
    code = "import asyncio, sys; from shared_libs.memory import SQLMemory; m = SQLMemory(sys.argv[1])\n"
    code += "assert asyncio.run(m.async_load('s')) == []; print('alembic' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, url], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "False\n"
