"""
Tool calls that a model writes into its text: read where a turn is nothing but calls of known tools.

Each family of models was trained on a form of its own, and a server without the parser for it passes the text on. They
differ in the marks they set around calls more than in the calls: so marks of any family are passed over, and what
stands between them is one of a few shapes. Prose about calls stays prose. What is read is the form of a call; whether
its arguments hold is the tool's to say.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from shared_libs.atomic.nearly_json import balanced, object_in, plain
from shared_libs.atomic.types import ToolCall, ToolSpec

MAX_CHARS = 256 * 1024
"""The longest turn that may be nothing but calls."""

MAX_CALLS = 200
"""The most calls that are read of one turn."""

_NAME_KEYS = ("name", "tool", "tool_name", "function", "function_name", "action", "recipient_name")
_INPUT_KEYS = (
    *("arguments", "parameters", "args", "input", "action_input", "tool_input", "params", "function_args"),
    "function_arguments",
)
_WRAPPERS = ("tool_calls", "tool_call", "function_call", "tool_uses", "tool")
_BESIDE = frozenset(
    {*_NAME_KEYS, *_INPUT_KEYS, "id", "type", "thought", "thoughts", "reasoning", "index", "tool_call_id"}
)
_OF_A_MESSAGE = frozenset({"role", "content", "refusal", "reasoning_content"})
"""What stands beside the calls of a whole message of a model, written out."""
_PREFIXES = re.compile(r"^(?:functions?|tools?|default_api|assistant|namespace)[.:/]", re.IGNORECASE)
_SUFFIXES = re.compile(r"(?:<\|.*|:\d+)$", re.DOTALL)
_AROUND_A_NAME = " \t\r\n`'\"()"
_NAME = r"(?P<name>[\w.\-:/]+)"

_PREFIX = r"(?:\w{1,20}:|[|\uff5c]DSML[|\uff5c]|longcat_)"
"""What families put before the names of their elements: `antml:`, `minimax:`, DeepSeek's `DSML`."""

_TAG = (
    rf">?</?{_PREFIX}?(?:tools?|functions?|invoke|multiplefunctions?|execute_tool)"
    r"(?:[_-]?(?:calls?|uses?|code|requests?))?"
)
_MARKS = (
    _TAG + r"(?:\s+id=[^<>]{0,40})?\s*>",  # of any family: <tool_call>, </function>, <TOOLCALL>, <tool_use id="1">
    r"<tool_sep>",  # Hunyuan
    r"<\|(?:start|from)\|>\s*assistant",  # harmony, Functionary
    r"function(?=<[|\uff5c]tool)",  # DeepSeek
    # tokens of any family: <|tool_call_begin|>, <|/tool_call|>, <tool_call|>, DeepSeek's with its own bars
    r"<[|\uff5c]/?[\w\u2581:]{1,40}[|\uff5c]?>|<[\w\u2581:]{1,40}[|\uff5c]>",
    r"</?start_function_call>|<end_function_call>",  # FunctionGemma
    r"\[/?(?:END_)?TOOL_(?:CALLS?|REQUEST)\]|\[ARGS\]|\[CALL_ID\]\w{1,40}",  # Mistral, LM Studio
    r"```tool(?:_\w{1,10})?(?!\w)|tool_code\s*\n",  # Gemma
)
"""What is written around calls alone. Sources: the chat templates of the models named; a further one is a line."""
_FENCE = r"```(?:json|JSON|xml)?(?!\w)"
_MARK = re.compile("|".join(_MARKS), re.IGNORECASE)
_END_OF_CODE = re.compile("|".join((*_MARKS, _FENCE)), re.IGNORECASE)
_BETWEEN = re.compile(
    rf"(?:\s|{'|'.join(_MARKS)}|{_FENCE}|[,;](?=\s*(?:\{{|\Z))|Action:(?=\s*```json\s*\[)"
    r"|</?(?:tool_)?(?:name|arguments|args|input|parameters)>)*",
    re.IGNORECASE,
)
"""What stands between calls, around all of them, and between a name and its arguments."""

