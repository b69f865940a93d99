"""What a run returns when the model has no more say."""

from __future__ import annotations

import msgspec

from shared_libs.agents.step import RunState

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
