"""
The address of a database, as people have it: one reading for memory, limits, runs and the `sql` tool.

Every platform gives `postgres://…?sslmode=require`, which is libpq's way of saying it; SQLAlchemy and asyncpg have ways
of their own. SQLAlchemy is loaded when it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlencode

from shared_libs.atomic.errors import MisuseError

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

DRIVERS = {
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "postgresql+asyncpg": "postgresql+asyncpg",
    "sqlite": "sqlite+aiosqlite",
    "sqlite+aiosqlite": "sqlite+aiosqlite",
}
"""The schemes that are taken, and the driver of each."""

ALLOWED = "sqlite:///file.db and postgresql://user:password@host/database"

_FOR_LIBPQ = frozenset(
    {
        *("sslmode", "sslcert", "sslkey", "sslrootcert", "sslcrl", "sslpassword", "sslnegotiation"),
        *("ssl_min_protocol_version", "ssl_max_protocol_version", "target_session_attrs"),
        *("application_name", "options", "passfile", "krbsrvname", "gsslib", "service", "servicefile"),
    }
)
"""What asyncpg reads in a libpq address (its `connect`, `dsn`)."""

_WITHOUT_MEANING = frozenset(
    {
        *("channel_binding", "gssencmode", "sslcompression", "sslsni", "keepalives", "keepalives_idle"),
        *(
            "keepalives_interval",
            "keepalives_count",
            "tcp_user_timeout",
            "client_encoding",
            "fallback_application_name",
        ),
    }
)
"""What libpq knows and asyncpg has nothing for; sent on, the server would refuse it as a setting."""


class DatabaseURL(NamedTuple):
    """An address as SQLAlchemy takes it: `url`, and `connect_args` for the driver."""

    url: URL
    connect_args: dict[str, Any]

    @property
    def is_postgres(self) -> bool:
        """Whether it is PostgreSQL, and not SQLite."""
        return self.url.drivername == "postgresql+asyncpg"

    @property
    def shown(self) -> str:
        """The address without secrets: a query may hold a password too."""
        return self.url.set(query={}).render_as_string(hide_password=True)


def database_url(url: str, what: str) -> DatabaseURL:
    """
    Read an address: `postgresql://`, `postgres://`, `sqlite:///`, with SQLAlchemy's names of drivers or without.

    Args:
        url: the address. Of libpq's parameters those that asyncpg knows hold (`sslmode`, `sslrootcert`,
            `application_name`, …), `connect_timeout` is in seconds, and `pgbouncer=true` prepares no statements.
        what: whose it is, for the error.

    Raises:
        MisuseError: it is no such address; the text repeats no password.

    """
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        read = make_url(url)
    except (ArgumentError, ValueError, AttributeError):
        read = None
    if read is None or read.drivername not in DRIVERS:
        scheme = f", not {read.drivername}:…" if read is not None else ""
        raise MisuseError(f"{what}: allowed are {ALLOWED}{scheme}")
    read = read.set(drivername=DRIVERS[read.drivername])
    if read.drivername != "postgresql+asyncpg":
        return DatabaseURL(read, {})
    query: dict[str, Any] = {name: value for name, value in read.query.items() if name not in _WITHOUT_MEANING}
    arguments: dict[str, Any] = {}
    if wait := query.pop("connect_timeout", None):
        try:
            arguments["timeout"] = float(wait)
        except (TypeError, ValueError):
            raise MisuseError(f"{what}: connect_timeout is a number of seconds, not {wait!r}") from None
    if str(query.pop("pgbouncer", "")).lower() in ("true", "1"):
        arguments["statement_cache_size"] = 0
        query["prepared_statement_cache_size"] = "0"
    if told := {name: query.pop(name) for name in sorted(query.keys() & _FOR_LIBPQ)}:
        arguments["dsn"] = f"postgresql://?{urlencode(told)}"
    return DatabaseURL(read.set(query=query), arguments)