_HEADS = (
    # <function=NAME>, <invoke name="NAME">, <tool_call name="NAME">, and as small models get it wrong
    re.compile(
        rf"<{_PREFIX}?(?:function|invoke|tool|call)(?:_calls?|_use)?(?:\s+(?:name|tool|function)\s*)?[=(]\s*"
        rf"[\"']?{_NAME}[\"']?\)?(?:\s[^<>]{{0,80}})?\s*>?",
        re.IGNORECASE,
    ),
    re.compile(rf"(?:assistant)?(?:commentary|analysis)?\s*\bto={_NAME}"),  # harmony
    re.compile(rf">>>\s*{_NAME}(?=\s*\n)"),  # Functionary
    re.compile(rf"call:{_NAME}(?=\{{)"),  # Gemma
)
"""What a call may begin with that says its tool; else it begins with the name itself, or is JSON or code."""
_ELEMENT = re.compile(rf"<{_NAME}>")
_BARE = re.compile(_NAME)
_BEFORE_ARGUMENTS = re.compile(rf"(?:{_BETWEEN.pattern}(?:(?:commentary|analysis|json|code)\b)?)*", re.IGNORECASE)

_PARAMETERS = (
    # Qwen3-Coder; the XML that Claude was shown, MiniMax, DeepSeek 3.2
    re.compile(
        rf"\s*<{_PREFIX}?parameter(?:=|\s+name=)[\"']?(?P<key>[\w.\-]+)[\"']?[^>]*>\n?(?P<value>.*?)\n?</{_PREFIX}?parameter>",
        re.DOTALL,
    ),
    # GLM, Hunyuan, LongCat
    re.compile(
        rf"\s*<{_PREFIX}?arg_key>\s*(?P<key>.*?)\s*</{_PREFIX}?arg_key>\s*"
        rf"<{_PREFIX}?arg_value>(?P<value>.*?)</{_PREFIX}?arg_value>",
        re.DOTALL,
    ),
    # an element of the parameter's own name
    re.compile(r"\s*<(?P<key>[\w.\-]+)>\n?(?P<value>.*?)\n?</(?P=key)>", re.DOTALL),
)
"""The forms with an element for each parameter."""

_ESCAPED = re.compile(
    r"\s*(?P<key>[\w.\-]+):(?P<quote><escape>|<\|\"\|>|\"|)(?P<value>.*?)(?P=quote)(?:,|\Z)", re.DOTALL
)
_ESCAPED_END = re.compile(r"\}\s*(?=<|\Z)")
"""Gemma's parameters, between braces and without JSON's quotes."""

_NAMED = re.compile(rf"[\[{{\s]*\"(?:{'|'.join(_NAME_KEYS)})\"\s*:\s*\"{_NAME}\"")
_CLOSED = re.compile(r"</(?!think)|<[|\uff5c]/|[\w\u2581]end[|\uff5c]>|<\|(?:call|eo[tm]_id|im_end)\|>|\[/TOOL")
"""What stands behind a call that was written to its end."""

MAY_BE_CALLS = re.compile(
    rf"{'|'.join(_MARKS)}|<{_PREFIX}?(?:tool|function|invoke|call)[\s=(_]|\[\s*[a-z_][\w.]*\("
    r"|```xml\s*<|>>>\s*[a-z_]|functions\.\w|Action:\s*```json\s*\[|(?:assistant)?(?:commentary|analysis)?\s*\bto="
    r"|(?:```(?:json)?\s*+)?\[?\s*+\{\s*+\"(?:"
    + "|".join((*_NAME_KEYS, *_WRAPPERS, *_BESIDE, "role", "content"))
    + r")\"",
    re.IGNORECASE,
)
"""What a turn begins with that may be nothing but calls."""

_UNDECIDED = re.compile(r"[<\[]|```?`?|\{|assistant|commentary|>{1,3}|Action:?|tool_code")
_UNDECIDED_CHARS = 48


def may_be_calls(start: str) -> bool | None:
    """Whether a turn that begins so may be nothing but calls; None where that is too early to say."""
    start = start.lstrip()
    if MAY_BE_CALLS.match(start):
        return True
    if not start or (len(start) < _UNDECIDED_CHARS and (_UNDECIDED.match(start) or start in {"`", "``"})):
        return None
    return False


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


def named_right(calls: Sequence[ToolCall], tools: Sequence[ToolSpec]) -> tuple[ToolCall, ...]:
    """The calls under the names that the tools have."""
    return tuple([_renamed(call, tool_named(call.name, tools)) for call in calls])


def written_calls(text: str, tools: Sequence[ToolSpec]) -> tuple[ToolCall, ...]:
    """The calls that a turn consists of; none where it says anything else, or means a tool that is not there."""
    text = text.strip()
    if not tools or len(text) > MAX_CHARS or not (MAY_BE_CALLS.match(text) or _begins_with_a_tool(text, tools)):
        return ()
    found: list[ToolCall] = []
    start, end = 0, _end_of(_BETWEEN, text, 0)
    marked = _MARK.search(text, 0, end) is not None
    while end < len(text):
        calls, start = _at(text, end, tools, marked=marked)
        if not calls or len(found) > MAX_CALLS:
            return ()
        found += calls
        end = _end_of(_BETWEEN, text, start)
    return tuple(found)


