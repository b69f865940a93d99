"""Sessions in SQL: all or nothing, in order, by several writers, after any interruption."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import pytest

from shared_libs.agents import ReActAgent
from shared_libs.atomic import MemoryStoreError, MemoryUnavailable, Message, MisuseError, ToolCall
from shared_libs.atomic.llms import ScriptedLLM, Turn
from shared_libs.atomic.memory import Compaction, Recollection
from shared_libs.memory import SQLMemory
from shared_libs.memory.outbox import Batch
from shared_libs.memory.tables import MESSAGES
from tests.support import run

EXCHANGE = [
    Message("user", "1 + 2?"),
    Message("assistant", "Adding.", tool_calls=(ToolCall("c1", "add", {"a": 1, "b": 2}),)),
    Message("tool", "3", tool_call_id="c1", name="add"),
    Message("assistant", "It is 3."),
]


@pytest.fixture
def url(tmp_path):
    return f"sqlite+aiosqlite:///{tmp_path}/sessions.db"


def test_messages_come_back_as_they_were(url):
    async def main():
        await SQLMemory(url).async_store("s", EXCHANGE)
        return await SQLMemory(url).async_load("s"), await SQLMemory(url).async_load("other")

    assert run(main()) == (EXCHANGE, [])


THREE = ["assistant", "tool", "assistant"]


@pytest.mark.promise("history-valid")
@pytest.mark.parametrize(("limit", "roles"), [(1, ["assistant"]), (2, ["assistant"]), (3, THREE)])
def test_a_limit_never_parts_a_call_from_its_result(url, limit, roles):
    async def main():
        memory = SQLMemory(url)
        await memory.async_store("s", EXCHANGE)
        return await memory.async_load("s", limit)

    assert [message.role for message in run(main())] == roles


@pytest.mark.promise("writers")
def test_writers_at_once_lose_nothing_and_do_not_mix(url):
    async def main():
        memories = [SQLMemory(url) for _ in range(4)]
        pairs = [[Message("user", f"q{n}"), Message("assistant", f"a{n}")] for n in range(16)]
        await asyncio.gather(*(memories[n % 4].async_store("s", pair) for n, pair in enumerate(pairs)))
        return await SQLMemory(url).async_load("s")

    texts = [message.text for message in run(main())]
    assert sorted(texts) == sorted([f"q{n}" for n in range(16)] + [f"a{n}" for n in range(16)])
    assert all(answer == "a" + question[1:] for question, answer in zip(texts[::2], texts[1::2], strict=True))


@pytest.mark.promise("loop-per-client")
def test_one_memory_works_in_two_event_loops_in_a_row(url):
    memory = SQLMemory(url)
    run(memory.async_store("s", EXCHANGE))
    assert len(run(memory.async_load("s"))) == 4
    run(memory.aclose())
    assert len(run(memory.async_load("s"))) == 4


def test_search_finds_by_words_the_best_first(url):
    async def main():
        memory = SQLMemory(url)
        texts = ("red fox", "Red dog 100%", "cat")
        await memory.async_store("s", [{"role": "user", "content": text} for text in texts])
        await memory.async_store("t", [{"role": "user", "content": "red fox"}])
        return (
            [message.text for message in await memory.async_search("s", "the RED fox")],
            [message.text for message in await memory.async_search("s", "100%")],
            await memory.async_search("s", "%"),
            await memory.async_search("s", "  "),
        )

    assert run(main()) == (["red fox", "Red dog 100%"], ["Red dog 100%"], [Message("user", "Red dog 100%")], [])


def test_search_knows_the_case_of_every_alphabet(url):
    async def main():
        memory = SQLMemory(url)
        await memory.async_store("s", [Message("user", "ÄPFEL und \0 Birnen")])
        return await memory.async_search("s", "äpfel")

    assert run(main()) == [Message("user", "ÄPFEL und \0 Birnen")]


def test_a_session_that_is_forgotten_leaves_nothing(store_url, session):
    async def main():
        memory = SQLMemory(store_url, compaction=Compaction(ScriptedLLM([])), on_outage="queue")
        for name in (session, f"{session}x"):
            await memory.async_store(name, EXCHANGE)
            await memory.async_summarise(name, "sum", 2)
        memory._outbox.put(Batch("b", session, EXCHANGE), "the store was out")
        await memory.async_forget(session)
        gone, other = [await memory.async_recall(name) for name in (session, f"{session}x")]
        await memory.aclose()
        return (gone.summary, gone.length), (other.summary, other.length)

    assert run(main()) == (("", 0), ("sum", 4))


def test_a_file_that_was_deleted_is_made_again(url, tmp_path):
    async def main():
        memory = SQLMemory(url)
        await memory.async_store("s", EXCHANGE)
        for file in tmp_path.glob("sessions.db*"):
            file.unlink()
        with pytest.raises(MemoryStoreError, match="no such table"):
            await memory.async_load("s")
        await memory.async_store("s", EXCHANGE)
        return await memory.async_load("s")

    assert run(main()) == EXCHANGE


def test_what_cannot_be_read_is_told_with_its_place_and_half_a_character_costs_no_exchange(url):
    async def main():
        memory = SQLMemory(url)
        half = [Message("user", "caf\ud800"), Message("assistant", "ok")]
        await memory.async_store("s", half)
        found = await memory.async_search("s", "caf\ud800")
        async with await memory._begin(writes=True) as connection:
            await connection.execute(MESSAGES.update().where(MESSAGES.c.position == 2).values(message="{"))
        with pytest.raises(MemoryStoreError, match="message 2 of session 's' cannot be read"):
            await memory.async_load("s")
        await memory.aclose()
        return [message.text for message in found]

    assert run(main()) == ["caf?"]


WRITER = """
import asyncio, sys
from shared_libs.atomic import Message
from shared_libs.memory import SQLMemory
async def main():
    memory = SQLMemory(sys.argv[1])
    number = 0
    while True:
        number += 1
        await memory.async_store("s", [Message("user", f"q{number}"), Message("assistant", f"a{number}")])
        print(number, flush=True)
