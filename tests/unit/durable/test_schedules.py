"""Runs that are submitted again and again, and tables that were made by another version."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import msgspec
import pytest

from shared_libs.atomic import MisuseError
from shared_libs.durable import JobStore, Submission, tables
from shared_libs.durable.database import ask
from shared_libs.durable.schedules import next_at, put_schedule, remove_schedule, schedules, submit_due
from shared_libs.observability.run_store import RunStore
from tests.unit.durable.cast import answers, ended, opened, submit, until, working

DAILY = Submission(run_id="any", agent="a", definition={"name": "a"}, question="go", priority=3)


def moment(*parts):
    return datetime(*parts, tzinfo=UTC).timestamp()


@pytest.mark.promise("durable-scheduled")
def test_what_is_due_is_submitted_once_by_whoever_looks_first_and_done(url):
    async def main():
        async with opened(url) as store, opened(url) as other:
            made = await put_schedule(store, "news", "0 7 * * *", "UTC", DAILY, "h")
            assert await submit_due(store) == []
            # nobody worked for three days
            late = "UPDATE factory_schedules SET next_at = next_at - 3 * 86400"
            await store.database.run(lambda: (yield ask(late)))
            both = await asyncio.gather(submit_due(store), submit_due(other))
            (run_id,) = (*both[0], *both[1])
            async with working(url, answers()):
                job = await until(store.get, run_id, wanted=ended)
            (again,) = await schedules(other)
            assert again == made
            assert await remove_schedule(store, "news")
            assert not await remove_schedule(store, "news")
            return made, run_id, job, await schedules(store)

    made, run_id, job, left = asyncio.run(main())
    last = datetime.fromtimestamp(made.next_at - 86_400, UTC)
    assert run_id == f"news-{last:%Y%m%d}T0700Z"
    assert (job.status, job.priority, left) == ("answered", 3, [])


@pytest.mark.promise("durable-scheduled")
def test_a_worker_attends_to_schedules_by_itself(url):
    async def main():
        async with opened(url) as store:
            await put_schedule(store, "news", "* * * * *", "Europe/Berlin", DAILY, "h")
            await store.database.run(lambda: (yield ask("UPDATE factory_schedules SET next_at = next_at - 60")))
            async with working(url, answers()):
                return await until(store.find, wanted=lambda jobs: jobs and jobs[0].ended)

    (job, *_) = asyncio.run(main())
    assert job.run_id.startswith("news-")


@pytest.mark.promise("durable-scheduled")
@pytest.mark.parametrize(
    ("spoiled", "why"), [("zone = 'Mars/Base'", "Mars/Base"), ("template = '{'", "truncated"), ("cron = '@x'", "five")]
)
def test_a_schedule_that_cannot_be_read_here_holds_up_no_other_and_is_told_once(tmp_path, caplog, spoiled, why):
    async def main():
        async with opened(f"sqlite:///{tmp_path}/durable.db") as store:
            for name in ("ares", "news"):
                await put_schedule(store, name, "* * * * *", "UTC", DAILY, "h")
            await store.database.one(ask("UPDATE factory_schedules SET next_at = 0"))
            await store.database.one(ask(f"UPDATE factory_schedules SET {spoiled} WHERE name = 'ares'"))
            told = {}
            ids = await submit_due(store, told), await submit_due(store, told)
            return ids, [schedule.name for schedule in await schedules(store)]

    ((run_id,), again), listed = asyncio.run(main())
    assert run_id.startswith("news-")
    assert (again, listed) == ([], ["ares", "news"])
    (line,) = caplog.messages
    assert line.startswith("schedule ares is not attended to")
    assert why in line


@pytest.mark.promise("durable-scheduled")
def test_a_run_that_a_schedule_cannot_submit_is_told_and_the_next_one_is_due(tmp_path, caplog):
    async def main():
        async with opened(f"sqlite:///{tmp_path}/durable.db") as store:
            await put_schedule(store, "news", "* * * * *", "UTC", DAILY, "h")
            due = "UPDATE factory_schedules SET next_at = next_at - 60"
            await store.database.one(ask(due))
            (run_id,) = await submit_due(store)
            (row,) = await schedules(store)
            other = msgspec.structs.replace(DAILY, question="another")
            await put_schedule(store, "news", "* * * * *", "UTC", other, "h")
            await store.database.one(ask("UPDATE factory_schedules SET next_at = $1", row.next_at - 60))
            made = await submit_due(store), await submit_due(store)
            return run_id, made, (await schedules(store))[0].next_at - row.next_at

    run_id, made, moved_s = asyncio.run(main())
    assert made == ([], [])
    assert moved_s >= 0
    (line,) = caplog.messages
    assert line.startswith(f"schedule news: {run_id} is not submitted: there is another run")


@pytest.mark.promise("durable-scheduled")
def test_the_clock_of_the_zone_decides_also_where_it_is_turned():
    before = moment(2026, 3, 28, 12)  # in the night that follows the clock is put forward
    assert next_at("0 7 * * *", "Europe/Berlin", before) == moment(2026, 3, 29, 5)
    assert next_at("0 7 * * *", "UTC", before) == moment(2026, 3, 29, 7)
    with pytest.raises(MisuseError, match="five fields"):
        next_at("7 o'clock", "UTC", before)
    with pytest.raises(MisuseError, match="no time zone"):
        next_at("0 7 * * *", "Europe/Bielefeld", before)


@pytest.mark.parametrize("name", ["", "a/b", "x" * 101, "a\nb"])
def test_a_name_that_cannot_begin_an_id_is_refused(tmp_path, name):
    async def main():
        async with JobStore(f"sqlite:///{tmp_path}/s.db") as store:
            await put_schedule(store, name, "* * * * *", "UTC", DAILY, "h")

    with pytest.raises(MisuseError, match="a schedule's name"):
        asyncio.run(main())


@pytest.mark.promise("durable-kept")
def test_a_store_of_the_form_before_is_read_on_and_one_of_a_later_form_is_used(url):
    async def main():
        store = JobStore(url)
        dialect = store.database.dialect

        def as_it_was():
            yield ask("CREATE TABLE factory_durable_version (version INTEGER NOT NULL)")
            yield ask("INSERT INTO factory_durable_version (version) VALUES (1)")
            for statement in tables._FORMS[0]:
                yield ask(statement)
            yield ask(
                """INSERT INTO factory_definitions (hash, definition, used_at) VALUES ('h', '{"name": "a"}', CLOCK)"""
            )
            yield ask(
                """INSERT INTO factory_jobs (run_id, status, agent, definition, question, team, priority, submitted_at,
                   due_at) VALUES ('old', 'queued', 'a', 'h', '"go"', '', 0, CLOCK, CLOCK)"""
            )

        await store.database.run(as_it_was)
        assert await store.is_there()
        await asyncio.gather(store.aopen(), store.aopen())
        assert await tables.form_of(store.database) == tables.VERSION
        # in a rolling update the newer ones come first
        await store.database.run(lambda: (yield ask("UPDATE factory_durable_version SET version = 99")))
        await store.aopen()
        await submit(store, "new")
        async with working(url, answers()):
            ends = [(await until(store.get, run_id, wanted=ended)).status for run_id in ("old", "new")]
        assert await tables.form_of(store.database) == 99
        await store.aclose()
        return dialect, ends

    assert asyncio.run(main())[1] == ["answered", "answered"]


@pytest.mark.promise("durable-kept")
def test_those_that_come_to_an_empty_database_at_once_all_find_tables(new_postgres):
    async def begins(number):
        async with RunStore(new_postgres) as runs, JobStore(new_postgres) as store:
            return await submit(store, f"r{number}"), await runs.async_get("r")

    async def main():
        return await asyncio.gather(*map(begins, range(6)))

    assert asyncio.run(main()) == [(True, None)] * 6


def test_who_only_looks_makes_no_file_and_no_table(tmp_path):
    file = tmp_path / "none.db"

    async def main():
        store = JobStore(f"sqlite:///{file}")
        assert not await store.is_there()
        assert not file.exists()
        file.touch()
        assert not await store.is_there()
        await store.aclose()

    asyncio.run(main())
