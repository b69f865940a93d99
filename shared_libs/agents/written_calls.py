"""
Tool calls that a model writes into its text: read where a turn is nothing but calls of known tools.

Each family of models was trained on a form of its own, and a server without the parser for it passes the text on. Prose
about calls stays prose. What is read is the form of a call; whether its arguments hold is the tool's to say.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from shared_libs.atomic.nearly_json import object_in, plain
from shared_libs.atomic.types import ToolCall, ToolSpec

MAX_CHARS = 256 * 1024
"""The longest turn that may be nothing but calls."""

_NAME_KEYS = ("name", "tool", "tool_name", "function", "function_name", "action")
_INPUT_KEYS = ("arguments", "parameters", "args", "input", "action_input", "tool_input", "params")
_WRAPPERS = ("tool_calls", "tool_call", "function_call")
_BESIDE = frozenset({*_NAME_KEYS, *_INPUT_KEYS, "id", "type", "thought", "index"})
_PREFIXES = re.compile(r"^(?:functions?|tools?|default_api|assistant|namespace)[.:/]", re.IGNORECASE)
_SUFFIXES = re.compile(r"(?:<\|.*|:\d+)$", re.DOTALL)
_AROUND_A_NAME = " \t\r\n`'\"()"
_NAME = r"(?P<name>[\w.\-:/]+?)"

_PREFIX = r"(?:\w{1,20}:|[|\uff5c]DSML[|\uff5c])"
"""What families put before the names of their elements: `antml:`, `minimax:`, DeepSeek's `DSML`."""

_SPACE = re.compile(
    rf"(?:\s|</?(?:{_PREFIX}?(?:tool_calls|function_calls|tools)|{_PREFIX}tool_call)>"
    r"|<\|(?:tool_calls_section_(?:begin|end)|tool_call_(?:start|end))\|>"
    r"|<[|\uff5c]tool[\u2581_]calls[\u2581_](?:begin|end)[|\uff5c]>|,(?=\s*\{))*"
)
"""What stands between calls, and around all of them."""


class _Form(NamedTuple):
    """
    A way to write a call: what stands before the JSON, and what behind it.

    Where `before` has a name the JSON are its arguments, else it is the call itself, or a list of calls.
    """

    before: re.Pattern[str]
    behind: re.Pattern[str]
    plain: bool = False
    """Whether it is nothing but JSON, as an answer may be: then more has to fit."""


def _form(before: str, behind: str = "", *, plain: bool = False) -> _Form:
    return _Form(re.compile(before), re.compile(behind), plain)


_FORMS = (
    _form(
        r"<(?:tool_call|(?i:toolcall)|function_call|functioncall|tool|tool_use)>\s*(?=[{\[])", r"\s*(?:</\w+>)?"
    ),  # Hermes, Nemotron
    _form(rf"<(?:tool_call|function_call)>\s*{_NAME}\s*(?=\{{)", r"\s*(?:</\w+>)?"),
    _form(rf"<function={_NAME}>\s*(?=\{{)", r"\s*(?:</function>)?"),  # Llama 3.1
    _form(rf"<function\s+name=[\"']?{_NAME}[\"']?>\s*(?=\{{)", r"\s*</function>"),
    _form(rf"\[TOOL_CALLS\]\s*{_NAME}(?:\[CALL_ID\]\w+)?(?:\[ARGS\])?\s*(?=\{{)"),  # Mistral, newer
    _form(r"\[TOOL_CALLS\]\s*(?=[{\[])", r"\s*(?:\[/TOOL_CALLS\])?"),  # Mistral
    _form(r"<\|python_tag\|>\s*(?=[{\[])"),  # Llama 3
    _form(r"<\|tools_prefix\|>\s*(?=\[)", r"\s*(?:<\|tools_suffix\|>)?"),  # Apertus
    _form(r"<\|tool_calls?\|>\s*(?=[{\[])", r"\s*(?:<\|/tool_calls?\|>)?"),  # Granite, Phi
    _form(
        rf"<[|\uff5c]tool[\u2581_]call[\u2581_]begin[|\uff5c]>\s*(?:function\s*<[|\uff5c]tool[\u2581_]sep[|\uff5c]>)?{_NAME}"
        r"\s*(?:<[|\uff5c]tool[\u2581_]sep[|\uff5c]>)?\s*(?:```json)?\s*(?=\{)",
        r"\s*(?:```)?\s*(?:<[|\uff5c]tool[\u2581_]call[\u2581_]end[|\uff5c]>)?",
    ),  # DeepSeek
    _form(
        rf"<\|tool_call_begin\|>\s*{_NAME}\s*<\|tool_call_argument_begin\|>\s*(?=\{{)", r"\s*(?:<\|tool_call_end\|>)?"
    ),  # Kimi
    _form(
        rf"(?:<\|start\|>assistant)?<\|channel\|>(?:commentary|analysis)\s+to={_NAME}\s*(?:<\|constrain\|>\s*)?"
        r"(?:json|code)?\s*<\|message\|>\s*(?=\{)",
        r"\s*(?:<\|call\|>|<\|end\|>)?",
    ),  # gpt-oss: harmony
    _form(
        rf"(?:<\|start\|>assistant)?\s*to={_NAME}\s*<\|channel\|>(?:commentary|analysis)\s*(?:<\|constrain\|>\s*)?"
        r"(?:json|code)?\s*<\|message\|>\s*(?=\{)",
        r"\s*(?:<\|call\|>|<\|end\|>)?",
    ),
    _form(rf"(?:assistant)?commentary\s+to={_NAME}\s*(?:json|code)?\s*(?=\{{)", r"\s*(?:<\|call\|>)?"),
    _form(
        r"<\|(?:START_ACTION|action_start)\|>\s*(?:<\|\w+\|>)?\s*(?=[{\[])", r"\s*(?:<\|\w+\|>)?"
    ),  # Cohere, InternLM
    _form(rf">>>\s*{_NAME}\s*\n\s*(?=\{{)"),  # Functionary
    _form(r"(?:Action:\s*)?```(?:json|tool_calls?|tool|JSON)?\s*(?=[{\[])", r"\s*```", plain=True),
    _form(r"(?=[{\[])", plain=True),
)
"""The forms with JSON in them; a further one is a line. Sources: the chat templates of the models named."""

