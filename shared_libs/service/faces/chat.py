"""OpenAI's chat completions and its lists of models: agents and chains are models."""

from __future__ import annotations

from typing import Any

from shared_libs.service.catalogue import Entry
from shared_libs.service.edge import fresh_id
from shared_libs.service.endpoint import Call
from shared_libs.service.faces import messages
from shared_libs.service.faces.converse import converse
from shared_libs.service.faces.openai_answer import ChatAnswer
from shared_libs.service.faces.openai_chat import for_agent, includes_usage, read_chat
from shared_libs.service.faces.tasks import errand_of


async def chat(call: Call) -> None:
    """Answer a request for a chat completion."""
    raw = await call.body()
    data = await call.decoded(raw)
    wanted = await call.apart(raw, read_chat, data)
    entry = errand_of(call, call.service.catalogue.find(call.caller, wanted.model), wanted)
    if session := call.headers.get("x-session-id"):
        wanted.session_id = session
    if entry.kind == "agent":
        for_agent(wanted)
    usage, progress = includes_usage(data), data.get("progress") == "reasoning"
    answer = ChatAnswer(fresh_id(), wanted.model, include_usage=usage, progress=progress or entry.kind == "chain")
    await converse(call, entry, wanted, answer, raw)


async def models(call: Call) -> None:
    """List what the key may ask, in the words of whichever vendor's SDK asks."""
    if "anthropic-version" in call.headers:
        await messages.models(call)
        return
    listed = [_model(entry) for entry in call.service.catalogue.visible(call.caller)]
    await call.reply({"object": "list", "data": listed})


async def model(call: Call) -> None:
    """Tell of one of them; its name may have slashes."""
    entry = call.service.catalogue.find(call.caller, call.path["name"])
    await call.reply(messages.model_of(entry) if "anthropic-version" in call.headers else _model(entry))


def _model(entry: Entry) -> dict[str, Any]:
    told: dict[str, Any] = {
        "id": entry.name,
        "object": "model",
        "created": entry.created,
        "owned_by": "genai-factory",
        "factory": {"kind": entry.kind, "description": entry.description},
    }
    if (window := entry.llm.context_window) is not None:
        told |= {"context_window": window, "max_model_len": window}
    return told
