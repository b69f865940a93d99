"""Tools that need an approval: the run pauses into plain data, and goes on from it without doing anything twice."""

from __future__ import annotations

import asyncio
import json

import pytest

from shared_libs.agents import Decision, Limits, ReActAgent
from shared_libs.atomic import InProcessMemory, MisuseError, Usage, tool
from shared_libs.atomic.events import ApprovalRequested, RunFinished, RunStarted
from shared_libs.atomic.llms import ScriptedLLM, Turn
from tests.support import run, run_virtual


class Office:
    """Two tools, one of which needs an approval, and what they did."""

    def __init__(self):
        self.done = []

        @tool(needs_approval=True)
        async def send(to: str) -> str:
            """Send a letter."""
            self.done.append(to)
            return f"sent to {to}"

        @tool
        async def look(what: str) -> str:
            """Look something up."""
            self.done.append(what)
            return f"seen {what}"

        self.tools = (send, look)

    def agent(self, *turns, **options):
        return ReActAgent(llm=ScriptedLLM([*turns, "Done."]), tools=self.tools, **options)


def send(*people):
    return [("send", {"to": person}) for person in people]


@pytest.mark.promise("resume-done")
def test_three_parallel_approvals_are_three_decisions():
    office = Office()
    turn = Turn(text="Letters.", calls=[*send("Ann", "Bob", "Cy"), ("look", {"what": "stamps"})])

    async def main():
        agent = office.agent(turn)
        paused = await agent.async_run("Write to all.")
        assert (paused.status, paused.stop_reason, paused.answer) == ("paused", "approval", None)
        assert [call.input for call in paused.pending] == [{"to": "Ann"}, {"to": "Bob"}, {"to": "Cy"}]
        assert office.done == ["stamps"]  # what needs no approval is done at once
        ann, bob, cy = (call.call_id for call in paused.pending)
        decisions = {
            ann: True,
            bob: Decision(approved=False, reason="on holiday"),
            cy: Decision(approved=True, input={"to": "Cyd"}),
        }
        return await agent.async_resume(json.dumps(paused.to_dict()["state"]), decisions)

    result = run(main())
    assert (result.status, result.answer) == ("answered", "Done.")
    assert office.done == ["stamps", "Ann", "Cyd"]
    (step, _) = result.steps
    assert [action.input for action in step.actions][:3] == [{"to": "Ann"}, {"to": "Bob"}, {"to": "Cyd"}]
    assert [seen.content for seen in step.observations] == [
        "sent to Ann",
        "[not run: the user did not approve this call: on holiday]",
        "sent to Cyd",
        "seen stamps",
    ]


@pytest.mark.promise("resume-done")
def test_what_is_not_decided_yet_waits_on():
    office = Office()

    async def main():
        agent = office.agent(Turn(calls=send("Ann", "Bob")))
        paused = await agent.async_run("Write.")
        first, second = (call.call_id for call in paused.pending)
        again = await agent.async_resume(paused.state, {second: True})
        assert (again.status, [call.call_id for call in again.pending], office.done) == ("paused", [first], ["Bob"])
        return await agent.async_resume(again.state, {first: True})

    assert run(main()).status == "answered"
    assert office.done == ["Bob", "Ann"]


def test_the_run_goes_on_where_it_was_in_another_event_loop():
    office, events = Office(), []
    agent = office.agent(
        Turn(calls=[("look", {"what": "names"})], usage=Usage(5, 1, 0, 6)),
        Turn(calls=send("Ann"), usage=Usage(7, 1, 0, 8)),
        observers=[lambda event: events.append((type(event).__name__, event.seq))],
        memory=InProcessMemory(),
    )
    paused = run(agent.async_run("Write.", session_id="s", run_id="r"))
    assert run(agent.memory.async_load("s")) == []  # an open exchange is none yet
    result = run(agent.async_resume(paused.state, {paused.pending[0].call_id: True}))
    assert (result.run_id, len(result.steps), len(result.attempts)) == ("r", 3, 3)
    assert result.usage == paused.usage == Usage(12, 2, 0, 14)
    assert [seq for _, seq in events] == list(range(1, len(events) + 1))
    assert [name for name, _ in events].count("RunFinished") == 2
    kinds = [message.role for message in run(agent.memory.async_load("s"))]
    assert kinds == ["user", "assistant", "tool", "assistant", "tool", "assistant"]


def test_the_pause_costs_no_time_and_the_rest_has_what_was_left():
    office, events = Office(), []
    agent = office.agent(Turn(calls=send("Ann"), delay_s=3), limits=Limits(timeout_s=10), observers=[events.append])

    async def main():
        paused = await agent.async_run("Write.")
        await asyncio.sleep(3600)
        return await agent.async_resume(paused.state, {paused.pending[0].call_id: True})

    result = run_virtual(main())
    assert (result.status, result.elapsed_s) == ("answered", 3)
    first, second = (event for event in events if isinstance(event, RunStarted))
    assert (first.resumed, first.timeout_s, second.resumed, second.timeout_s) == (False, 10, True, 7)
    assert first.started_at == second.started_at
    assert [event.at_s for event in events] == sorted(event.at_s for event in events)


def test_the_budget_goes_on_too():
    office = Office()

    async def main():
        agent = office.agent(
            Turn(calls=send("Ann")), Turn(calls=[("look", {"what": "x"})]), limits=Limits(max_tool_calls=1)
        )
        paused = await agent.async_run("Write.")
        return await agent.async_resume(paused.state, {paused.pending[0].call_id: True})

    result = run(main())
    assert (result.stop_reason, office.done) == ("budget", ["Ann"])


def test_nobody_is_asked_about_a_call_that_cannot_run():
    office = Office()
    result = run(office.agent(Turn(calls=[("send", {"whom": "Ann"})])).async_run("Write."))
    assert (result.status, office.done) == ("answered", [])
    assert "Invalid arguments" in result.steps[0].observations[0].content


def test_each_question_to_a_person_is_an_event():
    events = []
    office = Office()
    run(office.agent(Turn(calls=send("Ann", "Bob")), observers=[events.append]).async_run("Write."))
    assert [event.input for event in events if isinstance(event, ApprovalRequested)] == [{"to": "Ann"}, {"to": "Bob"}]
    assert isinstance(events[-1], RunFinished)


def test_a_state_can_be_resumed_only_with_decisions_that_fit():
    office = Office()
    agent = office.agent(Turn(calls=send("Ann")))
    paused = run(agent.async_run("Write."))
    call_id = paused.pending[0].call_id
    for state, decisions, why in [
        (paused.state, {"other": True}, f"no call 'other' waits for a decision; waiting: {call_id}"),
        (paused.state, {call_id: "yes"}, "True, False or a Decision"),
        ({"version": 1}, {}, "no state of a paused run"),
        ("not json", {}, "no state of a paused run"),
        (paused.state | {"version": 2}, {}, "no state of a paused run"),
        (None, {}, "no state of a paused run"),
    ]:
        with pytest.raises(MisuseError, match=why):
            run(agent.async_resume(state, decisions))
    assert office.done == []
    assert run(agent.async_resume(paused.state, {call_id: True})).status == "answered"
