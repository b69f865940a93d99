"""
What a refusal teaches: a field that is renamed, left out or lowered, or a rule of the server, from then on.

A lesson is drawn only where it changes the request that was refused, so each is drawn once, and the request that
follows is another one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from operator import itemgetter
from typing import Any, NamedTuple

from shared_libs.atomic.errors import BadRequest, ContextOverflow, LLMError, ModelNotFound, ProviderUnavailable
from shared_libs.atomic.llms.chat_rules import has_images
from shared_libs.atomic.llms.dialect import Dialect
from shared_libs.atomic.llms.profiles import Trait
from shared_libs.atomic.llms.tool_schema import longest_description, named_tools, plain_tools, told_parameters
from shared_libs.atomic.patterns import late
from shared_libs.atomic.types import ToolSpec

Request = dict[str, Any]

TOLD_IN_WORDS = "tools are told in words from now on"
"""What is said with the refusal of tools by which an agent learnt of it."""

_NEEDED = frozenset({"model", "messages", "input", "tools", "stream", "system", "contents"})
"""What a request is, and what is never left out."""

_UNKNOWN = late(
    r"(not|n't|never|no longer|un|only)[ _-]?(yet |be )*(support|recogni|permit|allow|accept|available|enabled"
    r"|implement|known|expected|valid|used|specif|provided|passed|set (for|with|in)|exist in)"
    r"|not (an?|one of the) (support|recogni|permit|allow|known|expected|valid)\w* "
    r"(field|param|argument|propert|key|name)"
    r"|does not (support|have)|extra (inputs|fields?)|additional propert|only the default|deprecated|forbidden|disabled"
    r"|input should be ['\"]|only \S+ (is|are) (support|allow|accept)|use \S+ instead|cannot be used|incompatible"
    r"|(invalid|bad) (field|param|argument|type|(think|reasoning) value)|invalid for|remove|should not exist"
    r"|cannot (find|both|specify)|can only be|is fixed|instead of|rather than"
    r"|(must be|only be set to) ['\"`]?(true|false|auto|unset|omitted|null|1)\b(?! ?(or|to|and|,|-))"
    r"|不支持|不允许|无法识别|未知",
    re.IGNORECASE,
)
"""That a server does not take something, whatever its value."""
_INSTEAD = late(
    r"\b(?:(?:use|try|renamed to|replaced by) ['\"`]?|requires ['\"`])([a-z][a-z_]+)['\"`]?(?: instead|\b)",
    re.IGNORECASE,
)
_ALSO_CALLED = {
    "max_tokens": "maximum tokens",
    "reasoning_effort": "thinking|reasoning",
    "think": "thinking|think value",
    "parallel_tool_calls": "parallel tool calling",
    "stop": "stop ?sequences?",
    "frequency_penalty": "penalty",
    "presence_penalty": "penalty",
    "tool_choice": r"toolconfig\.toolchoice",
}
"""What refusals call a field beside its own name."""
_OF_A_CHOICE = late(
    r"['\"`(](auto|any|required|none)['\"`)]|\b(be|is|only( \w+)?|choice) (auto|any|required|none)\b", re.IGNORECASE
)
"""The ways of `tool_choice`: one that is refused is a server's rule, for another one knows it."""
_OTHER_NAMES = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
"""What a field is called elsewhere, where its refusal does not say so."""

_TOO_MUCH = late(
    r"too (large|high|big|many)|maximum|at most|exceed|range|between|less than|greater than|up to|[<>]|larger"
    r"|should be in|范围",
    re.IGNORECASE,
)
_NUMBER = late(r"\d[\d,_]*")
_LENGTHS = ("max_tokens", "max_completion_tokens", "max_output_tokens")

_OF_A_BATCH = late(
    r"batch|too many|per request|条文本|split|array too|maxitems|entity too|payload too"
    r"|(?=.*\b(array|list|items?|elements?|entries|inputs?|texts?|documents?|strings?)\b)"
    r"(?=.*(limit|max|at most|larger|exceed|more than|fewer|less than|up to|超过|[<>]))",
    re.IGNORECASE | re.DOTALL,
)
_OF_ONE_TEXT = late(r"^(?!.*(batch|total|per request|sum of|all (in|the))).*\btokens?\b", re.IGNORECASE | re.DOTALL)
"""That a text is too long, and not that there are too many of them."""

