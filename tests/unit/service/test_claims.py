"""Requests under an `Idempotency-Key` at several servers of one service."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from types import SimpleNamespace

import pytest

from shared_libs.service.claims import Claimed, Claims
from shared_libs.service.database import ServiceDatabase
from shared_libs.service.problems import Problem
from shared_libs.testing import SlowFirstToken
from tests.service import serving
from tests.support import run
from tests.unit.service.faces.ground import Ground, ground

HELLO = [{"role": "user", "content": "hello there"}]
ASKS = {
    "chat, whole": ("/v1/chat/completions", {"model": "bot", "messages": HELLO}),
    "chat of a chain, streamed": ("/v1/chat/completions", {"model": "bot/chain", "messages": HELLO, "stream": True}),
    "messages, whole": ("/v1/messages", {"model": "bot/chain", "messages": HELLO, "max_tokens": 9}),
    "messages, streamed": ("/v1/messages", {"model": "bot", "messages": HELLO, "max_tokens": 9, "stream": True}),
    "response, whole": ("/v1/responses", {"model": "bot", "input": "hello there"}),
    "response, streamed": ("/v1/responses", {"model": "bot", "input": "hello there", "stream": True}),
    "embeddings": ("/v1/embeddings", {"model": "bot/chain", "input": "hello there"}),
    "run, whole": ("/v1/agents/bot/runs", {"question": "hello there"}),
}


def asked(name, body="a"):
    return SimpleNamespace(claim=name, body=body, has_key=True)


@pytest.mark.promise("serve-once")
@pytest.mark.parametrize("place", ["sqlite", "postgres"])
def test_one_server_has_a_request_the_others_hear_what_becomes_of_it_and_a_killed_one_keeps_none(
    place, request, tmp_path
):
    at = f"owner@{request.getfixturevalue('postgres')}" if place == "postgres" else f"/{tmp_path / 'claims.db'}"
    url, kind = f"{'postgresql' if place == 'postgres' else 'sqlite'}://{at}", "lost" + place

    async def main():
        databases = [ServiceDatabase(url) for _ in range(3)]
        servers = [Claims(database) for database in databases]
        told = await asyncio.gather(*(claims.take(asked("k" + place), 60.0) for claims in servers))
        assert Counter(told) == {None: 1, Claimed(None): 2}
        with pytest.raises(Problem) as other:
            await servers[0].take(asked("k" + place, "b"), 60.0)
        waits = asyncio.create_task(servers[1].outcome(asked("k" + place)))
        servers[0].settle(asked("k" + place), {"said": 1})
        assert await waits == b'{"said":1}'
        assert await servers[2].take(asked("k" + place), 60.0) == Claimed(b'{"said":1}')
        servers[0].settle(asked("k" + place), None)
        await servers[0].aclose()
        assert await servers[1].outcome(asked("k" + place)) is None
        await servers[0].take(asked(kind), 0.0)  # its server was killed, and its time is over
        assert await servers[1].take(asked(kind, "b"), 60.0) is None
        assert await servers[2].take(asked(kind, "b"), 60.0) == Claimed(None)
        for database in databases:
            await database.aclose()
        return other.value.code

    assert run(main()) == "idempotency_mismatch"


@pytest.mark.promise("serve-once", "face-patience")
def test_what_is_sent_to_two_servers_under_a_key_is_done_once_and_another_body_is_refused_at_both(tmp_path):
    async def main():
        async with ground(tmp_path, {"m": SlowFirstToken(0.2)}, bot={}) as at, serving(tmp_path) as served:
            servers = (at, Ground(served, at.upstream))
            for done, (name, (path, body)) in enumerate(ASKS.items(), 1):
                key = {"Idempotency-Key": name}
                sends = [send(server, path, body, **key) for server in servers]
                first, second = await asyncio.gather(*sends)
                assert (name, first[0], second[0]) == (name, 200, 200)
                assert all(("embedding" if "emb" in path else "hello there") in text for _, text in (first, second))
                assert (name, len(at.upstream.requests)) == (name, done)
                changed = json.loads(json.dumps(body).replace("hello there", "hello here"))
                status, text = await send(servers[done % 2], path, changed, **key)
                assert status in (400, 422)  # by dialect
                assert "another body" in text

    run(main())


async def send(server, path, body, **headers):
    async with server.http.post(path, json=body, headers=headers) as answer:
        return answer.status, await answer.text()
