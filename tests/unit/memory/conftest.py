"""Both databases, for what they promise alike."""

from __future__ import annotations

import uuid

import pytest


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request, tmp_path):
    """Give the URL of a store; on PostgreSQL the tables are shared, so sessions need names of their own."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path}/sessions.db"
    return f"postgresql+asyncpg://owner@{request.getfixturevalue('postgres')}"


@pytest.fixture
def session():
    return str(uuid.uuid4())
