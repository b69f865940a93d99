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
from collections.abc import Sequence
from html import unescape
from typing import Any

from shared_libs.agents.call_words import (
    FIRST_KEY,
    NAME_KEYS,
    TOGETHER,
    call_in,
    calls_in,
    fits_tool,
    properties_of,
    tool_named,
)
from shared_libs.atomic.nearly_json import balanced, object_in, plain
from shared_libs.atomic.patterns import late
from shared_libs.atomic.types import ToolCall, ToolSpec

MAX_CHARS = 256 * 1024
"""The longest turn that may be nothing but calls."""

MAX_CALLS = 200
"""The most calls that are read of one turn."""

_MAX_STARTS = 20
"""At how many marks within reasoning a call is looked for."""

_NAME = r"(?P<name>[\w.\-:/]+)"

_PREFIX = r"(?:\w{1,20}[:|]|[|\uff5c][A-Z]{1,9}[|\uff5c] ?|(?:longcat|dots|iquest|use_mcp)_)"
"""What families put before the names of their elements: `antml:`, `ifm|`, DeepSeek's `DSML`, GigaChat's `GCML`."""
_SUFFIX = r"(?::\w{1,12})?"
"""What Hunyuan puts behind them, another one in each of its models."""

_TAG = (
    rf">?</?{_PREFIX}?(?:tools?|functions?|calls?|actions?|invoke|multiplefunctions?|execute_tool)"
    rf"(?:[_-]?(?:calls?|uses?|code|requests?|records?|invocations?))?(?:_(?:begin|start|end))?{_SUFFIX}"
)
_MARKS = (
    _TAG + r"(?:\s+id=[^<>]{0,40})?\s*>",  # of any family: <tool_call>, </function>, <TOOLCALL>, <tool_use id="1">
    rf"<tool_sep{_SUFFIX}>",  # Hunyuan
    r"<\|(?:open|close)\|>\s*\w{1,20}\s*<\|sep\|>",  # Kimi K3
    r"<\|(?:start|from)\|>\s*assistant",  # harmony, Functionary
    r"to=multi_tool_use\.parallel(?: json)?(?=[<\s{])",  # OpenAI, around several
    r"to=[\w.\-]{1,64}<\|message\|>(?=\s*<)",  # Muse, around its elements
    r"function(?=<[|\uff5c]tool)",  # DeepSeek
    r"function call(?=<\|role_sep\|>|\s*\{\s*\"name\")",  # GigaChat
    r"functools(?=\s*\[\s*\{)",  # Phi
    r"\b(?:call|count|court)\s+(?=<(?:antml:)?invoke\s)",  # Claude Opus 4.8, for the mark around its elements
    r"<ctrl\d{1,3}>(?:call\b)?|(?:\w{1,20}:)?default_api:(?=[\w.\-]{1,64}\{)",  # Gemini, for its own marks
    r"\[(?:tool call|calling tool|using tool): ?(?=[\w.\-]{1,64}[\](\s])",  # Qwen 3, after what it was shown
    # tokens of any family: <|tool_call_begin|>, <|/tool_call|>, <tool_call|>, DeepSeek's with its own bars
    r"<[|\uff5c]/?[\w\u2581:]{1,40}[|\uff5c]?>|<[\w\u2581:]{1,40}[|\uff5c]>|</?\w*\u2581[\w\u2581]{1,40}>",
    r"</?start_function_(?:call|response)>|<end_function_call>",  # FunctionGemma
    r"\[/?(?:END_)?TOOL[_ ](?:CALLS?|REQUEST)\]|\[ARGS\]|\[CALL_ID\]\w{1,40}",  # Mistral, LM Studio
    r"```(?:tool|function|action|call)(?:_\w{1,10})?(?!\w)|tool_code\s*\n",  # Gemma, and who imitates it
    r"\u273f(?:FUNCTION|ARGS)\u273f:?",  # Qwen-Agent
    r"\[\|\w{1,20}\|\]",  # EXAONE
)
"""What is written around calls alone. Sources: the chat templates of the models named; a further one is a line."""
_UNSEEN = "\u200b\u2060\ufeff \t\r\n"
"""What a turn may begin with that nobody sees."""
_MINIMAX = "]<]minimax[>["
"""What MiniMax M3 puts before each of its elements."""
_BOLD = late(r"\*\*(<[^<>*\n]{1,60}>)\*\*")
_MADE_UP = late(
    r"\s*(?:</?(?:(?:tool|function)_?)?(?:responses?|results?|outputs?|observation)>(?!\s*</response>)|\u273fRE(?:SULT|TURN)\u273f)",
    re.IGNORECASE,
)
"""How a model goes on that answers its call itself: neither that nor what follows it is true."""
_FENCE = r"```(?:json|JSON|xml)?(?!\w)"
_MARK = late("|".join(_MARKS), re.IGNORECASE)
_MAX_MARK, _MAX_HEAD = 80, 4_000
"""Characters of a mark, and of all that may stand before the name of a call that broke off."""
_AT_THE_END = late(rf"(?:{'|'.join(_MARKS)})[\s*.]*\Z", re.IGNORECASE)
_END_OF_CODE = late("|".join((*_MARKS, _FENCE)), re.IGNORECASE)
_BETWEEN = late(
    rf"(?:\s|\\n|{'|'.join(_MARKS)}|{_FENCE}|[,;](?=\s*(?:\{{|\Z))|[\]}}](?=\s*<|\Z)|\](?=\s{{0,9}}\{{)|Action:(?=\s*```json\s*\[)"
    r"|</?(?:tool_)?(?:name|arguments|args|input|parameters?)>"
    r"|<response>\s{0,9}</response>|<server_name>[^<>]{0,100}</server_name>)*",  # ERNIE's, Cline's
    re.IGNORECASE,
)
"""
What stands between calls, around all of them, and between a name and its arguments.

Some models write line breaks as a backslash and a letter, and close one bracket too many.
"""