_SCHEMA_FIELDS = ("response_format", "text", "output_config", "format")
_OF_A_SCHEMA = late(
    r"response[ _-]?format|json[ _-]?schema|structured output|output_config|output format|text\.format|json mode"
    r"|response mime type|response_schema|guided|grammar|output_schema"
    r"|schema is too (complex|large|deep)|too many states",
    re.IGNORECASE,
)
_OF_STRICTNESS = late(r"['\"`.]strict\b|strict mode|invalid schema|strict schema", re.IGNORECASE)
_OF_BOTH = late(
    r"mime type|with tools|function calling|tool (use|calling)|json_object|must be .?json_schema", re.IGNORECASE
)
"""That the mode itself is refused, not only its schema."""


_OF_TOOLS = late(
    r"(?=.*(tool|function|input_?schema|grammar))(?=.*(schema|grammar|function_?declarations?|\$ref|\$defs|parameters.{0,60}(valid|type)))",
    re.IGNORECASE | re.DOTALL,
)
"""That the parameters of a tool are not taken."""
_OF_PROPERTIES = late(r"property (keys?|names?)\b.{0,40}(match|pattern|invalid|valid)", re.IGNORECASE)
"""That their names are not."""
_SHORTEST_WORDS = 100
"""Descriptions that are cut shorter would say nothing; a smaller number is no limit of theirs."""
_OF_DESCRIPTIONS = late(
    r"(?=.*(tool|function)).*description.{0,60}?(too long|at most|maximum|max|length|exceed|less than)"
    r"\D{0,60}?(\d[\d,_]*)",
    re.IGNORECASE | re.DOTALL,
)
"""That a tool's description is too long, and how long it may be."""
_CALLING = r"(?:tools?|functions?)(?:[ _-](?:use|usage|call(?:s|ing)?))?\b['\"`]?"
_NO_TOOLS = late(
    rf"(?<!parallel )(?<!parallel_)(?<!['\"`(])\b{_CALLING}(?: or function calling)?"
    r" (?:(?:is|are) (?:not |un|n't )(?:yet |currently )?(?:support|enabled|allowed|available|implement)|not support)"
    r"|['\"`]tools['\"`] (?:is|are) (?:not |un)support|\('body', 'tools'\)|parameters: \['tools'"
    rf"|(?:not|n't|cannot) (?:yet |currently )?support (?:the )?(?:use of )?['\"`]?{_CALLING}"
    r"(?! ?_?(?:choice|schema|role|message|result|of type|named|with (?:an? |this )?(?:name|type|schema)))"
    r"|no (?:connected )?(?:endpoints?|provider)[\w ]* supports? tool (?:use|call)"
    r"|tools param requires|enable-auto-tool-choice|only named tools are supported"
    r"|(?:(?:unsupported|unknown|unexpected|unrecognized) (?:param(?:eter)?|field|argument)|argument supplied)"
    r": ['\"`]?tools\b(?![.\[])"
    r"|不支持.{0,10}(?:工具|函数|function call|tools?\b)",
    re.IGNORECASE,
)
"""That a model, or its server, takes no tools at all."""
_BUT_PARTLY = late(
    r"(?:in|with|while|when|for)\W{1,3}stream|parallel|multiple|more than|at once|simultaneous|together with"
    r"|in combination|response_?format|structured|json (?:mode|schema)|mime type",
    re.IGNORECASE,
)
"""That they are only refused beside something else."""
_STREAM = r"\bstream(?:ing|ed)?\b(?![_.])"
_NO_STREAMS = late(
    rf"(?:not|n't|cannot|unsupported|unavailable)\b.{{0,40}}{_STREAM}|verified to stream|(?<!be )only non-?stream"
    rf"|{_STREAM}.{{0,40}}(?:not|n't|un)[ _-]?(?:support|allow|avail|permit|enabl|implement|possible)"
    rf"|{_STREAM}\W{{0,3}}(?:must|should|has to|needs to) be (?:set to )?['\"`]?false"
    r"|set ['\"`]?stream['\"`]? to ['\"`]?false",
    re.IGNORECASE,
)
"""That answers are not to be had as streams; at all, or where tools are named."""
_WORD_STRICT = late(r"(?<![\w-])strict(?![\w-])", re.IGNORECASE)


class _Rule(NamedTuple):
    """A rule of a server: the words that tell it, whether a request breaks it, and what is done, in words."""

    trait: Trait
    words: re.Pattern[str]
    breaks: Callable[[Request], bool]
    lesson: str


def _messages(request: Request) -> list[dict[str, Any]]:
    found = request.get("messages", [])
    return found if isinstance(found, list) else []


def _roles(request: Request) -> list[str]:
    return [message["role"] for message in _messages(request)]


