"""A limit that several processes keep together: on a real SQLite file and a real PostgreSQL, over real HTTP."""

from __future__ import annotations

import asyncio
import time
import uuid

import pytest

from shared_libs.atomic import MisuseError, RateLimit
from shared_libs.atomic.errors import LimitStoreError
from shared_libs.limits import SQLLimitStore
from tests.nursery import ran
from tests.wire_server import WireServer, reply

PROCESS = ("-m", "tests.unit.limits.limited_process")
ANSWER = {"model": "m", "choices": [{"message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}]}
STORES = ["sqlite", "postgres"]


@pytest.fixture(params=STORES)
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path / 'limits.db'}"
    return f"postgresql+asyncpg://owner@{request.getfixturevalue('postgres')}"


def run(main):
    """Not on the watched loop: the driver of PostgreSQL looks for certificates on the disk."""
    return asyncio.run(main)


def name():
    """A model nobody else counts: the database outlives a test."""
    return str(uuid.uuid4())


@pytest.mark.promise("limit-shared")
def test_four_processes_together_send_no_more_than_allowed_in_any_window(url):
    processes, calls, limit, window_s, margin_s = 4, 5, 10, 1.0, 2.0
    arrived = []

    def answer(request):
        if request.body["model"] == "m":
            arrived.append(time.monotonic())
        return reply(ANSWER)

    async def main():
        async with WireServer(answer) as server:
            arguments = [*PROCESS, server.url, url, *map(str, (calls, window_s, margin_s, limit))]
            return await asyncio.gather(*(asyncio.to_thread(ran, *arguments) for _ in range(processes)))

    told = run(main())
    assert [(one.stdout, one.stderr) for one in told] == [
        (f"{calls}\n", "")
    ] * processes  # every call answered, each by one attempt, and no warning
    assert len(arrived) == processes * calls
    assert max(sum(1 for other in arrived if start <= other < start + window_s) for start in arrived) <= limit


@pytest.mark.promise("limit-shared")
def test_a_booking_counts_for_the_window_and_the_way_to_the_server(url):
    limit, model = RateLimit(requests_per_minute=2), name()

    async def main():
        one, other = SQLLimitStore(url), SQLLimitStore(url)
        answers = [await store.take(model, limit, 5) for store in (one, other, one)]
        elsewhere = await other.take(name(), limit, 5)
        await one.aclose()
        await other.aclose()
        return answers, elsewhere

    (first, second, full), elsewhere = run(main())
    assert (first, second, elsewhere) == ([], [], [])
    assert len(full) == 5
    # two places a round: the third to be served waits for the first to leave again
    assert all(68 * n - 30 < wait_s <= 68 * n for wait_s, n in zip(full, (1, 1, 2, 2, 3), strict=True))
    assert full == sorted(full)


@pytest.mark.promise("limit-shared")
def test_tokens_are_counted_together(url):
    limit, model = RateLimit(tokens_per_minute=100), name()

    async def main():
        one, other = SQLLimitStore(url), SQLLimitStore(url)
        await one.book(model, 60)
        below = await other.take(model, limit, 1)
        await other.book(model, 60)
        above = await one.take(model, limit, 2)
        await one.aclose()
        await other.aclose()
        return below, above

    below, above = run(main())
    assert below == []
    assert len(above) == 2
    assert all(0 < wait_s <= 68 for wait_s in above)


def test_what_has_left_the_window_is_forgotten_and_pruned(url):
    limit, model = RateLimit(requests_per_minute=1), name()

    async def main():
        store = SQLLimitStore(url, window_s=0.05, margin_s=0.05)
        for _ in range(3):
            waits = await store.take(model, limit, 1)
            if waits:
                await asyncio.sleep(waits[0] + 0.01)
                assert await store.take(model, limit, 1) == []
        rows = await rows_of(store, model)
        await store.aclose()
        return rows

    assert run(main()) == 1


async def rows_of(store, model):
    from sqlalchemy import text

    async with await store._begin() as connection:
        found = await connection.execute(
            text("select count(*) from factory_limits where model = :model"), {"model": model}
        )
        return found.scalar_one()


def test_a_clock_set_back_does_not_close_a_model_for_long(url):
    limit, model = RateLimit(requests_per_minute=1), name()

    async def main():
        ahead, store = SQLLimitStore(url, window_s=3600), SQLLimitStore(url)
        await ahead.take(model, limit, 1)  # as if booked an hour ahead
        first, second = await store.take(model, limit, 1), await store.take(model, limit, 1)
        await ahead.aclose()
        await store.aclose()
        return first, second

    _, (wait_s,) = run(main())
    assert wait_s <= 68


def test_one_store_works_in_two_event_loops_in_a_row_and_after_its_end(url):
    store, model, limit = SQLLimitStore(url), name(), RateLimit(requests_per_minute=2)

    async def main():
        waits = await store.take(model, limit, 1)
        await store.aclose()
        await store.aclose()
        return len(waits)

    assert [run(main()), run(main()), run(main())] == [0, 0, 1]


def test_a_store_that_fails_says_which_and_keeps_the_password():
    store = SQLLimitStore("postgresql+asyncpg://me:secret@127.0.0.1:1/limits")

    async def main():
        with pytest.raises(LimitStoreError) as caught:
            await store.take("m", RateLimit(requests_per_minute=1), 1)
        await store.aclose()
        return str(caught.value)

    text = run(main())
    assert text.startswith("limit store postgresql+asyncpg://me:***@127.0.0.1:1/limits: ")
    assert "secret" not in text + repr(store)


def test_a_file_that_was_deleted_is_made_again(tmp_path):
    async def main():
        store = SQLLimitStore(f"sqlite:///{tmp_path}/limits.db")
        told = [await store.take("m", RateLimit(requests_per_minute=1), 1)]
        for file in tmp_path.iterdir():
            file.unlink()
        with pytest.raises(LimitStoreError, match="no such table"):
            await store.take("m", RateLimit(requests_per_minute=1), 1)
        told += [len(await store.take("m", RateLimit(requests_per_minute=1), 1)) for _ in range(2)]
        return told

    assert run(main()) == [[], 0, 1]


@pytest.mark.parametrize("wrong", [{"url": "sqlite://"}, {"window_s": 0}, {"window_s": "60"}, {"margin_s": -1}])
def test_a_store_that_could_not_count_is_refused(wrong):
    with pytest.raises(MisuseError, match=r"in memory|window_s is above 0"):
        SQLLimitStore(**{"url": "sqlite:///x.db"} | wrong)


@pytest.mark.parametrize("wrong", ["", "nonsense", "sqlite+pysqlite:///x.db", "mysql+aiomysql://x/y"])
def test_another_address_is_refused(wrong):
    with pytest.raises(MisuseError, match="limit store: allowed are sqlite:"):
        SQLLimitStore(wrong)
