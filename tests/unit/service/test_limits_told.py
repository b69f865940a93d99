"""What clients see of limits and budgets, on every face."""

from __future__ import annotations

import asyncio
import json
import re

import pytest

from shared_libs.service.key_format import Key
from shared_libs.service.key_rows import KeyRow, now
from shared_libs.service.key_store import key_store
from shared_libs.service.rates import Rate, openai_rates
from shared_libs.service.settings import TeamLimits
from shared_libs.testing import FaultServer, Healthy, ServerError
from tests.service import ASKED, HELLO, serving, write
from tests.support import run

PRICED = """
name: bot
llm:
  chain: [{{provider: openai, model: m, base_url: '{url}', api_key: x, price: {{input: 1000, output: 1000}}}}]
  retry: {{attempts: 1}}
"""


@pytest.mark.promise("budgets-refuse")
def test_a_budget_binds_every_face_and_what_fails_upstream_costs_nothing(tmp_path):
    key = Key.new()
    chat = {"model": "bot/chain", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 5}

    async def main():
        faults = [ServerError(), *[Healthy("hello you")] * 40]
        async with FaultServer({"m": faults}) as upstream:
            write(tmp_path, bot=PRICED.format(url=upstream.url("openai")))
            row = KeyRow(
                id=key.id, hash=key.hash(""), team="t", budget_usd=0.1, budget_window="total", created_at=now()
            )
            await key_store("keys.yaml", tmp_path).keep(row)
            async with serving(tmp_path, key=str(key)) as served:
                told = []
                async with asyncio.timeout(20):
                    while not told or told[-1][1].get("error", {}).get("code") != "insufficient_quota":
                        async with served.http.post("/v1/chat/completions", json=chat) as answer:
                            told.append((answer.status, json.loads(await answer.read())))
                asked = len(upstream.requests)
                status, headers, problem = await served.run("bot")
                async with served.http.post("/v1/messages", json=chat) as answer:
                    message = answer.status
                return (
                    told,
                    asked,
                    len(upstream.requests),
                    (status, problem["code"], headers["x-should-retry"]),
                    message,
                )

    told, asked, later, by_run, by_message = run(main())
    used = [body["usage"]["total_tokens"] / 1000 for status, body in told if status == 200]
    assert told[0][0] == 503
    assert 0.1 <= sum(used) <= 0.1 + used[0]
    assert asked == later == len(used) + 1
    assert by_run == (429, "budget_exhausted", "false")
    assert by_message == 429


@pytest.mark.promise("rates-told")
def test_what_is_left_of_a_minute_is_told_in_the_words_of_each_sdk_streamed_or_not(tmp_path):
    key = Key.new()
    asked = {"model": "hello", "messages": [{"role": "user", "content": "What is 17 * 23?"}], "max_tokens": 50}
    row = KeyRow(id=key.id, hash=key.hash(""), team="t", requests_per_minute=4, tokens_per_minute=100_000)

    async def main():
        await key_store("keys.yaml", write(tmp_path, hello=HELLO)).keep(row)
        async with serving(tmp_path, key=str(key), teams={"t": TeamLimits(tokens_per_minute=90_000)}) as served:
            told = []
            for path, more in (
                ("/v1/chat/completions", {}),
                ("/v1/messages", {"stream": True}),
                ("/v1/agents/hello/runs", None),
                ("/v1/responses", None),
                ("/v1/chat/completions", {}),
            ):
                body = asked | more if more is not None else {"input": "hi", "model": "hello"}
                async with served.http.post(path, json=ASKED if "runs" in path else body) as answer:
                    await answer.read()
                    told.append((answer.status, dict(answer.headers)))
            return told

    async def in_one_minute():
        while True:  # a minute that ends meanwhile begins anew
            began = now().minute
            if told := await main():
                if now().minute == began:
                    return told
                (tmp_path / "runs.db").unlink()

    chat, messages, of_run, responses, refused = run(in_one_minute())
    left = [each[1].get("x-ratelimit-remaining-requests") for each in (chat, of_run, responses, refused)]
    assert left == ["3", "1", "0", "0"]
    assert (chat[1]["x-ratelimit-limit-requests"], chat[1]["x-ratelimit-limit-tokens"]) == ("4", "90000")
    assert 0 < int(chat[1]["x-ratelimit-remaining-tokens"]) < 90_000
    assert re.fullmatch(r"\d{1,2}s|\d{1,3}ms|1m", chat[1]["x-ratelimit-reset-requests"])
    assert messages[1]["anthropic-ratelimit-requests-remaining"] == "2"
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", messages[1]["anthropic-ratelimit-requests-reset"])
    assert "x-ratelimit-limit-requests" not in messages[1]
    assert (refused[0], refused[1]["x-ratelimit-limit-requests"]) == (429, "4")


@pytest.mark.parametrize(("seconds", "text"), [(0.006, "6ms"), (1.2, "1s"), (59.6, "1m"), (90.0, "1m30s"), (-1, "0ms")])
def test_a_reset_is_written_as_openai_writes_it(seconds, text):
    assert dict(openai_rates([Rate("tokens", 10, 5, seconds)]))["x-ratelimit-reset-tokens"] == text