def broken_call(text: str, tools: Sequence[ToolSpec]) -> bool:
    """Whether a turn begins as the call of a known tool, between marks, and breaks off before its end."""
    text = text.strip()
    end = _end_of(_BETWEEN, text, 0)
    if not _MARK.search(text, 0, end) or _CLOSED.search(text, end):
        return False
    named = _NAMED.match(text, end) or next((found for head in _HEADS if (found := head.match(text, end))), None)
    return named is not None and tool_named(named["name"], tools) is not None


def _begins_with_a_tool(text: str, tools: Sequence[ToolSpec]) -> bool:
    return any(text.startswith((tool.name, f"<{tool.name}>")) for tool in tools)


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
    name = next((value[key] for key in _NAME_KEYS if isinstance(value.get(key), str)), "")
    tool = tool_named(name, tools) if name else None
    keys = [key for key in _INPUT_KEYS if key in value and value[key] is not name]
    given = value[keys[0]] if keys else None
    if tool is None and not strictly and len(value) == 1:  # Apertus: the name is the key
        ((name, given),) = value.items()
        tool = tool_named(name, tools) if isinstance(name, str) else None
    if tool is None or "description" in value or (strictly and not (keys and value.keys() <= _BESIDE)):
        return None
    arguments = object_in(given) if isinstance(given, str) else {} if given is None else given
    if not isinstance(arguments, dict):
        return None if strictly else ToolCall("", tool.name, malformed=str(given))
    if strictly and not arguments.keys() <= _properties(tool).keys():
        return None
    return None if _is_schema(arguments, tool) else ToolCall("", tool.name, arguments)


def _is_schema(arguments: dict[str, Any], tool: ToolSpec) -> bool:
    """Whether what stands where arguments belong says which there may be: then it is a definition and no call."""
    return {"type", "properties"} <= arguments.keys() and "properties" not in _properties(tool)


def _properties(tool: ToolSpec) -> dict[str, Any]:
    found = tool.parameters.get("properties", {})
    return found if isinstance(found, dict) else {}


def _at(text: str, start: int, tools: Sequence[ToolSpec], *, marked: bool) -> tuple[list[ToolCall], int]:
    """The calls that stand at a place, and where they end; `marked` where something says that they are calls."""
    if text[start] in '{["':
        value, end = _value_at(text, start, marked=marked)
        calls = list(_calls_in(value, tools, strictly=not marked))
        return (calls, end) if calls or text[start] != "[" else _code_at(text, start, tools)
    for head in _HEADS:
        if (found := head.match(text, start)) and (tool := tool_named(found["name"], tools)) is not None:
            return _with_arguments(text, found.end(), tool, marked=True)
    if (found := _ELEMENT.match(text, start)) and (tool := tool_named(found["name"], tools)) is not None:
        calls, end = _with_arguments(text, found.end(), tool, marked=True)
        closing = re.compile(rf"\s*</{re.escape(found['name'])}>").match(text, end)
        return (calls, closing.end()) if closing else ([], start)
    if marked and (code := _code_at(text, start, tools))[0]:
        return code
    found = _BARE.match(text, start)
    tool = tool_named(found["name"], tools) if found else None
    if found is None or tool is None:
        return [], start
    marked = marked or _MARK.match(text, found.end()) is not None
    return _with_arguments(text, found.end(), tool, marked=marked)


def _with_arguments(text: str, start: int, tool: ToolSpec, *, marked: bool) -> tuple[list[ToolCall], int]:
    """The call of a tool whose name ends at a place."""
    at = _end_of(_BEFORE_ARGUMENTS, text, start)
    if text[at : at + 1] == "{":
        value, end = _value_at(text, at, marked=marked)
        if not isinstance(value, dict) and marked:
            value, end = _escaped_at(text, at, tool)
        fits = isinstance(value, dict) and (marked or (bool(value) and value.keys() <= _properties(tool).keys()))
        return ([ToolCall("", tool.name, value)], end) if fits else ([], start)
    for parameter in _PARAMETERS:
        arguments, end = {}, at
        while found := parameter.match(text, end):
            if parameter is _PARAMETERS[-1] and found["key"] not in _properties(tool):
                break
            arguments[found["key"]] = as_declared(found["value"], found["key"], tool)
            end = found.end()
        if arguments and (marked or parameter is _PARAMETERS[1]):
            return [ToolCall("", tool.name, arguments)], end
    return ([ToolCall("", tool.name, {})], start) if marked and (at > start or at == len(text)) else ([], start)


