"""
The call that a JSON object is: in the words of every format that models were trained on or were shown.

The formats differ in how they call the three parts (a name, what it is given, what stands around both) and in how they
write those words: `tool_name`, `toolName`, `Tool Name` are one. Where a turn might be an answer in JSON, only what can
be nothing else counts: all of its words are a call's, and what it is given fits the tool by its names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from shared_libs.atomic.nearly_json import object_in
from shared_libs.atomic.patterns import late
from shared_libs.atomic.types import ToolCall, ToolSpec

NAME_KEYS = (
    *("name", "tool", "tool_name", "function", "function_name", "action", "action_name", "recipient_name"),
    *("command", "call", "invoke"),
)
INPUT_KEYS = (
    *("arguments", "parameters", "args", "input", "action_input", "tool_input", "params", "kwargs", "inputs"),
    *("function_args", "function_arguments", "function_parameters", "tool_args", "tool_arguments", "tool_parameters"),
    *("action_args", "action_arguments", "action_parameters"),
)
WRAPPERS = (
    *("tool_calls", "tool_call", "function_call", "function_calls", "tool_uses", "tool_use", "tool", "tools"),
    *("calls", "call", "actions", "action", "next_action", "command", "params"),
)
_BESIDE_BOTH = (
    *("id", "type", "thought", "thoughts", "reasoning", "reason", "rationale", "explanation", "plan", "index"),
    *("tool_call_id", "call_id", "tool_use_id", "status", "thought_signature", "extra_content"),
    *("jsonrpc", "method"),  # MCP's, as some have seen it
)
OF_A_MESSAGE = ("role", "content", "refusal", "reasoning_content", "tool_plan")
"""What stands beside the calls of a whole message of a model, written out."""

TOGETHER = ("multi_tool_use.parallel", "multi_tool_use_parallel", "parallel", "tool_uses")
"""What OpenAI's models call a tool of theirs that nobody offers: several calls as one."""

_PREFIXES = late(r"^(?:functions?|tools?|default_api|assistant|namespace)[.:/]", re.IGNORECASE)
_SUFFIXES = late(r"(?:<\|.*|:\d+)$", re.DOTALL)
_AROUND_A_NAME = " \t\r\n`'\"()[]{}<>*;,."
_AS_ONE = str.maketrans("", "", "_- ")


def _as_written(words: Sequence[str]) -> tuple[str, ...]:
    return tuple(word.translate(_AS_ONE) for word in words)


_NAMES, _INPUTS, _AROUND = _as_written(NAME_KEYS), _as_written(INPUT_KEYS), _as_written(WRAPPERS)
_BESIDE = frozenset(_as_written(_BESIDE_BOTH))
_OF_A_CALL = frozenset({*_NAMES, *_INPUTS, *_BESIDE})
_OF_A_MESSAGE = frozenset({*_as_written(OF_A_MESSAGE), "toolcalls"})

FIRST_KEY = "|".join(
    word.replace("_", "[_ -]?") for word in (*NAME_KEYS, *INPUT_KEYS, *WRAPPERS, *_BESIDE_BOTH, *OF_A_MESSAGE)
)
"""What the first word of such an object may be, as a regular expression without regard to case."""


def tool_named(name: str, tools: Sequence[ToolSpec]) -> ToolSpec | None:
    """The tool a model means: by its name, or its name in another case or under a namespace (`functions.NAME`)."""
    for tool in tools:
        if tool.name == name:
            return tool
    bare = _SUFFIXES.sub("", _PREFIXES.sub("", name.strip(_AROUND_A_NAME))).strip(_AROUND_A_NAME)
    meant = [tool for tool in tools if tool.name == bare] or [
        tool for tool in tools if tool.name.lower() == bare.lower()
    ]
    return meant[0] if len(meant) == 1 else None


