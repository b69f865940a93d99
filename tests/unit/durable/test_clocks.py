"""Clocks that differ, or are set: by whose time silence is counted."""

from __future__ import annotations

import asyncio

import pytest

from shared_libs.durable import WorkerPolicy
from shared_libs.durable.beat import Beat
from shared_libs.durable.database import ask, open_database
from shared_libs.durable.holding import Holder
from tests.unit.durable.cast import LEASE_S, answers, ended, opened, submit, until, working


@pytest.mark.promise("durable-takeover")
def test_a_silence_is_noticed_a_lease_and_a_beat_after_the_last_beat(url):
    beats = []

    async def main():
        async with opened(url) as store:
            silent = Holder(store.database, "silent")
            await silent.beat("silent", LEASE_S, 1, draining=False)
            await submit(store, "r")
            assert len(await silent.claim(1)) == 1
            beat = Beat(url, "alive", "alive", WorkerPolicy(lease_s=LEASE_S), lambda *_: beats.append(1))
            await beat.start()
            await until(store.get, "r", wanted=lambda job: job.status == "queued")
            seen = len(beats)
            await beat.stop()
            return seen

    assert 1 <= asyncio.run(main()) <= 5 + 2  # it beats five times a lease


@pytest.mark.promise("durable-takeover")
def test_a_database_whose_clock_is_set_back_misses_the_dead_all_the_same(url):
    ahead = """UPDATE factory_jobs SET submitted_at = submitted_at + 3600, due_at = due_at + 3600"""

    async def main():
        async with opened(url) as store:
            dead, alive = (Holder(store.database, name) for name in ("dead", "alive"))
            await dead.beat("dead", 2.0, 1, draining=False)
            await submit(store, "begun")
            await dead.claim(1)
            await submit(store, "new")
            await submit(store, "later", delay_s=60)
            await store.database.run(lambda: (yield ask("UPDATE factory_workers SET beat_at = beat_at + 3600")))
            await store.database.run(lambda: (yield ask(ahead)))
            await alive.count_from_now()
            assert await alive.reap() == 0  # from here on it has a lease
            await store.database.run(lambda: (yield ask("UPDATE factory_workers SET beat_at = beat_at - 2")))
            assert await until(alive.reap) == 1  # of a server that has just come up, once it is older than the lease
            return sorted(claim.run_id for claim in await alive.claim(5))

    assert asyncio.run(main()) == ["begun", "new"]


@pytest.mark.promise("durable-takeover")
def test_a_worker_on_whose_file_another_clock_counts_stands_back_and_says_so(tmp_path, caplog):
    url = f"sqlite:///{tmp_path}/durable.db"
    ahead = ask("UPDATE factory_workers SET beat_at = CLOCK + 3600 WHERE executor = 'elsewhere'")

    async def main():
        async with opened(url) as store, working(url, answers()) as worker:
            await worker.started.wait()
            elsewhere = Holder(store.database, "elsewhere")
            await elsewhere.beat("elsewhere", LEASE_S, 1, draining=False)
            await until(store.database.one, ahead, wanted=lambda _: "does nothing" in caplog.text)  # and it beats on
            assert not worker.ready
            await submit(store, "r")
            ages = [row.beat_age_s for row in await store.workers()]
            await elsewhere.leave()
            await until(store.get, "r", wanted=ended)
            return ages

    assert min(asyncio.run(main())) < -3500
    assert "does nothing: another one on this file beats by a clock that is 3600 s ahead" in caplog.text


@pytest.mark.promise("durable-takeover")
def test_a_server_of_another_clock_is_told_and_one_whose_clock_is_set_back_goes_on(new_postgres, caplog):
    """A function of the name that PostgreSQL's own has is the clock of a server that is an hour late."""
    early = "CREATE OR REPLACE FUNCTION other.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS"

    async def main():
        first = open_database(new_postgres)
        for statement in (
            "CREATE SCHEMA other",
            f"{early} $$SELECT pg_catalog.clock_timestamp() + interval '1 hour'$$",
            f"ALTER DATABASE {new_postgres.partition('@/')[2].partition('?')[0]} SET search_path = other, pg_catalog",
        ):
            await first.one(ask(statement))
        await first.aclose()
        async with opened(new_postgres) as store, working(new_postgres, answers()) as worker:
            await worker.started.wait()
            await store.database.one(ask(f"{early} $$SELECT pg_catalog.clock_timestamp()$$"))
            await submit(store, "r")
            await until(store.get, "r", wanted=ended)

    asyncio.run(main())
    assert "is 3600 s behind that of the database" in caplog.text
