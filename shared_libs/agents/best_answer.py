"""What a run returns when the model has no more say: the best there is, in its shape or with what is missing of it."""

from __future__ import annotations

import msgspec

from shared_libs.agents.step import Ending, RunState
from shared_libs.atomic.llms.structured import InvalidOutput, OutputSchema

KEPT_OBSERVATION = 500
"""How many characters of an observation stand in a best answer made without the model."""


def best_answer(state: RunState, said: str) -> str | None:
    """The best there is without the model's last word: what it was saying, else what was observed."""
    if said.strip():
        return said
    seen = [
        f"- {action.tool}({msgspec.json.encode(action.input).decode()}): {observation.content[:KEPT_OBSERVATION]}"
        for step in state.steps
        for action, observation in zip(step.actions, step.observations, strict=True)
        if not observation.is_error
    ]
    return "\n".join(["There was no time for an answer. Observed so far:", *seen]) if seen else None


def in_shape(ending: Ending, shape: OutputSchema) -> Ending:
    """
    End with the output, or say what is missing.

    An answer that was final and does not fit has failed; of one that was not, what fits is kept.
    """
    if ending.status not in ("answered", "partial"):
        return ending
    answer = ending.answer or ""
    try:
        return msgspec.structs.replace(ending, output=shape.read(answer))
    except InvalidOutput as error:
        problem = str(error)
    part, lacks = shape.fitting_part(answer)
    why = f"there is no output: the answer does not fit its output_schema: {problem}"
    why += f"; what fits lacks: {lacks}" if lacks and lacks != problem else ""
    if ending.status == "answered":
        return msgspec.structs.replace(ending, status="failed", stop_reason="error", why=why, partial_output=part)
    return msgspec.structs.replace(ending, unfit=why, partial_output=part)
