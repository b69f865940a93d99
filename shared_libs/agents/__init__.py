"""Agents: the ReAct loop."""

from shared_libs.agents.decisions import Decision
from shared_libs.agents.limits import Limits
from shared_libs.agents.react_agent import ReActAgent
from shared_libs.agents.reply import Reply
from shared_libs.atomic.results import Action, AgentResult, Observation, RunError, Step, StillRunning

__all__ = [
    "Action",
    "AgentResult",
    "Decision",
    "Limits",
    "Observation",
    "ReActAgent",
    "Reply",
    "RunError",
    "Step",
    "StillRunning",
]
