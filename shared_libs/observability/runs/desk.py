"""What is done in the writer's thread: events become changes of the tables, old runs are forgotten."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from shared_libs.atomic.errors import RunStoreError
from shared_libs.atomic.events import (
    ModelAsked,
    RunFinished,
    RunStarted,
    TextDelta,
    ThinkingDelta,
    decode_event,
)
from shared_libs.atomic.results import AgentResult
from shared_libs.observability.attribution import Attribution, Attributor
from shared_libs.observability.encoding import json_bytes
from shared_libs.observability.redact import redact_data, redact_text
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
    RUNS_OF_SESSION,
    Change,
    Params,
    row_of,
    select_run,
)
from shared_libs.observability.runs.words import words_of

_log = logging.getLogger("shared_libs.observability")

PRUNED_AT_ONCE = 200
"""Runs that one transaction forgets."""

LONGEST_PAUSE_S = 365 * 86_400.0
"""Seconds for which a run that is paused is under way; nobody may ever decide."""

MOST_OPEN = 10_000
"""Runs under way that are known without looking them up."""


class Told(msgspec.Struct, frozen=True):
    """An event as it was told: its JSON, whose it is, and where it came from."""

    event: bytes
    team: str
    source: str


class _Run(msgspec.Struct):
    """
    A run under way.

    Its number in the tables, the words of what was asked, what its time went on, the run and the call that it is for,
    when it would have begun had it never paused (seconds since 1970, where this process has seen it), and the text that
    may go on: the event of its first piece, and the texts of all.
    """

    id: int
    words: list[str]
    attributor: Attributor
    made_by: tuple[str, str] | None = None
    since: float | None = None
    piece: TextDelta | ThinkingDelta | None = None
    texts: list[str] = []


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
        if isinstance(event, RunStarted):
            at = datetime.now(UTC) if event.resumed else moment(event.started_at)
            if run is None or begins:
                question = _row_text(event.question) if self.contents else ""
                made_by = (event.parent_run_id, event.parent_call_id or "") if event.parent_run_id else None
                run = _Run(new_id(at), words_of(question), Attributor(), made_by)
                changes.append(Change(BEGIN_RUN, _begun(event, told, run, question, at)))
                changes.append(self._words(run))
            else:
                changes.append(Change(RESUME_RUN, {"id": run.id, "ends_by": _ends_by(event, at)}))
            run.since = at.timestamp() - event.at_s
        elif run is None:
            return []
        self._remember(key, run)
        if isinstance(event, TextDelta | ThinkingDelta):
            run.attributor.take(event)
            if type(run.piece) is not type(event):
                changes += self._told_so_far(run)
                run.piece = event
            run.texts.append(event.text)
            return changes
        changes += self._told_so_far(run)
        text = kept(event, told.event, contents=self.contents)
        run.attributor.take(event if self.contents else decode_event(text))
        changes.append(_added(run.id, event.seq, text))
        if isinstance(event, RunFinished):
            spent = run.attributor.attribution()
            changes += self._ended(run, event.result, spent)
            if run.made_by is not None and (above := self._open.get((told.team, run.made_by[0]))) is not None:
                above.attributor.know(run.made_by[1], spent)
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
            self.shelf.write(self._in_order(changes))
            self.hub.tell(change.values["id"] for change in changes)

    def _in_order(self, changes: Sequence[Change]) -> list[Change]:
        """
        Put what costs less together together, and leave out words that others replace at once.

        Rows of runs stay in their order, before what belongs to them.
        """
        events = [change for change in changes if change.statement == ADD_EVENT]
        words = {change.values["id"]: change for change in changes if change.statement == self.shelf.dialect.set_words}
        apart = (ADD_EVENT, self.shelf.dialect.set_words)
        return [*(change for change in changes if change.statement not in apart), *events, *words.values()]

    def prune_some(self) -> int:
        """
        Forget some of the runs that are older than they may be and not under way; return how many.

        Raises:
            RunStoreError: they are not forgotten.

        """
        if self._retention_days is None:
            return 0
        before = datetime.now(UTC) - timedelta(days=self._retention_days)
        bounds = {"before": first_id(before), "now": time.time(), "ended_before": before.timestamp()}
        bounds["paused_before"] = before.timestamp() - LONGEST_PAUSE_S
        return self._forget(OLD_RUNS, bounds)

    def forget_some(self, team: str, agent: str, session_id: str) -> int:
        """Forget some of the runs of a session, with those of the agents they called; as `prune_some`."""
        return self._forget(RUNS_OF_SESSION, {"team": team, "agent": agent, "session_id": session_id})

    def _forget(self, which: str, bounds: Params) -> int:
        found = self.shelf.select(which, bounds | {"limit": PRUNED_AT_ONCE})
        gone = {row[0] for row in found}
        for key in [key for key, run in self._open.items() if run.id in gone]:
            del self._open[key]  # what is told of it later is nobody's
        drops = (DROP_EVENTS, DROP_REQUESTS, DROP_RUN, *self.shelf.dialect.dropped)
        self.write([Change(statement, {"id": row[0]}) for row in found for statement in drops])
        return len(found)

    def clear(self) -> None:
        """Write what is left, the pieces of text of runs that are still under way, and close the shelf."""
        rest = [change for run in self._open.values() for change in self._told_so_far(run)]
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
        run = _Run(found[0][0], words_of(row_of(found[0]).question), Attributor())
        for (event,) in self.shelf.select(ALL_EVENTS, {"id": run.id}):
            run.attributor.take(decode_event(event))
        return run

    def _ended(self, run: _Run, result: AgentResult, spent: Attribution) -> list[Change]:
        parts = spent.parts
        answer = None if result.answer is None or not self.contents else _row_text(result.answer)
        error = _row_text(result.error or "")
        row = {
            "id": run.id,
            "status": result.status,
            "stop_reason": result.stop_reason,
            "answer": answer,
            "error": error or None,
            "elapsed_s": result.elapsed_s,
            "ends_by": time.time() if run.since is None else run.since + result.elapsed_s,
            "usage": msgspec.json.encode(result.usage).decode(),
            "cost_usd": result.cost_usd,
            "longest": parts[0].label if parts else "",
            "longest_s": parts[0].seconds if parts else None,
            "why": redact_text(spent.why),
            "parts": msgspec.json.encode(parts).decode(),
        }
        run.words += words_of(f"{answer or ''} {error}")
        return [Change(END_RUN, row), self._words(run)]

    def _words(self, run: _Run) -> Change:
        return Change(self.shelf.dialect.set_words, {"id": run.id, "words": " ".join(run.words)})

    def _told_so_far(self, run: _Run) -> list[Change]:
        """Return the event that pieces of text are as one, and begin anew."""
        if run.piece is None:
            return []
        whole = msgspec.structs.replace(run.piece, text="".join(run.texts))
        run.piece = None
        run.texts.clear()
        return [_added(run.id, whole.seq, kept(whole, json_bytes(whole), contents=self.contents))]

    def _request(self, id: int, asked: ModelAsked) -> Change:
        request = json_bytes(kept_request(asked)).decode()
        return Change(ADD_REQUEST, {"id": id, "seq": asked.seq, "request": request})


def _added(id: int, seq: int, event: bytes) -> Change:
    return Change(ADD_EVENT, {"id": id, "seq": seq, "event": event.decode()})


def _row_text(text: str) -> str:
    """Return the beginning of a text, as a row has it."""
    masked: str = redact_data(text)
    return masked[:SHOWN].replace("\0", " ")


def _begun(event: RunStarted, told: Told, run: _Run, question: str, at: datetime) -> dict[str, Any]:
    return {
        "id": run.id,
        "run_id": event.run_id,
        "team": told.team,
        "source": told.source,
        "agent": event.agent,
        "model": event.model,
        "session_id": event.session_id,
        "parent_run_id": event.parent_run_id,
        "started_at": at.astimezone(UTC).isoformat(timespec="milliseconds"),
        "timeout_s": event.timeout_s,
        "ends_by": _ends_by(event, at),
        "rehearsal": int(event.rehearsal),
        "question": question,
    }


def _ends_by(event: RunStarted, at: datetime) -> float:
    """When a run that has begun, or goes on, has lost its process if it has no end; in seconds since 1970."""
    return at.timestamp() + event.timeout_s + LATE_S
