"""Anthropic's messages API: agents and chains are models."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from shared_libs.atomic.llms.chat_fields import schema_of
from shared_libs.atomic.types import BYTES_PER_TOKEN, estimate_tokens
from shared_libs.service.catalogue import Entry
from shared_libs.service.edge import fresh_id
from shared_libs.service.endpoint import Call
from shared_libs.service.faces.anthropic_answer import MessageAnswer
from shared_libs.service.faces.anthropic_messages import counted, read_request, wants_thinking
from shared_libs.service.faces.converse import converse
from shared_libs.service.faces.openai_chat import for_agent
from shared_libs.service.faces.tasks import errand_of
from shared_libs.service.faces.wanted import Wanted
from shared_libs.service.streams import encode


async def messages(call: Call) -> None:
    """Answer a request for a message."""
    call.exchange.tell("request-id", call.exchange.request_id)
    raw = await call.body()
    data = await call.decoded(raw)
    wanted = await call.apart(raw, read_request, data)
    entry = errand_of(call, call.service.catalogue.find(call.caller, wanted.model), wanted)
    wanted.session_id = call.headers.get("x-session-id") or None
    wanted.schema = schema_of(wanted.fields)
    if entry.kind == "agent":
        for_agent(wanted)
    answer = MessageAnswer(fresh_id(), wanted.model, input_tokens=tokens_of(wanted), thinking=wants_thinking(data))
    await converse(call, entry, wanted, answer, raw)


async def count_tokens(call: Call) -> None:
    """
    Tell about how many tokens a request has.

    An estimate by its length: no model of a chain has the same tokens as another, and none is asked.
    """
    call.exchange.tell("request-id", call.exchange.request_id)
    raw = await call.body()
    wanted = await call.apart(raw, counted, await call.decoded(raw))
    call.service.catalogue.find(call.caller, wanted.model)
    await call.reply({"input_tokens": tokens_of(wanted)})


async def models(call: Call) -> None:
    """List what the key may ask, as this vendor's SDK reads it."""
    entries = call.service.catalogue.visible(call.caller)
    listed = list(map(model_of, entries))
    names = [entry.name for entry in entries]
    ends = {"first_id": names[0] if names else None, "last_id": names[-1] if names else None}
    await call.reply({"data": listed, "has_more": False, **ends})


def model_of(entry: Entry) -> dict[str, Any]:
    """What may be asked, as this vendor's SDK reads it; what is not known here is null."""
    unknown = ("capabilities", "deprecated_at", "line", "max_tokens", "retires_at")
    return dict.fromkeys(unknown) | {
        "type": "model",
        "id": entry.name,
        "display_name": entry.name,
        "created_at": datetime.fromtimestamp(entry.created, UTC).isoformat(),
        "lifecycle": "active",
        "max_input_tokens": entry.llm.context_window,
    }


def tokens_of(wanted: Wanted) -> int:
    """About how many tokens a request has."""
    tools = sum(len(encode(spec)) for spec in wanted.tools)
    return estimate_tokens(wanted.messages) + tools // BYTES_PER_TOKEN
