"""One suite for each port, run by every back end."""

from __future__ import annotations

import asyncio
import gc
import itertools
import re

import numpy as np
import pytest

from shared_libs.atomic import MisuseError
from shared_libs.atomic.errors import RetrievalError, RetrievalUnavailable
from shared_libs.retrieval import LexicalIndex, VectorStore
from shared_libs.retrieval.filters import among, read_filter
from shared_libs.retrieval.stores import open_stores
from shared_libs.retrieval.stores.postgres_database import PostgresDatabase
from shared_libs.retrieval.stores.postgres_documents import PostgresDocuments
from shared_libs.retrieval.stores.postgres_vectors import PostgresVectors
from shared_libs.retrieval.stores.postgres_words import PostgresWords
from shared_libs.retrieval.stores.qdrant_vectors import LocalQdrantVectors, QdrantVectors
from shared_libs.retrieval.stores.sqlite_database import Database
from shared_libs.retrieval.stores.sqlite_documents import SqliteDocuments
from shared_libs.retrieval.stores.sqlite_vectors import SqliteVectors
from shared_libs.retrieval.stores.sqlite_words import SqliteWords
from shared_libs.retrieval.types import Found, Point, Space, Words
from shared_libs.retrieval.words import ENOUGH
from tests.qdrant_server import ASKED, INDEXES
from tests.support import run, run_virtual

OURS, THEIRS = Space(tenant="acme", collection="c"), Space(tenant="globex", collection="c")


def on_postgres(request):
    return open_stores(request.getfixturevalue("postgres_url"))


async def both_made(documents):
    for space in (OURS, THEIRS):
        await documents.async_create(space, None)


def unit(count, width=16, seed=1):
    rows = np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


ON_POSTGRES = pytest.param("postgres", marks=pytest.mark.xdist_group("postgres-retrieval"))


BY_INDEX = pytest.param("postgres by index", marks=pytest.mark.xdist_group("postgres-retrieval"))


@pytest.fixture(params=["coarse", "exact", ON_POSTGRES, BY_INDEX, "qdrant", "qdrant folder"])
def vectors(request, tmp_path):
    if request.param == "qdrant folder":
        yield (vectors := open_stores(vectors=f"qdrant://{tmp_path}/qdrant").vectors)
        run(vectors.aclose())
    elif request.param == "qdrant":
        yield open_stores(vectors=f"qdrant://127.0.0.1:{request.getfixturevalue('qdrant')[0]}").vectors
    elif request.param == "postgres":
        stores = on_postgres(request)
        run(both_made(stores.documents))
        yield stores.vectors
    elif request.param == "postgres by index":
        server = PostgresDatabase(request.getfixturevalue("postgres_url"))
        run(both_made(PostgresDocuments(server)))
        yield PostgresVectors(server, few=0, indexed_from=1)
    else:
        database = Database(tmp_path / "c.db")
        run(both_made(SqliteDocuments(database)))
        yield SqliteVectors(database, coarse=request.param == "coarse")


@pytest.fixture(params=["fts5", ON_POSTGRES])
def words(request, tmp_path):
    if request.param == "postgres":
        stores = on_postgres(request)
        run(both_made(stores.documents))
        return stores.words
    database = Database(tmp_path / "c.db")
    run(both_made(SqliteDocuments(database)))
    return SqliteWords(database)


def points(rows, **metadata):
    return [Point(f"p{at:04}", row, metadata | {"n": at}) for at, row in enumerate(rows)]


def exact(rows, wanted, k, chosen=None):
    scores = rows @ (wanted / np.linalg.norm(wanted))
    ids = range(len(rows)) if chosen is None else chosen
    return [f"p{at:04}" for at in sorted(ids, key=lambda at: (-scores[at], at))[:k]]