asyncio.run(main())
"""


@pytest.mark.promise("history-valid")
def test_a_killed_writer_leaves_whole_exchanges(url):
    seen = 0
    for _ in range(2):  # `python -m bench.kill_memory` kills more
        writer = subprocess.Popen([sys.executable, "-c", WRITER, url], stdout=subprocess.PIPE)
        for _ in range(4):
            assert writer.stdout.readline()
        os.kill(writer.pid, signal.SIGKILL)
        writer.communicate(timeout=30)
        history = run(SQLMemory(url).async_load("s"))
        assert len(history) % 2 == 0
        assert len(history) >= seen + 8
        seen = len(history)
    answered = ReActAgent(llm=ScriptedLLM(["ok"]), memory=SQLMemory(url))
    assert run(answered.async_run("go on", session_id="s")).answer == "ok"


def test_a_run_stores_its_whole_exchange(url):
    from shared_libs.atomic import tool

    @tool
    async def add(a: int, b: int) -> int:
        return a + b

    async def main():
        turns = [Turn(calls=[("add", {"a": 1, "b": 2})]), "It is 3."]
        agent = ReActAgent(llm=ScriptedLLM(turns), tools=[add], memory=SQLMemory(url))
        await agent.async_run("1 + 2?", session_id="s")
        return await SQLMemory(url).async_load("s")

    assert [message.role for message in run(main())] == ["user", "assistant", "tool", "assistant"]


def test_a_folder_that_is_not_there_is_told(tmp_path):
    memory = SQLMemory(f"sqlite+aiosqlite:///{tmp_path}/nope/sessions.db")
    with pytest.raises(MemoryStoreError, match=r"the folder .* does not exist; make it"):
        run(memory.async_load("s"))


def test_a_file_that_cannot_be_opened_is_named(tmp_path):
    memory = SQLMemory(f"sqlite+aiosqlite:///{tmp_path}")
    with pytest.raises(MemoryStoreError, match="is a folder; name a file in it, or set another memory url"):
        run(memory.async_load("s"))


def test_a_server_that_is_not_there_is_told_without_the_password():
    memory = SQLMemory("postgresql+asyncpg://me:secret@127.0.0.1:9/none")
    with pytest.raises(MemoryStoreError) as caught:
        asyncio.run(memory.async_load("s"))  # the driver looks for certificates on the disk
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["mysql://x", "sqlite+pysqlite:///x.db", "nonsense", "postgres", 3])
def test_another_url_is_misuse(url):
    with pytest.raises(MisuseError, match="allowed are sqlite"):
        SQLMemory(url)


@pytest.mark.promise("database-urls")
def test_what_sqlite_does_not_know_behind_an_address_is_misuse_and_what_is_ours_to_say_is_left_out(tmp_path):
    with pytest.raises(MisuseError, match="busy is none of what SQLite takes: cache, "):
        SQLMemory(f"sqlite:///{tmp_path}/a.db?busy=1")
    assert "?" not in repr(SQLMemory(f"sqlite:///{tmp_path}/a.db?timeout=abc&check_same_thread=False")._url)


def test_a_file_that_is_read_only_is_no_outage(tmp_path):
    (tmp_path / "a.db").touch()
    memory = SQLMemory(f"sqlite:///file:{tmp_path}/a.db?mode=ro&uri=true", on_outage="queue")
    with pytest.raises(MemoryStoreError, match="readonly") as caught:
        run(memory.async_store("s", [Message("user", "q")]))
    assert not isinstance(caught.value, MemoryUnavailable)


def test_a_summary_is_kept_with_the_messages_it_does_not_stand_for(store_url, session):
    said = [Message("user", f"q{n}") for n in range(6)]

    async def main():
        memory = SQLMemory(store_url, window=2, compaction=Compaction(ScriptedLLM([])))
        await memory.async_store(session, said)
        await memory.async_summarise(session, "notes of four", 4)
        await memory.async_summarise(session, "notes of three", 3)
        with_summary = await memory.async_recall(session)
        without = SQLMemory(store_url, window=2)
        plain, whole = await without.async_recall(session), await memory.async_load(session)
        await memory.aclose()
        await without.aclose()
        return with_summary, plain, whole

    with_summary, plain, whole = asyncio.run(main())
    assert with_summary == Recollection(messages=said[4:], summary="notes of four", before=4, length=6)
    assert plain == Recollection(messages=said[4:], before=4, length=6)
    assert whole == said


def test_a_summary_of_a_session_that_was_cleared_is_not_believed(store_url, session):
    from sqlalchemy import delete

    from shared_libs.memory.tables import MESSAGES

    async def main():
        memory = SQLMemory(store_url, compaction=Compaction(ScriptedLLM([])))
        await memory.async_store(session, EXCHANGE)
        await memory.async_summarise(session, "old notes", 4)
        async with await memory._begin(writes=True) as connection:
            await connection.execute(delete(MESSAGES).where(MESSAGES.c.session_id == session))
        found = await memory.async_recall(session)
        await memory.aclose()
        return found

    assert asyncio.run(main()) == Recollection(messages=[], length=0)


def test_the_next_run_of_another_process_begins_with_the_summary(store_url, session):
    async def main():
        requests = []
        for number in range(4):  # an agent of its own for each run, as after a restart
            llm = ScriptedLLM([f"answer {number}"])
            compaction = Compaction(ScriptedLLM(["notes"]), keep=1)
            agent = ReActAgent(llm=llm, memory=SQLMemory(store_url, window=3, compaction=compaction))
            await agent.async_run(f"question {number}", session_id=session)
            requests.append([message.text.rpartition("\n")[2] for message in llm.requests[0][1:]])
            await agent.aclose()
        return requests

    assert asyncio.run(main())[2:] == [["notes", "question 2"], ["notes", "question 2", "answer 2", "question 3"]]


@pytest.mark.parametrize(
    ("options", "told"),
    [({"pool_size": 0}, "pool_size is a number from 1"), ({"on_outage": "drop"}, "on_outage is 'error' or 'queue'")],
)
def test_an_option_that_cannot_work_is_misuse(options, told):
    with pytest.raises(MisuseError, match=told):
        SQLMemory(**options)


def test_a_password_in_the_query_of_a_url_is_never_told():
    memory = SQLMemory("postgresql+asyncpg://127.0.0.1:9/none?user=me&password=secret")
    with pytest.raises(MemoryStoreError) as caught:
        asyncio.run(memory.async_load("s"))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "sqlite+aiosqlite:///:memory:",
        "sqlite+aiosqlite://",
        "sqlite+aiosqlite:///",
        "sqlite+aiosqlite:///file:x?mode=memory&uri=true",
        "sqlite+aiosqlite:///file::memory:?cache=shared&uri=true",
    ],
)
def test_a_database_in_memory_is_refused_and_what_to_take_is_named(url):
    with pytest.raises(MisuseError, match=r"InProcessMemory\(\)"):
        SQLMemory(url)


def test_a_file_that_is_no_database_is_no_outage(tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text("these are no tables\n" * 100)
    memory = SQLMemory(f"sqlite+aiosqlite:///{file}", on_outage="queue")
    with pytest.raises(MemoryStoreError, match="not a database") as caught:
        run(memory.async_store("s", EXCHANGE))
    assert not isinstance(caught.value, MemoryUnavailable)


@pytest.mark.parametrize("query", ["x" * 100_000, " ".join(f"w{n}" for n in range(20_000)), "% _ \\ ' \" \0"])
def test_any_text_can_be_searched_for(url, query):
    async def main():
        memory = SQLMemory(url)
        await memory.async_store("s", [Message("user", "w7 and more")])
        return [message.text for message in await memory.async_search("s", query)]

    assert run(main()) == (["w7 and more"] if query.startswith("w0") else [])
