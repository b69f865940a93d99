"""Many calls on one wrapper, a fifth of the requests failing in every way: nothing crosses, nothing is left."""

from __future__ import annotations

import asyncio
import gc
import json
import random
import re
import threading
from collections import Counter
from pathlib import Path

import pytest

from bench.fault_matrix import FALLBACK_FORMAT, FORMATS
from shared_libs.atomic import LLMError, Resilience
from shared_libs.testing import (
    CleanCut,
    Cut,
    EmptyAnswer,
    FaultServer,
    Garbage,
    Healthy,
    HtmlPage,
    MalformedBody,
    MalformedChunk,
    RateLimited,
    ResetBeforeHeaders,
    ServerError,
    Stall,
)
from tests.support import run, run_virtual

CALLS = 300
SHARE = 0.2
FAULTS = [
    Cut(),
    Cut(reset=True),
    CleanCut(),
    EmptyAnswer(),
    Garbage(),
    HtmlPage(),
    MalformedBody(),
    MalformedChunk(),
    RateLimited(retry_after_s=1),
    ResetBeforeHeaders(),
    ServerError(),
    Stall(),
]


def unlucky(seed):
    chance = random.Random(seed)
    return lambda _: chance.choice(FAULTS) if chance.random() < SHARE else Healthy()


def open_files():
    listed = Path("/proc/self/fd")
    return len(list(listed.iterdir())) if listed.is_dir() else 0


@pytest.mark.promise("no-cross")
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("spoken", FORMATS)
def test_a_crowd_with_faults_gets_its_own_answers_and_leaves_nothing(spoken, seed):
    primary, fallback = f"crowd {spoken} {seed}", f"crowd fallback {spoken} {seed}"
    policy = Resilience(breaker={"failures": 10_000})

    async def main():
        theirs = FALLBACK_FORMAT[spoken]
        async with FaultServer({primary: unlucky(seed), fallback: unlucky(-seed)}) as server:
            files, threads = open_files(), threading.active_count()
            other = FORMATS[theirs](fallback, api_key="k", base_url=server.url(theirs))
            llm = FORMATS[spoken](
                primary, api_key="k", base_url=server.url(spoken), resilience=policy, fallbacks=[other]
            )

            async def ask(number):
                sink = (lambda _: None) if number % 2 else None
                return await llm.async_chat(f"Question {number} of many.", on_chunk=sink, timeout=100)

            answers = await asyncio.gather(*map(ask, range(CALLS)), return_exceptions=True)
            await llm.aclose()
            await server.until_left()
            left = asyncio.all_tasks() - {asyncio.current_task()}
            return answers, server.requests, left, open_files() - files, threading.active_count() - threads

    answers, requests, tasks, files, threads = run_virtual(main())
    for number, answer in enumerate(answers):
        assert isinstance(answer, LLMError) or answer.text == f"Question {number} of many."
    assert not any(isinstance(answer, LLMError) for answer in answers)
    ledger = [row for answer in answers for row in answer.attempts]
    assert len(requests) == len(ledger) > CALLS * (1 + SHARE / 2)
    assert sum(seen.model == primary for seen in requests) == sum(row.model == primary for row in ledger)
    asked = Counter(
        number for seen in requests for number in re.findall(r"Question (\d+) of many\.", json.dumps(seen.body))
    )
    assert asked == {str(number): len(answer.attempts) for number, answer in enumerate(answers)}
    assert tasks == set()
    assert files <= 0  # fewer, when something of another test ends meanwhile
    assert threads <= 0


@pytest.mark.promise("loop-per-client")
@pytest.mark.parametrize("spoken", FORMATS)
def test_one_wrapper_in_two_event_loops_in_a_row_with_faults(spoken):
    llm, port = None, 0

    async def main(question):
        nonlocal llm, port
        async with FaultServer({"m": [ResetBeforeHeaders(), Cut()]}, port=port) as server:
            url = server.url(spoken)
            port = int(url.rpartition(":")[2].partition("/")[0])
            policy = Resilience(retry={"base_s": 0})
            llm = llm or FORMATS[spoken]("m", api_key="k", base_url=url, resilience=policy)
            answer = await llm.async_chat(question, on_chunk=lambda _: None)
            assert len(answer.attempts) == len(server.requests) == 3
            return answer.text

    assert [run(main("One?")), run(main("Two?"))] == ["One?", "Two?"]
    gc.collect()  # an unclosed session or transport would warn now
