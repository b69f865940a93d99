"""
Reading ReAct text: labels in several languages, code fences, missing thoughts, JSON that is nearly JSON.

Models without tool calling write what they were shown, more or less. What can be read without guessing is read; the
rest is told to the model.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from shared_libs.agents.call_words import call_in, properties_of, tool_named
from shared_libs.agents.speech import NO_ANSWER
from shared_libs.agents.written_calls import as_declared, children
from shared_libs.atomic.nearly_json import keywords_in, object_in
from shared_libs.atomic.types import ToolCall, ToolSpec

_GIVEN = "(?:inputs?|arguments?|args|parameters?|params)"
_IN_JSON = r"(?: ?\(?(?:in |as )?json\)?)?"
_LABELS = {
    "thought": "thought|gedanke|überlegung|pensée|réflexion|pensamiento|pensiero|pensamento|мысль|思考|想法|생각",
    "input": rf"(?:action|tool)(?: ?\d{{1,2}})?[ _]?{_GIVEN}{_IN_JSON}|aktions?[ -]?eingabe|eingabe|"
    "entrée de l['\u2019]action|"
    "entrada de (?:la )?acción|input dell['\u2019]azione|entrada da ação|входные данные|行动输入|动作输入|操作输入|"
    "行動入力|行動の入力|アクション入力|アクションの入力|행동 입력",
    "given": f"{_GIVEN}{_IN_JSON}",
    "action": "(?:action|tool)(?:[ _]name|[ _]call| to take)?|"
    "aktion|handlung|acción|azione|ação|действие|行动|动作|操作|行動|アクション|행동",
    "observation": "observation|beobachtung|observación|osservazione|observação|наблюдение|观察|観察|관찰",
    "answer": "final[ _]?answer|answer|(?:endgültige |finale |abschließende )?antwort|réponse finale|respuesta final|"
    "risposta finale|resposta final|(?:окончательный|финальный|итоговый) ответ|最终答案|最终回答|最終回答|最終的な答え|"
    "최종 답변",
}
_LABEL = re.compile(
    # a set of characters and no nested repetition, which a long line of dashes would make take for ever
    r"^[#>*_`| \t\-]*(?:\(?(?:\d{1,3}|[a-h])[.)][ \t]*[*_]*)?(?:"
    + "|".join(f"(?P<{kind}>{words})" for kind, words in _LABELS.items())
    + r")[ \t]*\d*[*_`]*[ \t\u00a0\u202f]*[:\uff1a][*_]*[ \t]*",
    re.IGNORECASE | re.MULTILINE,
)
_FENCE = re.compile(r"^\s*```(?:[\w-]*(?=[\s{\[]))?[ \t]*\n?(?P<body>.*?)(?:\n?```\s*)?$", re.DOTALL)
_CALL = re.compile(
    r"^[`*\"'\[(]*+(?P<name>[\w.-]*\w)[`*\"'\])]*+\.?(?:\s*+(?:"
    # in brackets, behind a colon, or as the object that follows on the same line
    r"[(\[](?P<bracketed>.*)|:[ \t]*+(?P<input>.*)"
    r"|[,|;]?[ \t]*+(?:(?:(?:action|tool)[ _]?)?inputs?:?|with|on)?[ \t]*+(?P<object>\{.*)))?$",
    re.DOTALL | re.IGNORECASE,
)
_TAGS = re.compile(r"</?(thought|action|action_input|input|observation|final_answer|answer)>", re.IGNORECASE)
"""Labels written as elements."""
_PAUSE = "\nPAUSE"
_ODD_LABEL = re.compile(
    r"[#>*_`|\"(\[<\u2022\u2013\u2014\u2192 \t-]*(?:(?:step[ \t]*\d{1,3}|[IVX]{1,4})[.:)][ \t]*)?"
    rf"(?:action|function|tool)?(?P<input>[ _]?{_GIVEN}{_IN_JSON})?(?<=[a-z)])"
    r"[ \t*_`\"]*(?:[)\]>][*_`]*:?|:|=|->|-|\u2013|\u2014|\u2192|$)(?P<rest>.*)",
    re.IGNORECASE,
)
"""What some write for a label; it is one where the name of a tool is all that follows."""
_MARKUP = re.compile(r"</?(?:b|strong|i|em|p|code)>", re.IGNORECASE)
MAX_LINE = 500
"""Characters of a line that may begin with such a label."""

_JSON_FOLLOWS = re.compile(r"^json[ \t]*:?\s*(?=\{)", re.IGNORECASE)
_OF_THE_NAME = re.compile(r"^[\s`*_\"'.;,]*(?:(?:tool|function)\b[\s`*_\"'.;,]*)?(?:->|=>|=|:|\u2192)?", re.IGNORECASE)
_LINE = re.compile(r"[*_]*(?P<key>\w[\w-]*+)[*_]*[ \t]*+(?::[*_]*[ \t]++|=[ \t]*+(?!.*=))(?P<value>.*)")
_NEXT_ARGUMENT = re.compile(r"[,;][ \t]+(?=(?P<key>\w[\w-]{0,63}):[ \t])")
_BEFORE_A_LINE = " \t-*"
_NO_ACTION = ("none", "null", "n/a", "no action", "none needed", "not needed")
_ANSWER_ACTION = re.compile(
    rf"^[`*]*(?P<name>{_LABELS['answer']}|finish)[`*]*(?:\s*[:\uff1a]|\s*(?P<open>[\[(])|\s*\n|\s*$)(?P<answer>.*)$",
    re.IGNORECASE | re.DOTALL,
)
_FENCED_INPUT = re.compile(r"\s*```.*?(?:```|\Z)", re.DOTALL)
_FEW_WORDS = 6
_NO_SPACE = re.compile(r"\S")


class ReactText(msgspec.Struct, frozen=True, kw_only=True):
    """What was found in one turn of text."""

    thought: str = ""
    calls: tuple[ToolCall, ...] = ()
    answer: str | None = None


def read_react(text: str, tools: Sequence[ToolSpec]) -> ReactText:
    """
    Read one turn.

    What stands behind an observation the model made up is ignored. Text without any label is the answer.
    """
    text = _unfence_whole(_labelled(text))
    sections = _sections(text)
    if (
        not any(kind in ("action", "answer") for kind, _, _ in sections)
        and (told := _with_odd_labels(text, tools)) != text
    ):
        text, sections = told, _sections(told)
    if all(kind == "plain" for kind, _, _ in sections):
        return ReactText(answer=_answer_in_json(_unfenced(text), tools) or text.strip() or None)
    thoughts: list[str] = []
    actions: list[tuple[str, str | None]] = []
    for kind, start, end in sections:
        body = text[start:end]
        if kind in ("thought", "plain"):
            thoughts.append(body.strip())
        elif kind == "observation":
            break
        elif kind == "answer":
            if not actions:
                # labels in the answer are its own: nothing is cut off
                return ReactText(thought=_joined(thoughts), answer=text[start:].lstrip() or None)
            break
        elif kind == "action":
            if body.strip(" `*._\n").lower() not in _NO_ACTION:
                actions.append((body, None))
        elif actions and actions[-1][1] is None:
            actions[-1] = (actions[-1][0], body)
    if actions and (answer := _answer_as_action(*actions[0], tools)):
        return ReactText(thought=_joined(thoughts), answer=answer)
    return ReactText(thought=_joined(thoughts), calls=tuple([_call(*action, tools) for action in actions]))


def begins_with_label(text: str) -> bool:
    """Whether a text begins as a turn of this format, and not as an answer."""
    label = _LABEL.match(text.lstrip())
    return label is not None and label.lastgroup in {"thought", "action"}


def final_answer_start(text: str, new: str | None = None) -> int | None:
    """
    Where the answer begins in a text still growing; None while no label of one has come, `NO_ANSWER` if none will.

    `new` is the end of the text where all before it is known to have none; so a long thought is not read ever again.
    """
    if text.startswith("`", _after_space(text, 0)):
        return NO_ANSWER  # a turn fenced as a whole is read at its end
    if new is not None and ":" not in new and "\uff1a" not in new:
        return None  # a label ends in a colon
    for label in _LABEL.finditer(text):
        if label.lastgroup == "answer":
            return _after_space(text, label.end())
        if label.lastgroup in ("action", "observation"):
            return NO_ANSWER
    return None


def _after_space(text: str, start: int) -> int:
    found = _NO_SPACE.search(text, start)
    return found.start() if found else len(text)


def _sections(text: str) -> list[tuple[str, int, int]]:
    """The labelled parts of a turn: their kind, and where they begin and end; "Input:" counts behind an action."""
    sections = [("plain", 0, len(text))]
    fenced_until = 0
    for label in _LABEL.finditer(text):
        kind = label.lastgroup or "plain"
        if label.start() < fenced_until or (kind == "given" and sections[-1][0] != "action"):
            continue
        kind = "input" if kind == "given" else kind
        if kind == "input" and (fence := _FENCED_INPUT.match(text, label.end())):
            fenced_until = fence.end()
        before, start, _ = sections[-1]
        sections[-1] = (before, start, label.start())
        sections.append((kind, label.end(), len(text)))
    return sections if text[: sections[0][2]].strip() else sections[1:]


def _labelled(text: str) -> str:
    """A turn whose labels are elements, `<action>...</action>`, with labels."""
    if not _TAGS.match(text.lstrip()):
        return text
    return _TAGS.sub(lambda tag: "\n" if tag[0][1] == "/" else f"\n{tag[1].replace('_', ' ')}: ", text)


def _with_odd_labels(text: str, tools: Sequence[ToolSpec]) -> str:
    """A turn whose action stands as "Function: search" or "Action = search", the name of a tool alone, with labels."""
    known, named = {tool.name for tool in tools}, False
    lines = text.split("\n")
    for at, line in enumerate(lines):
        found = _ODD_LABEL.fullmatch(_MARKUP.sub("", line[:MAX_LINE]))
        if found is None:
            continue
        alone = not found["rest"].strip(": \t") and at + 1 < len(lines)  # a heading: what it is of stands below
        name = (lines[at + 1] if alone else found["rest"]).strip("`*_\"' .:;\t")
        if not named and not found["input"] and name in known and len(line) <= MAX_LINE:
            lines[at], named = f"Action: {name}", True
            if alone:
                lines[at + 1] = ""
        elif named and found["input"]:
            lines[at] = f"Action Input: {found['rest']}{line[MAX_LINE:]}"
    return "\n".join(lines) if named else text


def _joined(thoughts: list[str]) -> str:
    return "\n".join(thought for thought in thoughts if thought)


def _answer_as_action(action: str, given: str | None, tools: Sequence[ToolSpec]) -> str | None:
    """The answer of a model that calls it an action: `Action: Final Answer`, `Action: Finish[...]`."""
    if given is None and (answer := _answer_in_json(_unfenced(action), tools)):
        return answer
    found = _ANSWER_ACTION.match(action.strip())
    if found is None or found["name"].lower() in [tool.name.lower() for tool in tools]:
        return None
    if given is None:
        given = found["answer"]
        given = given[:-1] if found["open"] and given.endswith(("]", ")")) else given
    return _unfenced(given) or None


def _answer_in_json(text: str, tools: Sequence[ToolSpec]) -> str | None:
    """The answer of a model that calls it an action in JSON: `{"action": "Final Answer", "action_input": ...}`."""
    value = object_in(text, to_the_end=True) if text.startswith("{") and '"action' in text else None
    if value is None or not isinstance(value.get("action"), str) or "action_input" not in value:
        return None
    if not _is_answer(value["action"], tools):
        return None
    answer = value["action_input"]
    return answer if isinstance(answer, str) else msgspec.json.encode(answer).decode()


def _is_answer(name: str, tools: Sequence[ToolSpec]) -> bool:
    found = _ANSWER_ACTION.fullmatch(name.strip())
    return found is not None and tool_named(name, tools) is None


def _unfence_whole(text: str) -> str:
    """Take the fence off a turn that was fenced as a whole."""
    fenced = _FENCE.match(text)
    return fenced["body"] if fenced and _LABEL.search(fenced["body"]) else text


def _unfenced(text: str) -> str:
    fenced = _FENCE.match(text.strip())
    return (fenced["body"] if fenced else text).strip()


def _call(action: str, given: str | None, tools: Sequence[ToolSpec]) -> ToolCall:
    action = _unfenced(action).removesuffix(_PAUSE)
    if given is None and action.startswith(("{", "[{")) and (call := _call_in_json(action, tools)) is not None:
        return call
    first_line, _, below = action.partition("\n")
    found = _CALL.match(action) or _CALL.match(first_line)
    name = found["name"] if found else first_line.strip("`* ")
    tool = tool_named(name, tools) or _only_tool_in(first_line, tools)
    name = tool.name if tool is not None else name
    if given is None:
        given = "" if found is None else found["bracketed"] or ""
        given = given[:-1] if given.endswith((")", "]")) else given
        given = given or ("" if found is None else found["input"] or found["object"] or "")
        if not given and tool is not None and found is None and (beside := _beside(first_line, tool)):
            # more than a name: it is the input, or nobody knows what it means
            arguments = object_in(beside, to_the_end=True) or keywords_in(beside)
            return ToolCall("", name, arguments) if arguments else ToolCall("", name, malformed=beside)
        if not given and below.strip() and (tool is None or tool.parameters.get("properties")):
            # nothing says that it is the input: what cannot be told from chatter is not taken for one
            given = below.strip()
            label = _ODD_LABEL.fullmatch(given.partition("\n")[0][:MAX_LINE])
            if label is not None and label["input"]:
                given = label["rest"] + given[label.end() :]
            line = _LINE.fullmatch(given)
            if line is not None and _lines_in(given, tool) is None:
                given = line["value"]
            elif line is None and not given.lstrip().startswith(("{", "[", "```")) and _lines_in(given, tool) is None:
                return ToolCall("", name, malformed=given)
    text = _JSON_FOLLOWS.sub("", _unfenced(given))
    if not text or text.lower() in _NO_ACTION:
        return ToolCall("", name)
    arguments = object_in(text.strip("`"), to_the_end=True)
    if arguments is None and text[0] in "[\"'":
        arguments = object_in(text) or None
    if arguments is None:
        arguments = keywords_in(text) or _lines_in(text, tool) or _once_more(text, name, tool)
    if arguments is not None:
        return ToolCall("", name, arguments)
    only = _only_text_parameter(name, tools)
    if only is not None and not text.startswith("{"):
        return ToolCall("", name, {only: _unquoted(text)})
    return ToolCall("", name, malformed=text)


def _beside(line: str, tool: ToolSpec) -> str:
    """What a line says behind the name of a tool."""
    return _OF_THE_NAME.sub("", line.partition(tool.name)[2], count=1).strip()


def _once_more(text: str, name: str, tool: ToolSpec | None) -> dict[str, Any] | None:
    """Arguments in brackets, behind the tool's name once more, or as elements."""
    inner = text.removeprefix(name).strip()
    if tool is not None and inner[:1] == "(" and inner[-1:] == ")":
        return object_in(inner[1:-1], to_the_end=True) or keywords_in(inner[1:-1])
    elements = dict(children(text)) if text[0] == "<" else {}
    if tool is None or not elements or not elements.keys() <= properties_of(tool).keys():
        return None
    return {key: as_declared(value, key, tool) for key, value in elements.items()}


