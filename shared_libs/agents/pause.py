"""A paused run as plain data: what `AgentResult.state` holds, and how a person's decisions enter it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from shared_libs.agents.step import RunState
from shared_libs.atomic.budget import Spent
from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.results import Decision
from shared_libs.atomic.types import Attempt

State = Mapping[str, Any] | str | bytes
"""`AgentResult.state`, or its JSON."""

Decisions = Mapping[str, bool | Decision | Mapping[str, Any]]
"""What is decided, by call id."""


class PausedRun(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """
    Everything a run needs to go on, in this process or another one.

    `elapsed_s` is the time it has used and `left_s` what it had left of its own; the pause itself counts as neither.
    `output_schema` is the shape of its answer, where that is the run's own and not its agent's.
    """

    version: Literal[1] = 1
    agent: str
    run_id: str
    session_id: str | None
    started_at: str
    elapsed_s: float
    left_s: float
    events: int
    state: RunState
    spent: Spent
    attempts: list[Attempt]
    session_length: int | None = None
    session_before: int = 0
    output_schema: dict[str, Any] | None = None

    @classmethod
    def read(cls, state: State) -> PausedRun:
        """
        Read `AgentResult.state`, or its JSON.

        Raises:
            MisuseError: it is no state of a paused run.

        """
        try:
            if isinstance(state, str | bytes):
                paused = msgspec.json.decode(state, type=cls)
            else:
                paused = msgspec.convert(copy.deepcopy(dict(state)), cls)
        except (msgspec.MsgspecError, UnicodeDecodeError, TypeError, ValueError) as error:
            raise MisuseError(f"this is no state of a paused run (`AgentResult.state`, or its JSON): {error}") from None
        return paused

    def decide(self, decisions: Decisions) -> None:
        """
        Enter the decisions, by call id. What is not decided on yet stays pending.

        Raises:
            MisuseError: there is no such call to decide on, or a decision is not one.

        """
        turn = self.state.open_turn
        if turn is None:
            if decisions:
                raise MisuseError("this state of a run has nothing to decide on")
            return
        waiting = {call.id: index for index, call in enumerate(turn.calls) if call.id not in turn.results}
        for call_id, given in decisions.items():
            if call_id not in waiting:
                raise MisuseError(f"no call {call_id!r} waits for a decision; waiting: {', '.join(waiting)}")
            decision = Decision.read(call_id, given)
            turn.decisions[call_id] = decision
            if decision.approved and decision.input is not None:
                # the history says what was really done
                call = turn.calls[waiting[call_id]]
                turn.calls[waiting[call_id]] = msgspec.structs.replace(call, arguments=decision.input)
