"""What the tests of the faces stand on: the real server, its models on a fault server, the vendors' SDKs as clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anthropic
import openai
import yaml

from shared_libs.testing import FaultServer
from tests.service import Served, serving


class Ground:
    """
    A service and the upstream behind it, with clients for it.

    The SDKs are loaded before there is a loop, and read no certificates: both hold the loop, on which the server of the
    test is too, for a second where the machine is busy.
    """

    def __init__(self, served: Served, upstream: FaultServer) -> None:
        self.url = served.url
        self.service = served.service
        self.upstream = upstream
        self.http = served.http

    def openai(self, **options: Any) -> Any:
        given = {"max_retries": 0, "http_client": openai.DefaultAsyncHttpxClient(verify=False)}
        return openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key="none", **(given | options))

    def anthropic(self, **options: Any) -> Any:
        given = {"max_retries": 0, "http_client": anthropic.DefaultAsyncHttpxClient(verify=False)}
        return anthropic.AsyncAnthropic(base_url=self.url, api_key="none", **(given | options))

    async def send(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any, Any]:
        """Send JSON; give back status, headers and the JSON."""
        async with self.http.request(method, path, json=body, headers=headers) as answer:
            return answer.status, answer.headers, await answer.json(content_type=None)

    async def post(self, path: str, body: Any, **headers: str) -> tuple[int, Any, Any]:
        return await self.send("POST", path, body, **headers)

    async def status(self, path: str, body: Any, **headers: str) -> int:
        """Post JSON; give back the status. Names of headers may have underscores for hyphens."""
        async with self.http.post(path, json=body, headers=headers) as answer:
            return answer.status

    async def lines(self, path: str, body: Any, **headers: str) -> list[str]:
        """Post JSON and read a stream to its end; give back its lines that say something."""
        async with self.http.post(path, json=body, headers=headers) as answer:
            return [line for line in (await answer.text()).splitlines() if line]


def chain(upstream: FaultServer, *models: str, **policy: Any) -> dict[str, Any]:
    """The `llm` section of models on the fault server."""
    there = {"provider": "openai", "base_url": upstream.url("openai"), "api_key": "${UPSTREAM_KEY:-k}"}
    return {"retry": {"attempts": 1}, **policy, "chain": [there | {"model": model} for model in models]}


@asynccontextmanager
async def ground(folder: Path, scripts: dict[str, Any], **agents: dict[str, Any]) -> AsyncIterator[Ground]:
    """
    Serve agents by the keys of their definitions; `llm` is a list of models on the fault server, at first the first.
    It may be made of that server.

    `scripts` are those models' own.
    """
    async with FaultServer(scripts) as upstream:
        for name, told in agents.items():
            models = told.get("llm", list(scripts)[:1])
            llm = (
                models(upstream)
                if callable(models)
                else chain(upstream, *models)
                if isinstance(models, list)
                else models
            )
            definition = {"name": name, "instructions": "Be brief."} | told | {"llm": llm}
            await asyncio.to_thread((folder / f"{name}.yaml").write_text, yaml.safe_dump(definition))
        async with serving(folder, collections=f"sqlite:///{folder / 'own.db'}") as served:
            yield Ground(served, upstream)
