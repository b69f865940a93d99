"""
The pure part of the loop: what a turn means, and when to stop. No clock, no I/O.

`RunState` is plain data; it can be stored between two steps and read back elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from shared_libs.agents import prompts
from shared_libs.agents.decisions import OpenTurn
from shared_libs.agents.limits import Limits
from shared_libs.agents.protocol import Turn
from shared_libs.agents.question import Asked
from shared_libs.atomic.budget import Budget
from shared_libs.atomic.llms.structured import Output
from shared_libs.atomic.memory.compaction import Digest
from shared_libs.atomic.results import Action, Observation, RunStatus, Step, StopReason
from shared_libs.atomic.types import LLMResponse, Message, ToolCall

WARN_AT = 3
"""How many equal calls with equal observations running are told to the model."""

LONGEST_CYCLE = 3
"""Cycles of up to so many different steps are noticed."""

Mark = tuple[list[tuple[str, Any]], list[str]]
"""What a step did and saw, without its ids and times: equal marks are equal steps."""


class RunState(msgspec.Struct, gc=False):
    """
    A run between two steps: the conversation so far, and what it consists of.

    `call_ids` are those used in the conversation; `repeats` is how many times running the last step has been repeated,
    alone or as part of a cycle. `open_turn` is the turn whose calls are being done, `digest` what older ones became.
    """

    question: str
    history: list[Message] = []
    exchange: list[Message] = []
    steps: list[Step] = []
    call_ids: set[str] = set()
    marks: list[Mark] = []
    repeats: int = 0
    open_turn: OpenTurn | None = None
    digest: Digest = Digest()

    @property
    def conversation(self) -> list[Message]:
        """Everything the model is to see."""
        return self.digest.shown([*self.history, *self.exchange], len(self.history))


class Ending(msgspec.Struct, frozen=True):
    """
    How a run ends.

    `last_word` asks for one more call without tools; `why` says in words what happened. `output` is the answer in the
    shape that was asked for, or `unfit` says what is wrong with it, and `partial_output` is what of it fits.
    """

    status: RunStatus
    stop_reason: StopReason
    answer: str | None = None
    why: str = ""
    last_word: bool = False
    pending: tuple[Action, ...] = ()
    output: Output | None = None
    unfit: str = ""
    partial_output: Any = None


def begin(asked: Asked, remembered: Sequence[Message], digest: Digest) -> RunState:
    """Begin a run with the question, what the session remembers, and what the caller brought along."""
    history = [*remembered, *asked.before]
    used = {call.id for message in [*history, *asked.exchange] for call in message.tool_calls}
    return RunState(asked.text, history, asked.exchange, call_ids=used, digest=digest)


def take_calls(state: RunState, turn: Turn, response: LLMResponse) -> OpenTurn:
    """Open the turn that acts. Every call gets an id of its own in the conversation; servers send repeated ones."""
    used: set[str] = state.call_ids
    named: list[ToolCall] = []
    for index, call in enumerate(turn.calls, 1):
        fits = call.id and call.id.isprintable() and call.id not in used
        call_id = call.id if fits else f"call_{len(state.steps) + 1}_{index}"
        while call_id in used:
            call_id += "_"
        used.add(call_id)
        named.append(call if call.id == call_id else msgspec.structs.replace(call, id=call_id))
    state.open_turn = OpenTurn(turn.thought, named, response.thinking)
    return state.open_turn


def take_answer(state: RunState, turn: Turn, response: LLMResponse) -> Ending:
    """Book the turn that answers."""
    assert turn.answer is not None
    state.steps.append(Step(turn.thought))
    state.exchange.append(Message("assistant", turn.answer, thinking=response.thinking))
    if response.finish_reason == "length":
        return Ending("partial", "budget", turn.answer, "the model's answer was cut at its own token limit")
    return Ending("answered", "final_answer", turn.answer)


def take_problem(state: RunState, turn: Turn, response: LLMResponse) -> None:
    """Book a turn that did nothing, and tell the model so; one that only paused goes on without a word."""
    assert turn.problem is not None
    state.steps.append(Step(turn.thought or response.text))
    state.marks.clear()
    state.repeats = 0
    if response.text or not turn.problem:
        state.exchange.append(Message("assistant", response.text, thinking=response.thinking))
    if turn.problem:
        state.exchange.append(Message("user", turn.problem))


def take_observations(state: RunState, turn: OpenTurn) -> None:
    """Book the calls of the open turn with their results, in the order of the calls."""
    observed = [(call, turn.results[call.id]) for call in turn.calls]
    state.open_turn = None
    actions = tuple(Action(call.name, call.input, call.id) for call in turn.calls)
    seen = tuple(Observation(call.id, got.content, got.is_error, got.elapsed_s) for call, got in observed)
    state.steps.append(Step(turn.thought, actions, seen))
    state.marks.append(([(call.name, call.input) for call, _ in observed], [got.content for _, got in observed]))
    state.repeats = count_repeats(state.marks)
    note = f"\n{prompts.REPEATED.format(times=state.repeats)}" if state.repeats >= WARN_AT else ""
    state.exchange += [
        Message("assistant", turn.thought, tool_calls=tuple(turn.calls), thinking=turn.thinking),
        *(Message("tool", g.content + note, tool_call_id=c.id, name=c.name, is_error=g.is_error) for c, g in observed),
        *(said for decision in turn.decisions.values() for said in decision.said),
    ]


def count_repeats(marks: Sequence[Mark]) -> int:
    """
    How many times running the last step has been repeated, alone or as part of a cycle.

    A call that is repeated while what it sees changes is legitimate: those marks differ.
    """
    best = 1
    for length in range(1, LONGEST_CYCLE + 1):
        same = 0
        while same + length < len(marks) and marks[-1 - same] == marks[-1 - same - length]:
            same += 1
        if same:
            best = max(best, 1 + same // length)
    return best


def reached(state: RunState, limits: Limits, budget: Budget, *, time_is_up: bool) -> Ending | None:
    """Which limit ends the exploration, if any; the steps of sub-agents count too."""
    if time_is_up:
        return Ending("partial", "deadline", why="the time is up", last_word=True)
    if state.repeats >= limits.max_repeats:
        why = f"the same calls ended in the same observations {limits.max_repeats} times running"
        return Ending("partial", "loop", why=why, last_word=True)
    if spent := budget.exhausted():
        # of many who share a budget not everyone may have a last word beyond it
        return Ending("partial", "budget", why=spent, last_word=not (budget.exhausted_above() and budget.crowded))
    if max(len(state.steps), budget.steps) >= limits.max_steps:
        return Ending("partial", "max_steps", why=f"all {limits.max_steps} steps are used", last_word=True)
    return None
