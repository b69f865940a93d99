"""What was cut off an observation stays within reach of the model, for as long as the run lasts."""

from __future__ import annotations

import msgspec

from shared_libs.agents.run import Run
from shared_libs.atomic.errors import ToolError
from shared_libs.atomic.tools.base import BaseTool
from shared_libs.atomic.types import ToolResult

KEPT_CHARS = 4_000_000
"""Characters that a run keeps at most; the oldest outputs go first."""


class ReadRest(BaseTool):
    """Reads on in the outputs of a run's tools that were cut. It is offered once there is one."""

    name = "read_rest"
    description = "Reads on in the output of a tool that was cut. The note at the cut says what to pass."
    idempotent = True

    def __init__(self) -> None:
        self._kept: dict[str, str] = {}

    def keep(self, call_id: str, text: str) -> bool:
        """Keep a whole output; False when it is too long for that."""
        if len(text) > KEPT_CHARS:
            return False
        self._kept.pop(call_id, None)
        self._kept[call_id] = text
        while sum(map(len, self._kept.values())) > KEPT_CHARS:
            del self._kept[next(iter(self._kept))]
        return True

    async def execute(self, output: str, offset: int) -> str:
        """Read on."""
        text = self._kept.get(output)
        if text is None:
            raise ToolError(f"no output {output!r} is kept; there are: {', '.join(self._kept) or 'none'}")
        if not 0 <= offset < len(text):
            raise ToolError(f"the output has {len(text)} characters; offset is from 0 to {len(text) - 1}")
        longest_note = _goes_on(output, len(text), 2 * len(text))
        end = offset + self.max_observation_chars - len(longest_note)
        return text[offset:] if end >= len(text) else text[offset:end] + _goes_on(output, end, len(text))


def within_reach(run: Run, call_id: str, result: ToolResult, shown: int) -> ToolResult:
    """Keep the whole of an output that was cut behind `shown` characters, and say in its note how to read on."""
    reader = run.tools.get(ReadRest.name)
    if reader is None:
        reader = ReadRest()
        run.tools = {**run.tools, reader.name: reader}
        run.specs = [*run.specs, reader.spec]
    content = result.content
    if isinstance(reader, ReadRest) and reader.keep(call_id, result.whole):
        content = f"{content[:-1]}; {_call(call_id, shown)} reads on]"
    return msgspec.structs.replace(result, content=content, whole="")


def _goes_on(call_id: str, offset: int, length: int) -> str:
    return f"\n[{length - offset} of {length} characters follow: {_call(call_id, offset)}]"


def _call(call_id: str, offset: int) -> str:
    return f'{ReadRest.name}(output="{call_id}", offset={offset})'
