"""An agent as one request wants it: the same agent, with more tools, instructions and listeners."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from shared_libs.agents.react_agent import ReActAgent
from shared_libs.atomic.events import EventSink
from shared_libs.atomic.llms.base import BaseLLMWrapper
from shared_libs.atomic.llms.structured import OutputSchema
from shared_libs.atomic.tools.base import BaseTool
from shared_libs.atomic.tools.toolset import Toolset
from shared_libs.atomic.types import LLMResponse, ToolSpec

_FIRST_CALL_ONLY = ("tool_choice", "parallel_tool_calls")


class Extras(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    What one request wants of an agent beside its definition; plain data, so that it travels with a durable run.

    Args:
        fields: for its model, as chat completions name them.
        tools: what the caller can do itself; a call of them pauses the run.
        instructions: behind the agent's own.
        output_schema: the JSON Schema of the answer; None: the agent's own.

    """

    fields: dict[str, Any] = {}
    tools: tuple[ToolSpec, ...] = ()
    instructions: str = ""
    output_schema: dict[str, Any] | None = None

    def of_later_turns(self) -> Extras:
        """Return what is left of it once a model has answered."""
        fields = {name: value for name, value in self.fields.items() if name not in _FIRST_CALL_ONLY}
        return msgspec.structs.replace(self, fields=fields)


class AskedModel:
    """
    Stands before an agent's model in one request, and adds the fields that the caller sent.

    What a caller says of the choice of tools is meant for the first answer: an agent that had to call a tool in each
    turn would never end.
    """

    def __init__(self, llm: BaseLLMWrapper, fields: Mapping[str, Any], *, stream: bool) -> None:
        self._llm = llm
        self._fields = dict(fields)
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._llm, name)

    async def async_chat(self, messages: Any, tools: Any = (), *, stream: bool = True, **given: Any) -> LLMResponse:
        """Ask the model, as its own method does."""
        fields = dict(self._fields)
        for name in _FIRST_CALL_ONLY:
            self._fields.pop(name, None)
        if fields:
            given["chat_fields"] = fields
        return await self._llm.async_chat(messages, tools, stream=stream or self._stream, **given)


class ClientTool(BaseTool):
    """
    A tool that only the caller of a run can use: a call of it pauses the run, and a `Decision` brings its result.

    What the caller's schema says of the arguments is the caller's to check.
    """

    needs_approval = True
    elsewhere = True
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


def extended(agent: ReActAgent, extras: Extras, *, stream: bool = False) -> ReActAgent:
    """
    Return the agent as one request wants it.

    Args:
        agent: whose run it is.
        extras: what is wanted.
        stream: whether its model is to tell its words as they come, though nobody follows the run itself.

    """
    asked: Any = AskedModel(agent.llm, extras.fields, stream=stream) if extras.fields or stream else None
    client_tools = ClientTools(extras.tools) if extras.tools else None
    made = variant(agent, llm=asked, client_tools=client_tools, instructions=extras.instructions)
    if extras.output_schema is not None:
        made.shape = OutputSchema.of(extras.output_schema)
    return made