_HEADS = (
    # <function=NAME>, <invoke name="NAME">, <tool_call name="NAME">, and as small models get it wrong
    late(
        rf"<{_PREFIX}?(?:function|invoke|tool|call|action)(?:[_-](?:calls?|use|record))?(?:\s+(?:name|tool|function)\s*)?[=(]\s*"
        rf"[\"']?{_NAME}[\"']?\)?(?P<beside>\s[^<>]{{0,80}})?\s*>?",
        re.IGNORECASE,
    ),
    late(rf"(?:<\|open\|>)?call tool=\"{_NAME}\"[^<>]{{0,80}}<\|sep\|>"),  # Kimi K3
    late(rf"(?:assistant)?(?:commentary|analysis|final)?\s*\bto={_NAME}"),  # harmony
    late(rf">>>\s*{_NAME}(?=\s*\n)"),  # Functionary
    late(rf"call:{_NAME}(?=\{{)"),  # Gemma
    late(rf"call[ \t]+{_NAME}(?=[ \t]*\{{)", re.IGNORECASE),
)
"""What a call may begin with that says its tool; else it begins with the name itself, or is JSON or code."""
_ATTRIBUTE = r"\s+([\w.\-]{1,64})=(?:\"([^\"<>]*)\"|'([^'<>]*)')"
_ELEMENT = late(rf"<{_NAME}(?P<beside>(?:{_ATTRIBUTE})*)\s*(?P<closed>/)?>")
_ATTRIBUTES = late(_ATTRIBUTE)
_BARE = late(_NAME)
_BEFORE_ARGUMENTS = late(rf"(?:{_BETWEEN.pattern}(?:(?:commentary|analysis|json|code)\b)?)*", re.IGNORECASE)

_OPENS = rf"<{_PREFIX}?(?:param(?:eter)?|arg(?:ument)?)(?:=|\s+name=)[\"']?"
_OPENED = late(rf"\s*{_OPENS}(?P<key>[\w.\-]+)[\"']?[^>]*>\n?")
"""A parameter of Qwen3-Coder, or of the XML that Claude was shown, MiniMax, DeepSeek 3.2."""
_ENDED = late(
    rf"\n?(?:(?P<closed></{_PREFIX}?(?:param(?:eter)?|arg(?:ument)?)>)|(?={_OPENS}(?P<next>[\w.\-]+))"
    rf"|(?=</{_PREFIX}?(?:function|invoke)>\s{{0,9}}(?:</?{_PREFIX}?(?:tool|function|invoke)|\Z)))"
)
"""Where it ends: models leave out the closing mark, and go on with the next one or close the call."""

