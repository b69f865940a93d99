"""Summaries of sessions, the meaning of messages, and which store call a message came with."""

from __future__ import annotations

from alembic.operations import Operations
from sqlalchemy import Column, Integer, LargeBinary, String, Text

revision = "2"
down_revision = "1"


def upgrade(op: Operations) -> None:
    """Add the columns and the table."""
    op.add_column("factory_messages", Column("batch", String(32)))
    op.add_column("factory_messages", Column("embedding_model", String(255)))
    op.add_column("factory_messages", Column("embedding", LargeBinary))
    op.create_table(
        "factory_summaries",
        Column("session_id", String(255), primary_key=True),
        Column("messages", Integer, nullable=False),
        Column("summary", Text, nullable=False),
        Column("created_at", String(32), nullable=False),
    )
