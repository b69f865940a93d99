"""The messages of all sessions; a table of this form that is there already is taken over."""

from __future__ import annotations

from alembic.operations import Operations
from sqlalchemy import Column, Integer, String, Text

revision = "1"
down_revision = None


def upgrade(op: Operations) -> None:
    """Make the table and its index."""
    op.create_table(
        "factory_messages",
        Column("session_id", String(255), primary_key=True),
        Column("position", Integer, primary_key=True, autoincrement=False),
        Column("message", Text, nullable=False),
        Column("words", Text, nullable=False),
        Column("created_at", String(32), nullable=False),
        if_not_exists=True,
    )
    op.create_index("factory_messages_by_time", "factory_messages", ["created_at"], if_not_exists=True)
