"""The calls of one turn: decided on where needed, checked, run under supervision, observed in order."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping, Sequence
from contextlib import nullcontext

from shared_libs.agents import prompts
from shared_libs.agents.decisions import OpenTurn
from shared_libs.agents.remainder import within_reach
from shared_libs.agents.run import Run
from shared_libs.atomic.events import ApprovalRequested, ToolFinished, ToolStarted
from shared_libs.atomic.nearest import names_like
from shared_libs.atomic.results import Action
from shared_libs.atomic.supervise import together
from shared_libs.atomic.tools.base import BaseTool
from shared_libs.atomic.types import ToolCall, ToolResult

MAX_NAMES = 100
"""Names of tools that a model is told where it asks for one that is not there."""


async def act(run: Run, step: int, turn: OpenTurn) -> tuple[Action, ...]:
    """
    Run the calls that have no result yet at once, those of sequential tools one after the other.

    Returns the calls that wait for a person's decision; the results of all others stand in the turn.
    """
    tools = run.tools
    ready: list[ToolCall] = []
    pending: list[Action] = []
    for call in turn.calls:
        if call.id in turn.results:
            continue
        if call.id not in turn.decisions and _needs_decision(call, tools) and not run.knows(_fact(call)):
            pending.append(Action(call.name, call.input, call.id))
            if tools[call.name].elsewhere and call.id not in turn.elsewhere:
                turn.elsewhere.append(call.id)
            run.emit(ApprovalRequested(step=step, tool=call.name, input=call.input, call_id=call.id))
        else:
            ready.append(call)
    granted = run.budget.grant_tool_calls(len(ready))
    if len(ready) == 1:
        await _observe(run, step, ready[0], turn, tools, allowed=granted > 0)
    elif ready:
        await _observe_all(run, step, ready, turn, tools, granted)
    return tuple(pending)


async def _observe_all(
    run: Run, step: int, ready: Sequence[ToolCall], turn: OpenTurn, tools: Mapping[str, BaseTool], granted: int
) -> None:
    """Several calls at once. Apart from `act`: what they share would cost a single one its cells."""
    line = asyncio.Lock()

    async def one(index: int, call: ToolCall) -> None:
        tool = tools.get(call.name)
        async with line if tool is not None and tool.sequential else nullcontext():
            await _observe(run, step, call, turn, tools, allowed=index < granted)

    await together([one(index, call) for index, call in enumerate(ready)])


def _needs_decision(call: ToolCall, tools: Mapping[str, BaseTool]) -> bool:
    """Whether a person is asked; a call that cannot run is no question."""
    tool = tools.get(call.name)
    return tool is not None and tool.needs_approval and call.malformed is None and tool.accepts(call.arguments)


async def _observe(
    run: Run, step: int, call: ToolCall, turn: OpenTurn, tools: Mapping[str, BaseTool], *, allowed: bool
) -> None:
    run.emit(ToolStarted(step=step, tool=call.name, input=call.input, call_id=call.id))
    decision = turn.decisions.get(call.id)
    if decision is not None and not decision.approved:
        result = ToolResult(
            prompts.REFUSED.format(reason=f": {decision.reason}" if decision.reason else ""), is_error=True
        )
    elif decision is not None and decision.result is not None:
        result = decision.result
    else:
        result = await _called(run, call, tools, allowed=allowed)
    turn.results[call.id] = result
    run.emit(
        ToolFinished(
            step=step,
            tool=call.name,
            call_id=call.id,
            content=result.content,
            is_error=result.is_error,
            elapsed_s=result.elapsed_s,
        )
    )


async def _called(run: Run, call: ToolCall, tools: Mapping[str, BaseTool], *, allowed: bool) -> ToolResult:
    """Call the tool: the one place a run passes the tool port. What cannot be called is an observation too."""
    if not allowed:
        return ToolResult(prompts.UNOBSERVED.format(why=run.budget.exhausted()), is_error=True)
    tool = tools.get(call.name)
    if tool is None:
        return await _of_no_tool(run, call, tools)
    if call.malformed is not None:
        said = f"{call.malformed:.500}"
        return ToolResult(f"The arguments of {call.name} are not a JSON object: {said}", is_error=True)
    if run.journal is None or tool.passes_ports:  # what is inside it is a fact, and not the call
        result = await tool.async_run(call.arguments, call_id=call.id)
    else:
        result = await _once(run, call, tool)
    return within_reach(run, call.id, result, tool.max_observation_chars) if result.whole else result


async def _of_no_tool(run: Run, call: ToolCall, tools: Mapping[str, BaseTool]) -> ToolResult:
    """What a call comes to whose tool is not there: it may have been called before, and have gone since."""
    if run.knows(_fact(call)):
        return await run.once(_fact(call), ToolResult, _unknown)
    if run.knows(f"begin.{call.id}"):
        return ToolResult(prompts.MAY_HAVE_HAPPENED.format(tool=call.name), is_error=True)
    near = names_like(call.name, tools)
    hint = f" Did you mean {near[0]}?" if near else ""
    known = ", ".join(itertools.islice(tools, MAX_NAMES)) or "none"
    more = f" and {len(tools) - MAX_NAMES} more" if len(tools) > MAX_NAMES else ""
    return ToolResult(f"There is no tool {call.name!r:.200}. The tools are: {known}{more}.{hint}", is_error=True)


async def _once(run: Run, call: ToolCall, tool: BaseTool) -> ToolResult:
    """Call a tool, or take what it said from the journal of a durable run, where it has been called before."""

    async def body() -> ToolResult:
        if tool.idempotent is False:
            if run.knows(f"begin.{call.id}"):
                return await _found_out(tool, call)
            await run.once(f"begin.{call.id}", bool, _begun)
        return await tool.async_run(call.arguments, call_id=call.id)

    return await run.once(_fact(call), ToolResult, body)


def _fact(call: ToolCall) -> str:
    """Name the fact of what a call gave."""
    return f"tool.{call.id}"


async def _unknown() -> ToolResult:
    """Make nothing: the fact is known."""
    raise AssertionError


async def _begun() -> bool:
    """Say that a call begins which must not be made twice."""
    return True


async def _found_out(tool: BaseTool, call: ToolCall) -> ToolResult:
    """What became of a call during which its process ended: what the tool itself knows, or that nobody does."""
    found = await tool.async_found_out(call_id=call.id)
    if found is not None and not found.is_error:
        return found
    why = "" if found is None else f"\n{found.content}"
    return ToolResult(prompts.MAY_HAVE_HAPPENED.format(tool=call.name) + why, is_error=True)
