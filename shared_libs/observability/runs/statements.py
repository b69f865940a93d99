"""
The tables of the store of runs, and every statement on them: text that SQLite and PostgreSQL both take.

Where the two differ a statement stands in the `Dialect`. Values are bound by name, never written into a statement.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any, TypedDict

import msgspec

from shared_libs.atomic.errors import MisuseError, RunStoreError
from shared_libs.atomic.types import Usage
from shared_libs.observability.runs.rows import STATUSES, Order, RunRow, cursor, first_id, read_cursor
from shared_libs.observability.runs.words import phrases_of

HEAD = 300
"""Characters of question and answer in a list."""

MOST = 500
"""Rows of one page at the most."""

Params = dict[str, Any]


class Dialect(msgspec.Struct, frozen=True):
    """
    What the two databases say differently.

    `steps` make the tables: the statements of step n bring them from form n to n + 1. `set_words` keeps the words of a
    run for the search, `has_words` is the condition that they match `:text`, in the tables `searched`, where a run's
    number is `searched_id`. `has_table` asks for the table `:name`. `dropped` follows what drops run `:id`.
    """

    steps: tuple[tuple[str, ...], ...]
    set_words: str
    has_words: str
    has_table: str
    searched: str = "factory_runs"
    searched_id: str = "id"
    dropped: tuple[str, ...] = ()


class Change(msgspec.Struct, frozen=True):
    """A statement that changes something, with its values."""

    statement: str
    values: Params


def together(changes: Sequence[Change]) -> Iterator[tuple[str, list[Params]]]:
    """Yield each statement once for all changes in a row that it makes, with the values of each."""
    for statement, same in groupby(changes, key=lambda change: change.statement):
        yield statement, [change.values for change in same]


_RUNS = """
CREATE TABLE factory_runs (
  id %s PRIMARY KEY, run_id TEXT NOT NULL, team TEXT NOT NULL, source TEXT NOT NULL, agent TEXT NOT NULL,
  model TEXT NOT NULL, session_id TEXT, parent_run_id TEXT, status TEXT NOT NULL, stop_reason TEXT NOT NULL DEFAULT '',
  started_at TEXT NOT NULL, timeout_s DOUBLE PRECISION NOT NULL, ends_by DOUBLE PRECISION NOT NULL,
  elapsed_s DOUBLE PRECISION, usage TEXT, cost_usd DOUBLE PRECISION, rehearsal INTEGER NOT NULL DEFAULT 0,
  longest TEXT NOT NULL DEFAULT '', longest_s DOUBLE PRECISION, why TEXT NOT NULL DEFAULT '',
  parts TEXT NOT NULL DEFAULT '[]', question TEXT NOT NULL, answer TEXT, error TEXT
)
"""
_EVENTS = """
CREATE TABLE factory_run_events (
  run BIGINT NOT NULL, seq BIGINT NOT NULL, event TEXT NOT NULL, PRIMARY KEY (run, seq)
)
"""
_TABLES = (
    _EVENTS,
    "CREATE INDEX factory_runs_by_name ON factory_runs (run_id)",
    "CREATE INDEX factory_runs_by_team ON factory_runs (team, id)",
    "CREATE INDEX factory_runs_by_session ON factory_runs (session_id, id)",
    "CREATE INDEX factory_runs_by_agent ON factory_runs (agent, id)",
    "CREATE INDEX factory_runs_by_status ON factory_runs (status, id)",
    "CREATE INDEX factory_runs_by_parent ON factory_runs (parent_run_id, id)",
    "CREATE INDEX factory_runs_by_time_taken ON factory_runs (elapsed_s, id)",
)

_SLOWEST_OF_A_TEAM = ("CREATE INDEX factory_runs_by_team_and_time_taken ON factory_runs (team, elapsed_s, id)",)

_REQUESTS = """
CREATE TABLE factory_run_requests (
  run BIGINT NOT NULL, seq BIGINT NOT NULL, request TEXT NOT NULL, PRIMARY KEY (run, seq)
)
"""

_SLOWEST_OF_A_KIND = (
    "CREATE INDEX factory_runs_by_team_status_and_time_taken ON factory_runs (team, status, elapsed_s, id)",
    "CREATE INDEX factory_runs_by_status_and_time_taken ON factory_runs (status, elapsed_s, id)",
    "CREATE INDEX factory_runs_by_agent_and_time_taken ON factory_runs (agent, elapsed_s, id)",
)

_OF_THOSE_THAT_HAVE_IT = tuple(
    [
        statement
        for name, columns, has in (
            ("session", "session_id, id", "session_id"),
            ("parent", "parent_run_id, id", "parent_run_id"),
            ("time_taken", "elapsed_s, id", "elapsed_s"),
            ("team_and_time_taken", "team, elapsed_s, id", "elapsed_s"),
            ("team_status_and_time_taken", "team, status, elapsed_s, id", "elapsed_s"),
            ("status_and_time_taken", "status, elapsed_s, id", "elapsed_s"),
            ("agent_and_time_taken", "agent, elapsed_s, id", "elapsed_s"),
        )
        for statement in (
            f"DROP INDEX factory_runs_by_{name}",
            f"CREATE INDEX factory_runs_by_{name} ON factory_runs ({columns}) WHERE {has} IS NOT NULL",
        )
    ]
)
"""A run that begins is in no index of what it has not: that was most of what it cost to write its row twice."""

SQLITE = Dialect(
    steps=(
        (
            _RUNS % "INTEGER",  # which makes it the row's own number
            *_TABLES,
            "CREATE VIRTUAL TABLE factory_run_words USING fts5(words, tokenize = 'unicode61 remove_diacritics 0')",
        ),
        _SLOWEST_OF_A_TEAM,
        (_REQUESTS,),
        _SLOWEST_OF_A_KIND,
        _OF_THOSE_THAT_HAVE_IT,
    ),
    set_words="INSERT OR REPLACE INTO factory_run_words (rowid, words) VALUES (:id, :words)",
    has_words="factory_run_words MATCH :text",
    has_table="SELECT 1 FROM sqlite_master WHERE name = :name",
    # the words first, and in their own order: so the newest runs are read, and not all that match
    searched="factory_run_words CROSS JOIN factory_runs ON id = factory_run_words.rowid",
    searched_id="factory_run_words.rowid",
    dropped=("DELETE FROM factory_run_words WHERE rowid = :id", "PRAGMA incremental_vacuum(1000)"),
)
POSTGRES = Dialect(
    steps=(
        (
            _RUNS % "BIGINT",
            *_TABLES,
            "ALTER TABLE factory_runs ADD COLUMN words tsvector",
            "CREATE INDEX factory_runs_by_words ON factory_runs USING gin (words)",
        ),
        _SLOWEST_OF_A_TEAM,
        (_REQUESTS,),
        _SLOWEST_OF_A_KIND,
        _OF_THOSE_THAT_HAVE_IT,
    ),
    set_words="UPDATE factory_runs SET words = to_tsvector('simple', :words) WHERE id = :id",
    has_words="words @@ to_tsquery('simple', :text)",
    has_table="SELECT 1 WHERE to_regclass(:name) IS NOT NULL",
)

MAKE_FORM = "CREATE TABLE factory_runs_form (form INTEGER NOT NULL)"
FORM = "SELECT max(form) FROM factory_runs_form"
SET_FORM = "INSERT INTO factory_runs_form (form) VALUES (:form)"

BEGIN_RUN = """
INSERT INTO factory_runs (id, run_id, team, source, agent, model, session_id, parent_run_id, status, started_at,
  timeout_s, ends_by, rehearsal, question)