def test_vectors_are_found_by_their_angle(vectors):
    rows = unit(300)

    async def main():
        assert await vectors.async_search(OURS, rows[0], 5) == []
        await vectors.async_upsert(OURS, points(rows * 3))
        found = await vectors.async_search(OURS, rows[7] * 100, 10)
        assert [row.id for row in found] == exact(rows, rows[7], 10)
        assert found[0].score == pytest.approx(1.0, abs=1e-3)
        assert len(await vectors.async_search(OURS, rows[0], 1_000)) == 300
        assert await vectors.async_search(OURS, rows[0], 0) == []
        assert await vectors.async_count(OURS) == 300

    run(main())


def test_how_long_a_vector_is_does_not_matter(vectors):
    rows = unit(20)

    async def main():
        lengths = [1e-30, 1e30, 1.0]
        await vectors.async_upsert(OURS, points([row * lengths[at % 3] for at, row in enumerate(rows)]))
        for length in lengths:
            found = await vectors.async_search(OURS, rows[7] * length, 5)
            assert [row.id for row in found] == exact(rows, rows[7], 5)
        with pytest.raises(MisuseError, match="no finite number"):
            await vectors.async_upsert(OURS, points([np.full(16, 1e300)]))
        with pytest.raises(MisuseError, match="list of numbers"):
            await vectors.async_upsert(OURS, points([["a"] * 16]))

    run(main())


@pytest.mark.promise("index-once")
def test_a_write_may_be_repeated_and_the_last_one_holds(vectors):
    rows = unit(20)

    async def main():
        for _ in range(3):
            await vectors.async_upsert(OURS, points(rows))
        assert await vectors.async_count(OURS) == 20
        await vectors.async_upsert(OURS, [Point("p0003", -rows[3], {})])
        found = await vectors.async_search(OURS, rows[3], 20)
        assert found[-1].id == "p0003"
        assert len(found) == 20

    run(main())


@pytest.mark.promise("retrieval-filter")
@pytest.mark.parametrize("share", [0.5, 0.05, 0.01])
def test_a_filter_loses_no_hit(vectors, share):
    rows = unit(400)
    fits = range(int(400 * share))

    async def main():
        await vectors.async_upsert(OURS, points(rows, kind="x"))
        await vectors.async_tidy()
        where = read_filter({"n": {"to": len(fits) - 1}, "kind": "x"})
        for wanted in unit(5, seed=2):
            for _ in range(2):
                found = await vectors.async_search(OURS, wanted, 10, where)
                assert [row.id for row in found] == exact(rows, wanted, 10, fits)
        assert await vectors.async_search(OURS, rows[0], 10, read_filter({"kind": "y"})) == []

    run(main())


def test_among_named_chunks_alone_all_of_them_are_looked_at(vectors):
    rows = unit(400)
    chosen = range(5, 400, 40)
    named = among([f"p{at:04}" for at in chosen] + ["never-there"])

    async def main():
        await vectors.async_upsert(OURS, points(rows))
        await vectors.async_tidy()
        for wanted in unit(3, seed=2):
            found = await vectors.async_search(OURS, wanted, 20, (named,))
            assert [row.id for row in found] == exact(rows, wanted, 20, chosen)
            found = await vectors.async_search(OURS, wanted, 5, (named, *read_filter({"n": {"from": 200}})))
            assert [row.id for row in found] == exact(rows, wanted, 5, [at for at in chosen if at >= 200])
        assert await vectors.async_search(OURS, rows[0], 5, (among([]),)) == []
        assert await vectors.async_search(THEIRS, rows[0], 5, (named,)) == []

    run(main())


@pytest.mark.promise("index-delete")
def test_what_is_deleted_is_found_no_more(vectors):
    rows = unit(50)

    async def main():
        await vectors.async_upsert(OURS, points(rows))
        assert (await vectors.async_search(OURS, rows[9], 1))[0].id == "p0009"
        await vectors.async_delete(OURS, ["p0009", "never-there"])
        assert (await vectors.async_search(OURS, rows[9], 1))[0].id != "p0009"
        await vectors.async_upsert(OURS, [Point("p0009", rows[9], {})])
        assert (await vectors.async_search(OURS, rows[9], 1))[0].id == "p0009"
        await vectors.async_drop(OURS)
        assert await vectors.async_search(OURS, rows[9], 1) == []

    run(main())


