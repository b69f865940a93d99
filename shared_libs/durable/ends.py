"""Ends of durable runs that the run itself does not tell."""

from __future__ import annotations

import msgspec

from shared_libs.atomic.results import AgentResult


def never_begun(run_id: str) -> AgentResult:
    """Return the end of a run that was cancelled in the queue."""
    return AgentResult(
        run_id=run_id, status="cancelled", stop_reason="cancelled", answer=None, error="cancelled before it began"
    )


def not_waited_for(result: AgentResult) -> AgentResult:
    """Return the end of a run that was cancelled while it paused."""
    why = "cancelled while it waited for a decision"
    return msgspec.structs.replace(
        result, status="cancelled", stop_reason="cancelled", pending=(), state=None, error=why
    )


def failed(run_id: str, why: str) -> AgentResult:
    """Return the end of a run that cannot be done."""
    return AgentResult(run_id=run_id, status="failed", stop_reason="error", answer=None, error=why)
