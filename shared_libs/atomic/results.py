"""What a run returns: plain data, the same in Python, in a run record and as JSON."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from shared_libs.atomic.errors import FactoryError
from shared_libs.atomic.types import Attempt, Usage

RunStatus = Literal["answered", "partial", "failed", "cancelled", "paused"]
StopReason = Literal[
    "final_answer", "deadline", "max_steps", "budget", "loop", "error", "cancelled", "approval", "handed_over"
]


class RunError(FactoryError):
    """Raised by `AgentResult.raise_for_status`; `result` is the whole result."""

    def __init__(self, result: AgentResult) -> None:
        super().__init__(
            f"run {result.run_id} is {result.status} ({result.stop_reason}): {result.error or 'no final answer'}"
        )
        self.result = result


class Action(msgspec.Struct, frozen=True, gc=False):
    """A tool call as the model made it; `input` is its arguments (the raw text where they were not a JSON object)."""

    tool: str
    input: dict[str, Any] | str
    call_id: str


class Observation(msgspec.Struct, frozen=True, gc=False):
    """What a tool call ended in; `elapsed_s` in seconds."""

    call_id: str
    content: str
    is_error: bool
    elapsed_s: float


class Step(msgspec.Struct, frozen=True, gc=False):
    """One turn of the model; `observations` stand in the order of `actions`."""

    thought: str
    actions: tuple[Action, ...] = ()
    observations: tuple[Observation, ...] = ()


class StillRunning(msgspec.Struct, frozen=True, gc=False):
    """Something that ignored its cancellation and had not ended when the run did; it began `since_s` seconds before."""

    tool: str
    call_id: str
    since_s: float


class AgentResult(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """
    How a run ended.

    `answer` is the final answer, or the best there was at the end of a partial run (None: nothing at all).
    `usage` sums the answered model calls, `attempts` lists every request of all of them, `elapsed_s` is the wall
    clock of the run in seconds. `cost_usd` sums what the answers cost, each at the price of its model; None where a
    part of it is unknown.


    A run is "paused" when a tool needs an approval: `pending` are the calls to decide on, and `state`, plain data that
    JSON can hold, is what `ReActAgent.async_resume` goes on from.
    """

    run_id: str
    status: RunStatus
    stop_reason: StopReason
    answer: str | None
    steps: tuple[Step, ...] = ()
    usage: Usage = Usage()
    cost_usd: float | None = None
    elapsed_s: float = 0.0
    still_running: tuple[StillRunning, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    error: str | None = None
    pending: tuple[Action, ...] = ()
    state: dict[str, Any] | None = None

    def raise_for_status(self) -> AgentResult:
        """
        Return the result itself when it is answered.

        Raises:
            RunError: the run is partial, failed, cancelled or paused.

        """
        if self.status != "answered":
            raise RunError(self)
        return self

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON-ready data; what `factory run --json` prints."""
        data: dict[str, Any] = msgspec.to_builtins(self)
        return data