VALUES (:id, :run_id, :team, :source, :agent, :model, :session_id, :parent_run_id, 'running', :started_at,
  :timeout_s, :ends_by, :rehearsal, :question)
"""
RESUME_RUN = "UPDATE factory_runs SET status = 'running', stop_reason = '', ends_by = :ends_by WHERE id = :id"
END_RUN = """
UPDATE factory_runs SET status = :status, stop_reason = :stop_reason, answer = :answer, error = :error,
  elapsed_s = :elapsed_s, usage = :usage, cost_usd = :cost_usd, longest = :longest, longest_s = :longest_s,
  why = :why, parts = :parts, ends_by = :ends_by
WHERE id = :id
"""
ADD_EVENT = "INSERT INTO factory_run_events (run, seq, event) VALUES (:id, :seq, :event) ON CONFLICT DO NOTHING"
ADD_REQUEST = """
INSERT INTO factory_run_requests (run, seq, request) VALUES (:id, :seq, :request) ON CONFLICT DO NOTHING
"""
DROP_REQUESTS = "DELETE FROM factory_run_requests WHERE run = :id"
DROP_EVENTS = "DELETE FROM factory_run_events WHERE run = :id"
DROP_RUN = "DELETE FROM factory_runs WHERE id = :id"
OLD_RUNS = """
SELECT id FROM factory_runs WHERE id < :before AND (status = 'running' AND ends_by < :now
  OR status = 'paused' AND ends_by < :paused_before OR status NOT IN ('running', 'paused') AND ends_by < :ended_before)
  ORDER BY id LIMIT :limit
