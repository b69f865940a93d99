"""Another agent as a tool: the call is its question, its answer the observation."""

from __future__ import annotations

import math
import re
from typing import Any, Protocol

from shared_libs.atomic.errors import ToolError
from shared_libs.atomic.results import AgentResult
from shared_libs.atomic.scope import current_scope, use_deadline
from shared_libs.atomic.tools.base import BaseTool

MAX_DEPTH = 5
"""How deep agents may call agents."""

HAND_BACK_S = 0.03
"""Seconds before the call's own end when the inner run ends, so that its best answer is still taken."""


class Answers(Protocol):
    """Whatever can be asked, such as a `ReActAgent`."""

    name: str

    async def async_run(self, question: str, /) -> AgentResult:
        """Answer a question."""


class AgentTool(BaseTool):
    """
    An agent that another one may ask.

    Its run keeps to the deadline of the call, its own limits, and what is left of the caller's budget: its steps, tool
    calls, tokens and cost count on both. It remembers nothing between two calls.

    Args:
        agent: the agent; it is opened and closed with the tool.
        description: what the model that may ask it reads.
        name: what that model calls it; by default the agent's name.

    """

    parameters = {  # noqa: RUF012 - read, never changed
        "type": "object",
        "properties": {
            "question": {
                "type": "string",
                "minLength": 1,
                "description": "What to answer. It knows nothing else, so say everything it needs.",
            }
        },
        "required": ["question"],
        "additionalProperties": False,
    }
    passes_ports = True
    timeout_s = math.inf  # its own limits are the shorter ones

    def __init__(self, agent: Answers, *, description: str, name: str | None = None) -> None:
        self.name = name or re.sub(r"[^A-Za-z0-9_-]", "_", agent.name)
        self.description = description
        self._agent = agent

    async def execute(self, question: str) -> Any:
        """Ask the agent."""
        scope = current_scope()
        if scope.budget is not None and scope.budget.depth >= MAX_DEPTH:
            raise ToolError(f"agents call agents {MAX_DEPTH} deep already; answer without {self.name}")
        if not question.strip():
            raise ToolError("the question is empty")
        with use_deadline(scope.deadline.earlier_by(HAND_BACK_S)):
            result = await self._agent.async_run(question)
        if result.status == "answered" and result.answer is not None:
            return result.answer if result.output_data is None else result.output_data
        if result.answer and result.status != "failed":
            return f"This answer is partial ({result.stop_reason}):\n{result.answer}"
        if result.pending:
            waiting = ", ".join(call.tool for call in result.pending)
            raise ToolError(f"{self.name} could go no further: nobody can be asked inside it to approve {waiting}")
        raise ToolError(
            f"{self.name} found no answer ({result.stop_reason}): {result.error or 'its limits are reached'}"
        )

    async def aopen(self) -> None:
        """Get the agent's tools ready."""
        await _whole(self._agent, "aopen")

    async def aclose(self) -> None:
        """Close the agent."""
        await _whole(self._agent, "aclose")
        await super().aclose()


async def _whole(agent: Any, method: str) -> None:
    call = getattr(agent, method, None)
    if call is not None:
        await call()
