"""The service as its users meet it: a real server on loopback, on the loop of the test, and a client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from shared_libs.atomic.events import AgentEvent
from shared_libs.durable import Worker
from shared_libs.factory.durability import claimed_agent, extended_agent
from shared_libs.observability.run_store import RunStore
from shared_libs.service.server import Server, make_server
from shared_libs.service.settings import Settings, load_settings
from tests.unit.durable.cast import working

HELLO = """
name: hello
description: Says hello.
llm: {provider: rehearsal, script: hello}
tools: [calculator]
memory: {url: "memory:"}
"""
ASKED = {"question": "What is 17 * 23?"}


class Served:
    """A server under test: `http` is a client of it, `notes` what it told whoever started it."""

    def __init__(self, server: Server, notes: list[str]) -> None:
        self.server = server
        self.notes = notes
        self.http: aiohttp.ClientSession
        self.url = ""

    @property
    def service(self):
        return self.server.config.app.state.service

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    async def run(self, agent="hello", body=ASKED, query="", **headers):
        """Begin a run, and return its status, headers and JSON."""
        told = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.http.post(f"/v1/agents/{agent}/runs{query}", json=body, headers=told) as answer:
            return answer.status, answer.headers, await answer.json(content_type=None)

    async def get(self, path, **headers):
        told = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.http.get(path, headers=told) as answer:
            return answer.status, answer.headers, await answer.json(content_type=None)


@asynccontextmanager
async def serving(folder: Path, key: str = "", **settings) -> AsyncIterator[Served]:
    """Serve a folder of definitions until the block ends."""
    given = {"drain_notice_s": 0.0, "drain_s": 1.0, "store": f"sqlite:///{folder / 'runs.db'}"} | settings
    told = (await asyncio.to_thread(load_settings, folder)).model_copy(update=given)
    notes: list[str] = []
    started = asyncio.get_running_loop().create_future()
    server = make_server(told, port=0, on_start=lambda urls: started.set_result(urls[0]), on_note=notes.append)
    served = Served(server, notes)
    task = asyncio.create_task(server._serve())
    try:
        await asyncio.wait([task, started], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
            raise AssertionError(f"the server did not start: {notes}")
        served.url = started.result()
        headers = {"authorization": f"Bearer {key}"} if key else {}
        async with aiohttp.ClientSession(served.url, headers=headers) as served.http:
            yield served
    finally:
        server.should_exit = True
        await task


@asynccontextmanager
async def at_work(folder: Path) -> AsyncIterator[Worker]:
    """A worker as `factory worker` makes it, on the store that a folder is served with."""
    url = f"sqlite:///{folder / 'runs.db'}"
    runs = RunStore(url)

    def record(event: AgentEvent, team: str) -> None:
        runs.record(event, team, "worker")

    async with runs, working(url, claimed_agent, record, extended_agent) as worker:
        yield worker


def model_at(server, name="remote", **more) -> str:
    """A definition whose model is at a server of the test."""
    lines = [f"name: {name}", f"llm: {{provider: openai, model: m, base_url: '{server.url('openai')}', api_key: x}}"]
    return "\n".join([*lines, *(f"{key}: {value}" for key, value in more.items())]) + "\n"


def events_of(raw: bytes) -> list[tuple[str, str, str]]:
    """Read a stream of events: id, event and data of each; comments are left out."""
    found = []
    for block in raw.decode().split("\n\n"):
        fields = dict(line.partition(": ")[::2] for line in block.splitlines() if not line.startswith(":"))
        if fields:
            found.append((fields.get("id", ""), fields.get("event", ""), fields.get("data", "")))
    return found


def write(folder: Path, **definitions: str) -> Path:
    """Write definitions into a folder."""
    folder.mkdir(exist_ok=True)
    for name, text in definitions.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder


__all__ = ["ASKED", "HELLO", "Served", "Settings", "at_work", "events_of", "model_at", "serving", "write"]
