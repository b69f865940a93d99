"""The sql tool on a real PostgreSQL: reads well, and is kept from anything else by the server."""

from __future__ import annotations

import asyncio
import json

import asyncpg
import pytest

from shared_libs.tools.sql import SQLTool
from tests.postgres import own_name

FILL = """
CREATE SCHEMA IF NOT EXISTS more;
CREATE TABLE IF NOT EXISTS more.places (name text);
DROP TABLE IF EXISTS items;
CREATE TABLE items (id serial PRIMARY KEY, price numeric(8, 2), day date, tags text[], extra jsonb);
CREATE TABLE documents (body text);
INSERT INTO documents VALUES (repeat('x', 20000000));
CREATE FUNCTION more.own(a int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN a + 1; END $$;
INSERT INTO items (price, day, tags, extra) VALUES (1.5, '2013-01-01', '{x,y}', '{"k": 1}');
"""

ROLES = """
CREATE ROLE {reader} LOGIN;
CREATE ROLE {boss};
CREATE ROLE {clerk} LOGIN IN ROLE {boss};
GRANT INSERT ON items TO {clerk};
"""


@pytest.fixture(scope="module")
def url(postgres):
    database = own_name("sql_tool")  # other tests leave tables in the default one
    own = f"postgresql://owner@{postgres.replace('/postgres?', f'/{database}?', 1)}"

    async def fill():
        server = await asyncpg.connect(f"postgresql://owner@{postgres}")
        await server.execute(f"CREATE DATABASE {database}")
        await server.close()
        connection = await asyncpg.connect(own)
        await connection.execute(FILL)
        await connection.close()

    asyncio.run(fill())
    return own


@pytest.fixture(scope="module")
def roles(url):
    names = {role: own_name(role) for role in ("reader", "boss", "clerk")}

    async def make():
        connection = await asyncpg.connect(url)
        await connection.execute(ROLES.format(**names))
        await connection.close()

    asyncio.run(make())
    return names


def ask(url, query=None, *, timeout_s=20.0):
    tool = SQLTool(url=url)
    tool.timeout_s = timeout_s
    # not on the watched loop: the driver looks for certificates on the disk
    return asyncio.run(tool.async_run({} if query is None else {"query": query}))


def test_the_schema_has_every_schema_of_the_owner(url):
    assert ask(url).content.splitlines() == [
        "documents(body text)",
        "items(id integer, price numeric(8, 2), day date, tags text[], extra jsonb)",
        "more.places(name text)",
    ]


def test_values_come_as_json(url):
    answer = json.loads(
        ask(url, "SELECT price, day, tags, extra, 9 % 2 AS rest, '1:2' AS t, '3'::int AS i FROM items").content
    )
    assert answer["rows"] == [[1.5, "2013-01-01", ["x", "y"], {"k": 1}, 1, "1:2", 3]]
    values = {
        "ROW(1, 'x')": {"f1": 1, "f2": "x"},
        "array[ROW(NULL, '{1}'::int[])]": [{"f1": None, "f2": [1]}],
        "items.*::items IS NULL": False,
        "'0044-03-15 BC'::date": "0044-03-15 BC",
        "'20000-01-01 10:00'::timestamp": "20000-01-01T10:00:00",
        "'infinity'::timestamptz": "infinity",
        "array['0044-03-15 BC'::date]": ["0044-03-15 BC"],
        "'24:00'::time": "24:00:00",
        "interval '1 day 2 hours'": "1 day 02:00:00",
        "int4range(1, 5)": "[1,5)",
        "'(1,2)'::point": "(1,2)",
        "B'101'": "101",
        "'x'::\"char\"": "x",
        "NULL::interval": None,
    }
    answer = json.loads(ask(url, f"SELECT {', '.join(values)} FROM items").content)
    assert answer["rows"] == [[*values.values()]]


def test_rows_are_capped_with_a_note(url):
    answer = json.loads(ask(url, "SELECT * FROM generate_series(1, 1000000)").content)
    assert len(answer["rows"]) == 50
    assert "only the first 50 rows" in answer["note"]


@pytest.mark.promise("sql-safe")
@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM items",
        "WITH gone AS (DELETE FROM items RETURNING 1) SELECT * FROM gone",
        "CREATE TEMP TABLE x (a int)",
        "SELECT nextval('items_id_seq')",
        "SELECT lo_from_bytea(0, 'x')",
        "SELECT set_config('transaction_read_only', 'off', false)",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
        "BEGIN READ WRITE",
        "COMMIT",
        "SELECT 1; DELETE FROM items",
        "SELECT 1; COMMIT; DELETE FROM items",
        "COPY (SELECT 1) TO PROGRAM 'cat'",
        "COPY items TO '/tmp/items'",
        "DO $$ BEGIN DELETE FROM items; END $$",
    ],
)
def test_nothing_but_reading_is_done_even_by_the_owner_of_all(url, statement):
    assert ask(url, statement).is_error
    assert json.loads(ask(url, "SELECT count(*) FROM items").content)["rows"] == [[1]]


