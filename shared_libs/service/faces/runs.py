"""An agent's run as a client sees it: its answer in pieces, and the calls that are the client's to make."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from shared_libs.agents.pause import PausedRun
from shared_libs.agents.react_agent import ReActAgent
from shared_libs.agents.variant import Extras
from shared_libs.atomic.addresses import without_addresses
from shared_libs.atomic.events import (
    AgentEvent,
    RunFinished,
    StepStarted,
    StreamRestarted,
    TextDelta,
    ThinkingDelta,
    ToolFinished,
    ToolStarted,
)
from shared_libs.atomic.results import AgentResult, Decision
from shared_libs.atomic.types import Message, ToolCall, ToolResult, ToolSpec
from shared_libs.service.faces.wanted import (
    Began,
    Called,
    Ended,
    Finish,
    Outcome,
    Piece,
    Said,
    Thought,
    Voided,
    Wanted,
)
from shared_libs.service.live import Resumed
from shared_libs.service.problems import Problem, problem_of_model

_CALL_ID = re.compile(r"call_([0-9a-f]{32})_(\d{1,3})")

HEADING = "Instructions of the client that asks:"

WAITS = "This waits for a decision on {tools}. Decide at POST /v1/runs/{run_id}/decisions."


def extras_of(wanted: Wanted) -> Extras:
    """Return what a request wants of an agent beside its definition."""
    system = "\n\n".join(message.text for message in wanted.messages if message.role == "system")
    instructions = f"{HEADING}\n{system}" if system else ""
    return Extras(fields=wanted.fields, tools=wanted.tools, instructions=instructions)


def shadowed(agent: ReActAgent, wanted: Wanted) -> list[str]:
    """Name the client's tools that give way to the agent's own of the same name."""
    own = {getattr(tool, "name", "") for tool in agent.tools}
    return [f"tools:{spec.name}" for spec in wanted.tools if spec.name in own]


def conversation(wanted: Wanted) -> list[Message]:
    """
    Return the messages that a run begins with; with a session, those that the agent does not remember.

    Raises:
        Problem: nothing asks.

    """
    messages = [message for message in wanted.messages if message.role != "system"]
    if wanted.session_id is not None:
        answered = max((index for index, one in enumerate(messages) if one.role == "assistant"), default=-1)
        messages = messages[answered + 1 :]
    if not messages or messages[-1].role == "assistant":
        raise Problem("invalid_request", "the last message asks: its role is 'user' or 'tool'", param="messages")
    return messages


def paused_run_of(messages: Sequence[Message]) -> str | None:
    """Return the id of the run that waits for the results at the end of a conversation, if they tell one."""
    results, _ = _results(messages)
    found = {match[1] if (match := _CALL_ID.fullmatch(one.tool_call_id or "")) else "" for one in results}
    return found.pop() if len(found) == 1 and "" not in found else None


def resumed(state: dict[str, Any], messages: Sequence[Message], *, queued: bool = False) -> Resumed | None:
    """
    Bring the results at the end of a conversation into the state of the run that waits for them.

    Args:
        state: of the run.
        messages: the conversation.
        queued: whether the run is durable.

    """
    paused = PausedRun.read(state)
    turn = paused.state.open_turn
    if turn is None:
        return None
    decisions: dict[str, Decision] = {}
    results, said = _results(messages)
    for number, one in enumerate(results, 1):
        match = _CALL_ID.fullmatch(one.tool_call_id or "")
        place = int(match[2]) if match else -1
        if match is None or match[1] != paused.run_id or place >= len(turn.calls):
            return None
        beside = said if number == len(results) else ()
        result = ToolResult(one.text, one.is_error)
        decisions[turn.calls[place].id] = Decision(approved=True, result=result, said=beside)
    waiting = set(turn.elsewhere) - turn.results.keys()  # what waits for a person is not the client's to answer
    return Resumed(state, decisions, queued) if decisions.keys() <= waiting else None


def _results(messages: Sequence[Message]) -> tuple[Sequence[Message], tuple[Message, ...]]:
    """The tools' results at the end of a conversation, and what the user says behind them."""
    end = len(messages)
    while end and messages[end - 1].role == "user":
        end -= 1
    begin = end
    while begin and messages[begin - 1].role == "tool":
        begin -= 1
    return messages[begin:end], tuple(messages[end:])


