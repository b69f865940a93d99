"""
A thousand calls against servers that nobody here wrote, in their chaos modes: each ends in an answer or a typed error.

`python -m bench.chaos` runs against llmock (of the dev extra), which it starts. `--aimock URL` runs against an aimock
that is running already, such as `llmock -p 4010 -f fixtures --journal-max 0 --chaos-drop 0.1 --chaos-malformed 0.1
--chaos-disconnect 0.1 --chaos-ratelimit 0.1`; `--question` is then one that its fixtures answer.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import json
import random
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shared_libs.atomic import LLMError, Resilience
from shared_libs.atomic.llms import AnthropicLLM, OllamaLLM, OpenAILLM

FAULTS = ["--error-rate", "429=0.1", "--error-rate", "500=0.1"]
FAULTS += [word for kind in ("disconnect", "truncate", "malformed") for word in ("--stream-fault", f"{kind}=0.1")]
POLICY = Resilience(retry={"attempts": 5, "base_s": 0.05}, breaker={"failures": 10**6}, idle_timeout_s=5)
AT_ONCE = 50


@contextmanager
def llmock(*arguments: str) -> Iterator[str]:
    """A running llmock; gives its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    program = Path(sys.executable).with_name("llmock")
    command = [str(program), "serve", "--port", str(port), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        try:
            if not any("Uvicorn running on" in line for line in process.stdout):  # the socket listens from here on
                raise RuntimeError(f"{program} did not start")
            # a full pipe would stop the server
            threading.Thread(target=collections.deque, args=(process.stdout, 0), daemon=True).start()
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(10)


async def storm(models: list, question: str, calls: int) -> list:
    """Ask so often, half of it streamed; return an answer, an error, or whatever else came of each."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def ask(number: int):
        async with gate:
            llm, heard = models[number % len(models)], []
            sink = heard.append if number // len(models) % 2 else None
            try:
                answer = await llm.async_chat(question, on_chunk=sink, timeout=60)
            except LLMError as error:
                return error
            except Exception as error:  # noqa: BLE001 - this is what must not be
                return error
            text = ""
            for chunk in heard:
                text = "" if chunk.kind == "restarted" else text + chunk.text
            return answer if sink is None or text == answer.text else AssertionError(f"heard {text!r}")

    try:
        return await asyncio.gather(*map(ask, range(calls)))
    finally:
        for llm in models:
            await llm.aclose()


def told(title: str, outcomes: list, seconds: float, seen: int) -> int:
    """Print what came of the calls; return how many ended in neither an answer nor a typed error."""
    answers = [outcome for outcome in outcomes if not isinstance(outcome, Exception)]
    errors = collections.Counter(type(outcome).__name__ for outcome in outcomes if isinstance(outcome, LLMError))
    said = collections.Counter((answer.text, str([call.arguments for call in answer.tool_calls])) for answer in answers)
    whole = max(said.values(), default=0)
    other = [outcome for outcome in outcomes if isinstance(outcome, Exception) and not isinstance(outcome, LLMError)]
    attempts = [row for outcome in outcomes for row in getattr(outcome, "attempts", ())]
    kinds = collections.Counter(row.outcome for row in attempts)
    print(f"\n{title}: {len(outcomes)} calls in {seconds:.0f} s")
    print(f"  answers        {whole} (the whole text every time)")
    print(f"  typed errors   {errors.total()} {dict(errors)}")
    print(f"  anything else  {len(answers) - whole + len(other)} {[repr(thing) for thing in other[:3]]}")
    print(f"  attempts       {len(attempts)} {dict(kinds)}; the server saw {seen}")
    return len(answers) - whole + len(other)


def against_llmock(calls: int) -> int:
    with llmock("--response-style", "echo", *FAULTS) as url:
        models = [
            OpenAILLM("gpt-4o-mini", base_url=f"{url}/v1", api_key="k", resilience=POLICY),
            AnthropicLLM("claude-x", base_url=f"{url}/anthropic", api_key="k", resilience=POLICY),
        ]
        began = time.perf_counter()
        outcomes = asyncio.run(storm(models, "Say something.", calls))
        seconds = time.perf_counter() - began
        with urllib.request.urlopen(f"{url}/_llmock/requests") as answer:
            seen = json.load(answer)["count"]
    return told("llmock, OpenAI and Anthropic format", outcomes, seconds, seen)


def against_aimock(url: str, question: str, calls: int) -> int:
    models = [
        OpenAILLM("gpt-4o-mini", base_url=f"{url}/v1", api_key="k", resilience=POLICY),
        AnthropicLLM("claude-x", base_url=url, api_key="k", resilience=POLICY),
        OllamaLLM("llama", base_url=url, resilience=POLICY),
    ]
    before = journal(url)
    began = time.perf_counter()
    outcomes = asyncio.run(storm(models, question, calls))
    seconds = time.perf_counter() - began
    return told("aimock, OpenAI, Anthropic and Ollama format", outcomes, seconds, journal(url) - before)


def journal(url: str) -> int:
    """How many requests an aimock has seen."""
    with urllib.request.urlopen(f"{url}/__aimock/journal?limit=1") as answer:
        return int(answer.headers["x-total-count"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--aimock", metavar="URL", help="the address of a running aimock")
    parser.add_argument("--question", default="Hello.", help="what to ask it")
    arguments = parser.parse_args()
    random.seed(1)  # our backoff; the servers draw their faults as they like
    other = against_llmock(arguments.calls)
    if arguments.aimock:
        other += against_aimock(arguments.aimock, arguments.question, arguments.calls)
    sys.exit(1 if other else 0)


if __name__ == "__main__":
    main()
