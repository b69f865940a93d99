"""What only PostgreSQL does: plans, indexes that are built later, connections of a loop."""

from __future__ import annotations

import asyncio
import gc
import itertools
import re

import pytest

from shared_libs.retrieval.filters import read_filter
from shared_libs.retrieval.stores import open_stores
from shared_libs.retrieval.stores.postgres_database import PostgresDatabase
from shared_libs.retrieval.stores.postgres_documents import PostgresDocuments
from shared_libs.retrieval.stores.postgres_vectors import PostgresVectors
from shared_libs.retrieval.stores.postgres_words import PostgresWords
from shared_libs.retrieval.types import Point, Words
from shared_libs.retrieval.words import ENOUGH
from tests.support import run
from tests.unit.retrieval.conftest import (
    OURS,
    both_made,
    exact,
    on_postgres,
    points,
    unit,
)


@pytest.mark.promise("retrieval-filter")
@pytest.mark.xdist_group("postgres-retrieval")
def test_looking_among_the_rarest_terms_first_loses_no_hit(request):
    words = on_postgres(request).words
    texts = [Words(f"r{at}", "scarce plenty", {"kind": "both"}) for at in range(ENOUGH)]
    texts += [Words(f"p{at}", "plenty of it", {"kind": "one"}) for at in range(20)]

    async def main():
        await both_made(open_stores(request.getfixturevalue("postgres_url")).documents)
        await words.async_upsert(OURS, texts)
        assert {row.id[0] for row in await words.async_search(OURS, "plenty, scarce", 50)} == {"r"}
        assert len(await words.async_search(OURS, "plenty, scarce", 10, read_filter({"kind": "one"}))) == 10

    run(main())


@pytest.mark.xdist_group("postgres-retrieval")
def test_writers_of_one_collection_do_not_wait_for_each_other(request):
    vectors = on_postgres(request).vectors
    url = request.getfixturevalue("postgres_url")

    async def main():
        await both_made(open_stores(url).documents)
        await vectors.async_upsert(OURS, points(unit(1)))
        other = await pytest.importorskip("asyncpg").connect(url)
        async with other.transaction():
            await other.execute("SELECT * FROM factory_generations FOR UPDATE")
            async with asyncio.timeout(20):
                await vectors.async_upsert(OURS, points(unit(2)))
        await other.close()
        assert await vectors.async_count(OURS) == 2

    asyncio.run(main())


@pytest.mark.promise("loop-per-client")
@pytest.mark.xdist_group("postgres-retrieval")
def test_connections_end_with_their_loop_closed_or_not(request):
    async def main(stores):
        await stores.documents.async_create(OURS, None)

    stores = on_postgres(request)
    for _ in range(2):
        run(main(stores))
    del stores
    run(main(on_postgres(request)))
    gc.collect()  # an unclosed connection would warn now


@pytest.mark.promise("retrieval-plans")
@pytest.mark.xdist_group("postgres-retrieval")
def test_what_a_parameter_stands_for_is_read_once_and_not_for_each_row(request):
    asked = []

    async def main(stores):
        await both_made(stores.documents)
        await stores.vectors.async_upsert(OURS, points(unit(3), kind="b", lang="en"))
        await stores.words.async_upsert(OURS, [Words("w", "red lamp", {"n": 1})])
        database = stores.vectors._database
        async with database.connection() as connection:  # the only one so far, so the one that is lent again
            connection.add_query_logger(lambda told: asked.append((told.query, told.args)))
        where = read_filter({"n": {"from": 0, "to": 5}, "kind": {"not": "a"}, "lang": ["en", "pt"]})
        for vectors in (stores.vectors, PostgresVectors(database, few=0)):
            assert await vectors.async_search(OURS, unit(1)[0], 1, where)
        await stores.words.async_search(OURS, "red lamp", 1, where)
        searches = [row for row in asked if row[0].startswith(("SELECT id,", "WITH fits"))]
        assert len(searches) == 5  # the last of the three of vectors compares what an index may have missed
        async with database.connection() as connection:
            for query, values in searches:
                rows = await connection.fetch(f"EXPLAIN (VERBOSE, GENERIC_PLAN) {query}", *values)
                plan = [row[0].strip() for row in rows]
                read = [
                    line for line, value in itertools.pairwise(plan) if re.search(r"'::(vector|tsquery|jsonb)", value)
                ]
                assert read
                assert all(line.startswith("->  Result") for line in read), plan

    run(main(on_postgres(request)))