def _calls_in(value: Any, tools: Sequence[ToolSpec], *, strictly: bool) -> Iterator[ToolCall]:
    """The calls of an object, or of a list of them; none where one is no call."""
    if isinstance(value, dict):
        if "tool_calls" in value and value.keys() <= _OF_A_MESSAGE | {"tool_calls"} and not value.get("content"):
            value = {"tool_calls": value["tool_calls"]}
        for wrapper in _WRAPPERS:
            if value.keys() == {wrapper} and isinstance(value[wrapper], dict | list):
                value = value[wrapper]
                break
    values = value if isinstance(value, list) else [value]
    calls = [call_in(one, tools, strictly=strictly) for one in values]
    if all(call is not None for call in calls):
        yield from (call for call in calls if call is not None)


def _value_at(text: str, start: int, *, marked: bool) -> tuple[Any, int]:
    """The JSON value that begins at a place, and where it ends; between marks it may be nearly one."""
    try:
        if text[start] != '"':
            return json.JSONDecoder(strict=False).raw_decode(text, start)
    except (ValueError, RecursionError):
        pass
    whole, missing = balanced(text[start:]) if text[start] == "{" else ("", "")
    if whole and not missing and (value := object_in(whole)) is not None:
        return value, start + len(whole)
    if not marked:
        return None, start
    found = _END_OF_CODE.search(text, start)
    end = found.start() if found else len(text)
    body = text[start:end].strip()
    closed = (found is not None and body + missing) or ""  # a turn that was cut off is not closed
    for nearly in (closed, f"{{{body}}}", body.replace("{{", "{").replace("}}", "}")):
        if nearly and (value := object_in(nearly)):
            return value, end
    return None, start


def _escaped_at(text: str, start: int, tool: ToolSpec) -> tuple[dict[str, Any] | None, int]:
    """Arguments as Gemma writes them."""
    closing = _ESCAPED_END.search(text, start)
    if closing is None:
        return None, start
    body = text[start + 1 : closing.start()].strip()
    if _ESCAPED.sub("", body).strip():
        return None, start
    arguments = {one["key"]: as_declared(one["value"], one["key"], tool) for one in _ESCAPED.finditer(body)}
    return arguments, closing.start() + 1


def as_declared(text: str, key: str, tool: ToolSpec) -> Any:
    """A parameter's text as the schema wants it: as it stands, or what it is as JSON or in Python."""
    declared = _properties(tool).get(key, {})
    if isinstance(declared, dict) and declared.get("type") == "string":
        return text
    for read in (json.loads, ast.literal_eval):
        try:
            return plain({"": read(text.strip())})[""]  # type: ignore[index]
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            continue
    return text


def _code_at(text: str, start: int, tools: Sequence[ToolSpec]) -> tuple[list[ToolCall], int]:
    """Calls as Python writes them, one a line or in a list."""
    found = _END_OF_CODE.search(text, start)
    end = found.start() if found else len(text)
    try:
        lines = ast.parse(text[start:end].strip()).body
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return [], start
    said = [line.value if isinstance(line, ast.Expr) else None for line in lines]
    nodes = [node for one in said for node in (one.elts if isinstance(one, ast.List) else [one])]
    calls = [_from_python(node, tools) for node in nodes]
    return ([call for call in calls if call is not None], end) if calls and None not in calls else ([], start)


def _from_python(node: ast.expr | None, tools: Sequence[ToolSpec]) -> ToolCall | None:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print" and node.args:
        node = node.args[0]
    if not isinstance(node, ast.Call):
        return None
    tool = tool_named(ast.unparse(node.func).removesuffix(".call"), tools)
    if tool is None or len(node.args) > len(_properties(tool)):
        return None
    try:
        given = {name: ast.literal_eval(value) for name, value in zip(_properties(tool), node.args, strict=False)}
        for keyword in node.keywords:
            value = ast.literal_eval(keyword.value)
            given |= value if keyword.arg is None else {keyword.arg: value}
        arguments = plain(given)
    except (ValueError, TypeError, MemoryError, RecursionError):
        return None
    return None if arguments is None else ToolCall("", tool.name, arguments)


def _renamed(call: ToolCall, tool: ToolSpec | None) -> ToolCall:
    if tool is None or tool.name == call.name:
        return call
    return ToolCall(call.id, tool.name, call.arguments, call.malformed)


def _end_of(pattern: re.Pattern[str], text: str, start: int) -> int:
    found = pattern.match(text, start)
    return start if found is None else found.end()
