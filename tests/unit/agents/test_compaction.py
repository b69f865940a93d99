"""Compaction in a run: what has no room becomes a summary, no call loses its result, and a failure costs no run."""

from __future__ import annotations

import msgspec
import pytest

from shared_libs.agents import Limits, ReActAgent
from shared_libs.agents.step import RunState
from shared_libs.atomic import InProcessMemory, Message, Resilience, Retry, tool
from shared_libs.atomic.errors import ProviderUnavailable
from shared_libs.atomic.events import MemoryCompacted, Warned
from shared_libs.atomic.llms import ScriptedLLM, Turn
from shared_libs.atomic.memory import Compaction, Digest, estimate_tokens
from shared_libs.atomic.memory.compaction import SUMMED_UP
from shared_libs.atomic.types import Usage
from tests.support import is_valid_history, run_virtual


@tool
async def read(page: int) -> str:
    """Read a page."""
    return f"page {page}: " + "word " * 100


def reader(pages, summaries, **options):
    """Build an agent that reads pages, and the model that sums up."""
    answers = ScriptedLLM([*(Turn(calls=[("read", {"page": page})] * 2) for page in range(pages)), "done"])
    short = ScriptedLLM(summaries, resilience=Resilience(retry=Retry(attempts=1)))
    memory = InProcessMemory(compaction=Compaction(short, **options))
    limits = Limits(max_steps=50, max_tool_calls=None)
    return ReActAgent(llm=answers, tools=[read], memory=memory, limits=limits), answers, short


@pytest.mark.promise("compaction-pairs")
@pytest.mark.parametrize("keep", range(1, 9))
def test_in_the_middle_of_a_run_no_call_is_parted_from_its_result(keep):
    agent, answers, short = reader(12, [f"notes {n}" for n in range(12)], max_tokens=900, keep=keep)
    result = run_virtual(agent.async_run("What do the pages say?", session_id="s"))
    assert result.answer == "done"
    assert short.requests
    for request in answers.requests:
        assert is_valid_history(request[1:])
        assert Message("user", "What do the pages say?") in request
        assert estimate_tokens(request[1:]) <= 900
    assert len(answers.requests[-1]) < 15
    last = next(message for message in answers.requests[-1] if message.text.startswith(SUMMED_UP))
    assert last.text.endswith(f"notes {len(short.requests) - 1}")
    assert "notes 0" in short.requests[1][1].text
    stored = run_virtual(agent.memory.async_load("s"))
    assert len(stored) == 1 + 12 * 3 + 1


@pytest.mark.promise("compaction-pairs")
@pytest.mark.parametrize("outcome", [ProviderUnavailable("down"), "  ", Turn(text="late", delay_s=1000)])
def test_without_a_summary_older_messages_are_left_out_and_the_run_goes_on(outcome):
    agent, answers, short = reader(12, [outcome], max_tokens=900, keep=4)
    seen = []
    agent.observers = (seen.append,)
    result = run_virtual(agent.async_run("q", session_id="s", timeout=600))
    assert (result.status, result.answer) == ("answered", "done")
    assert all(is_valid_history(request[1:]) and estimate_tokens(request[1:]) <= 900 for request in answers.requests)
    assert "earlier messages are left out here" in answers.requests[-1][1].text
    short.verify()  # asked once, and then no more
    compacted = [event for event in seen if isinstance(event, MemoryCompacted)]
    assert compacted
    assert not any(event.summarised for event in compacted)
    if outcome != "  ":
        assert any(isinstance(event, Warned) and "could not be summed up" in event.message for event in seen)


def test_a_run_that_is_stored_between_two_steps_keeps_its_digest():
    state = RunState("q", history=[Message("user", "old")], digest=Digest("notes", 1, 2))
    assert msgspec.json.decode(msgspec.json.encode(state), type=RunState) == state


def test_a_summary_that_hangs_takes_at_most_half_of_what_is_left():
    agent, _, _ = reader(3, [Turn(delay_s=float("inf"))] * 3, max_tokens=300, keep=1, timeout_s=1000)

    async def main():
        return await agent.async_run("q", session_id="s", timeout=10)

    result = run_virtual(main())
    assert result.status == "answered"
    assert result.elapsed_s < 10


def test_the_next_run_begins_with_the_summary_and_what_came_after():
    said = ScriptedLLM([f"answer {n}" for n in range(6)])
    short = ScriptedLLM([Turn(text="notes A", usage=Usage(10, 5, 0, 15)), "notes B"])
    memory = InProcessMemory(window=4, compaction=Compaction(short, keep=2))
    agent = ReActAgent(llm=said, memory=memory)

    async def main():
        return [await agent.async_run(f"question {n}", session_id="s") for n in range(6)]

    results = run_virtual(main())
    seen = [[message.text for message in request[1:]] for request in said.requests]
    assert seen[2] == ["question 0", "answer 0", "question 1", "answer 1", "question 2"]
    assert seen[3] == [f"{SUMMED_UP}\nnotes A", "answer 2", "question 3"]
    assert seen[4] == [f"{SUMMED_UP}\nnotes A", "answer 2", "question 3", "answer 3", "question 4"]
    assert seen[5][0] == f"{SUMMED_UP}\nnotes B"
    assert results[3].usage.total_tokens == 15
    assert [attempt.model for attempt in results[3].attempts] == ["scripted", "scripted"]
    assert len(run_virtual(memory.async_load("s"))) == 12
    assert "notes A" in short.requests[1][1].text
    assert "question 0" not in short.requests[1][1].text


def test_without_a_compaction_nothing_is_summed_up():
    said = ScriptedLLM(["a", "b"])
    agent = ReActAgent(llm=said, memory=InProcessMemory(window=1))
    for question in ("one", "two"):
        run_virtual(agent.async_run(question, session_id="s"))
    assert [message.text for message in said.requests[1][1:]] == ["a", "two"]
