"""The memory port: whoever was interrupted, a history stays usable; whatever fails has one type."""

from __future__ import annotations

import asyncio
import itertools
import math

import pytest

from shared_libs.atomic import (
    BaseMemory,
    Deadline,
    InProcessMemory,
    MemoryConflict,
    MemoryStoreError,
    Message,
    MisuseError,
    ToolCall,
)
from shared_libs.atomic.llms import ScriptedLLM
from shared_libs.atomic.memory import Compaction, last_messages, valid_history
from shared_libs.atomic.scope import use_deadline
from tests.support import is_valid_history, run, run_virtual


def asks(*ids):
    return Message("assistant", tool_calls=tuple(ToolCall(call_id, "t") for call_id in ids))


def result(call_id):
    return Message("tool", "seen", tool_call_id=call_id, name="t")


USER = Message("user", "question")
ANSWER = Message("assistant", "answer")
EXCHANGE = [USER, asks("1", "2"), result("1"), result("2"), asks("3"), result("3"), ANSWER]


@pytest.mark.promise("history-valid")
def test_every_prefix_of_an_exchange_is_repaired_and_only_as_much_as_it_needs():
    for kept in range(len(EXCHANGE) + 1):
        repaired = valid_history(EXCHANGE[:kept])
        assert is_valid_history(repaired)
        assert [message for message in repaired if "interrupted" not in message.text] == EXCHANGE[:kept]
        assert is_valid_history([*repaired, *EXCHANGE])
    assert valid_history(EXCHANGE) == EXCHANGE


@pytest.mark.promise("history-valid")
def test_whatever_messages_are_missing_the_rest_is_valid():
    for keep in itertools.product([True, False], repeat=len(EXCHANGE)):
        left = [message for message, kept in zip(EXCHANGE, keep, strict=True) if kept]
        assert is_valid_history(valid_history(left))


@pytest.mark.promise("history-valid")
def test_a_cut_exchange_before_a_new_question_is_filled_in_where_it_belongs():
    repaired = valid_history([*EXCHANGE[:3], USER, ANSWER])
    assert [message.role for message in repaired] == ["user", "assistant", "tool", "tool", "user", "assistant"]
    assert (repaired[3].tool_call_id, repaired[3].is_error) == ("2", True)
    assert "interrupted" in repaired[3].text


@pytest.mark.promise("history-valid")
def test_a_window_never_parts_a_call_from_its_results():
    history = EXCHANGE * 3
    for limit in range(len(history) + 2):
        window = last_messages(history, limit)
        assert len(window) <= limit
        assert is_valid_history(window)
        assert window == history[len(history) - len(window) :]
    assert last_messages(history, None) == history


@pytest.mark.promise("history-valid")
def test_a_store_interrupted_between_messages_loads_as_a_valid_history():
    async def main():
        memory = InProcessMemory()
        await memory.async_store("s", EXCHANGE[:2])
        found = [await memory.async_load("s", limit) for limit in (None, 3, 2, 1, 0)]
        return [len(messages) for messages in found], all(map(is_valid_history, found))

    assert run(main()) == ([4, 3, 0, 0, 0], True)


def test_sessions_are_appended_to_and_kept_apart():
    async def main():
        memory = InProcessMemory()
        await memory.async_store("a", [USER, {"role": "assistant", "content": "answer"}])
        await memory.async_store("b", [])
        (await memory.async_load("a")).clear()
        await memory.async_store("a", [Message("user", "more")])
        return await memory.async_load("a"), await memory.async_load("b")

    assert run(main()) == ([USER, ANSWER, Message("user", "more")], [])


def test_search_gives_the_best_first():
    texts = ["delay of Frontier", "the weather", "average delay of all", "Delay"]

    async def main():
        memory = InProcessMemory()
        await memory.async_store("s", [Message("user", text) for text in texts])
        found = await memory.async_search("s", "average DELAY", k=2)
        return (
            [message.text for message in found],
            await memory.async_search("s", "nothing"),
            await memory.async_search("x", "delay"),
        )

    assert run(main()) == (["average delay of all", "Delay"], [], [])


