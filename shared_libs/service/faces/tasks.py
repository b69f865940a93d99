"""
The errands of chat UIs: they send the model they talk to a request for a title, tags or follow-up questions too.

An agent would use its tools on them, and remember them. Its bare models do that better, and for less.
"""

from __future__ import annotations

import re

from shared_libs.service.catalogue import Entry
from shared_libs.service.endpoint import Call
from shared_libs.service.faces.wanted import Wanted
from shared_libs.service.problems import Problem

_TALK = r"\b(?:conversation|chat|thread|session|dialogue|discussion)\b"
_ERRANDS = re.compile(
    r"\A[\s-]*(?:"
    # Open WebUI's prompts for titles, tags, follow-ups, queries, emoji and completions
    r"### Task:\s.{0,200}\b(?:title|tags?|follow-up|quer(?:y|ies)|emoji|autocompletion|completion)\b"
    # titles of a conversation: LibreChat, NextChat, Zed, opencode, Claude Code, Continue …
    r"|(?:Please )?(?:Provide|Generate|Write|Create|Suggest) an? .{0,80}\btitle\b.{0,60}"
    + _TALK
    + r"|(?:Given .{0,200})?please reply with a title for the chat"
    r"|Based on the (?:chat history|conversation)\b.{0,40}\b(?:give|provide) .{0,40}"
    + _TALK
    + r"|Analyze if this message indicates a new conversation topic"
    # the same said by the system's message: opencode, the AI SDK's chat, LobeChat, Cherry Studio
    r"|You are an? .{0,30}\btitle generator\b"
    r"|You will generate a short title based on the first message"
    r"|你是一名擅长会话的助理.{0,60}标题"
    # NextChat's for what is remembered of a long conversation
    r"|Summarize the discussion briefly in 200 words or less to use as a prompt"
    r")",
    re.DOTALL | re.IGNORECASE,
)
"""How they begin; a further UI is a line here."""


def errand_of(call: Call, entry: Entry, wanted: Wanted) -> Entry:
    """Return who is to do a request: for an agent's errand its own chain, where the key may ask that."""
    last = wanted.messages[-1]
    if entry.kind != "agent" or wanted.tools or last.role != "user":
        return entry
    said = [*(message.text for message in wanted.messages if message.role == "system"), last.text]
    if not any(map(_ERRANDS.search, said)):
        return entry
    try:
        chain = call.service.catalogue.find(call.caller, f"{entry.name}/chain", kind="chain")
    except Problem:
        return entry
    call.exchange.tell("x-factory-routed", chain.name)
    return chain