_PARAMETERS = re.compile(
    rf"<{_PREFIX}?parameter(?:=|\s+name=\"?)(?P<key>[\w.\-]+)\"?[^>]*>\n?(?P<value>.*?)\n?</{_PREFIX}?parameter>",
    re.DOTALL,
)
_ELEMENTS = (
    # Qwen3-Coder
    (
        re.compile(
            r"(?:<tool_call>\s*)?<function=(?P<name>[\w.\-]+)>(?P<body>.*?)(?:</function>|\Z)(?:\s*</tool_call>)?",
            re.DOTALL,
        ),
        _PARAMETERS,
    ),
    # the XML that Claude was shown, MiniMax, DeepSeek 3.2
    (
        re.compile(rf"<{_PREFIX}?invoke\s+name=\"(?P<name>[^\"]+)\"\s*>(?P<body>.*?)</{_PREFIX}?invoke>", re.DOTALL),
        _PARAMETERS,
    ),
    # GLM, Hunyuan
    (
        re.compile(
            r"<tool_call>\s*(?P<name>[\w.\-]+)\s*(?:<tool_sep>\s*)?(?P<body>(?:<arg_key>.*?)?)(?:</tool_call>|\Z)",
            re.DOTALL,
        ),
        re.compile(r"<arg_key>\s*(?P<key>.*?)\s*</arg_key>\s*<arg_value>(?P<value>.*?)</arg_value>", re.DOTALL),
    ),
    # FunctionGemma
    (
        re.compile(
            r"<start_function_call>\s*call:(?P<name>[\w.\-]+)\{(?P<body>.*?)\}\s*(?:<end_function_call>|\Z)", re.DOTALL
        ),
        re.compile(r"(?P<key>[\w.\-]+):(?P<escape><escape>|)(?P<value>.*?)(?P=escape)(?:,|\Z)", re.DOTALL),
    ),
)
"""The forms with an element for a call, and one for each of its parameters."""

_CODE = (
    re.compile(r"<\|python_(?:tag|start)\|>(?P<code>.+?)\s*(?:<\|python_end\|>|\Z)", re.DOTALL),
    re.compile(r"```(?:tool_code|tool_call)\s*\n(?P<code>.+?)\n?```", re.DOTALL),  # Gemma
    re.compile(r"(?P<code>\[\s*[\w.]+\(.*\)\s*\])", re.DOTALL),  # Llama 3.2 and 4, LFM2
    re.compile(r"(?P<code>[\w.]+\(.*\))", re.DOTALL),  # OLMo, between its marks
)

MAY_BE_CALLS = re.compile(
    rf"<(?:{_PREFIX}?(?:tool|function|invoke)|start_function_call>|[|\uff5c])|\[TOOL_CALLS\]|\[\s*[a-z_][\w.]*\("
    r"|```tool|>>>\s*[a-z_]|Action:\s*```json\s*\["
    r"|(?:assistant)?commentary to="
    r"|(?:```(?:json)?\s*)?\[?\s*\{\s*\"(?:" + "|".join((*_NAME_KEYS, *_WRAPPERS, "type", "id", *_INPUT_KEYS)) + r")\"",
    re.IGNORECASE,
)
"""What a turn begins with that may be nothing but calls."""

_UNDECIDED = re.compile(r"[<\[]|```?`?|\{|assistant|commentary|>{1,3}|Action:?")
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
    if not tools or len(text) > MAX_CHARS or not MAY_BE_CALLS.match(text):
        return ()
    found: list[ToolCall] = []
    end = _end_of(_SPACE, text, 0)
    while end < len(text):
        calls, end = _at(text, end, tools)
        if not calls:
            return ()
        found += calls
        end = _end_of(_SPACE, text, end)
    return tuple(found)


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
    given = next((value[key] for key in _INPUT_KEYS if key in value and value[key] is not name), None)
    if tool is None and not strictly and len(value) == 1:  # Apertus: the name is the key
        ((name, given),) = value.items()
        tool = tool_named(name, tools) if isinstance(name, str) else None
    if tool is None or (strictly and (given is None or not value.keys() <= _BESIDE)):
        return None
    arguments = object_in(given) if isinstance(given, str) else {} if given is None else given
    if not isinstance(arguments, dict):
        return None if strictly else ToolCall("", tool.name, malformed=str(given))
    if strictly and not arguments.keys() <= tool.parameters.get("properties", {}).keys():
        return None
    return ToolCall("", tool.name, arguments)


