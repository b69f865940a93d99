"""An agent as one request wants it: the same agent, with more tools, instructions and listeners."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from shared_libs.agents.react_agent import ReActAgent
from shared_libs.atomic.events import EventSink
from shared_libs.atomic.llms.base import BaseLLMWrapper
from shared_libs.atomic.tools.base import BaseTool
from shared_libs.atomic.tools.toolset import Toolset
from shared_libs.atomic.types import ToolSpec


class ClientTool(BaseTool):
    """
    A tool that only the caller of a run can use: a call of it pauses the run, and a `Decision` brings its result.

    What the caller's schema says of the arguments is the caller's to check.
    """

    needs_approval = True
    isolation = "loop"

    def __init__(self, spec: ToolSpec) -> None:
        self.name = spec.name
        self.description = spec.description
        self._told = spec

    @property
    def spec(self) -> ToolSpec:
        """What a model is told of this tool."""
        return self._told

    def accepts(self, arguments: object) -> bool:
        """Whatever a model says goes to the caller."""
        return True


class ClientTools(Toolset):
    """The tools that come with a request; the agent's own win over those of the same name."""

    name = "the caller"
    gives_way = True

    def __init__(self, specs: Sequence[ToolSpec]) -> None:
        self._tools = [ClientTool(spec) for spec in specs]
        self.names = frozenset(spec.name for spec in specs)

    async def _list(self) -> Sequence[BaseTool]:
        return self._tools


def variant(
    agent: ReActAgent,
    *,
    llm: BaseLLMWrapper | None = None,
    client_tools: ClientTools | None = None,
    instructions: str = "",
    observers: Sequence[EventSink] = (),
) -> ReActAgent:
    """
    Return the agent as one request wants it; both share model, memory, tools and what is known of them.

    Args:
        agent: whose run it is.
        llm: what stands before its model in this request.
        client_tools: tools of the caller, whose calls pause the run.
        instructions: more of them, behind the agent's own.
        observers: further listeners.

    """
    made = copy.copy(agent)
    if llm is not None:
        made.llm = llm
    if client_tools is not None:
        made.tools = (*agent.tools, client_tools)
        made._toolsets = [*agent._toolsets, client_tools]  # noqa: SLF001 - a copy is of its family
    if instructions:
        made.instructions = f"{agent.instructions}\n\n{instructions}"
    made.observers = (*agent.observers, *observers)
    return made
