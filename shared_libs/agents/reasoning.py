"""
Reasoning that a model writes into its text: parted from what it says, whole or as it comes.

Only what a turn begins with is reasoning: a mark further on is a word about marks. The end of it may stand alone, where
a chat template has written its beginning into the prompt.
"""

from __future__ import annotations

import re

MARKS: tuple[tuple[str, str], ...] = (
    ("<think>", "</think>"),  # DeepSeek, Qwen, and most since
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<reason>", "</reason>"),
    ("<scratchpad>", "</scratchpad>"),
    ("<seed:think>", "</seed:think>"),
    ("<longcat_think>", "</longcat_think>"),
    ("<mm:think>", "</mm:think>"),  # MiniMax M3
    ("<ifm|think>", "</ifm|think>"),  # K2 Horizon
    ("<ifm|think_fast>", "</ifm|think_fast>"),
    ("<ifm|think_faster>", "</ifm|think_faster>"),
    ("[THINK]", "[/THINK]"),  # Magistral
    ("\u25c1think\u25b7", "\u25c1/think\u25b7"),  # Kimi
    ("<|START_THINKING|>", "<|END_THINKING|>"),  # Command A
    ("<|inner_prefix|>", "<|inner_suffix|>"),  # Apertus
    ("<|open|>think<|sep|>", "<|close|>think<|sep|>"),  # Kimi K3
    ("<|channel>thought", "<channel|>"),  # Gemma 4
    ("<|content_thinking|>", "<|end_message|>"),  # Inkling
    ("<|message_model|><|content_thinking|>", "<|end_message|>"),
    ("<|plamo:begin_think:plamo|>", "<|plamo:end_think:plamo|>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),  # Sky-T1, OpenThinker
    ("<|think|>", "<|/think|>"),
    ("<|im_start|>think\n", "<|im_end|>"),  # HyperCLOVA
    ("Here is my thought process:", "Here is my response:"),  # Granite, as the next
    ("Here's my thought process:", "Here's my response:"),
    ("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]"),  # Apriel
    ("to=self<|message|>", "<|eom|>"),  # Muse
    ("<|start|>assistant to=self<|message|>", "<|eom|>"),
    ("<|channel|>analysis<|message|>", "<|end|>"),  # gpt-oss: harmony
    ("<|start|>assistant<|channel|>analysis<|message|>", "<|end|>"),
    ("<|channel|>commentary<|message|>", "<|end|>"),  # what it says before its calls
    ("<|start|>assistant<|channel|>commentary<|message|>", "<|end|>"),
)
"""What reasoning stands between; a further kind is one line."""

_SUFFIXED = re.compile(r"<think:([\w-]{1,32})>")
"""Hunyuan puts a word of the checkpoint behind its marks (`<think:opensource>`), and the same behind their ends."""
_MAY_BE_SUFFIXED = re.compile(r"<think:[\w-]{0,32}")

ANSWER_MARKS = (
    "<|start|>assistant<|channel|>final<|message|>",
    "<|channel|>final<|message|>",
    "<|channel|>final <|constrain|>json<|message|>",
    "<|begin_of_solution|>",
    "<|START_RESPONSE|>",
    "<|START_TEXT|>",
    "<|open|>response<|sep|>",
    "<|content_text|>",
    "<|message_model|><|content_text|>",
    "to=user<|message|>",
    "<|start|>assistant to=user<|message|>",
)
"""What some models write before their answer."""

TURN_MARKS = (
    "<|im_start|>assistant",  # ChatML
    "<|start_header_id|>assistant<|end_header_id|>",  # Llama 3
    "<|header_start|>assistant<|header_end|>",  # Llama 4
    "<start_of_turn>model",  # Gemma
    "<|assistant|>",  # GLM, Phi, Granite
    "\u52a9\u624b\uff1a",  # Hunyuan
    "<\uff5cAssistant\uff5c>",  # DeepSeek
    "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",  # Command
    "<|turn>model",  # Gemma 4
    *("<bos>", "<|begin_of_text|>", "<\uff5cbegin\u2581of\u2581sentence\uff5c>"),
)
"""What a turn begins with where a server leaves the template's own words in it."""

END_MARKS = (
    *("<|return|>", "<|END_RESPONSE|>", "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|eot|>", "<|end|>", "<|call|>"),
    *("</s>", "<eos>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>", "<|END_OF_TURN_TOKEN|>", "[/INST]"),
    *("<|user|>", "<|observation|>", "<\uff5cend\u2581of\u2581sentence\uff5c>"),
    *("<|END_TEXT|>", "<|close|>response<|sep|>", "<|close|>message<|sep|>", "<|end_of_msg|>", "<turn|>", "<|eom|>"),
    *("<|end_message|>", "<|content_model_end_sampling|>", "<|message_sep|>", "<|plamo:tag|>", "<seed:eos>", "[e~["),
    *("<|end_of_solution|>", "[END FINAL RESPONSE]"),
)
"""What some servers leave at the end of a turn."""

_OPENINGS = (
    *((opening.lower(), closing.lower()) for opening, closing in MARKS),
    *((mark.lower(), "") for mark in TURN_MARKS),  # nothing to close
)
_ANSWERS = tuple(mark.lower() for mark in ANSWER_MARKS)
_BEGINNINGS = (*(opening for opening, _ in _OPENINGS), *_ANSWERS)
_FIRST = frozenset(mark[:2] for mark in _BEGINNINGS)
"""What a turn begins with that begins with a mark; two characters, for one is that of too many words."""
_LONGEST = max(map(len, _BEGINNINGS))


MAX_LONE = 512 * 1024
"""Characters of a turn within which reasoning may end that has no beginning: as much as any model thinks."""
_LONE_ENDS = frozenset(end.lower() for _, end in MARKS if end[0] in "<[\u25c1" and end[1] != "|")
_SUFFIXED_END = "</think:"
_LONE_FIRST = frozenset(end[0] for end in (_SUFFIXED_END, *_LONE_ENDS))
"""What each of them begins with: hardly a text has any, and one look for these is a tenth of one for each end."""
_LONE_END = re.compile("|".join((rf"{_SUFFIXED_END}[\w-]{{1,32}}>", *map(re.escape, _LONE_ENDS))))
_BLANKS = 80
"""Blanks beside the end of reasoning that are looked past."""
_WITHOUT_TOKENS = re.compile(r"analysis(?P<thinking>.*?)assistant(?:final|(?=commentary to=))(?P<answer>.*)", re.DOTALL)
"""Harmony as it looks where a server takes out its tokens and not its words."""


def part(text: str) -> tuple[str, str]:
    """What of a turn is reasoning, and what it says."""
    if not text:  # a turn of calls alone, as most are
        return "", ""
    stripped = _WITHOUT_TOKENS.fullmatch(text.strip())
    if stripped:
        return stripped["thinking"].strip(), stripped["answer"].strip()
    opening = Opening()
    heard, held = opening.hear(text), opening.end()
    thinking, said = heard[0] + held[0], heard[1] + held[1]
    if not thinking and (lone := _lone_end(said)) and said.count("```", 0, lone.start()) % 2 == 0:
        before = lone.string[: lone.start()]
        if not any(mark in before for mark, closing in _OPENINGS if closing):
            thinking, said = said[: lone.start()], said[lone.end() :].lstrip()
    return thinking.strip(), without_end(said)


def _lowered(text: str) -> str:
    """A text in small letters, each in its place: the one that is two letters in small is one."""
    return text.replace("\u0130", "i").lower()


def _lone_end(said: str) -> re.Match[str] | None:
    """Where reasoning ends that has no beginning; looked for by its marks, for a pattern takes seconds of megabytes."""
    if not any(map(said.__contains__, _LONE_FIRST)):
        return None
    looked = _lowered(said[:MAX_LONE])
    found = [_first_alone(looked, end) for end in (_SUFFIXED_END, *_LONE_ENDS)]
    return min(filter(None, found), key=lambda one: one.start(), default=None)


def _first_alone(text: str, end: str) -> re.Match[str] | None:
    """The first end that stands alone on its side of a line, or without a space on either: a word about it is none."""
    at = text.find(end)
    while at >= 0:
        found = _LONE_END.match(text, at)
        if found is not None:
            before, behind = text[max(0, at - _BLANKS) : at], text[found.end() : found.end() + _BLANKS]
            first = behind[:1]
            if (before.rstrip(" \t") or "\n")[-1] == "\n" or (behind.lstrip(" \t") or "\n")[0] == "\n":
                return found
            if (before[-1].isalnum() or before[-1] in "_.!?)") and (first.isalnum() or first in "_*#"):
                return found
        at = text.find(end, at + 1)
    return None


def without_end(said: str) -> str:
    """What was said without the marks that end a turn."""
    while (stripped := said.rstrip()).endswith(END_MARKS):
        said = next(stripped[: -len(mark)] for mark in END_MARKS if stripped.endswith(mark))
    return said


class Opening:
    """Parts what a turn begins with from what it says, piece by piece, in work that grows with the text alone."""

    __slots__ = ("_closing", "_held", "_parted", "_said")

    def __init__(self) -> None:
        self._held = ""
        self._closing = ""
        self._parted = False
        self._said = False

    def hear(self, piece: str) -> tuple[str, str]:
        """Take a piece; return what of it is reasoning, and what is said. What may become a mark is held."""
        if self._said:
            return "", piece
        thinking: list[str] = []
        text = self._held + piece
        self._held = ""
        while text:
            if self._closing:
                thought, text = self._until_closed(text)
                thinking.append(thought)
                continue
            start = text.lstrip()
            if len(start) > 1 and start[:2].lower() not in _FIRST:
                self._said = True
                return "".join(thinking), start if self._parted else text
            lower = start[:_LONGEST].lower()
            found = next(((mark, end) for mark, end in _OPENINGS if lower.startswith(mark)), None)
            if found is None and (suffixed := _SUFFIXED.match(lower)):
                found = suffixed[0], f"</{suffixed[0][1:]}"
            if found is not None:
                self._closing, text, self._parted = found[1], start[len(found[0]) :], True
                continue
            answer = next((mark for mark in _ANSWERS if lower.startswith(mark)), "")
            if answer:
                self._said = True
                return "".join(thinking), start[len(answer) :]
            if any(mark.startswith(lower) for mark in _BEGINNINGS) or _MAY_BE_SUFFIXED.fullmatch(lower):
                self._held = text
                return "".join(thinking), ""
            self._said = True
            return "".join(thinking), start if self._parted else text
        return "".join(thinking), ""

    def end(self) -> tuple[str, str]:
        """Take the end of the turn, and return what was held: the rest of the reasoning, or said after all."""
        held, self._held = self._held, ""
        return (held, "") if self._closing else ("", held)

    def _until_closed(self, text: str) -> tuple[str, str]:
        """The reasoning up to its end, and what follows; what may be the beginning of the end is held."""
        closing = self._closing
        at = _lowered(text).find(closing)
        if at >= 0:
            self._closing = ""
            return text[:at], text[at + len(closing) :]
        keep = len(closing) - 1
        self._held = text[-keep:]
        return text[:-keep], ""
