"""What the routes of collections and graphs have in common: finding one, holding a slot, and what a body may say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from shared_libs.atomic.deadline import Deadline
from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.names import name_schema
from shared_libs.atomic.types import BYTES_PER_TOKEN, Price, Usage
from shared_libs.retrieval import Collection
from shared_libs.retrieval.types import MAX_NAME
from shared_libs.service.admission import Demand, Grant
from shared_libs.service.endpoint import Call, told_of
from shared_libs.service.library import Right, no_collection
from shared_libs.service.problems import Problem

NEEDS = "collections:read|collections:write"
"""What a key needs at the least; for which collection, the library decides."""


def named(call: Call, name: str, right: Right) -> Collection:
    """
    Find a collection for whoever asks.

    Raises:
        Problem: there is none for this caller, or it is no name.

    """
    return call.service.library.find(call.caller, name, right)


@asynccontextmanager
async def asking(call: Call, what: str, deadline: Deadline, tokens: int, price: Price | None) -> AsyncIterator[Grant]:
    """
    Hold a slot while stores and models are asked, within the deadline.

    Args:
        call: the request.
        what: whose slots are counted together.
        deadline: when it has to be over.
        tokens: what models are going to read, estimated.
        price: of the dearest of them.

    """
    demand = Demand(
        caller=call.caller,
        target=what,
        deadline=deadline,
        tokens=max(1, tokens),
        need_s=0.0,  # what time runs short for is left out, and told
        priority=call.priority,
        tell_rates=call.tell_rates,
        price=price,
    )
    call.stays_when_gone("cancel")
    loop = asyncio.get_running_loop()
    async with call.service.admission.enter(demand) as grant:
        began_at = loop.time()
        try:
            with call.service.calling(deadline):
                yield grant
        except Exception:
            if grant.usage is None:
                grant.settle(Usage(), None)  # a failure costs nothing
            raise
        call.exchange.waited_s += loop.time() - began_at + grant.queued_s


@asynccontextmanager
async def of_what_is_there(collection: Collection) -> AsyncIterator[None]:
    """
    Tell apart what is asked wrongly from a collection that is not there.

    Raises:
        Problem: there is no such collection.

    """
    try:
        yield
    except MisuseError:
        if await collection.async_describe() is None:
            raise no_collection(collection.name) from None
        raise


def about_tokens(texts: Iterable[str]) -> int:
    """About how many tokens texts have."""
    return sum(len(text) // BYTES_PER_TOKEN for text in texts)


def whole_number(given: dict[str, Any], names: tuple[str, ...], default: int) -> int:
    """
    Read a whole number that may be left out; whoever uses it knows its bounds.

    Raises:
        Problem: it is none.

    """
    for name in names:
        value = given.get(name)
        if value is not None:
            if isinstance(value, bool) or not isinstance(value, int | float) or value % 1:
                raise Problem("invalid_request", f"{name} is a whole number", param=name)
            return int(value)
    return default


TEXT: dict[str, Any] = {"type": "string", "minLength": 1}
SOME: dict[str, Any] = {"type": "object"}
NAME = name_schema(MAX_NAME)
"""What a collection may be called."""


def shaped(*required: str, **properties: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a body of these fields and no other."""
    return {"type": "object", "required": list(required), "properties": properties, "additionalProperties": False}


def listed(item: dict[str, Any], most: int | None = None) -> dict[str, Any]:
    """Return the schema of a list with something in it."""
    return {"type": "array", "minItems": 1, "items": item} | ({} if most is None else {"maxItems": most})


def doc(
    name: str,
    tag: str,
    summary: str,
    body: dict[str, Any] | None = None,
    *,
    streams: bool = False,
    parameters: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    """Say of a route what the OpenAPI document shows."""
    return {"operationId": name} | told_of(tag, summary, SOME, body, streams=streams, parameters=parameters)
