"""
The door: which key a request carries, and whose it is. Decided here and nowhere else, for every route.

What was read of a key is good for `FRESH_S`; so long may a revoked one go on. Where the store of keys fails, what was
read goes on being good for `STALE_S`, and a key nobody has read is answered 503: only proof makes a 401.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from shared_libs.atomic.loading import importing
from shared_libs.observability.printable import presentable
from shared_libs.service.audit import source_of
from shared_libs.service.callers import ANYONE, Caller
from shared_libs.service.edge import Scope, is_loopback
from shared_libs.service.key_format import Key
from shared_libs.service.key_rows import KeyRow, now
from shared_libs.service.key_store import KeyStore, KeyStoreError
from shared_libs.service.problems import Problem

with importing("fastapi", "the service"):
    from starlette.requests import Request

_log = logging.getLogger("shared_libs.service")
_audit = logging.getLogger("shared_libs.service.audit")

FRESH_S = 5.0
STALE_S = 300.0
MOST_ROWS = 10_000
"""How many keys are remembered, those that nobody has among them."""

FAILURES = 10
FAILURES_WINDOW_S = 60.0
MOST_GUESSES = 100
MOST_SOURCES = 10_000
"""
How many wrong keys one address may show in a window, how many of those that it shows behind that wait to be looked up,
and of how many addresses that is counted.
"""

_NOBODYS = KeyRow(id="00000000", hash="0" * 64)
"""Compared with where there is no row, so that it takes as long."""


class Tokens(Protocol):
    """Reads the tokens of an identity provider."""

    async def caller(self, token: str) -> Caller:
        """
        Say who has a token.

        Raises:
            Problem: it is not valid, or the provider does not answer.

        """

    async def aclose(self) -> None:
        """Close what is open."""


def _need_own_name(scope: Scope) -> None:
    """
    Where no key is asked for, only take requests that mean this machine, and of no page but its own.

    A page of somebody else's can have its own name lead to loopback, and would read answers then (DNS rebinding); and
    can send what it cannot read.
    """
    reached = (scope.get("server") or ("",))[0]
    for header, told in scope["headers"]:
        if header == b"host":
            name = _without_port(str(told, "latin-1"))
        elif header == b"origin":
            name = _without_port(str(told, "latin-1").removeprefix("http://").removeprefix("https://"))
        else:
            continue
        if name and name != reached and not is_loopback(name.strip("[]")):
            whose = "this machine's own name is served" if header == b"host" else "pages of this machine may ask"
            raise Problem("forbidden", f"without keys only {whose}, not {name[:100]!r}")


def _without_port(name: str) -> str:
    host, colon, port = name.rpartition(":")
    return (host if colon and (not port or port.isdecimal()) else name).lower()


def _nothing(*_: object, **__: object) -> None:
    """Nobody asked to be told."""


class _Read(NamedTuple):
    row: KeyRow | None
    at: float


class Door:
    """
    Lets callers in by their keys.

    Args:
        store: where keys are kept; None, and no tokens: anyone may come in.
        pepper: the secret that keys were hashed with.
        tokens: reads what an identity provider has signed.
        on_denial: gets whom was not let in where: takes the arguments of `AuditTrail.note_denial`.

    """

    def __init__(
        self,
        store: KeyStore | None = None,
        *,
        pepper: str = "",
        tokens: Tokens | None = None,
        on_denial: Callable[..., None] = _nothing,
    ) -> None:
        self._store = store
        self._pepper = pepper
        self._tokens = tokens
        self._on_denial = on_denial
        self._read: OrderedDict[str, _Read] = OrderedDict()
        self._reading: dict[str, asyncio.Task[KeyRow | None]] = {}
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()
        self._guesses = 0
        self._one_guess = asyncio.Lock()

    @property
    def is_open(self) -> bool:
        """Whether anyone may come in."""
        return self._store is None and self._tokens is None

    async def admit(self, scope: Scope, needs: str) -> Caller:
        """
        Say who asks.

        Only the scope's headers count, and the route that was found; no URL is put together and none is read.

        Args:
            scope: the request's.
            needs: what the route needs, such as `runs:read`.

        Raises:
            Problem: there is no valid key, or it does not allow this.

        """
        if self.is_open:
            _need_own_name(scope)
            return ANYONE
        told = None
        try:
            told = presented_key(scope)
            if told is None:
                raise Problem("unauthorized", "a key is needed: `Authorization: Bearer KEY`, or `x-api-key: KEY`")
            caller = await self._caller(told, scope)
            caller.need(needs)
        except Problem as problem:
            if problem.kind.status in (401, 403):
                self._note(problem, scope, told)
            raise
        return caller

    async def aopen(self) -> str:
        """
        Look whether keys can be looked up; return what whoever starts the service should know.

        Raises:
            KeyStoreError: they never can be.

        """
        return "" if self._store is None else await self._store.aopen()

    async def rows(self) -> list[KeyRow]:
        """
        Return what is kept of every key.

        Raises:
            KeyStoreError: they cannot be read.

        """
        return [] if self._store is None else await self._store.every()

    async def aclose(self) -> None:
        """Close what is open."""
        for part in (self._store, self._tokens):
            if part is not None:
                await part.aclose()

    async def _caller(self, told: str, scope: Scope) -> Caller:
        if self._tokens is not None and told.count(".") == 2:
            return await self._tokens.caller(told)
        key = Key.read(told)
        wrong = Problem("unauthorized", "this is no valid key; `factory keys list` tells which there are")
        if key is None or self._store is None:
            raise wrong
        row = await self._row(key.id, guesses=self._fails_too_often(scope))
        if not key.fits((row or _NOBODYS).hash, self._pepper) or row is None:
            raise wrong
        if why := row.why_not(now()):
            raise Problem("unauthorized", f"the key {row.id} is {why}; ask for a new one")
        return row.caller()

    async def _row(self, key_id: str, *, guesses: bool) -> KeyRow | None:
        clock = asyncio.get_running_loop().time
        read = self._read.get(key_id)
        if read is not None and clock() - read.at < FRESH_S:
            return read.row
        try:
            row = await (self._look_up_in_turn(key_id) if guesses and read is None else self._look_up(key_id))
        except KeyStoreError as error:
            if read is not None and read.row is not None and clock() - read.at < STALE_S:
                return read.row
            _log.warning("%s", error)
            raise Problem(
                "store_unavailable", "the keys cannot be looked at now; try again", retry_after_s=1.0
            ) from error
        self._read[key_id] = _Read(row, clock())
        self._read.move_to_end(key_id)
        if len(self._read) > MOST_ROWS:
            self._read.popitem(last=False)
        return row

    async def _look_up_in_turn(self, key_id: str) -> KeyRow | None:
        """
        Ask the store for an address that shows wrong keys, one after the other.

        Whoever guesses there gets no more of the store than that; who has a valid key beside it is let in.
        """
        if self._guesses >= MOST_GUESSES:
            return None
        self._guesses += 1
        try:
            async with self._one_guess:
                return await self._look_up(key_id)
        finally:
            self._guesses -= 1

    async def _look_up(self, key_id: str) -> KeyRow | None:
        """Ask the store once for all who wait for the same key."""
        assert self._store is not None
        task = self._reading.get(key_id)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._store.find(key_id))
            self._reading[key_id] = task
            task.add_done_callback(lambda _: self._reading.pop(key_id, None))
        return await asyncio.shield(task)

    def _note(self, problem: Problem, scope: Scope, told: str | None) -> None:
        """Count a failure, and tell it to whoever watches; an address that fails too often is told so."""
        key = Key.read(told) if told else None
        source, key_id = source_of(scope), key.id if key else "none"
        path = presentable(scope["path"][:200])
        _audit.warning("denied: %s %r from %s with key %s: %s", scope["method"], path, source, key_id, problem.code)
        facts, request_id = {"why": problem.code}, getattr(scope.get("factory.exchange"), "request_id", "")
        self._on_denial(f"{scope['method']} {path}", f"key:{key_id}", source=source, request_id=request_id, facts=facts)
        if problem.kind.status != 401 or told is None:
            return  # who shows none does not guess
        often = self._fails_too_often(scope)
        failures = self._failures.setdefault(source, deque(maxlen=FAILURES))
        failures.append(asyncio.get_running_loop().time())
        self._failures.move_to_end(source)
        if len(self._failures) > MOST_SOURCES:
            self._failures.popitem(last=False)
        if often:
            raise Problem(
                "too_many_failures",
                f"more than {FAILURES} wrong keys from {source} in {FAILURES_WINDOW_S:g} s; a valid one still opens",
                retry_after_s=FAILURES_WINDOW_S,
            )

    def _fails_too_often(self, scope: Scope) -> bool:
        failures = self._failures.get(source_of(scope))
        since = asyncio.get_running_loop().time() - FAILURES_WINDOW_S
        return failures is not None and len(failures) >= FAILURES and failures[0] > since


class RequireKey:
    """A FastAPI dependency that lets in who has a key with the scope `needs`, and gives the `Caller`."""

    def __init__(self, needs: str) -> None:
        self.needs = needs

    async def __call__(self, request: Request) -> Caller:
        """Say who asks."""
        request.scope["factory.exchange"].check()
        door: Door = request.app.state.service.door
        return await door.admit(request.scope, self.needs)


def require_key(needs: str) -> RequireKey:
    """Return the dependency of a route that needs a scope."""
    return RequireKey(needs)


COOKIE = "factory_key"
"""Where a browser keeps the key of the console's session."""


