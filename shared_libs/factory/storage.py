"""The `memory` section: where conversations are kept."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.llms.base import BaseLLMWrapper
from shared_libs.atomic.memory.base import BaseMemory, InProcessMemory
from shared_libs.atomic.memory.compaction import Compaction
from shared_libs.factory.chain import build_model
from shared_libs.factory.draft import Draft
from shared_libs.factory.prices import Prices
from shared_libs.factory.problems import Path, choices
from shared_libs.factory.registry import MEMORIES

_HERE: Path = ("memory",)


def build_memory(
    draft: Draft, section: Any, llm: BaseLLMWrapper | None, prices: Prices, on_note: Callable[[str], None]
) -> BaseMemory | None:
    """
    Make the memory of the section; without a section, or with a wrong one (the problem is noted), there is none.

    `llm` is the agent's model, which sums up where the section names no other; a rehearsal cannot.
    """
    place: Path = (*_HERE, "url")
    settings = {"url": "memory:", **section} if isinstance(section, Mapping) else {}
    if not isinstance(settings.get("url"), str):
        return None
    compact = settings.pop("compact", None)
    beside = compact.get("llm") if isinstance(compact, Mapping) else None
    summariser = build_model(draft, beside, (*_HERE, "compact", "llm"), prices, on_note)
    embedder = build_model(draft, settings.pop("embedder", None), (*_HERE, "embedder"), prices, on_note)
    if embedder is not None and not embedder.embeds:
        draft.problems.add((*_HERE, "embedder"), f"{embedder.provider} has no embeddings; name a model that has")
    memory = None if draft.problems.inside(place) else _made(draft, settings, embedder)
    model = summariser or llm
    if memory is not None and isinstance(compact, Mapping) and model is not None and not model.rehearsal:
        memory.compaction = Compaction(model, **{key: value for key, value in compact.items() if key != "llm"})
    return memory if memory is None else draft.ports.memory(memory, draft.agent)


def in_process(url: str, *, window: int | None = None) -> InProcessMemory:
    """Make the memory of `memory:`, which has no place to name."""
    if url != "memory:":
        raise MisuseError("memory: takes nothing behind the colon")
    return InProcessMemory(window=window)


def _made(draft: Draft, settings: dict[str, Any], embedder: BaseLLMWrapper | None) -> BaseMemory | None:
    place: Path = (*_HERE, "url")
    scheme = settings["url"].partition(":")[0]
    if scheme not in MEMORIES:
        known = choices(scheme, [f"{name}:" for name in MEMORIES.names()])
        draft.problems.add(place, f"no memory is kept at such an address; {known}")
        return None
    if draft.problems.inside(_HERE):
        return None
    if embedder is not None:
        settings["embedder"] = embedder
    try:
        made = MEMORIES.load(scheme)
        taken = inspect.signature(made).parameters
        for key in settings.keys() - taken.keys():
            draft.problems.add((*_HERE, key), f"{scheme}: takes no {key}; remove it", at_key=True)
        if draft.problems.inside(_HERE):
            return None
        memory = made(**settings)
    except Exception as error:  # noqa: BLE001 - a store's constructor is foreign code: what it refuses has a place
        draft.blame(place, error)
        return None
    if not isinstance(memory, BaseMemory):
        draft.problems.add(place, f"the memory {scheme} is a {type(memory).__name__}, not a BaseMemory")
        return None
    return memory