def call_in(value: Any, tools: Sequence[ToolSpec], *, strictly: bool = False) -> ToolCall | None:
    """
    The call of a known tool that a JSON object is, in the words of any of the formats.

    Args:
        value: the object.
        tools: those that are known.
        strictly: it might be an answer: it has arguments, and the tool has parameters of their names.

    """
    if not isinstance(value, dict):
        return None
    inner = value.get("function")
    if isinstance(inner, dict):
        value = inner
    said = _folded(value)
    name = next((said[key] for key in _NAMES if isinstance(said.get(key), str)), "")
    tool = tool_named(name, tools) if name else None
    keys = [key for key in _INPUTS if key in said and said[key] is not name]
    given = said[keys[0]] if keys else None
    if tool is None and not strictly and len(value) == 1:  # Apertus: the name is the key
        ((name, given),) = value.items()
        tool = tool_named(name, tools) if isinstance(name, str) else None
    if tool is None or "description" in value:
        return None
    if not keys and (flat := _flat(value, tool)):
        return ToolCall("", tool.name, flat)
    if strictly and not (keys and said.keys() <= _OF_A_CALL):
        return None
    arguments = object_in(given) if isinstance(given, str) else {} if given is None else given
    if not isinstance(arguments, dict):
        return None if strictly else ToolCall("", tool.name, malformed=str(given))
    if strictly and not arguments.keys() <= properties_of(tool).keys():
        return None
    return None if _is_schema(arguments, tool) else ToolCall("", tool.name, arguments)


def calls_in(value: Any, tools: Sequence[ToolSpec], *, strictly: bool) -> Iterator[ToolCall]:
    """The calls of an object, or of a list of them; none where one is no call."""
    together = isinstance(value, dict) and value.get("name") in TOGETHER and "arguments" in value
    if together and tool_named(value["name"], tools) is None:
        given = value["arguments"]
        value = object_in(given) if isinstance(given, str) else given
    if isinstance(value, dict):
        said = _folded(value)
        around = said.keys() - _BESIDE
        if "toolcalls" in said and around <= _OF_A_MESSAGE and not said.get("content"):
            around = {"toolcalls"}
        wrapped = said[next(iter(around))] if len(around) == 1 and around <= {*_AROUND} else None
        value = wrapped if isinstance(wrapped, dict | list) else value
    values = value if isinstance(value, list) else [value]
    calls = [call_in(one, tools, strictly=strictly) for one in values]
    if all(call is not None for call in calls):
        yield from (call for call in calls if call is not None)


def properties_of(tool: ToolSpec) -> dict[str, Any]:
    """The parameters that a tool declares."""
    found = tool.parameters.get("properties", {})
    return found if isinstance(found, dict) else {}


def fits_tool(arguments: dict[str, Any], tool: ToolSpec) -> bool:
    """Whether there are arguments, all of names that the tool has, and none that it needs is missing."""
    required = tool.parameters.get("required")
    needed = [name for name in required if isinstance(name, str)] if isinstance(required, list) else []
    return bool(arguments) and arguments.keys() <= properties_of(tool).keys() and arguments.keys() >= {*needed}


def _flat(value: dict[str, Any], tool: ToolSpec) -> dict[str, Any] | None:
    """The arguments that stand beside the name, `{"tool": "search", "query": "x"}`, where all are the tool's."""
    beside = {
        key: one for key, one in value.items() if _fold(key) not in _NAMES or tool_named(str(one), (tool,)) is None
    }
    return beside if fits_tool(beside, tool) else None


def _folded(value: dict[str, Any]) -> dict[str, Any]:
    """An object by its words in one spelling; of two that are one then, the first."""
    said: dict[str, Any] = {}
    for key, one in value.items():
        said.setdefault(_fold(key), one)
    return said


def _fold(key: str) -> str:
    return key.translate(_AS_ONE).lower() if len(key) < 40 else key


def _is_schema(arguments: dict[str, Any], tool: ToolSpec) -> bool:
    """Whether what stands where arguments belong says which there may be: then it is a definition and no call."""
    return {"type", "properties"} <= arguments.keys() and "properties" not in properties_of(tool)
