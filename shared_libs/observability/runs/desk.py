"""What is done in the writer's thread: events become changes of the tables, old runs are forgotten."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from shared_libs.atomic.errors import RunStoreError
from shared_libs.atomic.events import ModelAsked, RunFinished, RunStarted, TextDelta, ThinkingDelta, decode_event
from shared_libs.atomic.results import AgentResult
from shared_libs.observability.attribution import Attributor
from shared_libs.observability.redact import redact_start, redact_text
from shared_libs.observability.runs.contents import kept, kept_request
from shared_libs.observability.runs.hub import Hub
from shared_libs.observability.runs.rows import LATE_S, SHOWN, first_id, moment, new_id
from shared_libs.observability.runs.shelf import Shelf
from shared_libs.observability.runs.statements import (
    ADD_EVENT,
    ADD_REQUEST,
    ALL_EVENTS,
    BEGIN_RUN,
    DROP_EVENTS,
    DROP_REQUESTS,
    DROP_RUN,
    END_RUN,
    OLD_RUNS,
    RESUME_RUN,
    Change,
    row_of,
    select_run,
)
from shared_libs.observability.runs.words import words_of

_log = logging.getLogger("shared_libs.observability")

PRUNED_AT_ONCE = 200
"""Runs that one transaction forgets."""

MOST_OPEN = 10_000
"""Runs under way that are known without looking them up."""


class Told(msgspec.Struct, frozen=True):
    """An event as it was told: its JSON, whose it is, and where it came from."""

    event: bytes
    team: str
    source: str


class _Run(msgspec.Struct):
    """A run under way: its number in the tables, what was asked, what its time went on, and the text that may go on."""

    id: int
    question: str
    attributor: Attributor
    piece: dict[str, Any] | None = None


class Desk:
    """
    Turns events into changes, and makes them.

    Pieces of text are joined until something else happens: a secret is known by its shape, and a piece has none.

    Args:
        shelf: where they are made, and where the runs of other processes are looked up that go on in this one.
        contents: whether the words of users, models and tools are kept.
        retention_days: how long runs are kept.

    """

    def __init__(self, shelf: Shelf, *, contents: bool, retention_days: float | None) -> None:
        self.shelf = shelf
        self.hub = Hub()
        self.contents = contents
        self._retention_days = retention_days
        self._open: OrderedDict[tuple[str, str], _Run] = OrderedDict()

    def begin_anew(self) -> None:
        """Know no run and no connection, in a forked child: they are the parent's."""
        self.hub = Hub()
        self._open.clear()
        self.shelf.begin_anew()

    def changes(self, told: Told) -> list[Change]:
        """
        Return what an event changes; nothing where nobody knows its run, or a piece of text may still go on.

        Raises:
            RunStoreError: the run it belongs to had to be looked up, and could not be; nothing has been taken.

        """
        event = decode_event(told.event)
        key = told.team, event.run_id
        run = self._open.get(key)
        begins = isinstance(event, RunStarted) and not event.resumed
        if run is None and not begins:
            run = self._looked_up(*key)
        if isinstance(event, ModelAsked):
            return [] if run is None or not self.contents else [self._request(run.id, event)]
        changes: list[Change] = []
        data: dict[str, Any] = msgspec.json.decode(told.event)
        if run is None or begins:
            if not isinstance(event, RunStarted):
                return []
            run = _Run(new_id(event.started_at), self._shown(event.question) or "", Attributor())
            changes.append(Change(BEGIN_RUN, self._begun(event, told, run)))
            words = " ".join(words_of(run.question))
            changes.append(Change(self.shelf.dialect.set_words, {"id": run.id, "words": words}))
        elif isinstance(event, RunStarted):
            changes.append(Change(RESUME_RUN, {"id": run.id, "ends_by": _ends_by(datetime.now(UTC), event.timeout_s)}))
        self._remember(key, run)
        run.attributor.take(event)
        if isinstance(event, TextDelta | ThinkingDelta):
            piece, run.piece = run.piece, data
            if piece is not None and piece["type"] == data["type"]:
                run.piece = piece | {"text": piece["text"] + data["text"]}
                return changes
            if piece is not None:
                changes.append(self._event(run.id, piece))
            return changes
        if run.piece is not None:
            changes.append(self._event(run.id, run.piece))
            run.piece = None
        changes.append(self._event(run.id, data))
        if isinstance(event, RunFinished):
            changes += self._ended(run, event.result)
            if event.result.status != "paused":
                del self._open[key]
        return changes

    def write(self, changes: Sequence[Change]) -> None:
        """
        Make changes, and tell those who follow the runs.

        Raises:
            RunStoreError: they are not kept.

        """
        if changes:
            self.shelf.write(changes)
            self.hub.tell(change.values["id"] for change in changes)

    def prune_some(self) -> int:
        """
        Forget some of the runs that are older than they may be; return how many.

        Raises:
            RunStoreError: they are not forgotten.

        """
        if self._retention_days is None:
            return 0
        before = first_id(datetime.now(UTC) - timedelta(days=self._retention_days))
        found = self.shelf.select(OLD_RUNS, {"before": before, "limit": PRUNED_AT_ONCE})
        drops = (DROP_EVENTS, DROP_REQUESTS, DROP_RUN, *self.shelf.dialect.dropped)
        self.write([Change(statement, {"id": row[0]}) for row in found for statement in drops])
        return len(found)

    def clear(self) -> None:
        """Write what is left, the pieces of text of runs that are still under way, and close the shelf."""
        rest = [self._event(run.id, run.piece) for run in self._open.values() if run.piece is not None]
        self._open.clear()
        try:
            self.write(rest)
        except RunStoreError as error:
            _log.warning("pieces of text are not recorded: %s", error)
        self.shelf.close()

    def _remember(self, key: tuple[str, str], run: _Run) -> None:
        self._open[key] = run
        self._open.move_to_end(key)
        if len(self._open) > MOST_OPEN:
            self._open.popitem(last=False)

    def _looked_up(self, team: str, run_id: str) -> _Run | None:
        """Find a run that began in another process, or long ago."""
        found = self.shelf.select(*select_run(run_id, team))
        if not found:
            return None
        run = _Run(found[0][0], row_of(found[0]).question, Attributor())
        for (event,) in self.shelf.select(ALL_EVENTS, {"id": run.id}):
            run.attributor.take(decode_event(event))
        return run

    def _begun(self, event: RunStarted, told: Told, run: _Run) -> dict[str, Any]:
        return {
            "id": run.id,
            "run_id": event.run_id,
            "team": told.team,
            "source": told.source,
            "agent": event.agent,
            "model": event.model,
            "session_id": event.session_id,
            "parent_run_id": event.parent_run_id,
            "started_at": moment(event.started_at).astimezone(UTC).isoformat(timespec="milliseconds"),
            "timeout_s": event.timeout_s,
            "ends_by": _ends_by(moment(event.started_at), event.timeout_s),
            "rehearsal": int(event.rehearsal),
            "question": run.question,
        }

    def _ended(self, run: _Run, result: AgentResult) -> list[Change]:
        spent = run.attributor.attribution()
        parts = spent.parts
        answer, error = self._shown(result.answer), redact_start(result.error or "", SHOWN).replace("\0", " ")
        row = {
            "id": run.id,
            "status": result.status,
            "stop_reason": result.stop_reason,
            "answer": answer,
            "error": error or None,
            "elapsed_s": result.elapsed_s,
            "usage": msgspec.json.encode(result.usage).decode(),
            "cost_usd": result.cost_usd,
            "longest": parts[0].label if parts else "",
            "longest_s": parts[0].seconds if parts else None,
            "why": redact_text(spent.why),
            "parts": msgspec.json.encode(parts).decode(),
        }
        words = " ".join(words_of(f"{run.question} {answer or ''} {error}"))
        return [Change(END_RUN, row), Change(self.shelf.dialect.set_words, {"id": run.id, "words": words})]

    def _event(self, id: int, data: dict[str, Any]) -> Change:
        event = msgspec.json.encode(kept(data, contents=self.contents)).decode()
        return Change(ADD_EVENT, {"id": id, "seq": data["seq"], "event": event})

    def _request(self, id: int, asked: ModelAsked) -> Change:
        request = msgspec.json.encode(kept_request(asked)).decode()
        return Change(ADD_REQUEST, {"id": id, "seq": asked.seq, "request": request})

    def _shown(self, text: str | None) -> str | None:
        """The beginning of a text, as a row has it."""
        if text is None or not self.contents:
            return None
        return redact_start(text, SHOWN).replace("\0", " ")


def _ends_by(start: datetime, timeout_s: float) -> float:
    """When a run that has no end by then has lost its process, in seconds since 1970."""
    return start.timestamp() + timeout_s + LATE_S