_PARAMETERS = (
    # GLM, Hunyuan, LongCat, K2 Horizon
    late(
        rf"(?:\s|\\n)*<{_PREFIX}?arg_key{_SUFFIX}>\s*(?P<key>.*?)\s*</{_PREFIX}?arg_key{_SUFFIX}>(?:\s|\\n)*"
        rf"(?:<{_PREFIX}?arg_type>[^<]{{0,40}}</{_PREFIX}?arg_type>\s*)?"
        rf"<{_PREFIX}?arg_value{_SUFFIX}>(?P<value>.*?)</{_PREFIX}?arg_value{_SUFFIX}>",
        re.DOTALL,
    ),
    # Kimi K3
    late(
        r"\s*(?:<\|open\|>)?argument key=\"(?P<key>[^\"<>]{1,100})\"[^<>]{0,80}<\|sep\|>(?P<value>.*?)"
        r"<\|close\|>argument<\|sep\|>",
        re.DOTALL,
    ),
    # an element of the parameter's own name
    late(r"\s*<(?P<key>[\w.\-]+)>\n?(?P<value>.*?)\n?</(?P=key)>", re.DOTALL),
)
"""The forms with an element for each parameter."""

_GEMMA = late(
    r"(?P<quote><escape>|<\|\"\|>)(?P<text>.*?)(?P=quote)|\"(?:[^\"\\]|\\.)*\"|(?P<bracket>[{}\[\]])|(?P<bare>[^<\"{}\[\]]+)|.",
    re.DOTALL,
)
"""What Gemma's arguments consist of: JSON whose names, and short texts, have no quotes, and whose texts have others."""
_GEMMA_NAME = late(r"(?P<before>^|,)\s*(?P<name>[\w.\-]+)\s*:")
_GEMMA_VALUE = late(r":(?P<value>[^,:\"]+)(?=,|$)")

_JSON_CONSTANTS = {"true": True, "false": False, "null": None}
_CDATA = late(r"\A\s*<!\[CDATA\[(.*)\]\]>\s*\Z", re.DOTALL)
_CHILD = late(r"\s*<(?P<key>[\w.\-]{1,64})>(?P<value>.*?)</(?P=key)>\s*", re.DOTALL)

_NAMED = late(rf"[\[{{\s]*\"(?:{'|'.join(NAME_KEYS)})\"\s*[:=]\s*\"{_NAME}\"")
_GEMINI_CODE = late(r"(?:print\()?default_api\.\w")
_FIRST_WORD = late(rf"(?:name|tool|function)?\s*:?\s*{_NAME}(?=[\s(\[{{:<])", re.IGNORECASE)
_CLOSED = late(r"</(?!think)|<[|\uff5c]/|[\w\u2581]end[|\uff5c]>|<\|(?:call|eo[tm]_id|im_end)\|>|\[/TOOL")
"""What stands behind a call that was written to its end."""

MAY_BE_CALLS = late(
    rf"{'|'.join(_MARKS)}|<{_PREFIX}?(?:tool|function|invoke|call|action)[\s=(_-]|\[\s*[a-z_][\w.]*\("
    r"|```xml\s*<|>>>\s*[a-z_]|functions\.\w|(?:print\()?default_api\.\w|call:[a-z_][\w.]*\{|call[ \t]+[\w.\-]+[ \t]*\{"
    r"|Action:\s*```json\s*\[|(?:assistant)?(?:commentary|analysis)?\s*\bto="
    r"|(?:```(?:json)?\s*+)?\[?\s*+\{\s*+[\"']?(?:" + FIRST_KEY + r")[\"']?\s*:",
    re.IGNORECASE,
)
"""What a turn begins with that may be nothing but calls."""

_UNDECIDED = late(r"[<\[\]{\u273f]|```?`?|>{1,3}|&l?t?\Z|\*\*?(?:<|\Z)")
_WORDS = (
    *("action:", "analysis", "assistant", "call", "commentary", "count", "court", "declaration:", "default_api"),
    *("function call", "function<", "functions.", "functools", "print(default_api", "to=", "tool_code"),
)
_UNDECIDED_CHARS = 48
_LETTERS = frozenset(word[:2] for word in _WORDS)


