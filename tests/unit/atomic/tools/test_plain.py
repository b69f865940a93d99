"""Results as a model reads them: complete where they are small, bounded where not, the same for the same value."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import datetime as dt
import decimal
import email
import enum
import io
import itertools
import json
import os
import pathlib
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree as ET

import attrs
import httpx2
import msgspec
import numpy as np
import pandas as pd
import pydantic
import pytest
from sqlalchemy import StaticPool, create_engine, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from shared_libs.atomic import tool
from shared_libs.atomic.tools.outcome import as_text
from shared_libs.atomic.tools.plain import MAX_VALUES
from tests.growth import assert_linear
from tests.support import run

pytestmark = pytest.mark.promise("results-whole")

FRAME = pd.DataFrame({"a": [1, 2], "b": ["x", None], "t": pd.to_datetime(["2020-01-01", None])})


@dataclasses.dataclass
class Row:
    a: int
    inner: object = None


@attrs.define
class Made:
    a: int


class Long:
    def __repr__(self):
        return "x" * 900_000


class Silent:
    pass


class Anything:
    """Answers to any name, as a mock does."""

    def __getattr__(self, name):
        return Anything()

    def __repr__(self):
        return f"<Anything id='{id(self)}'>"


class Broken:
    def __repr__(self):
        raise RuntimeError("no")


class BrokenRows:
    def __len__(self):
        return 3

    def __contains__(self, item):
        return False

    def __iter__(self):
        raise RuntimeError("no rows")


class Held(pydantic.BaseModel):
    secret: pydantic.SecretStr = pydantic.SecretStr("hunter22")
    x: Any


class Given:
    def to_dict(self):
        return {"a": 1}


class Looped:
    def __iter__(self):
        return iter([1, 2])


class Color(enum.Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (pd.Series([10.5, 20.25], index=["AA", "UA"], name="delay"), '{"AA":10.5,"UA":20.25}'),
        (pd.Series([1, None]), "[1.0,null]"),
        (np.array([(1, "x")], dtype=[("a", int), ("b", "U5")]), '[{"a":1,"b":"x"}]'),
        (collections.namedtuple("Point", "x y")(1, 2), '{"x":1,"y":2}'),  # noqa: PYI024 - as people write it
        (pd.Series([1, 2], index=["a", "a"]), '[{"index":"a","value":1},{"index":"a","value":2}]'),
        (
            pd.Series([1, 2], index=pd.MultiIndex.from_tuples([("a", 1), ("b", 2)], names=["x", "y"]), name="v"),
            '[{"x":"a","y":1,"v":1},{"x":"b","y":2,"v":2}]',
        ),
        (FRAME, '[{"a":1,"b":"x","t":"2020-01-01T00:00:00"},{"a":2,"b":null,"t":null}]'),
        (FRAME[["a", "b"]].set_index("b"), '[{"b":"x","a":1},{"b":null,"a":2}]'),
        (FRAME[["a"]].set_axis(["p", "q"]), '[{"index":"p","a":1},{"index":"q","a":2}]'),
        (FRAME.groupby("a").agg({"b": ["first"]}), '[{"a":1,"b, first":"x"},{"a":2,"b, first":null}]'),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), '[["a","a"],[1,2]]'),
        (pd.DataFrame(), "[]"),
        (pd.Index(["a", "b"]), '["a","b"]'),
        ([pd.NaT, pd.NA, pd.Timestamp("2020-01-01")], '[null,null,"2020-01-01T00:00:00"]'),
        (np.array([[1, 2], [3, 4]]), "[[1,2],[3,4]]"),
        ([np.float64("nan"), np.int32(3), np.bool_(1), np.datetime64("2020-01-01")], '[null,3,true,"2020-01-01"]'),
        (b"hello", "hello"),
        (memoryview(b"hello"), "hello"),
        (b"\xff\x00", "[2 bytes that are no text]"),
        ({"out": b"hi", "raw": b"\xff"}, '{"out":"hi","raw":"[1 bytes that are no text]"}'),
        (io.BytesIO(b"text"), "text"),
        ([io.StringIO("text")], '["text"]'),
        (map(str, [1, 2]), '["1","2"]'),
        (zip([1], [2], strict=True), "[[1,2]]"),
        (filter(None, [0, 1]), "[1]"),
        ((n for n in range(2)), "[0,1]"),
        ({"a": 1}.keys(), '["a"]'),
        (collections.deque([1]), "[1]"),
        (collections.UserDict(a=1), '{"a":1}'),
        ({"b", "a", "c"}, '["a","b","c"]'),
        ({"ok": True, "name": "a\ud83d", "b\ud83d": 1}, '{"ok":true,"name":"a?","b?":1}'),
        ({"f": float("nan"), "g": float("inf")}, '{"f":null,"g":null}'),
        ([decimal.Decimal("1.10"), decimal.Decimal("NaN")], '["1.10",null]'),
        ([dt.timedelta(1), dt.time(1), uuid.UUID(int=1)], '["P1D","01:00:00","00000000-0000-0000-0000-000000000001"]'),
        (dt.datetime(2020, 1, 1, tzinfo=dt.UTC), '"2020-01-01T00:00:00Z"'),
        ([2**70, Color.RED, pathlib.PurePosixPath("/x")], '[1180591620717411303424,"red","/x"]'),
        (Row(1, Row(2)), '{"a":1,"inner":{"a":2,"inner":null}}'),
        (Made(1), '{"a":1}'),
        (
            {None: 1, True: 2, (1, 2): 3, b"k": 4, 1.5: 5, "1.5": 6},
            '{"null":1,"true":2,"(1, 2)":3,"k":4,"1.5":5,"1.5\'":6}',
        ),
        ([ValueError("no")], '["ValueError: no"]'),
        ([ExceptionGroup("g", [ValueError("a"), KeyError("b")])], "[\"ValueError: a; KeyError: 'b'\"]"),
        ([Broken(), Silent()], f'["<Broken object>","<{__name__}.Silent object>"]'),
        ([lambda: 1], '["<function <lambda>>"]'),
        (Anything(), '"<Anything>"'),
        (collections.UserString("abc"), '"abc"'),
        (np.array(["2024-01-01T12", "NaT"], "datetime64[ns]"), '["2024-01-01T12:00:00",null]'),
        ([np.datetime64(1, "ns"), np.timedelta64(1500, "ns")], '["1970-01-01T00:00:00","PT0.000001S"]'),
        (np.array([(1, "x")], dtype=[("a", int), ("b", "U5")])[0], '{"a":1,"b":"x"}'),
        (np.longdouble("1.5"), '"1.5"'),
        (Held(x=pd.DataFrame({"a": [1]})), '{"secret":"**********","x":[{"a":1}]}'),
        (Held(x=b"\xff"), '{"secret":"**********","x":"[1 bytes that are no text]"}'),
        ({"a": msgspec.UNSET, "b": 1}, '{"b":1}'),
        (Given(), '{"a":1}'),
        (Looped(), "[1,2]"),
        (httpx2.Response(200, content=b"\xff\0"), '{"status_code":200,"text":"[2 bytes that are no text]"}'),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_result_keeps_what_it_says(value, text):
    assert as_text(value) == text


def test_tables_of_other_libraries_are_rows():
    polars = pytest.importorskip("polars")
    arrow = pytest.importorskip("pyarrow")
    rows = '[{"a":1,"b":"x"},{"a":2,"b":null}]'
    data = {"a": [1, 2], "b": ["x", None]}
    assert as_text(polars.DataFrame(data)) == as_text(arrow.table(data)) == rows
    assert as_text([polars.Series([1]), arrow.array([1, None]), arrow.scalar(3)]) == "[[1],[1,null],3]"
    assert as_text(polars.LazyFrame(data).filter(polars.col("a") > 1)) == '[{"a":2,"b":null}]'


def nested(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value


def shared(levels):
    value = []
    for _ in range(levels):
        value = [value, value]
    return value


# made where they are looked at: a process that has collected the tests would carry them for all others
HUGE: dict[str, Callable[[], Any]] = {
    "long-frame": lambda: pd.DataFrame(np.zeros((1_000_000, 5))),
    "wide-frame": lambda: pd.DataFrame(np.zeros((3, 100_000))),
    "series": lambda: pd.Series(np.zeros(1_000_000), index=np.arange(1_000_000) + 1),
    "array": lambda: np.zeros((1_000, 1_000)),
    "count": itertools.count,
    "range": lambda: range(10**12),
    "list": lambda: list(range(1_000_000)),
    "dict": lambda: {n: n for n in range(1_000_000)},
    "set": lambda: set(range(1_000_000)),
    "text": lambda: ["x" * 50_000_000],
    "one-text-often": lambda: ["x" * 900_000] * 20_000,
    "one-object-often": lambda: [Long()] * 20_000,
    "nested": lambda: nested(100_000),
    "shared": lambda: shared(60),
    "number": lambda: 10**10_000,
    "rows": BrokenRows,
}


@pytest.mark.promise("work-bounded")
@pytest.mark.parametrize("name", HUGE)
def test_what_is_huge_is_shown_in_part_with_a_note_in_bounded_work(name):
    value = HUGE[name]()
    began = time.thread_time()
    text = as_text(value)
    assert time.thread_time() - began < 1.0
    assert len(text) < 9_000_000
    json.loads(text)
    assert (
        "not shown" in text or "characters)" in text or "bits]" in text or "cannot be read" in text or "object" in text
    )


@pytest.mark.promise("work-bounded")
def test_work_grows_with_the_result_and_then_not_at_all():
    assert_linear(as_text, lambda n: [{"a": 1}] * min(n, MAX_VALUES))


def test_equal_results_read_the_same_whatever_the_memory():
    assert as_text([Silent(), object(), print, as_text]) == as_text([Silent(), object(), print, as_text])
    assert " at 0x" not in as_text([Silent(), object(), as_text, Silent().__init__])


class Table(DeclarativeBase):
    pass


class User(Table):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class DjangoBook:
    """As Django's models are made, as far as a result is read."""

    _meta = SimpleNamespace(concrete_fields=[SimpleNamespace(attname="id"), SimpleNamespace(attname="author_id")])
    id, author_id = 1, 2

    @classmethod
    def from_db(cls):
        return cls()

    def __str__(self):
        return "DjangoBook object (1)"