@pytest.mark.promise("retrieval-tenants")
def test_tenants_and_generations_never_meet(vectors):
    rows = unit(10)

    async def main():
        await vectors.async_upsert(OURS, points(rows))
        assert await vectors.async_search(THEIRS, rows[0], 5) == []
        later = Space(tenant="acme", collection="c", generation=2)
        assert await vectors.async_search(later, rows[0], 5) == []
        await vectors.async_upsert(later, points(unit(3, width=8)))
        assert len(await vectors.async_search(later, unit(1, width=8)[0], 5)) == 3
        assert await vectors.async_tag(THEIRS, ["p0001"], {"n": 9}) == set()
        await vectors.async_delete(THEIRS, ["p0001"])
        assert await vectors.async_count(OURS) == 10

    run(main())


def test_metadata_is_noted_on_what_is_there(vectors):
    rows = unit(5)

    async def main():
        await vectors.async_upsert(OURS, points(rows, kind="old"))
        assert await vectors.async_search(OURS, rows[0], 9, read_filter({"kind": "new"})) == []
        assert await vectors.async_tag(OURS, ["p0001", "p0002", "none"], {"kind": "new"}) == {"p0001", "p0002"}
        found = await vectors.async_search(OURS, rows[2], 9, read_filter({"kind": "new"}))
        assert [row.id for row in found] == exact(rows, rows[2], 2, [1, 2])

    run(main())


@pytest.mark.parametrize(
    "wrong",
    [np.ones(15, "f4"), np.ones((2, 16), "f4"), np.full(16, np.nan, "f4"), np.full(16, np.inf, "f4"), np.ones(0)],
)
def test_a_vector_of_another_kind_is_refused(vectors, wrong):
    async def main():
        await vectors.async_upsert(OURS, points(unit(3)))
        with pytest.raises(MisuseError):
            await vectors.async_upsert(OURS, [Point("x", wrong, {})])
        with pytest.raises(MisuseError):
            await vectors.async_search(OURS, wrong, 3)
        assert await vectors.async_count(OURS) == 3

    run(main())


def test_a_vector_without_direction_is_stored_and_found_last(vectors):
    async def main():
        await vectors.async_upsert(OURS, [Point("zero", np.zeros(16, "f4"), {}), Point("one", unit(1)[0], {})])
        assert [row.id for row in await vectors.async_search(OURS, unit(1)[0], 5)] == ["one", "zero"]

    run(main())


def test_many_writers_and_readers_at_once(vectors):
    rows = unit(160)

    async def write(number):
        for start in range(0, 20, 5):
            part = [Point(f"p{number * 20 + at:04}", rows[number * 20 + at], {}) for at in range(start, start + 5)]
            await vectors.async_upsert(OURS, part)
            await vectors.async_search(OURS, rows[0], 5)

    async def main():
        await asyncio.gather(*(write(number) for number in range(8)))
        assert [row.id for row in await vectors.async_search(OURS, rows[80], 10)] == exact(rows, rows[80], 10)

    run(main())


def test_what_another_process_wrote_is_seen(request, tmp_path, vectors):
    rows = unit(6)
    if isinstance(vectors, LocalQdrantVectors):
        pytest.skip("a folder is of one process")
    if isinstance(vectors, PostgresVectors):
        other = on_postgres(request).vectors
    elif isinstance(vectors, QdrantVectors):
        other = open_stores(vectors=f"qdrant://127.0.0.1:{request.getfixturevalue('qdrant')[0]}").vectors
    else:
        other = open_stores(f"sqlite:///{tmp_path / 'c.db'}").vectors

    async def main():
        await vectors.async_upsert(OURS, points(rows[:3]))
        assert len(await other.async_search(OURS, rows[0], 9)) == 3
        await vectors.async_upsert(OURS, points(rows))
        await vectors.async_delete(OURS, ["p0001"])
        assert {row.id for row in await other.async_search(OURS, rows[0], 9)} == {
            f"p000{at}" for at in range(6) if at != 1
        }

    run(main())