def may_be_calls(start: str) -> bool | None:
    """Whether a turn that begins so may be nothing but calls; None where that is too early to say."""
    start = _bare(start)
    if _is_prose(start):
        return False
    if MAY_BE_CALLS.match(start):
        return True
    if len(start) >= _UNDECIDED_CHARS:
        return False
    said = start.lower()
    begins = any(word.startswith(said) or said.startswith(word) for word in _WORDS)
    return None if begins or _UNDECIDED.match(start) or start in {"`", "``"} else False


def named_right(calls: Sequence[ToolCall], tools: Sequence[ToolSpec]) -> tuple[ToolCall, ...]:
    """The calls under the names that the tools have; those that OpenAI's models put into one, each by itself."""
    right: list[ToolCall] = []
    for call in calls:
        tool = tool_named(call.name, tools)
        inner = calls_in(call.arguments, tools, strictly=True) if tool is None and call.name in TOGETHER else ()
        right += [ToolCall(call.id, one.name, one.arguments) for one in inner] or [_renamed(call, tool)]
    return tuple(right)


def written_calls(text: str, tools: Sequence[ToolSpec]) -> tuple[ToolCall, ...]:
    """The calls that a turn consists of; none where it says anything else, or means a tool that is not there."""
    if not tools or len(text) > MAX_CHARS:
        return ()
    text = _bare(text).rstrip()
    if (_is_prose(text) or not MAY_BE_CALLS.match(text)) and not _begins_with_a_tool(text, tools):
        return ()
    found: list[ToolCall] = []
    start, end = 0, _end_of(_BETWEEN, text, 0)
    marked = _is_marked(text, end)
    while end < len(text):
        calls, start = _at(text, end, tools, marked=marked)
        if not calls or len(found) > MAX_CALLS:
            return ()
        found += calls
        end = _end_of(_BETWEEN, text, start)
        if _MADE_UP.match(text, start) or _MADE_UP.match(text, end):
            break
    return tuple(found)


def calls_behind(thinking: str, tools: Sequence[ToolSpec]) -> tuple[ToolCall, ...]:
    """The calls, between marks, that reasoning ends with: some models call without closing it first."""
    if not tools or len(thinking) > MAX_CHARS:
        return ()
    starts = [found.start() for found in _MARK.finditer(thinking)][-_MAX_STARTS:]
    return next((calls for start in starts if (calls := written_calls(thinking[start:], tools))), ())


def broken_call(text: str, tools: Sequence[ToolSpec]) -> bool:
    """
    Whether a turn begins as the call of a known tool, between marks, that cannot be read.

    It breaks off before its end; or it is closed, nothing follows it, and what stands in it is of no form of a call.
    """
    text = _bare(text).rstrip()
    if _is_prose(text) or (end := _end_of(_BETWEEN, text[:_MAX_HEAD], 0)) > _MAX_HEAD - _MAX_MARK:
        return False
    if not _is_marked(text, end):
        return False
    if _CLOSED.search(text, end) and (_AT_THE_END.search(text[-_MAX_MARK:]) is None or '"description"' in text):
        return False
    named = _NAMED.match(text, end) or next((found for head in _HEADS if (found := head.match(text, end))), None)
    named = named or _FIRST_WORD.match(text, end)
    return named is not None and tool_named(named["name"], tools) is not None


def _is_marked(text: str, end: int) -> bool:
    """Whether one of the marks stands before a place, where what they stand around begins: some look at that, too."""
    found = _MARK.search(text, 0, end + _MAX_MARK)
    return found is not None and found.start() < end


def _bare(text: str) -> str:
    """A turn without what some put around its marks: what nobody sees, bold letters, the escapes of a web page."""
    text = text.lstrip().lstrip(_UNSEEN).replace(_MINIMAX, "").lstrip()
    if len(text) > MAX_CHARS:
        return text
    text = unescape(text) if text.startswith("&lt;") else text
    return _BOLD.sub(r"\1", text) if text.startswith("**<") else text


def _is_prose(text: str) -> bool:
    """Whether a text begins with letters, and others than calls do: nearly every answer, known without a pattern."""
    head = text[:2]
    return len(head) > 1 and head.isalpha() and head.lower() not in _LETTERS


