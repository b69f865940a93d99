"""The audit log: who did what, in rows that follow from each other, over processes and through an outage."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from shared_libs.service.audit import DENIALS_WINDOW_S, FIRST, MOST_DENIALS, AuditError, AuditLog, AuditTrail, Entry
from shared_libs.service.database import ServiceDatabase
from shared_libs.service.key_format import Key
from shared_libs.service.key_rows import KeyRow
from shared_libs.service.key_store import key_store
from tests.service import ASKED, HELLO, serving, write
from tests.support import run, run_virtual


@pytest.fixture(params=["sqlite", "postgres"])
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'audit.db'}"
    return f"postgresql://owner@{request.getfixturevalue('postgres')}"


def did(action, about="key:a", **more):
    return Entry(**{"action": action, "object": about, "actor": "user:me@here"} | more)


@pytest.mark.promise("audit-kept")
def test_rows_of_several_processes_follow_from_each_other_and_whatever_is_changed_is_found(url):
    async def main():
        logs = [AuditLog(ServiceDatabase(url), "pepper") for _ in range(3)]
        log, database = logs[0], logs[0]._database
        first = await log.verify()  # a database of PostgreSQL may be another test's too
        at = int(first.head.partition(":")[0])
        await asyncio.gather(*(each.append([did("key.made", f"key:{n}")]) for each in logs for n in range(4)))
        await asyncio.gather(
            *(
                each.append([did("definition.changed", f"file:{url}", after="aa", actor=f"server:{n}")])
                for n, each in enumerate(logs)
            )
        )
        whole = await log.verify((0, FIRST))  # what an empty one has told
        rows = [row async for row in log.rows(at)]
        strange = await AuditLog(database, "another").verify()
        told = {}

        async def tampering(name, statement):
            async with database.transaction(writes=True) as connection:
                if connection.dialect.name == "postgresql":
                    await connection.execute(text("ALTER TABLE factory_audit DISABLE TRIGGER ALL"))
                else:
                    for what in ("update", "delete"):
                        await connection.execute(text(f"DROP TRIGGER IF EXISTS factory_audit_{what}"))
                await connection.execute(text(statement))
            number, _, last = whole.head.partition(":")
            told[name] = (await log.verify((int(number), last))).problems

        for statement in ("UPDATE factory_audit SET told = '{}'", "DELETE FROM factory_audit"):
            with pytest.raises(DBAPIError, match="only added to"):
                async with database.transaction(writes=True) as connection:
                    await connection.execute(text(statement))
        await tampering("cut off", f"DELETE FROM factory_audit WHERE seq = {at + 13}")
        await tampering("changed", f"UPDATE factory_audit SET told = replace(told, 'me@', 'you@') WHERE seq = {at + 2}")
        await tampering("filed", f"UPDATE factory_audit SET object = 'key:x' WHERE seq = {at + 4}")
        await tampering("removed", f"DELETE FROM factory_audit WHERE seq IN ({at + 6}, {at + 7})")
        async with database.transaction(writes=True) as connection:  # whole again for whoever comes next
            await connection.execute(text(f"DELETE FROM factory_audit WHERE seq > {at}"))
        for each in logs:
            await each.aclose()
        return at, first, whole, rows, strange, told

    at, first, whole, rows, strange, told = run(main())
    assert (first.problems, whole.problems, whole.rows - first.rows) == ([], [], 13)
    assert [row.seq for row in rows] == list(range(at + 1, at + 14))
    assert [row.entry.action for row in rows] == ["key.made"] * 12 + ["definition.changed"]
    assert len(strange.problems) == whole.rows
    assert told["cut off"] == [f"row {at + 13} was noted with another hash, or is no more"]
    assert f"row {at + 2} does not follow" in told["changed"][0]
    assert f"row {at + 4} is filed under another object than it is about" in told["filed"]
    assert f"rows {at + 6} to {at + 7} are missing" in told["removed"]


async def actions(served, count):
    """Return what is in the log of a server, as soon as there are so many entries."""
    log = served.service.audit._log
    async with asyncio.timeout(20):
        while True:
            rows = [row.entry async for row in log.rows()]
            if len(rows) >= count:
                return rows
            await asyncio.sleep(0.02)


@pytest.mark.promise("audit-kept")
def test_a_server_notes_definitions_decisions_cancellations_and_denials_with_who_and_whence(tmp_path):
    key = Key.new()
    folder = write(tmp_path, hello=HELLO.replace("[calculator]", "[{use: calculator, needs_approval: true}]"))

    async def main():
        await key_store("keys.yaml", folder).keep(KeyRow(id=key.id, hash=key.hash(""), team="ops"))
        async with serving(folder, key=str(key), reload_s=0.05) as served:
            first = await actions(served, 1)
            denied = await served.get("/v1/runs", Authorization="Bearer wrong")
            _, _, paused = await served.run()
            decision = {"decisions": {paused["pending"][0]["call_id"]: True}}
            async with served.http.post(f"/v1/runs/{paused['run_id']}/decisions", json=decision) as answer:
                request_id = answer.headers["x-request-id"]
            _, _, begun = await served.run(body=ASKED)
            async with served.http.delete(f"/v1/runs/{begun['run_id']}") as answer:
                assert answer.status == 200
            write(folder, other="name: [")
            told = await actions(served, 5)
        async with serving(folder, key=str(key)) as served:  # which sees what the first one saw
            await served.get("/v1/runs", Authorization="Bearer wrong")
            return first, denied[0], paused["run_id"], begun["run_id"], request_id, told, await actions(served, 6)

    first, denied, decided, cancelled, request_id, told, later = run(main())
    assert [(entry.action, entry.object) for entry in first] == [("definition.changed", "file:hello.yaml")]
    assert denied == 401
    by_action = {entry.action: entry for entry in told}
    assert (by_action["denied"].object, by_action["denied"].facts) == ("GET /v1/runs", {"why": "unauthorized"})
    assert by_action["run.decided"].object == f"run:{decided}"
    assert (by_action["run.decided"].actor, by_action["run.decided"].source) == (f"key:{key.id}", "127.0.0.1")
    assert by_action["run.decided"].request_id == request_id
    assert list(by_action["run.decided"].facts.values()) == ["approved"]
    assert by_action["run.cancelled"].object == f"run:{cancelled}"
    assert by_action["definition.refused"].object == "file:other.yaml"
    assert [entry.action for entry in later[5:]] == ["denied"]


class Book:
    """A log that fails when it is told to."""

    def __init__(self):
        self.fails, self.kept = True, []

    async def append(self, entries):
        if self.fails:
            raise AuditError("down")
        self.kept += entries


@pytest.mark.promise("audit-kept")
def test_an_outage_holds_nobody_up_keeps_the_order_and_is_bounded_and_so_are_denials():
    async def main():
        book = Book()
        trail = AuditTrail(book)
        for number in range(3):
            trail.note("key.made", f"key:{number}", "user:me")
        for _ in range(MOST_DENIALS + 5):
            trail.note_denial("GET /", "key:none")
        await asyncio.sleep(DENIALS_WINDOW_S)
        book.fails = False
        trail.note_denial("GET /later", "key:none")
        await asyncio.sleep(30)
        await trail.aclose()
        return book.kept

    kept = run_virtual(main())
    assert [entry.object for entry in kept[:3]] == ["key:0", "key:1", "key:2"]
    assert [entry.action for entry in kept[3:]] == ["denied"] * (MOST_DENIALS + 1) + ["left_out"]
    assert (kept[-2].object, kept[-1].facts) == ("GET /later", {"entries": 5})
