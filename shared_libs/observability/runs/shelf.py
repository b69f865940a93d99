"""What a kind of database has to offer the store of runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from shared_libs.atomic.errors import RunStoreError
from shared_libs.observability.runs.statements import Change, Dialect, Params


class Shelf(Protocol):
    """
    A database with the tables of the store.

    `open`, `write`, `select` and `close` are called in the writer's thread and block; `read` and `aclose` are awaited
    on any event loop.
    """

    @property
    def dialect(self) -> Dialect:
        """What this kind says in its own way."""

    @property
    def place(self) -> str:
        """Where it is, without a password."""

    def open(self) -> None:
        """
        Make the tables, or bring them to their newest form; several processes may do it at once.

        Raises:
            RunStoreError: it cannot be; says why.

        """

    def write(self, changes: Sequence[Change]) -> None:
        """
        Make changes in one transaction.

        Raises:
            RunStoreError: they are not kept.

        """

    def select(self, statement: str, values: Params) -> list[Sequence[Any]]:
        """
        Read, as whoever writes.

        Raises:
            RunStoreError: it cannot be read.

        """

    def close(self) -> None:
        """Close what the writer used."""

    def begin_anew(self) -> None:
        """Forget the connections, in a forked child: they are the parent's."""

    async def read(self, statement: str, values: Params) -> list[Sequence[Any]]:
        """
        Read.

        Raises:
            RunStoreError: it cannot be read.

        """

    async def aclose(self) -> None:
        """Close what this event loop used."""


def newer(place: str, form: int, known: int) -> RunStoreError:
    """Say that the tables were made by a newer version of this library."""
    return RunStoreError(
        f"run store {place}: its tables have form {form}, of a newer version of genai-factory; this one knows up to "
        f"{known}. Install that version, or name another place"
    )