def _begins_with_a_tool(text: str, tools: Sequence[ToolSpec]) -> bool:
    return any(text.startswith((tool.name, f"<{tool.name}>", f"<{tool.name} ")) for tool in tools)


def _at(text: str, start: int, tools: Sequence[ToolSpec], *, marked: bool) -> tuple[list[ToolCall], int]:
    """The calls that stand at a place, and where they end; `marked` where something says that they are calls."""
    if text[start] in '{["':
        value, end = _value_at(text, start, marked=marked)
        calls = list(calls_in(value, tools, strictly=not marked))
        return (calls, end) if calls or text[start] != "[" else _code_at(text, start, tools)
    for head in _HEADS:
        if (found := head.match(text, start)) and (tool := tool_named(found["name"], tools)) is not None:
            return _with_arguments(text, found.end(), tool, marked=True, beside=found.groupdict().get("beside"))
    if (found := _ELEMENT.match(text, start)) and (tool := tool_named(found["name"], tools)) is not None:
        calls, end = _with_arguments(text, found.end(), tool, marked=True, beside=found["beside"])
        if found["closed"]:
            return (calls, end) if calls and calls[0].arguments else ([], start)
        closing = re.compile(rf"\s*</{re.escape(found['name'])}>").match(text, end)
        return (calls, closing.end()) if closing else ([], start)
    if (marked or _GEMINI_CODE.match(text, start)) and (code := _code_at(text, start, tools))[0]:
        return code
    found = _BARE.match(text, start)
    tool = tool_named(found["name"], tools) if found else None
    if found is None or tool is None:
        return [], start
    marked = marked or _MARK.match(text, found.end()) is not None
    return _with_arguments(text, found.end(), tool, marked=marked)


def _with_arguments(
    text: str, start: int, tool: ToolSpec, *, marked: bool, beside: str | None = None
) -> tuple[list[ToolCall], int]:
    """The call of a tool whose name ends at a place; `beside` it some arguments stand as attributes."""
    told = {key: one or other for key, one, other in _ATTRIBUTES.findall(beside or "") if key in properties_of(tool)}
    if told and fits_tool(told, tool):
        return [ToolCall("", tool.name, {key: as_declared(one, key, tool) for key, one in told.items()})], start
    at = _end_of(_BEFORE_ARGUMENTS, text, start)
    if text[at : at + 1] == "{":
        value, end = _value_at(text, at, marked=marked)
        inner = call_in(value, (tool,), strictly=True)  # some say the name once more, around the arguments
        value = value if inner is None or value.keys() <= properties_of(tool).keys() else inner.arguments
        if not isinstance(value, dict) and marked:
            value, end = _gemma_at(text, at)
        fits = isinstance(value, dict) and (marked or (bool(value) and value.keys() <= properties_of(tool).keys()))
        return ([ToolCall("", tool.name, value)], end) if fits else ([], start)
    arguments, end = _named_parameters(text, at, tool)
    if arguments and marked:
        return [ToolCall("", tool.name, arguments)], end
    for parameter in _PARAMETERS:
        arguments, end = {}, at
        while found := parameter.match(text, end):
            if parameter is _PARAMETERS[-1] and found["key"] not in properties_of(tool):
                break
            arguments[found["key"]] = as_declared(found["value"], found["key"], tool)
            end = found.end()
        if arguments and (marked or parameter is _PARAMETERS[0]):
            return [ToolCall("", tool.name, arguments)], end
    return ([ToolCall("", tool.name, {})], start) if marked and (at > start or at == len(text)) else ([], start)


def _named_parameters(text: str, start: int, tool: ToolSpec) -> tuple[dict[str, Any], int]:
    """The parameters that begin at a place, each under its name, and where the last one ends."""
    arguments, end = {}, start
    while opened := _OPENED.match(text, end):
        ends = _ENDED.finditer(text, opened.end())
        ended = next((one for one in ends if one["next"] is None or one["next"] in properties_of(tool)), None)
        if ended is None:
            return {}, start  # it breaks off
        arguments[opened["key"]] = as_declared(text[opened.end() : ended.start()], opened["key"], tool)
        end = ended.end()
    return arguments, end


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
    if not marked:  # a call that says all may lack its last bracket; what breaks off sooner is not read
        return (object_in(text[start:] + "}"), len(text)) if missing == "}" else (None, start)
    found = _END_OF_CODE.search(text, start)
    end = found.start() if found else len(text)
    body = text[start:end].strip()
    closed = (found is not None and body + missing) or ""  # a turn that was cut off is not closed
    for nearly in (closed, f"{{{body}}}", body.replace("{{", "{").replace("}}", "}")):
        if nearly and (value := object_in(nearly)):
            return value, end
    return None, start


