"""
Any Python value as JSON, in bounded work: what a model can read of what a tool returned.

What has a table or a text of its own keeps it (an index, rows, a name); what has none is its `repr` without memory
addresses, so that equal results read the same. No library is imported for it: values are known by what they can do.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import decimal
import enum
import inspect
import io
import itertools
import math
import pathlib
import re
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import msgspec

from shared_libs.atomic.errors import in_words
from shared_libs.atomic.secrets import names_a_secret

AT_HAND = frozenset((str, int, float, bool, type(None)))
"""What a result is as it stands: nothing of it has to be waited for, read or made into something else."""

MAX_VALUES = 20_000
"""Values of one result, those inside others counted with them; more are left out, with a note."""

MAX_COLUMNS = 500
MAX_DEPTH = 60
MAX_TEXT = 1_000_000
"""Characters of one text inside a result."""

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+| id='\d+'|(?<=#)0x[0-9a-fA-F]+")


def plain(value: Any) -> Any:
    """Return a value as JSON knows it: text, numbers, lists, and objects with text as keys."""
    return _Plain().of(value, MAX_DEPTH)


def text_of_bytes(value: Any) -> str:
    """Return bytes as their text where they are UTF-8, else a note with their size."""
    data = bytes(value)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return f"[{len(data)} bytes that are no text]"


def whole_text(text: str) -> str:
    """
    Return a text as it can be sent: half characters, as in file names, are question marks.

    One of somebody's own kind becomes Python's: whoever reads on is in no place where its methods could be interrupted.
    """
    if type(text) is not str:
        text = str.__str__(text)
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def column_value(value: Any) -> Any:
    """Return a value as a column of a database holds it: a text without NUL, and without half characters."""
    return whole_text(value.replace("\0", "\ufffd")) if isinstance(value, str) else value


def whole_data(value: Any) -> Any:
    """Return JSON-like data whose texts can all be sent; a text that can be is itself."""
    if isinstance(value, str):
        return whole_text(value)
    if isinstance(value, Mapping):
        return {whole_data(key): whole_data(item) for key, item in value.items()}
    return [whole_data(item) for item in value] if isinstance(value, list | tuple) else value


def read_here(value: Any, most: int = MAX_VALUES) -> Any:
    """
    Return what a cursor or a query of a database has still to give, as rows, and its records; anything else as it is.

    To be called where it was made: SQLite's cursors belong to their thread, a query of Django or peewee is made by
    being read, and a record of SQLAlchemy reads again what a commit let go. What a dict holds is read too.
    """
    if type(value) in AT_HAND:
        return value
    if type(value) is dict and len(value) <= _FEW:
        return {key: read_here(item, most) for key, item in value.items() if item is not value}
    if any(all(hasattr(type(value), name) for name in names) for names in _QUERIES):
        value = list(itertools.islice(value, most))
    if isinstance(value, list) and value and _is_record(value[0]):
        return [_record(item) if _is_record(item) else item for item in value[:most]]
    return _record(value) if _is_record(value) else _read_cursor(value, most)


def _read_cursor(value: Any, most: int) -> Any:
    if not _is_cursor(value):
        return value
    names = [one[0] for one in value.description or ()] if hasattr(value, "description") else [*value.keys()]
    return [_named(names, row) for row in value.fetchmany(most // max(len(names), 1) + 1)] if names else []


def _is_cursor(value: Any) -> bool:
    fetch = getattr(type(value), "fetchmany", None)
    return fetch is not None and hasattr(type(value), "fetchone") and not inspect.iscoroutinefunction(fetch)


_QUERIES = (
    ("values_list", "iterator", "__iter__"),
    ("tuples", "namedtuples", "__iter__"),
    ("yield_per", "with_entities"),
)
"""What the queries of Django, peewee and SQLAlchemy can do."""

_FEW = 20


class _Plain:
    """One conversion: how much may still be looked at, and what is being looked at."""

    __slots__ = ("_inside", "_left")

    def __init__(self) -> None:
        self._left = MAX_VALUES
        self._inside: set[int] = set()

    def of(self, value: Any, depth: int) -> Any:
        self._left -= 1
        if value is None or isinstance(value, bool):
            return value
        kind = type(value)
        if kind is str:
            return whole_text(value if len(value) <= MAX_TEXT else f"{value[:MAX_TEXT]}… ({len(value)} characters)")
        if kind is int:
            return value if -(2**63) <= value < 2**64 else _large(value)
        if kind is float:
            return value if math.isfinite(value) else None
        if id(value) in self._inside:
            return msgspec.Raw(b"{...}" if isinstance(value, Mapping) else b"[...]")  # as Python writes it
        if not depth or self._left < 0:
            return "[more, not shown]"
        self._inside.add(id(value))
        try:
            return self._converted(value, depth - 1)
        except Exception as error:  # noqa: BLE001 - how a foreign value is read is foreign code
            told = f"[a {kind.__name__} that cannot be read: {in_words(error):.200}]"
            return _text(value, told) if _is_described(kind) else told
        finally:
            self._inside.discard(id(value))

    def _converted(self, value: Any, depth: int) -> Any:
        names = _names_of(value) if isinstance(value, tuple) else None
        if isinstance(names, tuple):
            return self._object(zip(names, value, strict=False), len(value), depth)
        if isinstance(value, Mapping):
            return self._object(value.items(), len(value), depth)
        if isinstance(value, list | tuple):
            return self._array(value, len(value), depth)
        for fits, convert in _KINDS:
            if fits(value):
                return self.of(convert(value, max(self._left, 1)), depth)
        if isinstance(value, Iterator) and not isinstance(value, io.IOBase):
            return self._array(value, None, depth)
        if isinstance(value, Collection) and not isinstance(value, type):
            return self._array(value, len(value), depth)
        if (public := _public(value)) is not None:
            return self._object(public.items(), len(public), depth)
        return whole_text(_text(value, ""))

    def _object(self, items: Iterable[tuple[Any, Any]], size: int, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, item in items:
            if self._left <= 0:
                found["…"] = f"{size - len(found):,} more, not shown"
                break
            name = _key(key)
            while name in found:
                name += "'"
            found[name] = self.of(item, depth)
        return found

    def _array(self, items: Iterable[Any], size: int | None, depth: int) -> list[Any]:
        found: list[Any] = []
        for item in items:
            if self._left <= 0:
                found.append("… more, not shown" if size is None else f"… {size - len(found):,} more, not shown")
                break
            found.append(self.of(item, depth))
        return found


def _names_of(value: Any) -> Any:
    """The names of a tuple's fields: of a named one, and of those that the system gives, such as `os.stat`."""
    names = getattr(value, "_fields", None)
    return names if names is not None or not hasattr(value, "n_sequence_fields") else type(value).__match_args__


