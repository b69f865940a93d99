"""Approvals over MCP: the person at the client is asked, and what was answered is a decision as any other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from shared_libs.atomic.results import AgentResult, Decision
from shared_libs.service.endpoint import Call

if TYPE_CHECKING:
    import mcp_types as types
    from mcp.server import ServerRequestContext

MOST_SHOWN = 2_000
"""Characters of a call's input that a person is shown."""

_FORM: dict[str, Any] = {
    "type": "object",
    "properties": {
        "approved": {"type": "boolean", "title": "Approve", "description": "Whether this call may be made."},
        "reason": {"type": "string", "title": "Reason", "description": "Why not; the agent reads it."},
    },
    "required": ["approved"],
}


def may_ask(context: ServerRequestContext[Any, Any], call: Call) -> bool:
    """Whether the person at the client can be asked: by the protocol, by the client, and by what the key may."""
    from mcp_types.version import MODERN_PROTOCOL_VERSIONS

    can = context.session.client_capabilities
    form = can is not None and can.elicitation is not None and (can.elicitation.form or not can.elicitation.url)
    return bool(form) and context.protocol_version in MODERN_PROTOCOL_VERSIONS and call.caller.may("runs:decide")


def approvals_of(result: AgentResult) -> types.InputRequiredResult:
    """Ask for a decision on each call that a run waits with; what comes back only names the run."""
    import mcp_types as types

    asked: dict[str, Any] = {}
    for action in result.pending:
        given = action.input if isinstance(action.input, str) else msgspec.json.encode(action.input).decode()
        shown = given if len(given) <= MOST_SHOWN else f"{given[:MOST_SHOWN]}… ({len(given):,} characters)"
        message = f"May the tool {action.tool} be called with {shown}?"
        asked[action.call_id] = types.ElicitRequest(
            params=types.ElicitRequestFormParams(message=message, requested_schema=_FORM)
        )
    return types.InputRequiredResult(input_requests=asked, request_state=result.run_id)


def decisions_of(answers: Mapping[str, Any]) -> dict[str, Decision]:
    """Read what a person answered; one who only closed the form has decided nothing."""
    decisions: dict[str, Decision] = {}
    for call_id, answer in answers.items():
        if (action := getattr(answer, "action", "cancel")) != "cancel":
            said = answer.content or {}
            approved = action == "accept" and said.get("approved") is True
            decisions[call_id] = Decision(approved, str(said.get("reason") or ""))
    return decisions
