"""The `tools` section: every tool checked against its options and made, beside those the caller brings."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from shared_libs.atomic.errors import ConfigError, MisuseError
from shared_libs.atomic.tools.base import BaseTool
from shared_libs.atomic.tools.toolset import Toolset
from shared_libs.factory.draft import Draft
from shared_libs.factory.elsewhere import hint_for_tool
from shared_libs.factory.options import Options
from shared_libs.factory.problems import Path, choices
from shared_libs.factory.registry import TOOLS
from shared_libs.factory.spec import ToolCommon, ToolsetCommon
from shared_libs.factory.wording import note_errors


def one_form(tools: Any) -> Any:
    """Bring `- calculator` to `- {use: calculator}`."""
    if not isinstance(tools, list):
        return tools
    return [{"use": entry} if isinstance(entry, str) else entry for entry in tools]


AnyTool = BaseTool | Toolset
"""What may stand among an agent's tools."""


def build_tools(draft: Draft, entries: Any, passed: Sequence[AnyTool]) -> list[AnyTool]:
    """
    Make the tools in the order of the definition, then those of the caller that it does not name.

    The problems are noted: an unknown name, an option that does not fit, two tools of one name.
    """
    brought = {tool.name: tool for tool in passed if isinstance(tool, BaseTool)}
    places: dict[str, Path] = {}
    tools: list[AnyTool] = []
    for index, entry in enumerate(entries if isinstance(entries, list) else []):
        path: Path = ("tools", index)
        for tool in _tools_of(draft, entry, path, brought):
            tools.append(tool)
            if isinstance(tool, Toolset):  # what its tools are called, a run learns
                continue
            if tool.name in places:
                first = draft.problems.line_of(places[tool.name])
                draft.problems.add(path, f"a second tool named '{tool.name}' (see {first}); give one another `name`")
            elif tool.name in brought and tool is not brought[tool.name]:
                draft.problems.add(path, f"a tool named '{tool.name}' is also passed by the caller; rename one of them")
            places.setdefault(tool.name, path)
    return tools + [tool for tool in passed if isinstance(tool, Toolset) or tool.name not in places]


def options_of(made: Any) -> tuple[Options, Callable[..., Any]]:
    """
    Return what a definition may say of a tool, and what makes it.

    That is a class or function, which may give several tools, or the copy of a ready tool.
    """
    if isinstance(made, BaseTool):
        ready = made

        def make() -> BaseTool:
            fresh = copy.copy(ready)
            fresh._spec = fresh._arguments = None  # noqa: SLF001 - what the original has computed
            fresh._placement = fresh._left_running = None  # noqa: SLF001 - and what it has started
            return fresh

        return Options.of(make, ToolCommon, attributes=ToolCommon), make
    if not callable(made):
        raise MisuseError(
            f"{type(made).__name__} is no tool; a tool is a BaseTool, or a class or function that gives one"
        )
    several = isinstance(made, type) and issubclass(made, Toolset)
    common = ToolsetCommon if several else ToolCommon
    return Options.of(made, common, without=frozenset({"library", "origin"}), attributes=common), made


def _tools_of(draft: Draft, entry: Any, path: Path, brought: Mapping[str, BaseTool]) -> Sequence[AnyTool]:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("use"), str) or draft.problems.inside((*path, "use")):
        return ()
    name = entry["use"]
    settings = {key: value for key, value in entry.items() if key != "use"}
    if name in brought and name not in TOOLS:
        for key in settings:
            draft.problems.add((*path, key), "a tool passed by the caller takes no options here", at_key=True)
        return (brought[name],)
    place = (*path, "use")
    if name not in TOOLS:
        allowed = choices(name, [*TOOLS.names(), *brought], hint_for_tool(name))
        draft.problems.add(place, f"{draft.named(place if draft.at(place) else path)} is no tool; {allowed}")
        return ()
    return _made(draft, name, settings, path)


def _made(draft: Draft, name: str, settings: dict[str, Any], path: Path) -> Sequence[AnyTool]:
    try:
        options, make = options_of(TOOLS.load(name))
    except MisuseError as error:
        draft.blame((*path, "use"), error)
        return ()
    try:
        values = options.read(settings)
    except ValidationError as error:
        note_errors(draft, error, options.model, settings, base=path, also=["use"])
        return ()
    if draft.problems.inside(path):
        return ()
    given = {key: value for key, value in values.items() if key in options.parameters}
    if "origin" in options.parameters:
        given["origin"] = draft.origin
    if "library" in options.parameters:
        given["library"] = draft.library
    try:
        tools = _listed(name, make(**given))
        for key, value in values.items():
            if key in given:
                continue
            if key in ("name", "description") and len(tools) != 1:
                raise MisuseError(f"{key} cannot be set: {name} gives {', '.join(tool.name for tool in tools)}")
            for tool in tools:
                setattr(tool, key, value)
        for tool in tools:
            if isinstance(tool, BaseTool):
                _ = tool.spec  # a wrong declaration shows here, not in a run
    except Exception as error:  # noqa: BLE001 - a tool's constructor is foreign code: what it refuses has a place
        draft.blame(path, error, settings)
        return ()
    return [draft.ports.tool(tool, draft.agent) for tool in tools]


def _listed(name: str, made: Any) -> Sequence[AnyTool]:
    """Bring what a maker gives, one tool or several, to several."""
    tools = made if isinstance(made, Sequence) else (made,)
    for tool in tools:
        if not isinstance(tool, AnyTool):
            raise MisuseError(f"tool {name} gives a {type(tool).__name__}, not a BaseTool")
    return tools


def checked(passed: Sequence[Any]) -> list[AnyTool]:
    """
    Return the caller's tools.

    Raises:
        MisuseError: one is no tool.
        ConfigError: two have one name.

    """
    names: set[str] = set()
    for index, tool in enumerate(passed):
        if not isinstance(tool, AnyTool):
            raise MisuseError(f"tools[{index}] is a {type(tool).__name__}; decorate a function with @tool")
        if isinstance(tool, BaseTool) and tool.name in names:
            raise ConfigError([f"two of the passed tools are called '{tool.name}'; give one of them another name"])
        names.add(tool.name)
    return list(passed)