def _user_after_tool(request: Request) -> bool:
    roles = _roles(request)
    return any(pair == ("tool", "user") for pair in pairwise(roles))


def _properties(tool: dict[str, Any]) -> Any:
    return tool.get("function", {}).get("parameters", {"properties": "not told"}).get("properties")


def _words(told: str) -> re.Pattern[str]:
    return late(told, re.IGNORECASE | re.DOTALL)


_NO_STRING_IN_A_MESSAGE = r"(?=.*valid string)(?=.*messages[.\[]\d)"
"""What FastAPI says of a union of messages, without naming the field: of each kind why it is not that (llama-cpp)."""

_RULES = (
    _Rule(
        "ids-of-nine",
        _words(
            r"tool.?call.{0,20}id.{0,80}(\b9\b|\{9\}|nine|a-z|alphanumeric|format|length)|length of 9|a-z, A-Z, 0-9"
        ),
        lambda request: any(
            len(call["id"]) != 9 or not call["id"].isalnum()
            for message in _messages(request)
            for call in message.get("tool_calls", ())
        ),
        "ids of tool calls have nine letters and digits",
    ),
    _Rule(
        "no-user-after-tool",
        _words(r"after role|alternat|unexpected role|role .{0,40}\buser\b|expected .{0,30}assistant|order|follow"),
        _user_after_tool,
        "an assistant's words stand between a tool's result and a user's message",
    ),
    _Rule(
        "no-empty-parameters",
        _words(r"(parameters|properties).{0,60}(non-?empty|(must not|cannot) be empty)|non-empty for object"),
        lambda request: any(not _properties(tool) for tool in request.get("tools", ())),
        "parameters of tools that have none are not told",
    ),
    _Rule(
        "system-first",
        _words(r"system.{0,60}(first|beginning|start|position|order)|unexpected role.{0,20}system"),
        lambda request: "system" in _roles(request)[1:],
        "a system message behind the first is told as the user's",
    ),
    _Rule(
        "streams-only",  # DashScope: of models that think, and of some others
        _words(r"non-?stream|only supports? stream|stream=true|streaming (is|must be) (required|enabled)"),
        lambda request: not request.get("stream"),
        "whole answers are asked for as streams",
    ),
    _Rule(
        "no-system",
        _words(
            r"(system|developer).{0,80}(support|enabled|allow|permit|invalid|unknown|unexpected|must|not one of)"
            r"|alternat"
            r"|'?user'?,? (or|and) '?assistant|one of .{0,20}user|(first|start).{0,40}\buser\b"
            r"|(support|unknown|unexpected|invalid).{0,40}(system|developer)"
        ),
        lambda request: "system" in _roles(request),
        "instructions are told as the user's",
    ),
    _Rule(
        "no-null-content",
        _words(
            r"(?=.*content)(?=.*(null|\bnone\b|\bnil\b|string|required|missing|empty))|nonetype|string: null"
            r"|null, expected (a )?string"
            rf"|{_NO_STRING_IN_A_MESSAGE}"
        ),
        lambda request: any("content" in message and message["content"] is None for message in _messages(request)),
        "a content is never null",
    ),
    _Rule(
        "plain-content",
        _words(
            r"image|vision|multi-?modal|(?=.*content)(?=.*(\bstring|\bstr\b|\btext))|expected (a )?string"
            rf"|'list' object|not \"list\"|list found|{_NO_STRING_IN_A_MESSAGE}"
        ),
        lambda request: _has_parts(_messages(request)),
        "contents are plain texts, and images of earlier turns a note",
    ),
    # the last: every refusal of a conversation with tools may have its word
    _Rule(
        "tools-with-history",
        _words(r"tool"),
        lambda request: "tools" not in request and "tool" in _roles(request),
        "tools are sent, and closed, while the conversation has calls",
    ),
)


def _has_parts(messages: list[dict[str, Any]]) -> bool:
    users = [index for index, message in enumerate(messages) if message["role"] == "user"]
    newest = users[-1] if users else -1
    return any(
        isinstance(message.get("content"), list) and (index != newest or not has_images(message))
        for index, message in enumerate(messages)
    )


