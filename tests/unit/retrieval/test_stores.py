"""One suite for stores of vectors, run by every back end."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from shared_libs.atomic import MisuseError
from shared_libs.retrieval.filters import among, read_filter
from shared_libs.retrieval.stores import open_stores
from shared_libs.retrieval.stores.postgres_vectors import PostgresVectors
from shared_libs.retrieval.stores.qdrant_vectors import LocalQdrantVectors, QdrantVectors
from shared_libs.retrieval.types import Point, Space
from tests.qdrant_server import ASKED, INDEXES
from tests.support import run
from tests.unit.retrieval.conftest import (
    OURS,
    THEIRS,
    exact,
    on_postgres,
    points,
    unit,
)


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
