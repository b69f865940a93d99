"""What a run returns: plain data, the same in Python, in a run record and as JSON."""

from __future__ import annotations

from typing import Any, Generic, Literal

import msgspec
from typing_extensions import TypeVar

from shared_libs.atomic.errors import FactoryError, MisuseError
from shared_libs.atomic.plain_data import PlainData
from shared_libs.atomic.types import Attempt, Message, ToolResult, Usage

RunStatus = Literal["answered", "partial", "failed", "cancelled", "paused"]
StopReason = Literal[
    "final_answer", "deadline", "max_steps", "budget", "loop", "error", "cancelled", "approval", "handed_over"
]

T = TypeVar("T", default=Any)
"""What an answer is read as."""

_SHOWN = 200
"""Characters of an answer in the `repr` of a result."""


class RunError(FactoryError):
    """Raised by `AgentResult.raise_for_status`; `result` is the whole result."""

    def __init__(self, result: AgentResult) -> None:
        super().__init__(
            f"run {result.run_id} is {result.status} ({result.stop_reason}): {result.error or 'no final answer'}"
        )
        self.result = result


class Decision(msgspec.Struct, PlainData, frozen=True, forbid_unknown_fields=True):
    """
    What a person says of a call: whether it may run, why not, and with which `input` instead of the model's.

    `result` is what the call gave where somebody else has made it, such as the client whose tool it is: then it is not
    run here. `said` is what was said beside it; the model reads it behind the results of the turn.
    """

    approved: bool
    reason: str = ""
    input: dict[str, Any] | None = None
    result: ToolResult | None = None
    said: tuple[Message, ...] = ()

    @classmethod
    def read(cls, call_id: str, given: Any) -> Decision:
        """
        Return what somebody says of a call: True, False, a `Decision` or its JSON.

        Raises:
            MisuseError: it is none of these.

        """
        if isinstance(given, bool):
            return cls(given)
        try:
            return msgspec.convert(given, cls)
        except msgspec.ValidationError as error:
            raise MisuseError(
                f"the decision on {call_id!r} is True, False or a Decision (or its JSON), not {given!r}: {error}"
            ) from None


class Action(msgspec.Struct, PlainData, frozen=True, gc=False):
    """A tool call as the model made it; `input` is its arguments (the raw text where they were not a JSON object)."""

    tool: str
    input: dict[str, Any] | str
    call_id: str


class Observation(msgspec.Struct, PlainData, frozen=True, gc=False):
    """What a tool call ended in; `elapsed_s` in seconds."""

    call_id: str
    content: str
    is_error: bool
    elapsed_s: float


class Step(msgspec.Struct, PlainData, frozen=True, gc=False):
    """One turn of the model; `observations` stand in the order of `actions`."""

    thought: str
    actions: tuple[Action, ...] = ()
    observations: tuple[Observation, ...] = ()


class StillRunning(msgspec.Struct, PlainData, frozen=True, gc=False):
    """Something that ignored its cancellation and had not ended when the run did; it began `since_s` seconds before."""

    tool: str
    call_id: str
    since_s: float


class AgentResult(msgspec.Struct, PlainData, Generic[T], frozen=True, kw_only=True, dict=True):
    """
    How a run ended.

    `answer` is the final answer, or the best there was at the end of a partial run (None: nothing at all).
    `usage` sums the answered model calls, `attempts` lists every request of all of them, `elapsed_s` is the wall
    clock of the run in seconds. `cost_usd` sums what the answers cost, each at the price of its model; None where a
    part of it is unknown.

    `output` is the answer as its `output_schema` reads it, validated, or None. `output_data` is the same as plain data:
    what is written to JSON, and what a result that was read back has as its `output`. Where the run had a schema and no
    answer fits, `error` says what is missing or wrong, and `partial_output` holds the members that fit, as plain data.

    A run is "paused" when a tool needs an approval: `pending` are the calls to decide on, and `state`, plain data that
    JSON can hold, is what `ReActAgent.async_resume` goes on from.
    """

    run_id: str
    status: RunStatus
    stop_reason: StopReason
    answer: str | None
    output_data: Any = msgspec.field(default=None, name="output")
    partial_output: Any = None
    steps: tuple[Step, ...] = ()
    usage: Usage = Usage()
    cost_usd: float | None = None
    elapsed_s: float = 0.0
    still_running: tuple[StillRunning, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    error: str | None = None
    pending: tuple[Action, ...] = ()
    state: dict[str, Any] | None = None

    @property
    def output(self) -> T | None:
        """The validated value: an instance of the pydantic model, or the JSON value."""
        value: T | None = self.__dict__.get("output", self.output_data)
        return value

    def with_output(self, value: T) -> AgentResult[T]:
        """Return the result itself, with the value that `output_data` was made from."""
        self.__dict__["output"] = value
        return self

    def raise_for_status(self) -> AgentResult[T]:
        """
        Return the result itself when it is answered.

        Raises:
            RunError: the run is partial, failed, cancelled or paused.

        """
        if self.status != "answered":
            raise RunError(self)
        return self

    def __str__(self) -> str:
        calls = sum(len(step.actions) for step in self.steps)
        cost = "" if self.cost_usd is None else f", ${self.cost_usd:.4f}"
        spent = f"{len(self.steps)} steps, {calls} tool calls, {self.usage.total_tokens:,} tokens{cost}"
        told = [f"{self.status} ({self.stop_reason}) in {self.elapsed_s:.2f} s: {spent}"]
        told += [f"error: {self.error}"] if self.error else []
        told += [f"waits for a decision: {action.tool} ({action.call_id})" for action in self.pending]
        told += [f"still running: {left.tool} ({left.call_id})" for left in self.still_running]
        return "\n".join([*told, *([self.answer] if self.answer is not None else [])])

    def __repr__(self) -> str:
        answer = self.answer
        if answer is not None and len(answer) > _SHOWN:
            answer = f"{answer[:_SHOWN]}…"
        told = [f"run_id={self.run_id!r}", f"status={self.status!r}", f"stop_reason={self.stop_reason!r}"]
        told += [f"answer={answer!r}", *([f"output={self.output!r:.{_SHOWN}}"] if self.output is not None else [])]
        told += [f"error={self.error!r:.{_SHOWN}}"] if self.error else []
        return f"AgentResult({', '.join(told)}, steps={len(self.steps)}, elapsed_s={self.elapsed_s:.3g})"

    @classmethod
    def _described(cls, of: tuple[Any, ...]) -> dict[str, Any]:
        return {"output": of[0] | None} if of else {}