@pytest.mark.promise("retrieval-plans")
@pytest.mark.xdist_group("postgres-retrieval")
def test_where_the_index_gives_up_what_fits_is_compared_exactly_also_the_tenth_time(postgres_url):
    """A server keeps the plan of a statement that it has run five times, whatever is set afterwards."""
    rows = unit(5_000, width=12)

    async def main():
        server = PostgresDatabase(postgres_url)
        await both_made(PostgresDocuments(server))
        vectors = PostgresVectors(server, few=0, indexed_from=1)
        for start in range(0, len(rows), 1_000):
            part = [Point(f"p{at:04}", rows[at], {"n": at}) for at in range(start, start + 1_000)]
            await vectors.async_upsert(OURS, part)
        await vectors.async_tidy()
        for wanted in unit(10, width=12, seed=2):
            found = await vectors.async_search(OURS, wanted, 10, read_filter({"n": {"to": 11}}))
            assert [row.id for row in found] == exact(rows, wanted, 10, range(12))
        asked = []
        async with server.connection() as connection:  # the only one so far, so the one that is lent again
            connection.add_query_logger(lambda told: asked.append(told.query))
        vectors = PostgresVectors(server)
        ways = {"AS seen": "sample", "WITH fits": "exactly", "ORDER BY vector": "index"}
        for to, done in ((11, ["sample", "exactly"] * 2), (1_500, ["sample", "index", "index"])):
            asked.clear()
            for _ in range(2):
                assert (await vectors.async_search(OURS, rows[5], 10, read_filter({"n": {"to": to}})))[0].id == "p0005"
            assert [way for query in asked for part, way in ways.items() if part in query] == done

    run(main())


@pytest.mark.promise("retrieval-plans")
@pytest.mark.xdist_group("postgres-retrieval")
def test_an_index_is_built_when_a_table_has_grown_and_what_was_put_off_is_taken_up(postgres_url):
    async def main():
        server = PostgresDatabase(postgres_url)
        documents, vectors = PostgresDocuments(server), PostgresVectors(server, few=5, indexed_from=30)
        words = PostgresWords(server)
        await both_made(documents)
        rows = unit(40, width=24)

        async def told(query):
            async with server.reading() as connection:
                return await connection.fetchval(query)

        built = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('factory_vectors_24_near')"
        await vectors.async_upsert(OURS, points(rows[:29]))
        await vectors.async_tidy()
        assert await told(built) is None
        await vectors.async_upsert(OURS, points(rows))
        other = PostgresVectors(server, indexed_from=30)
        await other.async_upsert(OURS, points(rows[:1]))
        await asyncio.gather(vectors.async_tidy(), other.async_tidy())
        assert await told(built) is True
        for wanted in rows[:5]:
            assert [row.id for row in await vectors.async_search(OURS, wanted, 3)] == exact(rows, wanted, 3)
        async with server.reading() as connection:  # as a process leaves it that ended while it built
            await connection.execute(
                "UPDATE pg_index SET indisvalid = false WHERE indexrelid = to_regclass('factory_vectors_24_near')"
            )
        await vectors.async_tidy()
        assert await told(built) is True
        await words.async_upsert(OURS, [Words("w", "red lamp", {})])
        await words.async_tidy()
        assert await told("SELECT gin_clean_pending_list('factory_texts_by_word')") == 0
        assert [row.id for row in await words.async_search(OURS, "lamp", 3)] == ["w"]

    run(main())
