"""The sql tool: reads well, and cannot do anything else, by the database's own doing."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys

import pytest

from shared_libs.atomic import MisuseError
from shared_libs.tools.sql import SQLTool
from tests.support import run


@pytest.fixture
def shop(tmp_path):
    return filled(tmp_path / "my shop.db")


@pytest.fixture(scope="module")
def the_shop(tmp_path_factory):
    """A shop and a tool for all tests that only look at it: its worker process is started once."""
    path = filled(tmp_path_factory.mktemp("shop") / "my shop.db")
    return path, SQLTool(url=f"sqlite:///{path}")


def filled(path):
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE items (name TEXT, price REAL, stock INTEGER)")
    database.executemany("INSERT INTO items VALUES (?, ?, ?)", [(f"item {n}", n / 2, n) for n in range(200)])
    database.execute("CREATE VIEW cheap AS SELECT name FROM items WHERE price < 1")
    database.commit()
    database.close()
    return path


def ask(path, query=None, **options):
    tool = SQLTool(url=f"sqlite:///{path}", **options)
    return run(tool.async_run({} if query is None else {"query": query}))


def test_without_a_query_it_lists_the_schema(shop):
    assert ask(shop).content == "cheap(name text)\nitems(name text, price real, stock integer)"


def test_rows_come_with_their_columns(shop):
    answer = json.loads(ask(shop, "SELECT name, price FROM items WHERE stock = 3 -- at 12:30").content)
    assert answer == {"columns": ["name", "price"], "rows": [["item 3", 1.5]]}


@pytest.mark.skipif(sys.version_info < (3, 12), reason="this Python has no word for it")
def test_a_misspelt_column_in_double_quotes_is_no_text(shop):
    assert "no such column" in ask(shop, 'SELECT "pirce" FROM items').content


def test_virtual_tables_can_be_read_and_their_index_is_not_listed(shop):
    database = sqlite3.connect(shop)
    database.execute("CREATE VIRTUAL TABLE notes USING fts5(body)")
    database.execute("INSERT INTO notes VALUES ('the red fox')")
    database.execute("CREATE VIRTUAL TABLE spots USING rtree(id, low, high)")
    database.execute("INSERT INTO spots VALUES (1, 0, 2)")
    database.commit()
    database.close()
    assert ask(shop).content.splitlines() == [
        "cheap(name text)",
        "items(name text, price real, stock integer)",
        "notes(body)",
        "spots(id integer, low real, high real)",
    ]
    assert json.loads(ask(shop, "SELECT body FROM notes WHERE notes MATCH 'fox'").content)["rows"] == [["the red fox"]]
    assert json.loads(ask(shop, "SELECT id FROM spots WHERE high > 1").content)["rows"] == [[1]]


@pytest.mark.parametrize(
    ("statement", "first"),
    [
        ("SELECT value FROM json_each('[7, 8]')", [7]),
        ("SELECT name FROM pragma_table_info('items')", ["name"]),
        ("SELECT ':a', '12:30', 'a::b'", [":a", "12:30", "a::b"]),
        ("EXPLAIN QUERY PLAN SELECT 1", [1, 0, 0, "SCAN CONSTANT ROW"]),
        ("SELECT CAST(x'636166E9' AS text)", ["caf\ufffd"]),
    ],
)
def test_what_only_reads_is_allowed(the_shop, statement, first):
    assert json.loads(run(the_shop[1].async_run({"query": statement})).content)["rows"][0] == first


def test_a_wide_table_is_read_by_its_columns(shop):
    database = sqlite3.connect(shop)
    database.execute(f"CREATE TABLE wide ({', '.join(f'c{n}' for n in range(300))})")
    database.close()
    assert "c299)" in ask(shop).content
    assert ask(shop, "SELECT c0, c299 FROM wide").content == '{"columns":["c0","c299"],"rows":[]}'
    assert "too many columns" in ask(shop, "SELECT * FROM wide").content


WEIGH = """
import asyncio, re, sys
from shared_libs.tools.sql import SQLTool
columns = ", ".join(["zeroblob(999000)"] * 40)
query = f"SELECT {columns} FROM items"
result = asyncio.run(SQLTool(url=sys.argv[1]).async_run({"query": query}))
peak = re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())  # the other peak outlives an exec
print(result.is_error, int(peak[1]) // 1024)
"""


@pytest.mark.promise("sql-safe")
def test_heavy_rows_do_not_pile_up(shop):
    told = subprocess.run([sys.executable, "-c", WEIGH, f"sqlite:///{shop}"], capture_output=True, check=True)
    is_error, mebibytes = told.stdout.split()
    assert is_error == b"False"
    assert int(mebibytes) < 400  # fifty such rows are 2,000


def test_rows_are_capped_with_a_note(shop):
    answer = json.loads(ask(shop, "SELECT * FROM items", max_rows=10).content)
    assert len(answer["rows"]) == 10
    assert "only the first 10 rows" in answer["note"]
    by_size = json.loads(ask(shop, "SELECT * FROM items", max_chars=200).content)
    assert len(by_size["rows"]) < 20


def test_long_values_are_cut(shop):
    answer = json.loads(ask(shop, "SELECT printf('%.*c', 9000, 'x')").content)
    assert answer["rows"][0][0].endswith("[9000 characters]")


@pytest.mark.promise("sql-safe")
@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM items",
        "INSERT INTO items VALUES ('x', 1, 1)",
        "UPDATE items SET price = 0",
        "DROP TABLE items",
        "CREATE TABLE x (a)",
        "CREATE TEMP TABLE x (a)",
        "ALTER TABLE items ADD COLUMN x",
        "ATTACH 'other.db' AS other",
        "DETACH main",
        "VACUUM INTO 'copy.db'",
        "PRAGMA journal_mode = WAL",
        "PRAGMA query_only = OFF",
        "PRAGMA writable_schema = ON",
        "SELECT load_extension('x')",
        "SELECT writefile('x', 'y')",
        "SELECT readfile('/etc/passwd')",
        "REINDEX",
        "BEGIN",
        "SELECT 1; DELETE FROM items",
        "SELECT zeroblob(2000000000)",
        "SELECT replace(printf('%.*c', 900000, 'x'), 'x', 'xxxxxxxxxx')",
    ],
)
def test_nothing_but_reading_is_done(the_shop, statement):
    shop, tool = the_shop
    before = shop.read_bytes()
    result = run(tool.async_run({"query": statement}))
    assert result.is_error
    assert shop.read_bytes() == before
    assert [path.name for path in shop.parent.iterdir()] == [shop.name]


ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n)"


@pytest.mark.promise("sql-safe", "time-threads")
def test_a_statement_without_end_is_stopped(the_shop):
    _, tool = the_shop
    result = run(within(tool, 0.6, f"{ENDLESS} SELECT max(x) FROM n"))
    assert result.content == "the statement took too long and was stopped; narrow it down"


DOUBLING = ", ".join(
    ["t0 AS (SELECT 1 x)", *(f"t{n} AS (SELECT a.x FROM t{n - 1} a, t{n - 1} b)" for n in range(1, 40))]
)


@pytest.mark.promise("sql-safe")
@pytest.mark.parametrize(
    "statement",
    [
        f"WITH {DOUBLING} SELECT count(*) FROM t39",  # the doubling is done while it is prepared
        f"{ENDLESS} SELECT length(json_group_object(x, printf('%.*c', 90000, 'x'))) FROM n",
        f"{ENDLESS} SELECT length(group_concat(printf('%.*c', 90000, 'x'))), json_group_array('x') FROM n",
        f"{ENDLESS} SELECT count(DISTINCT x || zeroblob(100000)) FROM n",  # was temporary files
        f"{ENDLESS} SELECT x FROM n ORDER BY printf('%.*c', 90000, x)",
        "SELECT printf('%.*c', 2000000000, 'x')",  # one instruction, which nothing interrupts
        f"{ENDLESS} SELECT sum(length(hex(zeroblob(400000)))) FROM n",
        f"SELECT {'+'.join(['1'] * 20_000)}",
        " UNION ALL ".join(["SELECT 1"] * 5_000),
    ],
)
def test_no_statement_eats_the_memory_or_outlives_its_time(shop, statement):
    """The worker's own peak is the bound of address space that it sets itself; what is left is that it is gone."""
    tool = SQLTool(url=f"sqlite:///{shop}")
    tool.memory_limit_mb = 150

    async def main():
        await tool.aopen()
        result = await within(tool, 0.6, statement)
        again = await within(tool, 5, "SELECT 1 AS a")
        return result, again, tool.still_running

    result, again, left = run(main())
    assert result.is_error
    assert "sql ran out of memory" in result.content or any(
        word in result.content for word in ("too long", "did not finish", "too big", "too many", "too large", "maximum")
    )
    assert again.content == '{"columns":["a"],"rows":[[1]]}'
    assert left == 0


@pytest.mark.promise("sql-safe", "time-threads")
def test_a_program_ends_whatever_its_statements_are_at(shop):
    """H5: `asyncio.run` waited for a database thread that had gone; now there is no thread."""
    slow = "SELECT printf('%.*c', 600000000, 'x')"
    code = f"""
import asyncio
from shared_libs.tools.sql import SQLTool
tools = [SQLTool(url={f"sqlite:///{shop}"!r}) for _ in range(4)]
async def main():
    for tool in tools:
        tool.timeout_s = 0.5
    return await asyncio.gather(*(tool.async_run({{"query": {slow!r}}}) for tool in tools))
for _ in range(3):
    print([result.is_error for result in asyncio.run(main())])
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=60, text=True)
    assert told.stdout == "[True, True, True, True]\n" * 3


async def within(tool, seconds, statement):
    tool.timeout_s = seconds
    try:
        return await tool.async_run({"query": statement})
    finally:
        tool.timeout_s = 20.0


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("SELECT nope FROM items", "no such column: nope; call the tool without a query"),
        ("SELECT * FROM nope", "no such table: nope; call the tool without a query"),
        ("SELEC 1", 'near "SELEC": syntax error'),
        ("DELETE FROM items", "this tool only reads"),
        ("UPDATE sqlite_master SET sql = ''", "may not be modified"),
        ("-- nothing", "returns no rows"),
    ],
)
def test_errors_are_in_the_words_of_the_database(the_shop, statement, said):
    assert said in run(the_shop[1].async_run({"query": statement})).content


def test_a_missing_file_is_named(tmp_path):
    assert "there is no database file" in ask(tmp_path / "nope.db").content
    assert not (tmp_path / "nope.db").exists()


def test_a_server_that_is_not_there_is_told_without_the_password():
    tool = SQLTool(url="postgresql://me:secret@127.0.0.1:9/none")
    result = asyncio.run(tool.async_run({"query": "SELECT 1"}))  # the driver looks for certificates on the disk
    assert result.is_error
    assert "cannot be reached" in result.content
    assert "secret" not in result.content


@pytest.mark.promise("loop-per-client")
def test_one_tool_works_in_two_event_loops_in_a_row(shop):
    tool = SQLTool(url=f"sqlite:///{shop}")
    assert run(tool.async_run({"query": "SELECT 1 AS a"})).content == '{"columns":["a"],"rows":[[1]]}'
    assert run(tool.async_run({"query": "SELECT 2 AS a"})).content == '{"columns":["a"],"rows":[[2]]}'


@pytest.mark.parametrize(
    "options",
    [{}, {"url": "sqlite:///x", "dataset": "nycflights13"}, {"url": "mysql://x"}, {"dataset": "nope"}],
)
def test_wrong_options_are_misuse(options):
    with pytest.raises(MisuseError):
        SQLTool(**options)