TEXTS = [
    Words("en", "Annual leave is twenty-five days; ask your manager.", {"lang": "en", "n": 1}),
    Words("zh", "员工每年有二十五天年假。请先向经理申请。", {"lang": "zh", "n": 2}),
    Words("vi", "Nhân viên có 25 ngày nghỉ phép mỗi năm.", {"lang": "vi", "n": 3}),
    Words("pt", "O funcionário tem 25 dias de férias por ano; não esqueça de avisar.", {"lang": "pt", "n": 4}),
    Words("none", "The quick brown fox.", {"lang": "en", "n": 5}),
    Words("hi", "कर्मचारियों को वार्षिक अवकाश मिलता है।", {}),
    Words("he", "כל עובד זכאי לחופש; חוּפשָׁה בתשלום.", {}),
    Words("de", "Jeder hat dreißig Urlaubstage im Jahr.", {}),
]


@pytest.mark.promise("retrieval-languages")
@pytest.mark.parametrize(
    ("asked", "first"),
    [
        ("How many days of annual leave?", "en"),
        ("年假有多少天", "zh"),
        ("nghi phep", "vi"),
        ("nghỉ phép mỗi năm", "vi"),
        ("ferias do funcionario", "pt"),
        ("férias", "pt"),
        ("MANAGERS", "en"),
        ("वार्षिक अवकाश", "hi"),
        ("חופשה", "he"),
        ("Urlaubstage", "de"),
    ],
)
def test_words_are_found_in_every_language(words, asked, first):
    async def main():
        await words.async_upsert(OURS, TEXTS)
        found = await words.async_search(OURS, asked, 5)
        assert found[0].id == first
        assert all(row.score > 0 for row in found) or found[0].score > found[-1].score

    run(main())


@pytest.mark.promise("retrieval-filter")
def test_words_are_filtered_deleted_and_written_over(words):
    async def main():
        assert await words.async_search(OURS, "leave", 5) == []
        for _ in range(2):
            await words.async_upsert(OURS, TEXTS)
        every = "days 25 fox 年假 férias leave"
        assert {row.id for row in await words.async_search(OURS, every, 9)} == {"en", "zh", "vi", "pt", "none"}
        for where, ids in (
            ({"lang": "en"}, {"en", "none"}),
            ({"lang": ["zh", "vi"]}, {"zh", "vi"}),
            ({"n": {"from": 2, "to": 3}}, {"zh", "vi"}),
            ({"lang": {"not": "en"}}, {"zh", "vi", "pt"}),
            ({"lang": "en", "n": {"from": 2}}, {"none"}),
            ({"absent": {"not": 1}}, set()),
            ({"n": "2"}, set()),
        ):
            assert {row.id for row in await words.async_search(OURS, every, 9, read_filter(where))} == ids, where
        assert len(await words.async_search(OURS, every, 2, read_filter({"lang": ["zh", "vi", "pt"]}))) == 2
        named = (among(["zh", "pt", "never-there"]), *read_filter({"n": {"to": 2}}))
        assert {row.id for row in await words.async_search(OURS, every, 9, named)} == {"zh"}
        assert await words.async_search(OURS, every, 9, (among([]),)) == []
        await words.async_upsert(OURS, [Words("en", "Nothing of that kind.", {})])
        assert [row.id for row in await words.async_search(OURS, "annual leave", 9)] == []
        await words.async_delete(OURS, ["pt", "never-there"])
        assert [row.id for row in await words.async_search(OURS, "férias", 9)] == []
        assert await words.async_search(THEIRS, every, 9) == []
        await words.async_drop(OURS)
        assert await words.async_search(OURS, every, 9) == []

    run(main())


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


