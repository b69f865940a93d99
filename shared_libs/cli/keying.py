"""`factory keys`: made, listed and revoked."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import msgspec

from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.nearest import names_like
from shared_libs.cli.exits import ExitCode
from shared_libs.observability.printable import printable
from shared_libs.service.audit import AuditLog, Entry, digest, user_name
from shared_libs.service.callers import SCOPES, opens_something
from shared_libs.service.database import ServiceDatabase
from shared_libs.service.key_format import Key
from shared_libs.service.key_rows import KeyRow, now
from shared_libs.service.key_store import KeyStore, key_store
from shared_libs.service.settings import KEYS_NAME, Settings, load_settings


def keys(arguments: argparse.Namespace) -> int:
    """Make a key, list what is kept of them, or revoke one."""
    settings = load_settings(arguments.configs)
    place = arguments.keys or settings.keys or KEYS_NAME
    settings = settings.model_copy(update={"keys": place})
    act = {"new": _new, "list": _list, "revoke": _revoke}[arguments.action]
    return asyncio.run(_with(Keeper(settings), lambda keeper: act(keeper, settings, arguments)))


async def _with(keeper: Keeper, act: Callable[[Keeper], Awaitable[int]]) -> int:
    try:
        return await act(keeper)
    finally:
        await keeper.aclose()


class Keeper:
    """Keeps keys, and notes in the audit log who did so, before it is done."""

    def __init__(self, settings: Settings) -> None:
        self.store: KeyStore = key_store(settings.keys or KEYS_NAME, settings.configs)
        try:
            self._log: AuditLog | None = AuditLog(ServiceDatabase(settings.shared_url), settings.pepper)
        except MisuseError:  # nothing of runs is kept either
            self._log = None

    async def keep(self, action: str, row: KeyRow, before: KeyRow | None = None, **facts: str) -> None:
        """Keep a row, in place of the one before."""
        if self._log is None:
            print("no audit log is kept, because no runs are", file=sys.stderr)
        else:
            told = {"team": row.team, "name": row.name, "scopes": " ".join(row.scopes)} | facts
            was = "" if before is None else digest(msgspec.json.encode(before))
            entry = Entry(
                action=action,
                object=f"key:{row.id}",
                actor=user_name(),
                at=now().isoformat(),
                before=was,
                after=digest(msgspec.json.encode(row)),
                facts={name: value for name, value in told.items() if value},
            )
            await self._log.append([entry])
        await self.store.keep(row)

    async def aclose(self) -> None:
        """Close what is open."""
        await self.store.aclose()
        if self._log is not None:
            await self._log.aclose()


async def _new(keeper: Keeper, settings: Settings, arguments: argparse.Namespace) -> int:
    key, moment = Key.new(), now()
    old = await _row(keeper.store, arguments.rotates) if arguments.rotates else None
    told = {
        "team": arguments.team,
        "name": arguments.name,
        "scopes": tuple(arguments.scope) if arguments.scope else None,
        "weight": arguments.weight,
        "requests_per_minute": arguments.rpm,
        "tokens_per_minute": arguments.tpm,
        "concurrency": arguments.concurrency,
        "budget_usd": arguments.budget,
        "budget_window": arguments.window,
    }
    given = {name: value for name, value in told.items() if value is not None}
    fresh = {"id": key.id, "hash": key.hash(settings.pepper), "created_at": moment, "revoked_at": None}
    expires = {"expires_at": moment + timedelta(days=arguments.days) if arguments.days else None}
    kept = msgspec.structs.asdict(old) if old else {}
    try:
        row = msgspec.convert(kept | given | fresh | expires, KeyRow)
    except msgspec.ValidationError as error:
        raise MisuseError(f"the key cannot be made so: {error}") from None
    for scope in arguments.scope or ():
        if not opens_something(scope):
            meant = names_like(scope, SCOPES)
            like = f"; did you mean {meant[0]!r}?" if meant else f"; what does: {', '.join(SCOPES)}, or *"
            print(f"note: the scope {printable(scope)!r} opens nothing of the service{like}", file=sys.stderr)
    await keeper.keep("key.made", row, rotates=old.id if old else "")
    if old is not None:
        ends = moment + timedelta(hours=arguments.overlap)
        left = msgspec.structs.replace(old, expires_at=min(old.expires_at or ends, ends))
        await keeper.keep("key.rotated", left, old, ends=_told(left.expires_at), by=row.id)
        print(f"{old.id} goes on until {_told(ends)}", file=sys.stderr)
    print("this is shown once; what is kept is a hash", file=sys.stderr)
    print(key)
    return ExitCode.ANSWERED


async def _list(keeper: Keeper, _: Settings, arguments: argparse.Namespace) -> int:
    rows = await keeper.store.every()
    if arguments.json:
        hidden = [msgspec.to_builtins(row) for row in rows]
        print(json.dumps([{name: value for name, value in row.items() if name != "hash"} for row in hidden]))
        return ExitCode.ANSWERED
    if not rows:
        print("there are no keys; `factory keys new` makes one", file=sys.stderr)
        return ExitCode.ANSWERED
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("id", "team", "name", "state", "expires", "scopes"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        state = row.why_not(now()) or "valid"
        shown = [row.id, row.team, row.name, state, _told(row.expires_at), " ".join(row.scopes)]
        table.add_row(*map(printable, shown))
    Console().print(table)
    return ExitCode.ANSWERED


async def _revoke(keeper: Keeper, _: Settings, arguments: argparse.Namespace) -> int:
    row = await _row(keeper.store, arguments.id)
    await keeper.keep("key.revoked", msgspec.structs.replace(row, revoked_at=row.revoked_at or now()), row)
    print(f"{row.id} is revoked; servers know within a few seconds", file=sys.stderr)
    return ExitCode.ANSWERED


async def _row(store: KeyStore, key_id: str) -> KeyRow:
    row = await store.find(key_id)
    if row is None:
        raise MisuseError(f"there is no key {key_id[:40]!r}; `factory keys list` tells which there are")
    return row


def _told(moment: datetime | None) -> str:
    return "never" if moment is None else moment.strftime("%Y-%m-%d %H:%M UTC")
