"""
How values of any kind are read: the table of kinds, and the words of what has no other content than its text.

No library is imported for it: values are known by what they can do.
"""

from __future__ import annotations

import codecs
import collections
import contextlib
import dataclasses
import datetime as dt
import decimal
import enum
import inspect
import io
import itertools
import os
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import msgspec

from shared_libs.atomic.errors import in_words
from shared_libs.atomic.secrets import names_a_secret

MAX_COLUMNS = 500

MAX_TEXT = 1_000_000
"""Characters of one text inside a result."""

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+| id='\d+'|(?<=#)0x[0-9a-fA-F]+")


def text_of_bytes(value: Any) -> str:
    """Return bytes as their text where they are UTF-8, else a note with their size."""
    data = bytes(value)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return f"[{len(data)} bytes that are no text]"


def names_of(value: Any) -> Any:
    """The names of a tuple's fields: of a named one, and of those that the system gives, such as `os.stat`."""
    names = getattr(value, "_fields", None)
    return names if names is not None or not hasattr(value, "n_sequence_fields") else type(value).__match_args__


def public_of(value: Any) -> dict[str, Any] | None:
    """
    What an object of somebody's class holds, where the class says no more of it than Python does.

    None: it is no such record, since it is described, hides something, or holds more than data.
    """
    kind = type(value)
    if is_described(kind) or isinstance(value, type) or kind.__module__ == "builtins" or callable(value):
        return None
    held = {**{name: getattr(value, name, None) for name in _slots(kind)}, **getattr(value, "__dict__", {})}
    public = {name: item for name, item in held.items() if name[:1] != "_" and not names_a_secret(name)}
    return public if public and all(isinstance(item, _DATA) for item in public.values()) else None


def is_described(kind: type) -> bool:
    """Whether a class has a text of its own, and not only that of every object."""
    return any(getattr(kind, name) is not getattr(object, name) for name in ("__str__", "__repr__"))


def _slots(kind: type) -> list[str]:
    named = [vars(base).get("__slots__", ()) for base in kind.__mro__]
    return [name for names in named for name in ((names,) if isinstance(names, str) else names)]


_DATA = (
    *(str, int, float, list, tuple, dict, set, frozenset, decimal.Decimal),
    *(dt.date, dt.time, dt.timedelta, uuid.UUID, enum.Enum, type(None)),
)


def key_of(key: Any) -> str:
    """The name that a key of any kind is under."""
    if isinstance(key, str):
        return key
    if key is None or isinstance(key, bool):
        return {None: "null", True: "true", False: "false"}[key]
    if isinstance(key, enum.Enum):
        return key_of(key.value)
    if isinstance(key, bytes):
        return text_of_bytes(key)
    return text_of(key, type(key).__name__)


def text_of(value: Any, else_: str) -> str:
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
    names = [
        ", ".join(map(key_of, name)) if isinstance(name, tuple) else key_of(name) for name in rows.columns.tolist()
    ]
    columns = [rows.iloc[:, number].tolist() for number in range(rows.shape[1])]
    if not _counts(index):
        levels = [index.get_level_values(level) for level in range(index.nlevels)]
        told = ["index" if level.name is None else key_of(level.name) for level in levels]
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
    return _Rows([key_of(name) for name in names[:MAX_COLUMNS]], lists, len(rows), (len(value), len(names)))


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
    """An array of numpy or torch; of a large one its first numbers. Times finer than Python's would be numbers."""
    size = getattr(value, "size", None)
    if isinstance(size, int) and size > most:
        return [*value.reshape(-1)[:most].tolist(), f"… {size - most:,} more, not shown; its shape is {value.shape}"]
    dtype: Any = getattr(value, "dtype", None)
    if getattr(dtype, "kind", "") in ("M", "m") and dtype.name.endswith(("[ns]", "[ps]", "[fs]", "[as]")):
        return value.astype(f"{dtype.kind}8[us]").tolist()
    names = getattr(dtype, "names", None)
    if names and value.ndim < 2:  # columns that have names
        rows = [dict(zip(names, row, strict=True)) for row in value.reshape(-1).tolist()]
        return rows if value.ndim else rows[0]
    return value.tolist()


def _model(value: Any, _: int) -> Any:
    """A model of pydantic, or what is read as one; where it holds what JSON has no word for, that is read here."""
    try:
        return value.model_dump(mode="json")
    except Exception:  # noqa: BLE001 - what a field says of itself is foreign code
        return value.model_dump()


def _row(value: Any, most: int) -> Any:
    """A row of a database, by the names of its columns; what is iterated are its values, or its names as in a dict."""
    names = list(itertools.islice(value.keys(), most))
    told = list(itertools.islice(value, most))
    return _named(names, told if told != names else [value[name] for name in names])


def _named(names: list[Any], row: Iterable[Any]) -> Any:
    return dict(zip(names, row, strict=False)) if len(set(names)) == len(names) else [names, [*row]]


def read_cursor(value: Any, most: int) -> Any:
    """What a cursor has still to give, as rows with their names; anything else as it is."""
    if not _is_cursor(value):
        return value
    names = [one[0] for one in value.description or ()] if hasattr(value, "description") else [*value.keys()]
    rows = value.fetchmany(most // max(len(names), 1) + 1) if names else []
    return [_named(names, row) if _is_bare(row) else row for row in rows]


def _is_bare(row: Any) -> bool:
    """Whether it has values alone; one with names, such as a dict, would be read as these, and a scalar is one."""
    return hasattr(type(row), "__iter__") and not isinstance(row, Mapping | str | bytes)


def _is_cursor(value: Any) -> bool:
    fetch = getattr(type(value), "fetchmany", None)
    return fetch is not None and hasattr(type(value), "fetchone") and not inspect.iscoroutinefunction(fetch)


def _xml(value: Any, _: int) -> str:
    from xml.etree.ElementTree import tostring

    return tostring(value, encoding="unicode")


def is_record(value: Any) -> bool:
    """Whether it is a row of SQLAlchemy, Django or peewee as an object."""
    kind = type(value)
    return hasattr(kind, "__mapper__") or (
        hasattr(kind, "_meta") and (hasattr(kind, "from_db") or "__data__" in vars(value))
    )


def record_of(value: Any) -> dict[str, Any]:
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
    text = value.text
    if not isinstance(text, str):
        return text_of(value, "")
    return {"status_code": value.status_code, "text": text_of_bytes(value.content) if "\0" in text else text}


def is_file(value: Any) -> bool:
    """Whether it is what `open` gives, or a temporary file."""
    return isinstance(value, io.IOBase) or type(value).__name__ == "_TemporaryFileWrapper"


def _content(value: Any, _: int) -> Any:
    """What stands in a file, from its beginning where it has one to go back to."""
    if value.seekable():
        value.seek(0)
    found = value.read(MAX_TEXT + 1)
    with contextlib.suppress(UnicodeDecodeError, TypeError):
        return codecs.getincrementaldecoder("utf-8")().decode(found)  # it may end within a character
    return found


def _says_how(value: Any) -> str | None:
    """The method by which an object gives what it holds, where its class says nothing of it otherwise."""
    kind = type(value)
    if is_described(kind) or isinstance(value, type) or callable(value):
        return None
    return next((name for name in ("to_dict", "as_dict", "_asdict") if hasattr(kind, name)), None)


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
        return sorted(some, key=lambda item: (type(item).__name__, text_of(item, "")))


KINDS: tuple[tuple[Callable[[Any], bool], Callable[[Any, int], Any]], ...] = (
    (lambda value: isinstance(value, enum.Enum), lambda value, _: value.value),
    (lambda value: isinstance(value, str), lambda value, _: str.__str__(value)),
    (lambda value: isinstance(value, collections.UserString), lambda value, _: value.data),
    (lambda value: isinstance(value, int), lambda value, _: int(value)),
    (lambda value: isinstance(value, float), lambda value, _: float(value)),
    (lambda value: isinstance(value, bytes | bytearray | memoryview), lambda value, _: text_of_bytes(value)),
    (lambda value: type(value).__name__ in ("NAType", "NaTType"), lambda value, _: None),
    (lambda value: isinstance(value, dt.date | dt.time), lambda value, _: value.isoformat().replace("+00:00", "Z")),
    (lambda value: isinstance(value, dt.timedelta), _duration),
    (lambda value: isinstance(value, decimal.Decimal), lambda value, _: str(value) if value.is_finite() else None),
    (lambda value: isinstance(value, uuid.UUID), lambda value, _: str(value)),
    (lambda value: isinstance(value, os.PathLike), lambda value, _: os.fspath(value)),
    (lambda value: isinstance(value, BaseException), lambda value, _: in_words(value)),
    (lambda value: isinstance(value, AbstractSet), _in_order),
    (_has("model_dump"), _model),
    (is_record, lambda value, _: record_of(value)),
    (_has("to_mongo"), lambda value, _: value.to_mongo().to_dict()),
    (lambda value: dataclasses.is_dataclass(value) and not isinstance(value, type), _fields),
    (lambda value: isinstance(value, msgspec.Struct), lambda value, _: msgspec.structs.asdict(value)),
    (
        lambda value: isinstance(getattr(type(value), "__attrs_attrs__", None), tuple),
        lambda value, _: {field.name: getattr(value, field.name) for field in type(value).__attrs_attrs__},
    ),
    (_has("iloc", "columns"), _frame),
    (_has("iloc", "index"), _series),
    (_has("collect", "collect_schema"), lambda value, most: value.head(most + 1).collect()),
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
    (_is_cursor, read_cursor),
    (_has("keys", "__getitem__", "__iter__"), _row),
    (_has("raise_for_status", "text"), _response),
    (_has("getvalue"), lambda value, _: value.getvalue()),
    (is_file, _content),
    (_has("isoformat"), lambda value, _: value.isoformat()),
    (lambda value: _says_how(value) is not None, lambda value, _: getattr(value, _says_how(value) or "")()),
)
"""How values are read, by the first line that fits them."""
