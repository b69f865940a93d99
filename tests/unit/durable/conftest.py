"""A database of its own for each test of durable runs."""

from __future__ import annotations

import asyncio

import pytest

from tests.postgres import own_name


@pytest.fixture
def new_postgres(postgres):
    name = own_name("durable")

    async def make():
        import asyncpg

        connection = await asyncpg.connect(user="owner", database="postgres", host=postgres.partition("host=")[2])
        await connection.execute(f"CREATE DATABASE {name}")
        await connection.close()

    asyncio.run(make())
    return f"postgresql+asyncpg://owner@{postgres.replace('/postgres', f'/{name}')}"


@pytest.fixture(params=["sqlite", "postgres"])
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path / 'durable.db'}"
    return request.getfixturevalue("new_postgres")
