"""A run that was kept, saved as what the testing library plays again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import PlainTextResponse

from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.events import AgentEvent, Event, RunStarted
from shared_libs.atomic.loading import load
from shared_libs.service.callers import Caller
from shared_libs.service.keys import require_key
from shared_libs.service.problems import Problem
from shared_libs.service.routers.answers import no_such_run
from shared_libs.service.state import Service

router = APIRouter(prefix="/v1/runs", tags=["runs"])

_FILE = r"^[\w.-]{1,200}$"


class Yaml(PlainTextResponse):
    """A file of the testing library."""

    media_type = "application/yaml"


@router.get("/{run_id}/scenario", response_class=Yaml)
async def scenario(
    request: Request,
    run_id: str,
    caller: Annotated[Caller, Depends(require_key("runs:read"))],
    cassette: Annotated[str | None, Query(pattern=_FILE)] = None,
) -> Yaml:
    """Return a scenario that plays the run again; with `cassette`, the name of a file, its models answer from that."""
    events = await _events(request, run_id, caller)
    definition = _file_of(request.app.state.service, events)

    def save() -> str:
        from shared_libs.testing.saved import saved_scenario

        return saved_scenario(events, definition=definition, cassette=cassette)

    return Yaml(await _saved(save))


@router.get("/{run_id}/cassette", response_class=Yaml)
async def cassette(request: Request, run_id: str, caller: Annotated[Caller, Depends(require_key("runs:read"))]) -> Yaml:
    """Return what the run's models were asked, and what they answered."""
    events = await _events(request, run_id, caller)

    def save() -> str:
        from shared_libs.testing.cassettes import text_of
        from shared_libs.testing.saved import saved_cassette

        return text_of(saved_cassette(events))

    return Yaml(await _saved(save))


async def _saved(save: Callable[[], str]) -> str:
    await load("shared_libs.testing.saved")
    try:
        return await asyncio.to_thread(save)
    except MisuseError as error:
        raise Problem("conflict", str(error)) from None


async def _events(request: Request, run_id: str, caller: Caller) -> list[AgentEvent]:
    """What is kept of a run: what its models were asked, and its events."""
    store = request.app.state.service.store
    await store.flush()
    if await store.async_get(run_id, caller.team) is None:
        raise no_such_run(run_id)
    told = await store.async_record(run_id, caller.team)
    return await asyncio.to_thread(lambda: [Event.from_dict(one) for one in told])  # type: ignore[misc]


def _file_of(service: Service, events: list[AgentEvent]) -> str:
    """The file of the agent's definition, beside which a scenario is put."""
    name = next((event.agent for event in events if isinstance(event, RunStarted)), "agent")
    return service.catalogue.file_of(name) or f"{name}.yaml"
