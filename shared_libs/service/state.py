"""What one service holds: opened and closed by the application's lifespan, and found by every route."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack

from shared_libs.atomic.deadline import Deadline
from shared_libs.atomic.errors import ConfigError, RunStoreError
from shared_libs.atomic.events import EventSink, WithRequests
from shared_libs.observability.calls import observed
from shared_libs.observability.otel_export import telemetry_from_environment
from shared_libs.observability.prometheus import PrometheusMetrics
from shared_libs.observability.run_store import RunStore
from shared_libs.service.admission import Admission
from shared_libs.service.audit import AuditLog, AuditTrail, server_name
from shared_libs.service.bodies import Bodies
from shared_libs.service.callers import Caller
from shared_libs.service.catalogue import Catalogue
from shared_libs.service.claims import Claims
from shared_libs.service.database import ServiceDatabase
from shared_libs.service.durable import Queue
from shared_libs.service.faces.mcp import McpFace
from shared_libs.service.faces.responses_kept import KeptResponse, KeptResponses
from shared_libs.service.faces.responses_shelf import ResponseShelf
from shared_libs.service.faces.wanted import Outcome
from shared_libs.service.figures import ServiceFigures
from shared_libs.service.key_store import KeyStore, key_store
from shared_libs.service.keys import Door
from shared_libs.service.lag import LoopLag
from shared_libs.service.leases import LeasedLedger
from shared_libs.service.ledger_sql import SQLLedger
from shared_libs.service.library import Library
from shared_libs.service.limits import CallerLimits
from shared_libs.service.live import LiveRun, Runs, hear
from shared_libs.service.oidc import OidcTokens
from shared_libs.service.paused import PausedRuns
from shared_libs.service.repeats import Repeats, Shared
from shared_libs.service.settings import FILE_NAME, KEYS_NAME, Settings

_log = logging.getLogger("shared_libs.service")


def _keys_of(settings: Settings) -> KeyStore | None:
    return None if settings.keys is None else key_store(settings.keys, settings.configs)


def _shelf(database: ServiceDatabase, settings: Settings) -> ResponseShelf | None:
    """Keep responses as long as runs, where the words of runs are kept at all."""
    days = settings.retention_days
    return ResponseShelf(database, None if days is None else days * 86_400) if settings.contents else None


class Service:
    """
    The parts of a service.

    Args:
        settings: how it runs.
        on_note: gets what whoever started it should know, such as an agent that is left out.

    """

    def __init__(self, settings: Settings, on_note: Callable[[str], None] = _log.warning) -> None:
        self.settings = settings
        self._database = ServiceDatabase(settings.shared_url)
        self.audit = AuditTrail(AuditLog(self._database, settings.pepper))
        tokens = None if settings.oidc is None else OidcTokens(settings.oidc)
        self.door = Door(_keys_of(settings), pepper=settings.pepper, tokens=tokens, on_denial=self.audit.note_denial)
        self.metrics = PrometheusMetrics()
        self.telemetry = telemetry_from_environment()
        measuring: list[EventSink] = [self.metrics] if self.telemetry is None else [self.metrics, self.telemetry]
        self._measuring = measuring
        observers = [WithRequests(hear) if settings.contents else hear, *measuring]
        self.catalogue = Catalogue(settings.configs, observers, apart=(FILE_NAME, KEYS_NAME, settings.keys))
        self.library = Library(self.catalogue, settings.collections)
        self.limits = CallerLimits(LeasedLedger(SQLLedger(self._database)), settings.teams)
        self.lag = LoopLag()
        self.admission = Admission(settings.slots, self.limits, self.lag)
        self.metrics.registry.register(ServiceFigures(self.admission, self.limits, self.lag))
        self.paused = PausedRuns()
        self.runs = Runs(self.admission, self.paused, orphan_grace_s=settings.orphan_grace_s)
        self.store = RunStore(settings.runs_url, contents=settings.contents, retention_days=settings.retention_days)
        self.queue = Queue(settings.runs_url)
        self.run_repeats: Repeats[LiveRun] = Repeats()
        self.responses = KeptResponses(_shelf(self._database, settings))
        self.response_repeats: Repeats[KeptResponse] = Repeats()
        self.outcomes: Repeats[Shared[Outcome]] = Repeats()
        self.claims = Claims(self._database)
        self.bodies = Bodies()
        self.mcp = McpFace()
        self.draining = False
        self.drained_by: Deadline | None = None
        self._seen: dict[str, str] = {}
        self._on_note = on_note
        self._stack = AsyncExitStack()

    def calling(self, deadline: Deadline) -> observed:
        """Ask models and collections inside, for no run, within a deadline: figures and spans are made of it."""
        return observed(*self._measuring, deadline=deadline)

    async def aopen(self) -> None:
        """
        Open everything.

        Raises:
            ConfigError: the folder holds nothing that can be asked.

        """
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.store.aclose)
            stack.push_async_callback(self.queue.aclose)
            await self._open_store()
            if told := await self.door.aopen():
                self._on_note(told)
            await stack.enter_async_context(self.metrics.watching_the_loop(self.lag.look))
            stack.push_async_callback(self.catalogue.aclose)
            stack.push_async_callback(self.library.aclose)
            stack.push_async_callback(self.mcp.aclose)
            await self.catalogue.load()
            self._tell_problems()
            stack.push_async_callback(self.door.aclose)
            stack.push_async_callback(self.limits.aclose)
            stack.push_async_callback(self.audit.aclose)
            stack.push_async_callback(self.claims.aclose)
            self._note_definitions()
            reloading = asyncio.create_task(self._reload())
            stack.callback(reloading.cancel)
            self._stack = stack.pop_all()

    async def aclose(self) -> None:
        """Let what is under way end within `drain_s`, in which its server has begun, and close everything."""
        self.draining = True
        deadline = self.drained_by or Deadline.after(self.settings.drain_s)
        await self.responses.leave()
        await self.runs.drain(deadline)
        await self.responses.drain(deadline)
        await self._stack.aclose()

    async def finish(self, deadline: Deadline) -> None:
        """Let what is under way end until the deadline, and have the rest answered: runs with what they have."""
        await self.runs.drain(deadline)
        await asyncio.sleep(deadline.remaining() or 0.0)
        self.admission.stop()

    async def _open_store(self) -> None:
        try:
            await self.store.aopen()
        except RunStoreError as error:  # runs are answered without it; what they tell waits until it is there
            self._on_note(f"{error}; runs are answered, and cannot be looked at until it is there")

    def record(self, caller: Caller) -> EventSink:
        """Return what takes the events of a caller's run."""
        store, team = self.store, caller.team
        return lambda event: store.record(event, team, "service")

    async def _reload(self) -> None:
        while True:
            await asyncio.sleep(self.settings.reload_s)
            try:
                if await self.catalogue.load():
                    self._note_definitions()
                    self._tell_problems()
            except Exception:  # noqa: BLE001 - whatever it is, the service goes on with what it has
                _log.exception("the definitions could not be looked at; what there was stays")

    def _note_definitions(self) -> None:
        """Note what the files of the folder are now, where they are not what they were."""
        seen, self._seen = self._seen, dict(self.catalogue.contents)
        for name in sorted(seen.keys() | self._seen.keys()):
            if seen.get(name) != self._seen.get(name):
                what = "refused" if name in self.catalogue.problems else "changed" if name in self._seen else "removed"
                action = "settings.changed" if name == FILE_NAME else f"definition.{what}"
                self.audit.note(action, f"file:{name}", server_name(), after=self._seen.get(name, ""))

    def _tell_problems(self) -> None:
        for told in (self.catalogue.problems, self.catalogue.notes):
            for name, lines in told.items():
                for line in lines:
                    self._on_note(line if name in line else f"{name}: {line}")
        if not self.catalogue.size and self.catalogue.problems:
            raise ConfigError([line for lines in self.catalogue.problems.values() for line in lines])