class DjangoBooks:
    """A query: it is made by being read, which Django refuses on a loop."""

    def values_list(self): ...

    def iterator(self): ...

    def __iter__(self):
        assert threading.current_thread() is not threading.main_thread()
        return iter([DjangoBook()])


class PeeweeBook:
    _meta = SimpleNamespace()

    def __init__(self):
        self.__data__ = {"id": 1}

    def __str__(self):
        return "1"


class Place:
    __slots__ = ("__dict__", "_hidden", "a")

    def __init__(self):
        self.a, self.city, self._hidden = 1, "Rome", 2


OPENED = []


def in_sqlite(query, rows):
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    OPENED.append(connection.close)
    connection.row_factory = rows
    return connection.execute(query)


def as_dict(cursor, row):
    return dict(zip([one[0] for one in cursor.description], row, strict=True))


def in_sqlalchemy(take):
    engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    OPENED.append(engine.dispose)
    with engine.connect() as connection:
        return take(connection.execute(text("SELECT 1 AS a, 2 AS b")))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (lambda: in_sqlite("SELECT 1 AS a, 2 AS b", sqlite3.Row).fetchone(), '{"a":1,"b":2}'),
        (lambda: in_sqlite("SELECT 1 AS a, 2 AS b", sqlite3.Row).fetchall(), '[{"a":1,"b":2}]'),
        (lambda: in_sqlite("SELECT 1 AS a, 2 AS b", None), '[{"a":1,"b":2}]'),
        (lambda: in_sqlite("SELECT 1 AS a, 2 AS b", as_dict), '[{"a":1,"b":2}]'),
        (lambda: in_sqlite("SELECT 'xy' AS a", lambda _, row: row[0]), '["xy"]'),
        (lambda: in_sqlite("SELECT 1 AS a, 2 AS a", sqlite3.Row), '[[["a","a"],[1,2]]]'),
        (lambda: in_sqlite("CREATE TABLE t (a)", None), "[]"),
        (lambda: in_sqlalchemy(lambda rows: rows.fetchall()), '[{"a":1,"b":2}]'),
        (lambda: in_sqlalchemy(lambda rows: rows.one()), '{"a":1,"b":2}'),
        (lambda: in_sqlalchemy(lambda rows: rows.mappings().all()), '[{"a":1,"b":2}]'),
        (lambda: in_sqlalchemy(lambda rows: rows.scalars().all()), "[1]"),
        (lambda: email.message_from_string("To: a\n\n"), '{"To":"a"}'),
        (lambda: email.message_from_string("To: a\n\nx"), '"To: a\\n\\nx"'),
        (lambda: User(id=1, name="Ann"), '{"id":1,"name":"Ann"}'),
        (lambda: {"users": [User(id=1, name="Ann")]}, '{"users":[{"id":1,"name":"Ann"}]}'),
        (DjangoBook, '{"id":1,"author_id":2}'),
        (DjangoBooks, '[{"id":1,"author_id":2}]'),
        (lambda: {"books": DjangoBooks()}, '{"books":[{"id":1,"author_id":2}]}'),
        (PeeweeBook, '{"id":1}'),
        (Place, '{"a":1,"city":"Rome"}'),
        (lambda: os.stat_result(range(10)), '{"st_mode":0,"st_ino":1,"st_dev":2,"st_nlink":3,"st_uid":4'),
        (lambda: ET.fromstring("<a><b>t</b></a>"), '"<a><b>t</b></a>"'),
        (lambda: httpx2.Response(404, text="gone"), '{"status_code":404,"text":"gone"}'),
    ],
)
def test_what_a_database_or_server_gave_keeps_its_names(given, said):
    def told():
        return given()

    try:
        assert run(tool(told).async_run({})).content.startswith(said)
    finally:
        while OPENED:
            OPENED.pop()()