def _at(text: str, start: int, tools: Sequence[ToolSpec]) -> tuple[list[ToolCall], int]:
    """The calls that stand at a place, and where they end."""
    for read in (_elements, _json_forms, _code):
        calls, end = read(text, start, tools)
        if calls:
            return calls, end
    return [], start


_Reader = Callable[[str, int, Sequence[ToolSpec]], tuple[list[ToolCall], int]]


def _json_forms(text: str, start: int, tools: Sequence[ToolSpec]) -> tuple[list[ToolCall], int]:
    for form in _FORMS:
        head = form.before.match(text, start)
        if head is None:
            continue
        value, end = _value_at(text, head.end())
        name = head.groupdict().get("name")
        if name is not None:
            tool = tool_named(name, tools)
            calls = [ToolCall("", tool.name, value)] if tool is not None and isinstance(value, dict) else []
        else:
            calls = list(_calls_in(value, tools, strictly=form.plain))
        if calls and (tail := form.behind.match(text, end)) is not None:
            return calls, tail.end()
    return [], start


def _calls_in(value: Any, tools: Sequence[ToolSpec], *, strictly: bool) -> Iterator[ToolCall]:
    """The calls of an object, or of a list of them; none where one is no call."""
    if isinstance(value, dict):
        for wrapper in _WRAPPERS:
            if value.keys() == {wrapper}:
                value = value[wrapper]
                break
    values = value if isinstance(value, list) else [value]
    calls = [call_in(one, tools, strictly=strictly) for one in values]
    if all(call is not None for call in calls):
        yield from (call for call in calls if call is not None)


def _value_at(text: str, start: int) -> tuple[Any, int]:
    """The JSON value that begins at a place, and where it ends; what is nearly JSON is read to its last bracket."""
    try:
        return json.JSONDecoder(strict=False).raw_decode(text, start)
    except (ValueError, RecursionError):
        pass
    closing = max(text.rfind("}"), text.rfind("]")) + 1
    value = object_in(text[start:closing]) if closing > start and text[start] == "{" else None
    return value, closing if value is not None else start


def _elements(text: str, start: int, tools: Sequence[ToolSpec]) -> tuple[list[ToolCall], int]:
    """Calls as elements: a parameter each."""
    for element, parameters in _ELEMENTS:
        found = element.match(text, start)
        if found is None:
            continue
        tool, body = tool_named(found["name"], tools), found["body"].strip()
        if tool is None or parameters.sub("", body).strip():
            continue
        arguments = {one["key"]: _as_declared(one["value"], one["key"], tool) for one in parameters.finditer(body)}
        return [ToolCall("", tool.name, arguments)], found.end()
    return [], start


def _as_declared(text: str, key: str, tool: ToolSpec) -> Any:
    """A parameter's text as the schema wants it: as it stands, or what it is as JSON."""
    kind = tool.parameters.get("properties", {}).get(key, {}).get("type")
    if kind == "string":
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _code(text: str, start: int, tools: Sequence[ToolSpec]) -> tuple[list[ToolCall], int]:
    """Calls as Python writes them, with keywords."""
    for form in _CODE:
        found = form.match(text, start)
        if found is None:
            continue
        try:
            lines = ast.parse(found["code"].strip()).body
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        said = [line.value if isinstance(line, ast.Expr) else None for line in lines]
        nodes = [node for one in said for node in (one.elts if isinstance(one, ast.List) else [one])]
        calls = [_from_python(node, tools) for node in nodes]
        if calls and all(call is not None for call in calls):
            return [call for call in calls if call is not None], found.end()
    return [], start


def _from_python(node: ast.expr | None, tools: Sequence[ToolSpec]) -> ToolCall | None:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print" and node.args:
        node = node.args[0]
    if not isinstance(node, ast.Call) or node.args:
        return None
    name = ast.unparse(node.func).removesuffix(".call")
    tool = tool_named(name, tools)
    try:
        arguments = plain({keyword.arg: ast.literal_eval(keyword.value) for keyword in node.keywords})
    except (ValueError, TypeError, MemoryError, RecursionError):
        return None
    return None if tool is None or arguments is None else ToolCall("", tool.name, arguments)


def _renamed(call: ToolCall, tool: ToolSpec | None) -> ToolCall:
    if tool is None or tool.name == call.name:
        return call
    return ToolCall(call.id, tool.name, call.arguments, call.malformed)


def _end_of(pattern: re.Pattern[str], text: str, start: int) -> int:
    found = pattern.match(text, start)
    return start if found is None else found.end()
