"""The store of runs: what was done is found again, whoever wrote it, and no run waits for it or fails for it."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import tempfile
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from shared_libs.agents import ReActAgent
from shared_libs.atomic import tool
from shared_libs.atomic.errors import MisuseError, RunStoreError
from shared_libs.atomic.events import RunStarted, TextDelta, ToolFinished, ToolStarted, Warned
from shared_libs.atomic.llms import ScriptedLLM
from shared_libs.atomic.llms.scripted_llm import Turn
from shared_libs.observability import RunStore
from shared_libs.observability.runs.reader import RunReader
from shared_libs.observability.runs.sqlite import SQLiteShelf
from shared_libs.observability.runs.statements import RUNS_OF_SESSION, SQLITE, Wanted, select_page
from tests.support import no_thread, run
from tests.unit.observability.kept import NOW, in_store, names, record, told

SECRET = "sk-abcdefghijklmnopqrst"


@tool
async def look(place: str) -> str:
    """Look something up."""
    return f"seen {place}"


@pytest.mark.promise("runs-kept")
def test_a_run_of_an_agent_is_a_row_and_its_events(any_url):
    async def use(store):
        script = [Turn(text="I look.", calls=[("look", {"place": "here"})]), "It is there."]
        seen = []
        agent = ReActAgent(llm=ScriptedLLM(script), tools=[look], observers=[store.observer("blue"), seen.append])
        result = await agent.async_run("Where is it?", run_id="r-1")
        assert await store.flush()
        row = await store.async_get("r-1")
        assert (row.agent, row.team, row.source, row.question) == ("agent", "blue", "library", "Where is it?")
        assert (row.status, row.stop_reason, row.answer) == ("answered", "final_answer", "It is there.")
        assert (row.elapsed_s, row.usage, row.result) == (
            result.elapsed_s,
            result.usage,
            json.loads(json.dumps(result.to_dict())),
        )
        events = await store.async_events("r-1")
        assert [event["type"] for event in events] == [type(event).__struct_config__.tag for event in seen]
        assert [event["seq"] for event in events] == [event.seq for event in seen]
        some = await store.async_events("r-1", after=3, limit=2)
        assert [event["seq"] for event in some] == [4, 5]
        assert await store.async_get("r-1", team="red") is None
        assert await store.async_events("r-1", team="red") == []

    in_store(any_url, use)


@pytest.mark.promise("runs-found")
def test_pages_hold_what_is_wanted_and_go_on_where_they_ended(any_url):
    async def use(store):
        for number in range(5):
            at = NOW + timedelta(minutes=number)
            kind = "partial" if number % 2 else "answered"
            record(store, *told(f"r{number}", at=at, seconds=10.0 - number, status=kind, session_id=f"s{number % 2}"))
        record(store, *told("other", agent="clerk"), team="red")
        record(store, *told("inner", parent_run_id="r4", parent_call_id="c"))
        await store.flush()
        first = await store.async_list(limit=2)
        second = await store.async_list(limit=2, after=first.next)
        third = await store.async_list(limit=2, after=second.next)
        assert [*names(first), *names(second), *names(third)][:4] == ["r4", "r3", "r2", "r1"]
        assert {*names(third)} | {*names(second)} >= {"r0", "other"}
        assert third.next is None
        slow = await store.async_list(order="slowest", limit=3)
        rest = await store.async_list(order="slowest", limit=3, after=slow.next)
        assert [*names(slow), *names(rest)] == ["r0", "r1", "r2", "r3", "r4", "other"]
        for wanted, expected in [
            ({"status": "partial"}, ["r3", "r1"]),
            ({"session_id": "s1"}, ["r3", "r1"]),
            ({"agent": "clerk"}, ["other"]),
            ({"team": "red"}, ["other"]),
            ({"team": "red", "status": "partial"}, []),
            ({"since": NOW + timedelta(minutes=3)}, ["r4", "r3"]),
            ({"since": NOW + timedelta(minutes=1), "until": NOW + timedelta(minutes=3)}, ["r2", "r1"]),
            ({"parent": "r4"}, ["inner"]),
        ]:
            assert names(await store.async_list(**wanted)) == expected, wanted
        for wrong in ({"status": "done"}, {"limit": 0}, {"order": "oldest"}, {"after": "x"}, {"text": "?!"}):
            with pytest.raises(MisuseError):
                await store.async_list(**wrong)
        with pytest.raises(MisuseError, match="no cursor of this list"):
            await store.async_list(order="slowest", after=first.next)

    in_store(any_url, use)


@pytest.mark.promise("runs-found")
def test_no_list_sorts_the_runs_that_it_does_not_show(tmp_path):
    for form in range(1, len(SQLITE.steps) + 1):  # one that is brought from form to form has the same indexes
        shelf = SQLiteShelf(tmp_path / "kept" / "runs.db")
        shelf.dialect = msgspec.structs.replace(SQLITE, steps=SQLITE.steps[:form])
        shelf.open()
        shelf.close()
    between = {"since": NOW - timedelta(days=1), "until": NOW}
    kinds = [{}, {"status": "answered"}, {"status": "running"}, {"agent": "a"}, {"agent": "a", "status": "failed"}]
    with closing(sqlite3.connect(f"{tmp_path}/kept/runs.db")) as db:
        for team in (None, "", "red"):
            for wanted in [*kinds, *({**kind, **between} for kind in kinds)]:
                for order in ("newest", "slowest"):
                    statement, values = select_page(Wanted(team=team, **wanted), order, None, 50, SQLITE)
                    plan = [row[-1] for row in db.execute(f"EXPLAIN QUERY PLAN {statement}", values)]
                    assert not [step for step in plan if "TEMP B-TREE" in step], (team, wanted, order)
        for column in ("session_id", "parent"):  # whose index has only the runs that have one
            statement, values = select_page(Wanted(**{column: "one"}), "newest", None, 50, SQLITE)
            (step,) = [row[-1] for row in db.execute(f"EXPLAIN QUERY PLAN {statement}", values)]
            assert step.startswith(f"SEARCH factory_runs USING INDEX factory_runs_by_{column.partition('_')[0]} ")
        whose = {"team": "", "agent": "a", "session_id": "s", "limit": 1}
        gone = [row[-1] for row in db.execute(f"EXPLAIN QUERY PLAN {RUNS_OF_SESSION}", whose)]
        assert {step for step in gone if "factory_runs_by" in step} == {
            "SEARCH factory_runs USING INDEX factory_runs_by_session (session_id=?)",
            "SEARCH below USING INDEX factory_runs_by_parent (parent_run_id=?)",
        }


@pytest.mark.promise("runs-found")
@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("delay", "ab"),
        ("DELAYS at", "a"),
        ("naive", "b"),
        ("Naïve", "b"),
        ("\u822a\u73ed", "c"),
        ("\u73ed", "c"),
        ("4711-x", "c"),
        ("x-4711", ""),
        ('delay" OR "b', ""),
        ("timeo", "b"),
        ("* AND NOT", ""),
    ],
)
def test_words_are_found_in_every_alphabet_and_mean_only_themselves(any_url, text, found):
    async def use(store):
        record(store, *told("a", question="Which delays at EWR?", answer="None."))
        record(store, *told("b", question="A na\u00efve delay?", answer=None, status="failed", error="timeout of m"))
        record(store, *told("c", question="\u4eca\u65e5\u822a\u73ed\u5ef6\u8bef", answer="order 4711-x"))
        await store.flush()
        assert sorted(names(await store.async_list(text=text))) == [*found]

    in_store(any_url, use)


@pytest.mark.promise("secrets-masked")
def test_no_secret_is_in_the_file_and_only_its_owner_reads_it(url, tmp_path):
    async def use(store):
        first, last = told("r", question=f"use {SECRET}", answer=f"with {SECRET}")
        given = {"password": "hunter2", "url": "postgres://u:hunter2@h/d"}
        record(
            store,
            first,
            ToolStarted(run_id="r", seq=2, step=1, tool="t", input=given, call_id="c"),
            ToolFinished(run_id="r", seq=3, step=1, tool="t", call_id="c", content=SECRET, is_error=False, elapsed_s=0),
            TextDelta(run_id="r", seq=4, text="it is sk-abcdef"),
            TextDelta(run_id="r", seq=5, text="ghijklmnopqrst"),
            last,
        )
        await store.flush()
        files = [*(tmp_path / "kept").iterdir()]
        assert len(files) == 3  # with the log of writes, and its index
        assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
        events = await store.async_events("r")
        assert [event["seq"] for event in events] == [1, 2, 3, 4, 9]
        assert events[3]["text"] == "it is [redacted]"

    in_store(url, use)
    kept = (tmp_path / "kept" / "runs.db").read_bytes()
    assert SECRET.encode() not in kept
    assert b"hunter2" not in kept


@pytest.mark.promise("runs-contents")
def test_without_contents_there_are_names_times_and_reasons(url, tmp_path):
    async def use(store):
        words = "the words of people"
        script = [Turn(text=words, calls=[("look", {"place": words})], delay_s=0.01), words]
        agent = ReActAgent(llm=ScriptedLLM(script), tools=[look], observers=[store.observer()])
        await agent.async_run(words, run_id="r")
        begun, ended = told("f", question=words, status="failed", answer=None, error="HTTP 500: out of order")
        call = {"run_id": "f", "step": 1, "tool": "look", "call_id": "1"}
        failed = ToolFinished(**call, seq=3, at_s=1.0, content=words, is_error=True, elapsed_s=1.0)
        record(store, begun, ToolStarted(**call, seq=2, input={"place": words}), failed, ended)
        await store.flush()
        assert (await store.async_get("f")).why == "1.00 s of 1.00 s went on the tool look; look failed."
        row = await store.async_get("r")
        assert (row.question, row.answer, row.status) == ("", None, "answered")
        assert row.result["steps"][0]["actions"][0]["tool"] == "look"
        assert names(await store.async_list(text="order")) == ["f"]

    in_store(url, use, contents=False)
    assert b"words of people" not in (tmp_path / "kept" / "runs.db").read_bytes()


@pytest.mark.promise("runs-kept")
def test_what_no_database_takes_is_kept_as_far_as_it_goes(any_url):
    async def use(store):
        first, last = told("r", question="broken \ud800 \0 text", answer="\x1b[31m<script>")
        record(store, first, Warned(run_id="r", seq=2, message="nul \0"), last)
        record(store, Warned(run_id="nobody", seq=1, message="whose run began before anybody listened"))
        assert await store.flush()
        row = await store.async_get("r")
        assert (row.question, row.answer) == ("broken ?   text", "\x1b[31m<script>")
        assert len(await store.async_events("r")) == 3
        assert await store.async_get("nobody") is None
        assert store.lost == 0

    in_store(any_url, use)


@pytest.mark.promise("runs-kept")
def test_a_name_that_is_used_again_is_another_run(any_url):
    async def use(store):
        record(store, *told("r", answer="first"), *told("r", answer="second", at=NOW + timedelta(seconds=1)))
        await store.flush()
        assert (await store.async_get("r")).answer == "second"
        assert [row.answer for row in (await store.async_list()).rows] == ["second", "first"]

    in_store(any_url, use)


@pytest.mark.promise("runs-kept")
def test_a_run_that_pauses_goes_on_in_another_process_and_is_one_run(any_url):
    began, paused = told("r", status="paused", answer=None)

    async def first(store):
        record(store, began, paused)
        await store.flush()
        assert (await store.async_get("r")).status == "paused"

    async def second(store):
        again = RunStarted(
            **{name: getattr(began, name) for name in began.__struct_fields__} | {"resumed": True, "seq": 10}
        )
        record(store, again)
        await store.flush()
        assert [row.status for row in (await store.async_list()).rows] == ["running"]
        _, end = told("r", answer="done")
        end.seq = 20
        record(store, end)
        await store.flush()
        assert [(row.status, row.answer) for row in (await store.async_list()).rows] == [("answered", "done")]
        assert [event["seq"] for event in await store.async_events("r")] == [1, 9, 10, 20]

    in_store(any_url, first)
    in_store(any_url, second)


@pytest.mark.promise("runs-followed")
def test_a_run_is_followed_until_it_ends(any_url):
    async def use(store):
        first, last = told("r", at=datetime.now(UTC))
        seen = []

        async def follow(after):
            async for event in store.follow("r", after=after):
                seen.append(event["seq"])
                if event["seq"] == 1:
                    record(store, Warned(run_id="r", seq=5, message="news"))
                elif event["seq"] == 5:
                    record(store, last)

        with pytest.raises(MisuseError, match="there is no run 'r'"):
            await follow(-1)
        record(store, first)
        async with asyncio.timeout(30):
            await follow(-1)
            await follow(5)
        assert seen == [1, 5, 9, 9]

    in_store(any_url, use)


@pytest.mark.promise("runs-kept")
def test_what_is_too_old_is_forgotten_and_nothing_else(url, tmp_path):
    today = datetime.now(UTC)

    async def fill(store):
        for days in (1, 29, 31, 300):
            record(store, *told(f"{days}", at=today - timedelta(days=days), question=f"words{days}"))
        await store.flush()
        assert len(names(await store.async_list())) == 4

    async def use(store):
        assert await store.prune() == 2
        assert names(await store.async_list()) == ["1", "29"]
        assert await store.prune() == 0

    in_store(url, fill, retention_days=None)
    in_store(url, use, retention_days=30)
    with closing(sqlite3.connect(tmp_path / "kept" / "runs.db")) as db:
        assert db.execute("SELECT count(*) FROM factory_run_events").fetchone() == (4,)
        assert db.execute("SELECT count(*) FROM factory_run_words").fetchone() == (2,)


@pytest.mark.promise("runs-kept", "serve-forgets")
def test_a_session_is_forgotten_with_the_runs_of_sub_agents_and_no_other_s(any_url):
    others = (("b", "scout", "ours"), ("a", "guide", "ours"), ("a", "scout", "theirs"))

    async def use(store):
        record(store, *told("outer", session_id="a"), team="ours")
        record(store, *told("inner", agent="guide", parent_run_id="outer"), team="ours")
        record(store, *told("innermost", agent="guide", parent_run_id="inner"), team="ours")
        for at, (session, agent, team) in enumerate(others):
            record(store, *told(str(at), session_id=session, agent=agent), team=team)
        assert await store.async_forget("a", agent="scout", team="ours") == 3
        assert await store.async_forget("a", agent="scout", team="ours") == 0
        assert sorted(names(await store.async_list())) == ["0", "1", "2"]
        assert not names(await store.async_list(parent="outer"))

    in_store(any_url, use)


def test_nothing_more_is_kept_of_a_run_that_was_forgotten_under_way(url, tmp_path):
    async def use(store):
        begun, ended = told("under way", session_id="a")
        record(store, begun)
        assert await store.async_forget("a", agent="scout") == 1
        record(store, ended)
        assert not names(await store.async_list())

    in_store(url, use)
    with closing(sqlite3.connect(tmp_path / "kept" / "runs.db")) as db:
        for table in ("runs", "run_events", "run_words"):
            assert db.execute(f"SELECT count(*) FROM factory_{table}").fetchone() == (0,)


@pytest.mark.parametrize("url", ["runs.db", "sqlite://runs.db", "sqlite:///", "sqlite:///:memory:", "mysql://h/d", ""])
def test_a_url_of_another_kind_is_refused_with_those_that_are_allowed(url):
    with pytest.raises(MisuseError, match="allowed are sqlite:///"):
        RunStore(url)


def test_a_file_that_is_something_else_is_left_alone(tmp_path):
    (tmp_path / "notes.db").write_text("dear diary" * 100)
    with pytest.raises(RunStoreError, match="this file is something else"):
        run(RunStore(f"sqlite:///{tmp_path}/notes.db").aopen())
    assert (tmp_path / "notes.db").read_text() == "dear diary" * 100


def test_reading_makes_no_file(tmp_path):
    with pytest.raises(RunStoreError, match="there is no such file"):
        run(RunStore(f"sqlite:///{tmp_path}/none.db").async_list())
    assert [*tmp_path.iterdir()] == []


def test_a_run_that_is_under_way_is_not_forgotten_however_long_ago_it_began(any_url):
    begun, ended = told("long", at=datetime.now(UTC) - timedelta(days=40), timeout_s=100 * 86_400.0)

    async def use(store):
        record(store, begun)
        await store.flush()
        assert await store.prune() == 0
        record(store, ended)
        await store.flush()
        assert [row.status for row in (await store.async_list()).rows] == ["answered"]
        assert len(await store.async_events("long")) == 2
        assert await store.prune() == 1

    in_store(any_url, use, retention_days=30)


def test_a_store_that_refuses_everything_says_so_once(url, tmp_path, caplog):
    in_store(url, lambda store: store.flush())
    with closing(sqlite3.connect(tmp_path / "kept" / "runs.db")) as db:
        db.execute("UPDATE factory_runs_form SET form = 99")
        db.commit()
    store = RunStore(url)
    record(store, *(event for number in range(20) for event in told(str(number))))
    assert store.close()
    lines = [record.getMessage() for record in caplog.records if "is not recorded" in record.getMessage()]
    assert len(lines) == 1
    assert "of a newer version of genai-factory" in lines[0]
    assert store.lost == 40


def test_a_run_that_waits_for_a_decision_is_not_forgotten_and_counts_from_its_end(any_url):
    """It was, and what it told when it went on was a row that was forgotten at once: it had begun so long ago."""
    begun, _ = told("held", at=datetime.now(UTC) - timedelta(days=40))
    _, ended = told("held", at=datetime.now(UTC))
    paused = msgspec.structs.replace(ended, result=msgspec.structs.replace(ended.result, status="paused"))

    async def use(store):
        record(store, begun, paused)
        await store.flush()
        assert await store.prune() == 0
        record(store, msgspec.structs.replace(begun, resumed=True), ended)
        await store.flush()
        assert await store.prune() == 0
        assert [row.status for row in (await store.async_list()).rows] == ["answered"]
        lost, _ = told("lost", at=datetime.now(UTC) - timedelta(days=400))  # nobody has decided for more than a year
        record(store, lost, msgspec.structs.replace(paused, run_id="lost"))
        await store.flush()
        assert await store.prune() == 1

    in_store(any_url, use, retention_days=30)


@pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="only root may be somebody else for a while")
def test_the_store_of_another_user_can_be_read_while_it_is_written_and_when_nobody_has_it_open():
    """SQLite wants to write a log beside a file, even to read it."""
    with tempfile.TemporaryDirectory() as place:
        folder, url = Path(place), f"sqlite:///{place}/runs.db"
        folder.chmod(0o755)

        def as_somebody_else():
            for file in folder.iterdir():
                file.chmod(0o644)
            os.setresuid(65534, 65534, 0)
            try:
                return names(run(RunReader(url).async_list()))
            finally:
                os.setresuid(0, 0, 0)

        async def write(store):
            record(store, *told("a", at=NOW))
            await store.flush()
            return await asyncio.to_thread(as_somebody_else)

        assert in_store(url, write) == ["a"]
        assert sorted(file.name for file in folder.iterdir()) == ["runs.db"]
        assert as_somebody_else() == ["a"]


def test_the_row_of_a_run_says_what_the_run_of_a_sub_agent_went_on(url):
    async def use(store):
        outer, last = told("outer", seconds=9.0)
        call = {"run_id": "outer", "step": 1, "tool": "scout", "call_id": "c1"}
        inner = {"run_id": "inner", "step": 1, "tool": "crawl", "call_id": "1"}
        begun, ended = told("inner", seconds=8.0, parent_run_id="outer", parent_call_id="c1")
        found = {"content": "", "is_error": False, "elapsed_s": 8.0}
        record(store, outer, ToolStarted(**call, seq=2, at_s=0.5, input={}), begun)
        record(store, ToolStarted(**inner, seq=2, input={}), ToolFinished(**inner, seq=3, at_s=8.0, **found), ended)
        record(store, ToolFinished(**call, seq=3, at_s=8.5, **found), last)
        await store.flush()
        assert (await store.async_get("outer")).why == (
            "8.00 s of 9.00 s went on the tool scout; its run: 8.00 s of 8.00 s went on the tool crawl."
        )

    in_store(url, use)


def test_what_is_told_while_no_thread_can_start_is_kept_by_the_next_that_does(url):
    async def use(store):
        agent = ReActAgent(llm=ScriptedLLM(["one", "two"]), observers=[store.observer()])
        await asyncio.to_thread(store.close)
        with no_thread("factory-runs"):
            await agent.async_run("q", run_id="r-1")
        await agent.async_run("q", run_id="r-2")
        assert await store.flush()
        assert [len(await store.async_events(name)) > 3 for name in ("r-1", "r-2")] == [True, True]

    in_store(url, use)