async def one():
    return 1


async def many():
    yield 1
    yield 2


class Steps:
    """What is waited for in steps, as clients of servers have it."""

    def __init__(self):
        self.left = [2, 1]

    def __aiter__(self):
        return self

    async def __anext__(self):
        if not self.left:
            raise StopAsyncIteration
        return self.left.pop()


class Awaited:
    def __await__(self):
        yield from asyncio.sleep(0).__await__()
        return one()


def in_a_pool(error=None):
    future = Future()
    future.set_exception(error) if error else future.set_result(1)
    return future


@pytest.mark.parametrize("is_async", [True, False])
@pytest.mark.parametrize(
    ("made", "said"),
    [
        (one, "1"),
        (Awaited, "1"),
        (many, "[1,2]"),
        (Steps, "[1,2]"),
        (in_a_pool, "1"),
        (lambda: in_a_pool(ValueError("no such city")), "ValueError: no such city"),
        (lambda: [one(), one()], "[1,1]"),
        (lambda: {"a": one(), "b": 2}, '{"a":1,"b":2}'),
        (lambda: (one() for _ in range(2)), "[1,1]"),
        (lambda: [one(), many, one()], None),
    ],
)
def test_what_has_still_to_be_waited_for_is_waited_for(is_async, made, said):
    async def later():
        return made()

    def at_once():
        return made()

    content = run(tool(later if is_async else at_once).async_run({})).content
    assert content == said if said else "function many" in content


def test_an_object_tells_what_it_holds_and_no_secret():
    class Client:
        def __init__(self):
            self.api_key, self.url, self.connect = "hunter2", "h", lambda: None

    class Settings:
        def __init__(self):
            self.api_key, self._inner, self.region = "hunter2", object(), "eu"

    assert "hunter2" not in as_text([Client(), Settings()])
    assert as_text(Settings()) == '{"region":"eu"}'


def test_what_iterates_is_read_in_the_thread_of_its_tool():
    here = []

    class Rows(Iterator):
        def __next__(self):
            import threading

            here.append(threading.current_thread() is threading.main_thread())
            if len(here) > 2:
                raise StopIteration
            return len(here)

    @tool
    def rows():
        return Rows()

    assert run(rows.async_run({})).content == "[1,2]"
    assert not any(here)


@pytest.mark.parametrize("binary", [True, False])
def test_a_file_is_read_from_its_beginning(tmp_path, binary):
    place = tmp_path / "report.txt"
    place.write_text("first\nsecond é")

    with place.open("rb" if binary else "r") as file:
        file.readline()
        assert as_text(file) == "first\nsecond é"
    assert "report.txt" in as_text([file])  # closed: its name is all there is