class RunReader:
    """
    Reads the events of a run as pieces of its answer.

    A turn that ends in tool calls was a thought and no answer, and that shows only at its end: where the agent has
    tools the words are told at the end, else as they come.

    Args:
        agent: whose run it is, as it was asked.
        client_tools: what the client can do itself.

    """

    def __init__(self, agent: ReActAgent, client_tools: Sequence[ToolSpec]) -> None:
        self._always_live = not agent.tools or agent.protocol.name == "text"
        self._client_tools = {spec.name for spec in client_tools}
        self._live = self._always_live
        self._thinking: list[str] = []

    def take(self, event: AgentEvent) -> list[Piece]:
        """
        Read an event.

        Raises:
            Problem: the run has failed.

        """
        match event:
            case StepStarted():
                self._live = self._always_live or event.final
            case TextDelta() if self._live:
                return [Said(event.text)]
            case StreamRestarted() if self._live:
                return [Voided(event.reason)]
            case ThinkingDelta():
                self._thinking.append(event.text)
                return [Thought(event.text)]
            case ToolStarted() if event.tool not in self._client_tools:
                return [Began(event.call_id, event.tool, event.input)]
            case ToolFinished() if event.tool not in self._client_tools:
                return [Ended(event.call_id, event.content, event.is_error)]
            case RunFinished():
                outcome = self.outcome(event.result)
                return [*map(Called, outcome.calls), outcome]
        return []

    def outcome(self, result: AgentResult) -> Outcome:
        """
        Read a result.

        Raises:
            Problem: the run has failed.

        """
        if result.status in ("failed", "cancelled"):
            raise problem_of_run(result)
        calls = self._calls(result)
        text, finish = result.answer or "", _finish(result)
        if result.status == "paused" and not calls:
            tools = ", ".join(action.tool for action in result.pending)
            text, finish = WAITS.format(tools=tools, run_id=result.run_id), "stop"
        return Outcome(text=text, calls=calls, finish=finish, usage=result.usage, facts=facts_of(result))

    def _calls(self, result: AgentResult) -> tuple[ToolCall, ...]:
        """The calls that wait for the client, under ids that tell the run."""
        if result.state is None:
            return ()
        turn = PausedRun.read(result.state).state.open_turn
        numbers = (
            {call.id: number for number, call in enumerate(turn.calls) if call.id in turn.elsewhere} if turn else {}
        )
        return tuple(
            ToolCall(
                f"call_{result.run_id}_{numbers[action.call_id]}",
                action.tool,
                action.input if isinstance(action.input, dict) else {},
                action.input if isinstance(action.input, str) else None,
            )
            for action in result.pending
            if action.call_id in numbers
        )


def facts_of(result: AgentResult) -> dict[str, Any]:
    """What the clients of any wire are told of a run, beside its answer."""
    facts: dict[str, Any] = {
        "run_id": result.run_id,
        "status": result.status,
        "stop_reason": result.stop_reason,
        "elapsed_s": round(result.elapsed_s, 3),
        "attempts": len(result.attempts),
        "still_running": [msgspec.to_builtins(one) for one in result.still_running],
    }
    if result.error:
        facts["error"] = without_addresses(result.error)
    if result.partial_output is not None:
        facts["partial_output"] = result.partial_output
    if result.pending:
        facts["pending"] = [msgspec.to_builtins(one) for one in result.pending]
    return facts


def problem_of_run(result: AgentResult) -> Problem:
    """Say why a run failed."""
    facts = {"error": None} | facts_of(result)
    told = facts["error"] or "the run failed"
    last = result.attempts[-1] if result.attempts else None
    if last is None or last.outcome == "ok":
        return Problem("run_failed", told, facts=facts)
    again = last.retryable is not False  # what an older record does not tell
    return problem_of_model(last.outcome, told, again=again, retry_after_s=last.retry_after_s, facts=facts)


def _finish(result: AgentResult) -> Finish:
    if result.status == "paused":
        return "tool_calls"
    # what fits its schema is whole, whatever ended the run
    return "stop" if result.status == "answered" or result.output is not None else "length"
