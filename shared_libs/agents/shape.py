"""The answer in the shape that was asked for (`output_schema`): how a model is told, and what its answer is read as."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from shared_libs.agents import prompts
from shared_libs.agents.protocol import Turn, TurnProtocol
from shared_libs.agents.run import Run
from shared_libs.agents.step import Ending
from shared_libs.atomic.events import StreamRestarted
from shared_libs.atomic.llms.structured import REPAIR, InvalidOutput, OutputSchema
from shared_libs.atomic.types import Message, ToolSpec


def asked(
    shape: OutputSchema | None, instructions: str, protocol: TurnProtocol, tools: Sequence[ToolSpec]
) -> tuple[str, dict[str, Any]]:
    """
    Return the instructions, and the options of the call.

    A turn that is written as text has labels before its answer, so there the shape is told in words alone.
    """
    given = {} if protocol.in_words is None else {"in_words": protocol.in_words}
    if shape is None:
        return instructions, given
    if protocol.name == "text" and tools:
        return f"{instructions}\n\n{prompts.SHAPE_TEXT.format(schema=shape.text)}", {}
    return instructions, given | {"output_schema": shape, "fit": False}


def as_answer(turn: Turn, said: str, shape: OutputSchema) -> Turn:
    """Take a turn that did nothing for the answer where what it says fits: its label was forgotten."""
    if turn.answer is not None or turn.calls or problem_of(said, shape):
        return turn
    return msgspec.structs.replace(turn, answer=said, problem=None)


def problem_of(answer: str, shape: OutputSchema) -> str:
    """What is wrong with an answer; empty where it fits."""
    try:
        shape.read(answer)
    except InvalidOutput as error:
        return str(error)
    return ""


async def repaired(
    run: Run, ending: Ending, shape: OutputSchema, say: Callable[[Run, str], Awaitable[str | None]]
) -> Ending:
    """
    Send an answer that does not fit back to the model, once, while there is time and budget for it.

    The model says what it says then without tools, so that every provider that can holds it to the schema. The wrong
    answer gives way to the right one in the history too.
    """
    says_it_itself = ending.status == "answered" or (ending.last_word and ending.stop_reason != "budget")
    if not says_it_itself or run.speak.expired or not (problem := problem_of(ending.answer or "", shape)):
        return ending
    run.emit(StreamRestarted(reason=f"the answer does not fit its output_schema: {problem}"))
    again = await say(run, REPAIR.format(problem=problem))
    if not again:
        return ending
    run.state.exchange[-1] = Message("assistant", again)
    return msgspec.structs.replace(ending, answer=again)