class Foreign(BaseMemory):
    """A store that ends in what it is given."""

    name = "foreign"
    timeout_s = 2.0

    def __init__(self, outcome):
        self.outcome = outcome

    async def _load(self, session_id, limit):
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        await asyncio.sleep(self.outcome)
        return []

    async def _store(self, session_id, messages):
        await self._load(session_id, None)

    async def _search(self, session_id, query, k):
        return await self._load(session_id, k)


@pytest.mark.parametrize("verb", ["store", "load", "search"])
@pytest.mark.parametrize(
    ("outcome", "kind", "text"),
    [
        (OSError("disk full"), MemoryStoreError, "memory foreign failed to {verb}: OSError: disk full"),
        (MemoryConflict("faster"), MemoryConflict, "faster"),
        (MemoryStoreError("down"), MemoryStoreError, "down"),
        (asyncio.CancelledError(), MemoryStoreError, "memory foreign was cancelled from within during {verb}"),
        (math.inf, MemoryStoreError, "memory foreign did not {verb} within 2 s"),
    ],
)
def test_every_failure_of_a_store_has_one_type(verb, outcome, kind, text):
    async def main():
        memory = Foreign(outcome)
        calls = {
            "store": lambda: memory.async_store("s", [USER]),
            "load": lambda: memory.async_load("s"),
            "search": lambda: memory.async_search("s", "q"),
        }
        with pytest.raises(kind) as caught:
            await calls[verb]()
        assert str(caught.value) == text.format(verb=verb)
        return asyncio.get_running_loop().time()

    assert run_virtual(main()) <= 2


@pytest.mark.promise("time-total")
def test_the_callers_deadline_narrows_the_time_of_a_store():
    async def main():
        with use_deadline(Deadline.after(0.5)), pytest.raises(MemoryStoreError, match=r"within 0\.5 s"):
            await Foreign(math.inf).async_load("s")
        return asyncio.get_running_loop().time()

    assert run_virtual(main()) == 0.5


@pytest.mark.promise("cancel-wins")
def test_a_cancelled_caller_is_cancelled():
    async def main():
        task = asyncio.create_task(Foreign(math.inf).async_load("s"))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run_virtual(main())


@pytest.mark.parametrize(
    "misuse",
    [
        lambda memory: memory.async_load(""),
        lambda memory: memory.async_store("", [USER]),
        lambda memory: memory.async_search("", "q"),
        lambda memory: memory.async_load("s", -1),
        lambda memory: memory.async_load("s", "3"),
        lambda memory: memory.async_load("s", 10**30),
        lambda memory: memory.async_load(5),
        lambda memory: memory.async_load("\ud800"),
        lambda memory: memory.async_forget(""),
        lambda memory: memory.async_search("s", "q", k=-1),
        lambda memory: memory.async_search("s", None),
        lambda memory: Compaction(ScriptedLLM([]), max_tokens="5"),
        lambda memory: InProcessMemory(window=-1).async_load("s"),
        lambda memory: InProcessMemory(window="3").async_load("s"),
        lambda memory: InProcessMemory(max_sessions=None).async_load("s"),
        lambda memory: memory.async_store("s", [{"role": "robot", "content": "x"}]),
        lambda memory: memory.async_store("s", 42),
    ],
)
def test_misuse_is_told_at_once(misuse):
    with pytest.raises(MisuseError):
        run(misuse(InProcessMemory()))


def test_a_session_can_be_forgotten_where_the_store_can():
    async def main():
        memory = InProcessMemory(compaction=Compaction(ScriptedLLM([])))
        for session in ("s", "t"):
            await memory.async_store(session, [USER, ANSWER], batch="b")
            await memory.async_summarise(session, "sum", 2)
        await memory.async_forget("s")
        await memory.async_forget("nobody's")
        found = [await memory.async_recall(session) for session in ("s", "t")]
        await memory.async_store("s", [USER], batch="b")  # a name of the one that is gone
        return [(each.summary, each.length) for each in found], await memory.async_load("s")

    assert run(main()) == ([("", 0), ("sum", 2)], [USER])
    with pytest.raises(MemoryStoreError, match="memory foreign cannot forget a session: Foreign has no `_forget`"):
        run(Foreign(0).async_forget("s"))


def test_the_public_methods_are_final():
    with pytest.raises(MisuseError, match="`_load` instead"):

        class Own(BaseMemory):
            async def async_load(self, session_id, limit=None): ...