"""
RUNS_OF_SESSION = """
WITH RECURSIVE gone(id, run_id) AS (
  SELECT id, run_id FROM factory_runs WHERE team = :team AND agent = :agent AND session_id = :session_id
  UNION SELECT below.id, below.run_id FROM factory_runs below JOIN gone ON below.parent_run_id = gone.run_id
    WHERE below.team || '' = :team)
SELECT id FROM gone ORDER BY id DESC LIMIT :limit
"""
"""Those of the agents that its runs called among them; the last first, so that none is left without its caller.

They are found by their callers: the team behind them is a text that is made, so that no database looks by that."""
EVENTS = "SELECT seq, event FROM factory_run_events WHERE run = :id AND seq > :after ORDER BY seq LIMIT :limit"
REQUESTS = "SELECT seq, request FROM factory_run_requests WHERE run = :id AND seq > :after ORDER BY seq LIMIT :limit"
LIKE_IT = """
SELECT elapsed_s, parts FROM factory_runs WHERE agent = :agent AND team = :team AND status = 'answered'
  AND run_id <> :run_id ORDER BY id DESC LIMIT 200
"""
ALL_EVENTS = "SELECT event FROM factory_run_events WHERE run = :id ORDER BY seq"
LAST_EVENT = "SELECT event FROM factory_run_events WHERE run = :id ORDER BY seq DESC LIMIT 1"

_SHORT = (
    *("id", "run_id", "team", "source", "agent", "model", "session_id", "parent_run_id", "status", "stop_reason"),
    *("started_at", "timeout_s", "ends_by", "elapsed_s", "usage", "cost_usd", "rehearsal", "longest", "longest_s"),
    *("why", "parts"),
)
_LISTED = ", ".join([*_SHORT, *(f"substr({name}, 1, {HEAD}) AS {name}" for name in ("question", "answer", "error"))])
_WHOLE = ", ".join([*_SHORT, "question", "answer", "error"])


class WantedRuns(TypedDict, total=False):
    """Which runs are wanted, as arguments."""

    team: str | None
    status: str | None
    agent: str | None
    session_id: str | None
    since: datetime | None
    until: datetime | None
    text: str | None
    parent: str | None
    prefix: str | None


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """
    Which runs are wanted; None leaves a thing open.

    `parent` is the run whose sub-agents' runs they are, `prefix` how their ids begin.
    """

    team: str | None = None
    status: str | None = None
    agent: str | None = None
    session_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    text: str | None = None
    parent: str | None = None
    prefix: str | None = None

    def conditions(self, dialect: Dialect, its_id: str) -> tuple[list[str], Params]:
        """
        Return the conditions of a statement, and their values; `its_id` is what ranges of a run's number are said of.

        Raises:
            MisuseError: a status nobody has, or a text without a word.

        """
        exact = {"team": self.team, "agent": self.agent, "session_id": self.session_id, "parent_run_id": self.parent}
        values: Params = {name: value for name, value in exact.items() if value is not None}
        conditions = [f"{name} = :{name}" for name in values]
        if self.prefix is not None:
            conditions.append("run_id >= :prefix AND run_id < :behind_prefix")
            values |= {"prefix": self.prefix, "behind_prefix": self.prefix + "\U0010ffff"}
        elif self.parent is None:
            conditions.append("coalesce(parent_run_id, '') = ''")  # said so that no index is chosen for it
        for name, at, sign in (("since", self.since, ">="), ("until", self.until, "<")):
            if at is not None:
                conditions.append(f"{its_id} {sign} :{name}")
                values[name] = first_id(at)
        if self.status is not None:
            if self.status not in STATUSES:
                raise MisuseError(f"status {self.status!r}: allowed are {', '.join(STATUSES)}")
            under_way = self.status in ("running", "unfinished")
            conditions.append("status = :status")
            values["status"] = "running" if under_way else self.status
            if under_way:
                conditions.append("ends_by >= :now" if self.status == "running" else "ends_by < :now")
                values["now"] = time.time()
        if self.text is not None:
            conditions.append(dialect.has_words)
            values["text"] = _searched(dialect, self.text)
        return conditions, values


def select_page(wanted: Wanted, order: Order, after: str | None, limit: int, dialect: Dialect) -> tuple[str, Params]:
    """
    Return the statement of one page, which asks for one row more than it has: so it is known whether there are more.

    Raises:
        MisuseError: an order, a limit or a cursor that cannot be.

    """
    if order not in ("newest", "slowest"):
        raise MisuseError(f"order {order!r}: allowed are 'newest' and 'slowest'")
    if not 1 <= limit <= MOST:
        raise MisuseError(f"limit is a number from 1 to {MOST}, not {limit!r}")
    source, its_id = ("factory_runs", "id") if wanted.text is None else (dialect.searched, dialect.searched_id)
    # so that no range of ids is chosen whose runs would have to be sorted: their order is that of an index
    range_of = f"+{its_id}" if order == "slowest" and wanted.text is None else its_id
    conditions, values = wanted.conditions(dialect, range_of)
    if order == "slowest":
        conditions.append("elapsed_s IS NOT NULL")
    if after is not None:
        values["before"], seconds = read_cursor(order, after)
        if order == "newest":
            conditions.append(f"{its_id} < :before")
        else:
            conditions.append(f"(elapsed_s < :seconds OR (elapsed_s = :seconds AND {its_id} < :before))")
            values["seconds"] = seconds
    by = f"{its_id} DESC" if order == "newest" else f"elapsed_s DESC, {its_id} DESC"
    where = " AND ".join(conditions) or "TRUE"
    return f"SELECT {_LISTED} FROM {source} WHERE {where} ORDER BY {by} LIMIT {limit + 1}", values  # noqa: S608


def select_run(run_id: str, team: str | None) -> tuple[str, Params]:
    """Return the statement of the newest run of this name."""
    its = "run_id = :run_id" + ("" if team is None else " AND team = :team")
    values = {"run_id": run_id} | ({} if team is None else {"team": team})
    return f"SELECT {_WHOLE} FROM factory_runs WHERE {its} ORDER BY id DESC LIMIT 1", values  # noqa: S608


_usage = msgspec.json.Decoder(Usage)


def decoded(kept: str, read: Callable[[str], Any] = msgspec.json.decode) -> Any:
    """
    Read the JSON that a column holds.

    Raises:
        RunStoreError: it is damaged.

    """
    try:
        return read(kept)
    except msgspec.DecodeError as error:
        raise RunStoreError(f"what the store of runs holds is damaged: {error}; name another store") from error


def row_of(found: Sequence[Any]) -> RunRow:
    """Make a row of what a statement gave."""
    values = dict(zip(_SHORT, found, strict=False))
    question, answer, error = found[len(_SHORT) :]
    ends_by, usage, parts = values.pop("ends_by"), values.pop("usage"), values.pop("parts")
    del values["id"]
    if values["status"] == "running" and ends_by < time.time():
        values["status"] = "unfinished"
    values["rehearsal"] = bool(values["rehearsal"])
    return RunRow(
        **values,
        usage=Usage() if usage is None else decoded(usage, _usage.decode),
        parts=decoded(parts),
        question=question,
        answer=answer,
        error=error,
    )


def cursor_behind(found: Sequence[Any], order: Order) -> str:
    """Return the cursor behind a row as a statement gave it."""
    return cursor(order, found[0], found[_SHORT.index("elapsed_s")])


def _searched(dialect: Dialect, text: str) -> str:
    """Write a query as the database wants it; its words are letters and digits alone, so nothing has to be escaped."""
    phrases = phrases_of(text)
    if not phrases:
        raise MisuseError(f"text {text[:40]!r} has no word to look for")
    if dialect is SQLITE:
        return " AND ".join(f'"{" ".join(words)}" *' for words in phrases)
    return " & ".join(f"({' <-> '.join([*words[:-1], f'{words[-1]}:*'])})" for words in phrases)