def learn(dialect: Dialect, request: Request, error: LLMError, *, chat: bool = False, schema: bool = False) -> bool:
    """
    Learn from a refused request how to ask this server; say whether there was anything to learn.

    Then the next request is another one, and the error says that it is worth sending at once.

    Args:
        dialect: what is known; a lesson is in it then.
        request: what was refused.
        error: the refusal.
        chat: whether its messages are those of chat completions, whose rules differ most.
        schema: whether it asks for structured output by our own schema, for which there are other ways to ask.

    """
    if _refuses_tools(request, error):
        error.of_tools = True
        if "no-tools" not in dialect.traits:
            dialect.traits.add("no-tools")
            dialect.note("agents tell tools in words")
        return False
    lesson = _lesson(dialect, request, error, chat=chat, schema=schema)
    if not lesson:
        return False
    dialect.note(lesson)
    worth_again(error, f"{lesson}, from now on")
    return True


def learn_how_many(dialect: Dialect, count: int, error: LLMError) -> bool:
    """Learn how many texts one request for embeddings may have, from the refusal of one with `count`."""
    text = str(error)
    said = text.partition(": ")[2]
    if count == 1 or not isinstance(error, BadRequest) or not _OF_A_BATCH.search(said) or _OF_ONE_TEXT.search(said):
        return False
    numbers = [int(re.sub(r"[,_]", "", found)) for found in _NUMBER.findall(said)]
    dialect.texts_at_once = max((number for number in numbers if 0 < number < count), default=count // 2)
    dialect.note(f"a request for embeddings has at most {dialect.texts_at_once} texts")
    return True


def worth_again(error: LLMError, why: str) -> None:
    """Say that the next request will be another one, and is worth sending at once."""
    error.args = (f"{error} ({why})",)
    error.learnt, error.retryable, error.retry_after_s = True, False, None


def _lesson(dialect: Dialect, request: Request, error: LLMError, *, chat: bool, schema: bool) -> str:
    """What is learnt, in words; it is in the dialect then."""
    if isinstance(error, ContextOverflow) or not isinstance(error, BadRequest | ModelNotFound | ProviderUnavailable):
        return ""
    if isinstance(error, ProviderUnavailable) and error.status_code not in {500, 501}:
        return ""  # a chat template that refuses its messages fails with 500 in some servers
    text = str(error)
    if isinstance(error, BadRequest):
        if schema and (lesson := _of_schema(dialect, request, error, text)):
            return lesson
        if lesson := _of_strict_tools(dialect, request, text):
            return lesson
        if lesson := _of_length(dialect, request, error, text) or _of_field(dialect, request, error, text):
            return lesson
        if lesson := _of_streams(dialect, request, text):
            return lesson
    for rule in _RULES if chat else ():
        if rule.trait not in dialect.traits and rule.words.search(text) and rule.breaks(request):
            dialect.traits.add(rule.trait)
            return rule.lesson
    return _of_tools(dialect, request, text)


def _refuses_tools(request: Request, error: LLMError) -> bool:
    """Whether a request was refused for having tools at all."""
    kinds = BadRequest | ModelNotFound | ProviderUnavailable
    if not request.get("tools") or not isinstance(error, kinds) or isinstance(error, ContextOverflow):
        return False
    told = str(error)
    if getattr(error, "field", "") in {"tools", "tool calling"} and _UNKNOWN.search(told):
        return True
    return _NO_TOOLS.search(told) is not None and _BUT_PARTLY.search(told) is None


def _of_schema(dialect: Dialect, request: Request, error: BadRequest, text: str) -> str:
    """A step down the ladder of structured output: strict, as it is, JSON alone, in words."""
    sent = [name for name in _SCHEMA_FIELDS if _has_schema(request.get(name))]
    named = _head(error.field)
    told = _OF_A_SCHEMA.search(text) or _OF_STRICTNESS.search(text) or (sent and _place(text, sent[0]) is not None)
    if not sent or not (named in sent or told):
        return ""
    if _is_strict(request[sent[0]]) and _OF_STRICTNESS.search(text):
        dialect.traits.add("schema-loose")
        return "schemas of structured output are not strict"
    by_object = sent[0] == "response_format" and "schema-object" not in dialect.traits
    if by_object and not _OF_BOTH.search(text):
        dialect.traits.add("schema-object")
        return "structured output is JSON whose schema is told in words"
    if "schema-words" in dialect.traits:
        return ""
    dialect.traits.add("schema-words")
    return "structured output is told in words"


def _of_strict_tools(dialect: Dialect, request: Request, text: str) -> str:
    """A word beside the parameters of tools that some servers do not know."""
    said = _WORD_STRICT.search(text) is not None and _UNKNOWN.search(text) is not None
    if not said or not any("strict" in tool.get("function", tool) for tool in request.get("tools", ())):
        return ""
    dialect.traits.add("no-strict-tools")
    return "strict is left out of tools"


def _of_streams(dialect: Dialect, request: Request, text: str) -> str:
    """That the answer has to come in one piece."""
    if not request.get("stream") or not _NO_STREAMS.search(text):
        return ""
    of_tools = bool(request.get("tools")) and re.search(r"tool|function", text, re.IGNORECASE) is not None
    dialect.traits.add("whole-beside-tools" if of_tools else "whole-only")
    return f"answers{' with tools' if of_tools else ''} are asked for in one piece"


def _of_tools(dialect: Dialect, request: Request, text: str) -> str:
    """Parameters of tools that say more than the server understands, or otherwise."""
    words = _OF_DESCRIPTIONS.search(text)
    most = int(re.sub(r"[,_]", "", words[3])) if words else 0
    if _SHORTEST_WORDS <= most < longest_description(request):
        dialect.tool_words = most
        return f"descriptions of tools have at most {most} characters"
    tools = [ToolSpec("", "", schema) for schema in told_parameters(request)]
    if _OF_PROPERTIES.search(text) and "portable-properties" not in dialect.traits and named_tools(tools) != (*tools,):
        dialect.traits.add("portable-properties")
        return "parameters of tools have names of letters and digits"
    if not _OF_TOOLS.search(text) or "plain-schemas" in dialect.traits or plain_tools(tools) == (*tools,):
        return ""
    dialect.traits.add("plain-schemas")
    return "parameters of tools are told in plain types, the rest in words"


def _has_schema(value: Any) -> bool:
    return isinstance(value, dict) and ("type" in value or "format" in value)


def _is_strict(form: dict[str, Any]) -> bool:
    inner = form.get("json_schema") or form.get("format") or {}
    return bool(inner.get("strict"))


def _of_length(dialect: Dialect, request: Request, error: BadRequest, text: str) -> str:
    """The longest answer that the server allows."""
    for name in _LENGTHS:
        wanted = request.get(name)
        named = _head(error.field) == name or _place(text, name) is not None
        if not isinstance(wanted, int) or not named or _UNKNOWN.search(text):
            continue
        numbers = [int(re.sub(r"[,_]", "", found)) for found in _NUMBER.findall(text.partition(": ")[2])]
        lower = [number for number in numbers if 1 < number < wanted]
        if lower and _TOO_MUCH.search(text):
            dialect.capped[name] = max(lower)
            return f"{name} is at most {max(lower)}"
    return ""


def _of_field(dialect: Dialect, request: Request, error: BadRequest, text: str) -> str:
    """A field that the server does not take: its other name, or nothing."""
    name = _named(request, error.field, text)
    if not name or not (_UNKNOWN.search(text) or (name == "tool_choice" and _OF_A_CHOICE.search(text))):
        return ""
    instead = _INSTEAD.search(text)
    other = instead[1] if instead and instead[1] != name and "_" in instead[1] else _OTHER_NAMES.get(name, "")
    if other and other not in request and other not in dialect.renamed and other not in dialect.dropped:
        dialect.renamed[name] = other
        return f"{name} is called {other}"
    dialect.dropped.add(name)
    return f"{name} is left out"


def _named(request: Request, field: str, text: str) -> str:
    """The field of the request that a refusal names."""
    optional = sorted(request.keys() - _NEEDED, key=len, reverse=True)
    if (head := _head(field)) in optional:
        return head
    if head in _NEEDED:
        return ""
    instead = {found[1] for found in _INSTEAD.finditer(text)}
    places = [(place, name) for name in optional if name not in instead and (place := _place(text, name)) is not None]
    return min(places, key=itemgetter(0))[1] if places else ""


def _place(text: str, name: str) -> int | None:
    """Where a text speaks of a field, or None; a short name, which may be a word, counts where it can be no other."""
    words = re.escape(name).replace("_", "[ _-]?")
    ways = [rf"(?<!role )['\"`\[]{words}['\"`.\]]"]
    if "_" in name or len(name) > len("model"):
        ways.append(rf"(?<![\w.]){words}(?!\w)")
    else:
        ways.append(rf"(?:argument|parameter|field|property|key|参数)s?(?: supplied)?:? ?{name}\b|(?<=: ){name}:")
        ways.append(rf"\b{name}(?: [<>=] ?\d+)? (?:is|are) (?:not|un)")
    if also := _ALSO_CALLED.get(name):
        ways.append(rf"\b(?:{also})\b")
    found = re.search("|".join(ways), text, re.IGNORECASE)
    return None if found is None else found.start()


def _head(field: str) -> str:
    return re.split(r"[.\[]", field, maxsplit=1)[0]