def _only_tool_in(line: str, tools: Sequence[ToolSpec]) -> ToolSpec | None:
    """The tool that a line of a few words means, such as "use the search tool": the one whose name stands there."""
    words = line.replace("`", " ").split()
    named = [tool for tool in tools if tool.name in words] if len(words) <= _FEW_WORDS else []
    return named[0] if len(named) == 1 else None


def _lines_in(text: str, tool: ToolSpec | None) -> dict[str, Any] | None:
    """Arguments as YAML has them, a line each, if the tool has parameters of their names."""
    parted = text if tool is None or "\n" in text.strip() else _on_lines(text, tool)
    lines = [_LINE.fullmatch(line.strip(_BEFORE_A_LINE)) for line in parted.splitlines() if line.strip()]
    found = {line["key"]: line["value"] for line in lines if line is not None}
    if tool is None or None in lines or not found.keys() <= tool.parameters.get("properties", {}).keys():
        return None
    return {key: as_declared(_unquoted(value), key, tool) for key, value in found.items()}


def _on_lines(text: str, tool: ToolSpec) -> str:
    """A line of several arguments, `query: x, k: 3`, as a line each: it is parted where the next name is the tool's."""
    return _NEXT_ARGUMENT.sub(lambda found: "\n" if found["key"] in properties_of(tool) else found[0], text)


