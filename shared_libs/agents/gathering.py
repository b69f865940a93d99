"""Which tools a run has: the agent's own, and those its toolsets have now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from shared_libs.agents.run import Run
from shared_libs.atomic.errors import ToolError
from shared_libs.atomic.events import Warned
from shared_libs.atomic.scope import use_scope
from shared_libs.atomic.supervise import together
from shared_libs.atomic.tools.base import BaseTool
from shared_libs.atomic.tools.toolset import Toolset


async def gather(run: Run, own: Mapping[str, BaseTool], toolsets: Sequence[Toolset]) -> Mapping[str, BaseTool]:
    """
    Return the agent's own tools and those its toolsets have now; one that cannot say is a warning, and left out.

    Raises:
        ToolError: two of them have one name.

    """
    if not toolsets:
        return own
    with use_scope(run.scope(run.explore)):
        answers = await together([_listed(run, toolset) for toolset in toolsets])
    found, homes = dict(own), dict.fromkeys(own, "the agent")
    for toolset, tools in zip(toolsets, answers, strict=True):
        for one in tools:
            if one.name in found and toolset.gives_way:
                continue
            if one.name in found:
                raise ToolError(
                    f"two tools are called {one.name}: of {homes[one.name]} and of {toolset.name}; "
                    "give one of the sources a `prefix`"
                )
            found[one.name], homes[one.name] = one, toolset.name
    return found


async def _listed(run: Run, toolset: Toolset) -> Sequence[BaseTool]:
    try:
        return await toolset.async_list()
    except ToolError as error:
        run.trouble = f"some tools were missing: {error}"
        run.emit(Warned(message=run.trouble))
        return ()