@pytest.mark.promise("retrieval-inert")
@pytest.mark.parametrize(
    "asked",
    [
        '"',
        "' OR 1=1 --",
        "NEAR(a b)",
        "a* AND",
        "{lang}: x",
        "^",
        "-leave",
        "(" * 50,
        "\0",
        "leave " * 3_000,
        "🙂",
        "AND",
    ],
)
def test_a_question_is_words_and_no_query(words, asked):
    async def main():
        await words.async_upsert(OURS, TEXTS)
        found = await words.async_search(OURS, asked, 3)
        assert all(isinstance(row, Found) for row in found)

    run(main())


class FakeVectors(VectorStore):
    name = "fake"

    def __init__(self, answer):
        self.answer = answer

    async def _search(self, space, vector, k, where):
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    "answer", [[("a", 1.0)], [Found("a", float("nan"))], ValueError("boom"), SystemExit(1), asyncio.CancelledError()]
)
def test_a_store_that_misbehaves_is_an_error_of_one_kind(answer):
    async def main():
        with pytest.raises(RetrievalError, match="fake"):
            await FakeVectors(answer).async_search(OURS, unit(1)[0], 3)

    run(main())


class Slow(VectorStore):
    async def _upsert(self, space, points):
        await asyncio.sleep(100)

    async def _search(self, space, vector, k, where):
        await asyncio.sleep(11)


def test_a_write_may_take_longer_than_anybody_waits_for_an_answer():
    async def main():
        await Slow().async_upsert(OURS, points(unit(1)))
        with pytest.raises(RetrievalUnavailable, match="within 10 s"):
            await Slow().async_search(OURS, unit(1)[0], 1)

    run_virtual(main())


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


def test_a_public_method_cannot_be_overridden():
    with pytest.raises(MisuseError, match="_search"):

        class Mine(LexicalIndex):
            async def async_search(self, *arguments):
                return []


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
    rows = unit(6_000, width=12)

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


@pytest.mark.promise("qdrant-apart")
@pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection")
def test_a_qdrant_server_gets_the_key_and_keeps_tenants_apart(qdrant):
    port, app = qdrant

    async def main():
        vectors = open_stores(vectors=f"qdrant://se%2Fcret@127.0.0.1:{port}").vectors
        await vectors.async_upsert(OURS, points(unit(3)))
        await vectors.aclose()
        assert "cret" not in f"{vectors.name} {vectors!r}"

    run(main())
    assert {key for _, _, key in app[ASKED]} == {"se/cret"}
    assert app[INDEXES] == [("space", True)]


@pytest.mark.promise("qdrant-apart")
@pytest.mark.parametrize("where", [{"name": {"from": "b", "to": "d"}}, {"name": {"not": {"from": "c"}}}])
def test_what_a_store_cannot_compare_is_compared_behind_it(vectors, where):
    rows = unit(40)

    async def main():
        some = [Point(f"p{at:04}", row, {"name": "abcdefgh"[at % 8]}) for at, row in enumerate(rows)]
        await vectors.async_upsert(OURS, some)
        condition = read_filter(where)
        fits = [at for at in range(40) if all(one.holds({"name": "abcdefgh"[at % 8]}) for one in condition)]
        found = await vectors.async_search(OURS, rows[5], 7, condition)
        assert [row.id for row in found] == exact(rows, rows[5], 7, fits)

    run(main())


def test_a_server_that_is_not_there_is_told():
    async def main():
        with pytest.raises(RetrievalUnavailable, match="does not answer"):
            await open_stores(vectors="qdrant://127.0.0.1:1").vectors.async_count(OURS)

    run(main())