def _gemma_at(text: str, start: int) -> tuple[dict[str, Any] | None, int]:
    """Arguments as Gemma writes them."""
    depth, written = 0, []
    for found in _GEMMA.finditer(text, start):
        if found["quote"]:
            written.append(json.dumps(found["text"]))
        elif found["bare"]:
            named = _GEMMA_NAME.sub(r'\g<before>"\g<name>":', found["bare"])
            written.append(_GEMMA_VALUE.sub(lambda value: f":{_as_json(value['value'])}", named))
        else:
            written.append(found[0])
        if found["bracket"]:
            depth += 1 if found[0] in "{[" else -1
        if not depth:
            return object_in("".join(written)), found.end()
    return None, start


def _as_json(text: str) -> str:
    """A value without quotes: what it is as JSON, or a text."""
    try:
        return json.dumps(json.loads(text))
    except ValueError:
        return json.dumps(text.strip()) if text.strip() else text


def as_declared(text: str, key: str, tool: ToolSpec) -> Any:
    """A parameter's text as the schema wants it: as it stands, or what it is as JSON, in Python or as elements."""
    return _as_kind(_CDATA.sub(r"\1", text), properties_of(tool).get(key, {}))


def _as_kind(text: str, declared: Any) -> Any:
    kind = declared.get("type") if isinstance(declared, dict) else None
    if kind == "string":
        return text
    if kind in {"array", "object"} and (inner := children(text)):  # MiniMax
        if kind == "array":
            return [_as_kind(value, declared.get("items")) for _, value in inner]
        kinds = declared.get("properties", {})
        return {name: _as_kind(value, kinds.get(name)) for name, value in inner}
    for read in (json.loads, ast.literal_eval):
        try:
            return plain({"": read(text.strip())})[""]  # type: ignore[index]
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            continue
    return text


def children(text: str) -> list[tuple[str, str]]:
    """The elements that a text consists of; none where it says anything else."""
    found, end = [], 0
    while child := _CHILD.match(text, end):
        found.append((child["key"], child["value"]))
        end = child.end()
    return found if end == len(text) else []


def _code_at(text: str, start: int, tools: Sequence[ToolSpec]) -> tuple[list[ToolCall], int]:
    """Calls as Python writes them, one a line or in a list."""
    found = _END_OF_CODE.search(text, start)
    end = found.start() if found else len(text)
    body = text[start:end].strip()
    try:
        lines = ast.parse(body if body.startswith("[") else body.removesuffix("]")).body
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return [], start
    said = [_Constants().visit(line.value) if isinstance(line, ast.Expr) else None for line in lines]
    nodes = [node for one in said for node in (one.elts if isinstance(one, ast.List) else [one])]
    calls = [_from_python(node, tools) for node in nodes]
    return ([call for call in calls if call is not None], end) if calls and None not in calls else ([], start)


class _Constants(ast.NodeTransformer):
    """JSON's constants among Python's, as small models write them."""

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.Constant(_JSON_CONSTANTS[node.id]) if node.id in _JSON_CONSTANTS else node


def _from_python(node: ast.expr | None, tools: Sequence[ToolSpec]) -> ToolCall | None:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print" and node.args:
        node = node.args[0]
    if not isinstance(node, ast.Call):
        return None
    tool = tool_named(ast.unparse(node.func).removesuffix(".call"), tools)
    if tool is None or len(node.args) > len(properties_of(tool)):
        return None
    try:
        places = [ast.literal_eval(value) for value in node.args]
        whole = len(places) == 1 and isinstance(places[0], dict) and fits_tool(places[0], tool)
        given = places[0] if whole else dict(zip(properties_of(tool), places, strict=False))
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
