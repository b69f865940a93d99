"""
The address of a database, as people have it: one reading for memory, limits, runs and the `sql` tool.

Every platform gives `postgres://…?sslmode=require`, which is libpq's way of saying it; SQLAlchemy and asyncpg have ways
of their own. SQLAlchemy is loaded for who asks for its address; it takes longer to load than a list of runs to be read.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, unquote, urlencode

import msgspec

from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.loading import needs

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

_FOR_SQLITE = frozenset({"uri", "mode", "cache", "immutable", "nolock", "psow", "vfs"})
"""What SQLite itself reads in `sqlite:///file:name.db?…&uri=true`."""

_OF_THE_DRIVER = frozenset({"timeout", "check_same_thread", "isolation_level", "cached_statements", "detect_types"})
"""How long is waited, and where calls are made, is ours to say."""

_ADDRESS = re.compile(
    r"(?P<scheme>[\w+]+)://"
    r"(?:(?P<username>[^:/]*)(?::(?P<password>.*?))?@)?"
    r"(?:(?P<hosts>[^/?@]*,[^/?@]*)|(?:\[(?P<ipv6>[^/?\]]+)\]|(?P<host>[^/:?@]*))(?::(?P<port>\d*))?)"
    r"(?:/(?P<database>[^?]*))?(?:\?(?P<query>.*))?",
    re.DOTALL,
)
"""A password ends at the last `@` before a host: nothing of it may be taken for one, and be shown."""

_PORT = 5432


class DatabaseURL(msgspec.Struct, frozen=True, kw_only=True):
    """
    An address that was read.

    `query` holds what stands behind `?`, `libpq` those of it that asyncpg reads in a libpq address alone, and `options`
    what its `connect` is given as arguments. `hosts` are several servers, each with its port, of which one writes.
    """

    driver: str
    username: str | None = None
    password: str | None = None
    host: str | None = None
    port: int | None = None
    hosts: tuple[str, ...] = ()
    database: str | None = None
    query: dict[str, str | tuple[str, ...]] = {}
    libpq: dict[str, str] = {}
    options: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.shown!r})"

    @property
    def is_postgres(self) -> bool:
        """Whether it is PostgreSQL, and not SQLite."""
        return self.driver == "postgresql+asyncpg"

    @property
    def is_nowhere(self) -> bool:
        """Whether it is SQLite in memory, which is another database for every connection."""
        name, mode = self.database or "", str(self.query.get("mode"))
        return not self.is_postgres and (
            name in ("", ":memory:", "file::memory:") or "memory" in mode or "mode=memory" in name
        )

    @property
    def shown(self) -> str:
        """The address without secrets: a query may hold a password too."""
        return self._written(self.driver, "***")

    @property
    def server(self) -> str:
        """The address of a PostgreSQL without secrets, and without the name of a driver."""
        return self._written("postgresql", "***")

    @property
    def url(self) -> URL:
        """The address as SQLAlchemy takes it, beside `postgres.engine_arguments`."""
        from sqlalchemy.engine import URL

        query = self.query | ({"prepared_statement_cache_size": "0"} if "statement_cache_size" in self.options else {})
        return URL.create(self.driver, self.username, self.password, self.host, self.port, self.database, query=query)

    @property
    def each(self) -> list[DatabaseURL]:
        """The address of each of several hosts, or this one."""
        alone = [msgspec.structs.replace(self, hosts=(), host=h.strip("[]"), port=int(p)) for h, _, p in self._parted]
        return alone or [self]

    @property
    def _parted(self) -> list[tuple[str, str, str]]:
        return [host.rpartition(":") for host in self.hosts]

    @property
    def dsn(self) -> str:
        """The address as asyncpg takes it, beside `options`."""
        told = {name: value if isinstance(value, str) else ",".join(value) for name, value in self.query.items()}
        if "ssl" in told:  # SQLAlchemy's word for it
            told["sslmode"] = told.pop("ssl")
        told.pop("prepared_statement_cache_size", None)  # SQLAlchemy's too
        told |= self.libpq
        address = self._written("postgresql", None if self.password is None else quote(self.password, safe=""))
        return f"{address}?{urlencode(told)}" if told else address

    def _written(self, scheme: str, password: str | None) -> str:
        who = "" if self.username is None else quote(self.username, safe="")
        who += f":{password}" if self.password is not None else ""
        host = f"[{self.host}]" if self.host and ":" in self.host else self.host or ",".join(self.hosts)
        at = f"{who}@" if who else ""
        port = "" if self.port is None else f":{self.port}"
        return f"{scheme}://{at}{host}{port}" + (
            "" if self.database is None else f"/{quote(self.database, safe=' +/')}"
        )


def database_url(url: str, what: str) -> DatabaseURL:
    """
    Read an address: `postgresql://`, `postgres://`, `sqlite:///`, with SQLAlchemy's names of drivers or without.

    Args:
        url: the address. Of libpq's parameters those that asyncpg knows hold (`sslmode`, `sslrootcert`,
            `application_name`, …), `connect_timeout` is in seconds, and `pgbouncer=true` prepares no statements.
            Of several hosts (`host1:5432,host2:5432`) the one is used that writes, if `target_session_attrs` says
            nothing else.
        what: whose it is, for the error.

    Raises:
        MisuseError: it is no such address; the text repeats no password.
        NotInstalled: it is a PostgreSQL, and what speaks to one is missing.

    """
    found = _ADDRESS.fullmatch(str(url))
    if found is None or found["scheme"] not in DRIVERS:
        scheme = f", not {found['scheme']}:…" if found is not None else ""
        raise MisuseError(f"{what}: allowed are {ALLOWED}{scheme}")
    query: dict[str, Any] = {}
    for name, value in parse_qsl(found["query"] or ""):
        query[name] = (*query[name], value) if name in query else (value,)
    username, password, database = (
        None if found[part] is None else unquote(found[part]) for part in ("username", "password", "database")
    )
    alone = found["ipv6"] or found["host"] or None
    hosts = () if alone else _several(found["hosts"].split(",") if found["hosts"] else [], query, what)
    read = DatabaseURL(
        driver=DRIVERS[found["scheme"]],
        username=username,
        password=password,
        host=alone,
        port=int(found["port"]) if found["port"] else None,
        hosts=hosts,
        database=database,
        query={name: values[0] if len(values) == 1 else values for name, values in query.items()},
    )
    if not read.is_postgres:
        return _for_sqlite(read, what)
    needs("asyncpg", f"{what}: PostgreSQL")
    return _for_asyncpg(read, what)


def _several(hosts: list[str], query: dict[str, tuple[str, ...]], what: str) -> tuple[str, ...]:
    """
    Return several hosts, each with its port; none where there is one alone.

    They stand in their place, or behind `?` as libpq and SQLAlchemy have it.
    """
    named = hosts or [host for value in query.get("host", ()) for host in value.split(",")]
    if len(named) < 2 or any(host.startswith("/") for host in named):  # sockets are one machine's
        return ()
    query.pop("host", None)
    ports = [port for value in query.pop("port", ()) for port in value.split(",")] or [""]
    ports = ports * len(named) if len(ports) == 1 else ports
    if len(ports) != len(named) or any(port and not port.isdecimal() for port in ports):
        raise MisuseError(f"{what}: {len(named)} hosts, and {len(ports)} ports: name none, one, or one for each")
    found = [_HOST.fullmatch(host) for host in named]
    if bad := [host for host, one in zip(named, found, strict=True) if one is None]:
        raise MisuseError(f"{what}: {bad[0][:60]!r} is no host; several are written as host1:5432,host2:5432")
    return tuple(
        f"{one['host']}:{one['port'] or port or _PORT}"
        for one, port in zip(found, ports, strict=True)
        if one is not None
    )


_HOST = re.compile(r"(?P<host>\[[^]]+\]|[^:@/]+)(?::(?P<port>\d+))?")


def _for_sqlite(read: DatabaseURL, what: str) -> DatabaseURL:
    """Refuse what SQLite does not know behind `?`, which its driver would pass over or fail at in a run."""
    query = {name: value for name, value in read.query.items() if name not in _OF_THE_DRIVER}
    if unknown := sorted(query.keys() - _FOR_SQLITE):
        raise MisuseError(f"{what}: {unknown[0]} is none of what SQLite takes: {', '.join(sorted(_FOR_SQLITE))}")
    return msgspec.structs.replace(read, query=query)


def _for_asyncpg(read: DatabaseURL, what: str) -> DatabaseURL:
    """Sort what stands behind `?` by who understands it."""
    query: dict[str, Any] = {name: value for name, value in read.query.items() if name not in _WITHOUT_MEANING}
    options: dict[str, Any] = {}
    if wait := query.pop("connect_timeout", None):
        try:
            options["timeout"] = float(wait)
        except (TypeError, ValueError):
            raise MisuseError(f"{what}: connect_timeout is a number of seconds, not {wait!r}") from None
    if str(query.pop("pgbouncer", "")).lower() in ("true", "1"):
        options["statement_cache_size"] = 0
    if read.hosts:
        query.setdefault("target_session_attrs", "read-write")
    told = {name: query.pop(name) for name in sorted(query.keys() & _FOR_LIBPQ)}
    libpq = {name: value if isinstance(value, str) else value[-1] for name, value in told.items()}
    return msgspec.structs.replace(read, query=query, libpq=libpq, options=options)
