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

_ERRANDS = re.compile(
    # Open WebUI's prompts for titles, tags, follow-ups, queries, emoji and completions
    r"\A\s*### Task:\s.{0,200}\b(title|tags?|follow-up|quer(?:y|ies)|emoji|autocompletion|completion)\b"
    # LibreChat's and others' for titles
    r"|\A\s*(?:Please )?(?:Provide|Generate|Write|Create|Suggest) a (?:very )?(?:concise|short|brief)\b"
    r".{0,80}\btitle\b",
    re.DOTALL | re.IGNORECASE,
)
"""How they begin; a further UI is a line here."""


def errand_of(call: Call, entry: Entry, wanted: Wanted) -> Entry:
    """Return who is to do a request: for an agent's errand its own chain, where the key may ask that."""
    last = wanted.messages[-1]
    if entry.kind != "agent" or wanted.tools or last.role != "user" or not _ERRANDS.search(last.text):
        return entry
    try:
        chain = call.service.catalogue.find(call.caller, f"{entry.name}/chain", kind="chain")
    except Problem:
        return entry
    call.exchange.tell("x-factory-routed", chain.name)
    return chain