def _public(value: Any) -> dict[str, Any] | None:
    """
    What an object of somebody's class holds, where the class says no more of it than Python does.

    None: it is no such record, since it is described, hides something, or holds more than data.
    """
    kind = type(value)
    if _is_described(kind) or isinstance(value, type) or kind.__module__ == "builtins" or callable(value):
        return None
    held = {**{name: getattr(value, name, None) for name in _slots(kind)}, **getattr(value, "__dict__", {})}
    public = {name: item for name, item in held.items() if name[:1] != "_" and not names_a_secret(name)}
    return public if public and all(isinstance(item, _DATA) for item in public.values()) else None


def _is_described(kind: type) -> bool:
    return any(getattr(kind, name) is not getattr(object, name) for name in ("__str__", "__repr__"))


def _slots(kind: type) -> list[str]:
    named = [vars(base).get("__slots__", ()) for base in kind.__mro__]
    return [name for names in named for name in ((names,) if isinstance(names, str) else names)]


_DATA = (
    *(str, int, float, list, tuple, dict, set, frozenset, decimal.Decimal),
    *(dt.date, dt.time, dt.timedelta, uuid.UUID, enum.Enum, type(None)),
)


def _key(key: Any) -> str:
    if isinstance(key, str):
        return whole_text(key)
    if key is None or isinstance(key, bool):
        return {None: "null", True: "true", False: "false"}[key]
    if isinstance(key, enum.Enum):
        return _key(key.value)
    if isinstance(key, bytes):
        return text_of_bytes(key)
    return whole_text(_text(key, type(key).__name__))


def _large(value: int) -> Any:
    try:
        return msgspec.Raw(str(value).encode())
    except ValueError:  # thousands of digits
        return f"[a whole number of {value.bit_length()} bits]"


def _text(value: Any, else_: str) -> str:
    """The text of a value, without where it is in memory."""
    with contextlib.suppress(Exception):
        text = str(value)
        if isinstance(text, str):
            return _ADDRESS.sub("", text[:MAX_TEXT])
    return else_ or f"<{type(value).__name__} object>"


def _has(*names: str) -> Callable[[Any], bool]:
    """Whether the type of a value has all of that; a mock, which answers to any name, has nothing."""
    return lambda value: not isinstance(value, type) and all(hasattr(type(value), name) for name in names)


