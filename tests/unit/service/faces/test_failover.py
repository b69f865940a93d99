"""Every fault of a provider, through the gateway: another model answers, or the client is told; nothing merely ends."""

from __future__ import annotations

import asyncio

import pytest
import yaml
from openai import OpenAIError

from shared_libs.testing import FaultServer, Healthy, SlowFirstToken
from shared_libs.testing.faults.catalogue import CATALOGUE, Drip, Flapping, HugeChunk, RateLimited
from tests.support import run_virtual
from tests.unit.service.faces.ground import Ground, serving

ASK = [{"role": "user", "content": "hello there"}]
SPECIAL = {
    "slow_first_token": SlowFirstToken(60.0),
    "drip": Drip(5.0),
    "flapping": Flapping(60.0, 0.0),
    "rate_limited": RateLimited(60.0),
    # longer than a line may be; a megabyte would fill the buffers, which on virtual time is a client that does not read
    "huge_chunk": HugeChunk(100_000),
}
TOLD = {"content_filter"}
"""What is refused as such is no reason to ask another model."""
HEALTHY = {"healthy", "huge_chunk", "wire_case"}


def definition(upstream, name):
    there = {"provider": "openai", "api_key": "k"}
    return {
        "name": name,
        "instructions": "Be brief.",
        "llm": {
            "retry": {"attempts": 1},
            "attempt_timeout_s": 1.5,
            "first_token_timeout_s": 0.5,
            "idle_timeout_s": 0.5,
            "chain": [
                there | {"model": name, "base_url": upstream.url("openai", name)},
                there | {"model": "fb-ok", "base_url": upstream.url("openai")},
            ],
        },
    }


async def asked(client, model, *, stream):
    try:
        if not stream:
            choice = (await client.chat.completions.create(model=model, messages=ASK)).choices[0]
            return choice.message.content, choice.finish_reason
        chunks = await client.chat.completions.create(model=model, messages=ASK, stream=True)
        told = [chunk.choices[0] async for chunk in chunks]
        return "".join(one.delta.content or "" for one in told), told[-1].finish_reason
    except OpenAIError as error:
        return error, "error"


@pytest.mark.promise("face-streams")
def test_the_catalogue_of_faults_is_rescued_or_told(tmp_path):
    scripts = {name: SPECIAL.get(name) or kind() for name, kind in CATALOGUE.items()}

    async def main():
        async with FaultServer(scripts | {"fb-ok": Healthy("from the fallback")}) as upstream:
            for name in scripts:
                text = yaml.safe_dump(definition(upstream, name))
                await asyncio.to_thread((tmp_path / f"{name}.yaml").write_text, text)
            async with serving(tmp_path) as served, Ground(served, upstream).openai() as client:
                tried = [(f"{name}{kind}", stream) for name in scripts for kind in ("", "/chain") for stream in (0, 1)]
                ends = await asyncio.gather(*(asked(client, name, stream=bool(stream)) for name, stream in tried))
            return tried, ends

    wrong = []
    for (model, stream), (text, finish) in zip(*run_virtual(main()), strict=True):
        name = model.partition("/")[0]
        if name in TOLD:
            fine = finish == "error"
        elif name in HEALTHY:
            fine = finish == "stop"
        else:
            fine = (text, finish) in (("from the fallback", "stop"), ("hello there", "stop"))
        if not fine:
            wrong.append((model, stream, str(text)[:80], finish))
    assert wrong == []