@pytest.mark.promise("sql-safe")
def test_a_statement_without_end_is_stopped_by_the_server(url):
    result = ask(url, "SELECT pg_sleep(60)", timeout_s=2.0)
    assert result.content == "the statement took too long and was stopped; narrow it down"


@pytest.mark.promise("sql-safe")
@pytest.mark.parametrize(
    "statement",
    [
        "SELECT lo_export(1, '/tmp/pwned')",
        "SELECT pg_create_physical_replication_slot('evil')",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity",
        "SELECT pg_reload_conf(), pg_switch_wal()",
        "SELECT pg_stat_reset()",
        "SELECT pg_logical_emit_message(false, 'a', repeat('x', 100))",
        "SELECT 1 WHERE (SELECT pg_notify('a', 'b')) IS NULL",
        "WITH w AS (SELECT pg_advisory_lock(1) AS l) SELECT count(l) FROM w",
        "SELECT set_config('statement_timeout', '0', false), pg_sleep(60)",
        "SELECT set_config('role', 'owner', false)",
        "SELECT pg_catalog.\"pg_read_file\"('/etc/passwd')",
        "SELECT * FROM pg_ls_dir('/')",
        "SELECT query_to_xml('SELECT pg_reload_conf()', true, true, '')",
        "SELECT word FROM ts_stat('SELECT ''a''::tsvector')",
        "SELECT id FROM items ORDER BY (SELECT count(*) FROM (SELECT pg_switch_wal()) x)",
        "VALUES (pg_notify('a', 'b'))",
        "SELECT PG_Notify/* */\n('a', 'b')",
        "SELECT U&\"pg\\005fnotify\"('a', 'b')",
        "SELECT ('a'::text).pg_logical_emit_message",
        "SELECT 1) AS answer(c0); SELECT pg_reload_conf() --",
    ],
)
def test_what_acts_without_writing_to_a_table_is_refused_under_any_role(url, statement):
    result = ask(url, statement)
    assert result.is_error
    assert any(word in result.content for word in ("may do more than read", "error", "are not read here"))


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT random() < 2 AS x, clock_timestamp() IS NOT NULL AS y",
        "SELECT gen_random_uuid() IS NOT NULL AS x",
        "SELECT pg_total_relation_size('items') > 0 AS x",
        "SELECT 'call pg_nothing(''a'', ''b'')' AS x;",
        "SELECT more.own(1) AS x -- a function of the owner's",
        "TABLE items",
        "VALUES (1, 2), (3, 4)",
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 9) SELECT x, x FROM n",
        "SELECT id, id, '{\"a\": null}'::jsonb, '\"text\"'::jsonb, 'null'::json, NULL::json, (1, 'x') FROM items",
        "SELECT count(*) FILTER (WHERE price > 1), percentile_cont(0.5) WITHIN GROUP (ORDER BY price) FROM items",
    ],
)
def test_what_only_reads_is_allowed(url, statement):
    result = ask(url, statement)
    assert not result.is_error, result.content


@pytest.mark.promise("sql-safe")
@pytest.mark.parametrize(
    "statement",
    [
        "SELECT repeat('x', 10000000) FROM generate_series(1, 51)",
        "SELECT repeat('x', 30000000)",
        "SELECT array_agg(repeat('x', 1000)) FROM generate_series(1, 20000)",
        "SELECT body FROM documents",
        "SELECT documents FROM documents",
    ],
)
def test_a_row_that_is_too_large_stays_at_the_server(url, statement):
    result = ask(url, statement)
    assert result.is_error
    assert "that are sent; select fewer columns, or a part of them" in result.content
    assert json.loads(ask(url, "SELECT left(body, 3), length(body) FROM documents").content)["rows"] == [
        ["xxx", 2 * 10**7]
    ]


def test_what_a_role_may_do_besides_reading_is_told_when_it_is_opened(url, roles, caplog):
    asyncio.run(SQLTool(url=url).aopen())
    assert "its role is a superuser" in caplog.text
    caplog.clear()
    asyncio.run(SQLTool(url=url.replace("owner@", f"{roles['reader']}@")).aopen())
    assert caplog.text == ""
    asyncio.run(SQLTool(url=url.replace("owner@", f"{roles['clerk']}@")).aopen())
    assert f"its role may take the role {roles['boss']}, may write to tables" in caplog.text
    caplog.clear()
    asyncio.run(SQLTool(url=url.replace("owner@", "nobody_here@")).aopen())
    assert 'cannot be found out: role "nobody_here" does not exist' in caplog.text


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("SELECT nope FROM items", 'column "nope" does not exist; call the tool without a query'),
        ("SELECT * FROM nope", 'relation "nope" does not exist; call the tool without a query'),
        ("SELEC 1", "one SELECT, WITH … SELECT or VALUES is allowed"),
        ("SELECT 1 / (id - 1) FROM items", "division by zero"),
    ],
)
def test_errors_are_in_the_words_of_the_database(url, statement, said):
    assert said in ask(url, statement).content


def test_a_role_that_is_not_there_is_told(url):
    assert ask(url.replace("owner@", "nobody_here@"), "SELECT 1").content == 'role "nobody_here" does not exist'