def presented_key(scope: Scope) -> str | None:
    """
    Return the key that a request carries: `Authorization: Bearer …` or `x-api-key`; None where there is none.

    A browser's cookie counts where the request has the console's own header, which no other site's page can send.

    Raises:
        Problem: there are several, or the authorization is of another kind.

    """
    found = [(name, value) for name, value in scope["headers"] if name in (b"authorization", b"x-api-key")]
    if len(found) > 1 and len({name for name, _ in found}) < len(found):
        raise Problem("unauthorized", "a request has one key, not several")
    told: Mapping[bytes, bytes] = dict(found)
    if b"authorization" in told:
        kind, _, key = told[b"authorization"].partition(b" ")
        if kind.lower() != b"bearer" or not key.strip():
            raise Problem("unauthorized", "allowed is `Authorization: Bearer KEY`, or `x-api-key: KEY`")
        return str(key.strip(), "latin-1")
    return str(told[b"x-api-key"], "latin-1") if b"x-api-key" in told else _in_cookie(scope)


def _in_cookie(scope: Scope) -> str | None:
    headers = dict(scope["headers"])
    if b"x-factory-console" not in headers:
        return None
    for each in str(headers.get(b"cookie", b""), "latin-1").split(";"):
        name, _, value = each.strip().partition("=")
        if name == COOKIE and value:
            return value
    return None