def _call_in_json(text: str, tools: Sequence[ToolSpec]) -> ToolCall | None:
    """A call as structured chat writes it: `{"action": name, "action_input": {...}}`; of a tool not there, its name."""
    value = object_in(text) if text.startswith("[") else object_in(text, to_the_end=True)
    call = call_in(value, tools)
    if call is not None and call.malformed is not None and (only := _only_text_parameter(call.name, tools)) is not None:
        return ToolCall("", call.name, {only: call.malformed})
    name = (value or {}).get("action") or (value or {}).get("name")
    return ToolCall("", name, value or {}) if call is None and isinstance(name, str) else call


def _unquoted(text: str) -> str:
    """Take off quotes around the whole text; those of a part of it stay."""
    for quote in "\"'`":
        if len(text) > 1 and text[0] == text[-1] == quote and quote not in text[1:-1]:
            return text[1:-1]
    return text


def _only_text_parameter(name: str, tools: Sequence[ToolSpec]) -> str | None:
    """The one parameter of a tool that has one, if it takes text: bare text can mean nothing else."""
    for tool in tools:
        properties = tool.parameters.get("properties", {})
        if tool.name == name and len(properties) == 1:
            key, schema = next(iter(properties.items()))
            kinds = [schema.get("type"), *(option.get("type") for option in schema.get("anyOf", ()))]
            return key if "string" in kinds else None
    return None
