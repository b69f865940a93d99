"""Where keys are kept: a file of hashes for a few, a database for many servers."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any, Protocol

import msgspec
import yaml
from sqlalchemy import Column, String, Table, Text, select, update
from sqlalchemy.exc import SQLAlchemyError

from shared_libs.atomic.errors import ConfigError, FactoryError, MisuseError
from shared_libs.atomic.secrets import private
from shared_libs.factory.source import read_source
from shared_libs.service.database import METADATA, ServiceDatabase
from shared_libs.service.key_rows import KeyRow, now

_KEYS = Table(
    "factory_keys",
    METADATA,
    Column("id", String(8), primary_key=True),
    Column("team", String(64), nullable=False, index=True),
    Column("told", Text, nullable=False),  # the row as JSON
)


class KeyStoreError(FactoryError):
    """The store of keys failed; nobody is known to be refused for that."""


class KeyFileError(KeyStoreError, MisuseError):
    """What stands in a file of keys does not hold."""


class KeyStore(Protocol):
    """A place for keys."""

    async def aopen(self) -> str:
        """
        Look whether it can be used, as a server starts; return what whoever starts it should know.

        Raises:
            KeyStoreError: it never can be: what is kept does not hold.

        """

    async def find(self, key_id: str) -> KeyRow | None:
        """
        Return a key's row.

        Raises:
            KeyStoreError: the store failed.

        """

    async def every(self) -> list[KeyRow]:
        """
        Return every row, the oldest first.

        Raises:
            KeyStoreError: the store failed.

        """

    async def keep(self, row: KeyRow) -> None:
        """
        Keep a row, in place of one with its id.

        Raises:
            KeyStoreError: the store failed.

        """

    async def aclose(self) -> None:
        """Close what is open."""


class FileKeys:
    """
    Keys in a YAML file: `keys`, a list of rows with hashes and no secret.

    A changed file is read anew when a key is looked up; one that does not hold keeps what it said before.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._rows: dict[str, KeyRow] = {}

    async def aopen(self) -> str:
        """Read it."""
        await asyncio.to_thread(self._refresh)
        return (
            "" if self._rows else f"{self._path} has no key: nobody is let in by one until `factory keys new` makes it"
        )

    async def find(self, key_id: str) -> KeyRow | None:
        """Return a key's row."""
        await asyncio.to_thread(self._refresh)
        return self._rows.get(key_id)

    async def every(self) -> list[KeyRow]:
        """Return every row."""
        await asyncio.to_thread(self._refresh)
        return list(self._rows.values())

    async def keep(self, row: KeyRow) -> None:
        """Keep a row; the file is replaced as a whole, and its owner alone reads it."""
        await asyncio.to_thread(self._keep, row)

    async def aclose(self) -> None:
        """Close nothing."""

    def _keep(self, row: KeyRow) -> None:
        self._refresh()
        rows = self._rows | {row.id: row}
        told = {"keys": [msgspec.to_builtins(each, builtin_types=()) for each in rows.values()]}
        fresh = self._path.with_name(f".{self._path.name}.new")
        try:
            with open(fresh, "w", encoding="utf-8", opener=private) as file:
                file.write("# Hashes of keys; made by `factory keys`. No key can be read from it.\n")
                yaml.safe_dump(told, file, sort_keys=False)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._path)
        except OSError as error:
            raise KeyStoreError(f"the keys cannot be kept in {self._path}: {error.strerror or error}") from error

    def _refresh(self) -> None:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            self._rows, self._stamp = {}, None
            return
        except OSError as error:
            raise KeyStoreError(f"{self._path} cannot be read: {error.strerror or error}") from error
        stamp = (found.st_mtime_ns, found.st_size)
        if stamp != self._stamp:
            try:
                self._rows = _rows_of(self._path)
            except ConfigError as error:
                raise KeyFileError(str(error)) from error
            self._stamp = stamp


class SQLKeys:
    """Keys in a database that any number of servers share."""

    def __init__(self, database: ServiceDatabase) -> None:
        self._database = database

    async def aopen(self) -> str:
        """Ask it once; one that does not answer now may do so later."""
        try:
            await self._read(select(_KEYS.c.told).limit(1))
        except KeyStoreError as error:
            return f"{error}; nobody is let in until it is there"
        return ""

    async def find(self, key_id: str) -> KeyRow | None:
        """Return a key's row."""
        found = await self._read(select(_KEYS.c.told).where(_KEYS.c.id == key_id))
        return found[0] if found else None

    async def every(self) -> list[KeyRow]:
        """Return every row."""
        rows = await self._read(select(_KEYS.c.told))
        return sorted(rows, key=lambda row: (row.created_at or now(), row.id))

    async def keep(self, row: KeyRow) -> None:
        """Keep a row."""
        values = {"id": row.id, "team": row.team, "told": msgspec.json.encode(row).decode()}
        try:
            async with self._database.transaction(writes=True) as connection:
                changed = await connection.execute(update(_KEYS).where(_KEYS.c.id == row.id).values(values))
                if not changed.rowcount:
                    await connection.execute(_KEYS.insert().values(values))
        except (SQLAlchemyError, OSError) as error:
            raise KeyStoreError(await asyncio.to_thread(self._database.failure, error)) from error

    async def aclose(self) -> None:
        """Close the connections."""
        await self._database.aclose()

    async def _read(self, statement: Any) -> list[KeyRow]:
        try:
            async with self._database.transaction(writes=False) as connection:
                found = (await connection.execute(statement)).scalars().all()
        except (SQLAlchemyError, OSError) as error:
            raise KeyStoreError(await asyncio.to_thread(self._database.failure, error)) from error
        return [msgspec.json.decode(text, type=KeyRow) for text in found]


def key_store(place: str, folder: Path) -> KeyStore:
    """
    Return the store at a place: a file, relative to the folder of definitions, or the URL of a database.

    Raises:
        MisuseError: the URL is of no database that is known.

    """
    if "://" in place:
        return SQLKeys(ServiceDatabase(place))
    return FileKeys(folder / place)


def _rows_of(path: Path) -> dict[str, KeyRow]:
    written, problems = read_source(path)
    if not isinstance(written, dict) or set(written) != {"keys"} or not isinstance(written["keys"], list):
        problems.add((), "allowed is one key, `keys`: a list of what `factory keys new` writes")
        problems.raise_if_any()
    rows: dict[str, KeyRow] = {}
    for index, told in enumerate(written["keys"]):
        try:
            row = msgspec.convert(told, KeyRow)
        except msgspec.ValidationError as error:
            problems.add(("keys", index), str(error))
            continue
        if row.id in rows:
            problems.add(("keys", index, "id"), f"{row.id} is there twice")
        rows[row.id] = row
    problems.raise_if_any()
    return rows