def _series(value: Any, most: int) -> Any:
    """A pandas Series: under its index, as a list where that only counts, as rows where it has levels or repeats."""
    value = value.iloc[:most]
    index = value.index
    if _counts(index):
        return value.tolist()
    if index.nlevels == 1 and index.is_unique:
        return dict(zip(index.tolist(), value.tolist(), strict=True))
    return _frame(value.to_frame(name="value" if value.name is None else value.name), most)


def _frame(value: Any, most: int) -> Any:
    """A pandas DataFrame: its rows, with the index as columns where it says something."""
    rows = value.iloc[: most // max(value.shape[1], 1) + 1, :MAX_COLUMNS]
    index = rows.index
    names = [", ".join(map(_key, name)) if isinstance(name, tuple) else _key(name) for name in rows.columns.tolist()]
    columns = [rows.iloc[:, number].tolist() for number in range(rows.shape[1])]
    if not _counts(index):
        levels = [index.get_level_values(level) for level in range(index.nlevels)]
        told = ["index" if level.name is None else _key(level.name) for level in levels]
        names = [f"{name}_{number}" if told.count(name) > 1 else name for number, name in enumerate(told)] + names
        columns = [level.tolist() for level in levels] + columns
    return _Rows(names, columns, len(rows), value.shape)


def _counts(index: Any) -> bool:
    return type(index).__name__ == "RangeIndex" and index.name is None and (index.start, index.step) == (0, 1)


def _columnar(value: Any, most: int) -> Any:
    """A table of polars or arrow."""
    names = list(getattr(value, "column_names", None) or value.columns)
    rows = value[: most // max(len(names), 1) + 1]
    columns = [rows[name] for name in names[:MAX_COLUMNS]]
    lists = [column.to_pylist() if hasattr(column, "to_pylist") else column.to_list() for column in columns]
    return _Rows([_key(name) for name in names[:MAX_COLUMNS]], lists, len(rows), (len(value), len(names)))


class _Rows(Sequence[Any]):
    """Columns read as rows; a table where two columns have one name."""

    def __init__(self, names: list[str], columns: list[list[Any]], size: int, shape: tuple[int, int]) -> None:
        self._names, self._columns, self._size, self._whole = names, columns, size, shape[0]
        if shape[1] > MAX_COLUMNS:
            self._names = [*names, "…"]
            self._columns = [*columns, [f"{shape[1] - MAX_COLUMNS:,} more columns, not shown"] * size]

    def __len__(self) -> int:
        return self._whole

    def __getitem__(self, index: Any) -> Any:
        row = [column[index] for column in self._columns]
        return dict(zip(self._names, row, strict=True)) if len(set(self._names)) == len(row) else row

    def __iter__(self) -> Iterator[Any]:
        if len(set(self._names)) < len(self._names):
            yield self._names
        yield from (self[number] for number in range(self._size))


def _array(value: Any, most: int) -> Any:
    """An array of numpy or torch; of a large one its first numbers."""
    size = getattr(value, "size", None)
    if isinstance(size, int) and size > most:
        return [*value.reshape(-1)[:most].tolist(), f"… {size - most:,} more, not shown; its shape is {value.shape}"]
    names = getattr(getattr(value, "dtype", None), "names", None)
    if names and value.ndim == 1:  # columns that have names
        return [dict(zip(names, row, strict=True)) for row in value.tolist()]
    return value.tolist()


def _row(value: Any, most: int) -> Any:
    """A row of a database, by the names of its columns; what is iterated are its values, or its names as in a dict."""
    names = list(itertools.islice(value.keys(), most))
    told = list(itertools.islice(value, most))
    return _named(names, told if told != names else [value[name] for name in names])


def _named(names: list[Any], row: Iterable[Any]) -> Any:
    return dict(zip(names, row, strict=False)) if len(set(names)) == len(names) else [names, [*row]]


def _xml(value: Any, _: int) -> str:
    from xml.etree.ElementTree import tostring

    return tostring(value, encoding="unicode")


def _is_record(value: Any) -> bool:
    kind = type(value)
    return hasattr(kind, "__mapper__") or (
        hasattr(kind, "_meta") and (hasattr(kind, "from_db") or "__data__" in vars(value))
    )


def _record(value: Any) -> dict[str, Any]:
    """A row of SQLAlchemy, Django or peewee as an object: its columns, not what they lead to."""
    if hasattr(type(value), "__mapper__"):
        names = [column.key for column in type(value).__mapper__.column_attrs]
    elif hasattr(value._meta, "concrete_fields"):  # noqa: SLF001 - the name that Django gives it
        names = [field.attname for field in value._meta.concrete_fields]  # noqa: SLF001
    else:
        return dict(value.__data__)
    return {name: getattr(value, name) for name in names}


def _graph(value: Any, _: int) -> dict[str, Any]:
    return {"nodes": value.nodes(data=True), "edges": value.edges(data=True)}


def _response(value: Any, _: int) -> Any:
    """An answer over HTTP that has been read: its status and its text."""
    return {"status_code": value.status_code, "text": value.text} if isinstance(value.text, str) else _text(value, "")


def _fields(value: Any, most: int) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in itertools.islice(dataclasses.fields(value), most)}


def _duration(value: dt.timedelta, _: int) -> Any:
    return msgspec.to_builtins(dt.timedelta(value.days, value.seconds, value.microseconds))


def _in_order(value: Any, most: int) -> list[Any]:
    """A set, in an order that does not depend on how it was filled."""
    some = list(itertools.islice(value, most + 1))
    try:
        return sorted(some)
    except TypeError:
        return sorted(some, key=lambda item: (type(item).__name__, _text(item, "")))


_KINDS: tuple[tuple[Callable[[Any], bool], Callable[[Any, int], Any]], ...] = (
    (lambda value: isinstance(value, enum.Enum), lambda value, _: value.value),
    (lambda value: isinstance(value, str), lambda value, _: str.__str__(value)),
    (lambda value: isinstance(value, int), lambda value, _: int(value)),
    (lambda value: isinstance(value, float), lambda value, _: float(value)),
    (lambda value: isinstance(value, bytes | bytearray | memoryview), lambda value, _: text_of_bytes(value)),
    (lambda value: type(value).__name__ in ("NAType", "NaTType"), lambda value, _: None),
    (lambda value: isinstance(value, dt.date | dt.time), lambda value, _: value.isoformat().replace("+00:00", "Z")),
    (lambda value: isinstance(value, dt.timedelta), _duration),
    (lambda value: isinstance(value, decimal.Decimal), lambda value, _: str(value) if value.is_finite() else None),
    (lambda value: isinstance(value, uuid.UUID | pathlib.PurePath), lambda value, _: str(value)),
    (lambda value: isinstance(value, BaseException), lambda value, _: in_words(value)),
    (lambda value: isinstance(value, AbstractSet), _in_order),
    (_has("model_dump"), lambda value, _: value.model_dump(mode="json")),
    (_is_record, lambda value, _: _record(value)),
    (_has("to_mongo"), lambda value, _: value.to_mongo().to_dict()),
    (lambda value: dataclasses.is_dataclass(value) and not isinstance(value, type), _fields),
    (lambda value: isinstance(value, msgspec.Struct), lambda value, _: msgspec.structs.asdict(value)),
    (
        lambda value: isinstance(getattr(type(value), "__attrs_attrs__", None), tuple),
        lambda value, _: {field.name: getattr(value, field.name) for field in type(value).__attrs_attrs__},
    ),
    (_has("iloc", "columns"), _frame),
    (_has("iloc", "index"), _series),
    (_has("to_pylist", "column_names"), _columnar),
    (_has("to_dicts", "columns"), _columnar),
    (_has("to_pylist", "slice"), lambda value, most: value.slice(0, most + 1).to_pylist()),
    (_has("as_py"), lambda value, _: value.as_py()),
    (_has("to_list", "slice"), lambda value, most: value.slice(0, most + 1).to_list()),
    (_has("tolist"), _array),
    (_has("find_all", "prettify"), lambda value, _: str(value)),
    (_has("tag", "attrib", "itertext"), _xml),
    (_has("getroot", "iter"), lambda value, _: _xml(value.getroot(), _)),
    (lambda value: _has("get_payload", "as_string")(value) and value.get_payload(), lambda value, _: value.as_string()),
    (_has("adjacency", "nodes", "edges"), _graph),
    (_has("to_dict", "dims", "coords"), lambda value, _: value.to_dict()),
    (_has("_mapping", "_fields"), lambda value, _: _named(list(value._fields), value)),
    (_is_cursor, _read_cursor),
    (_has("keys", "__getitem__", "__iter__"), _row),
    (_has("raise_for_status", "text"), _response),
    (_has("getvalue"), lambda value, _: value.getvalue()),
    (_has("isoformat"), lambda value, _: value.isoformat()),
)
"""How values are read, by the first line that fits them."""
