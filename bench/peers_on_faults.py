"""
What becomes of each fault behind clients that nobody here wrote: `python -m bench.peers_on_faults`.

Every fault of the matrix, streamed and not, met by our client, the vendors' SDKs and a peer framework, each with its
own defaults and without a fallback, on a virtual clock: what an SDK waits for ten minutes costs nothing here.

`answer`: all of the text. `truncated`, `empty` and `wrong`: no error, and not the text; who looks at an SDK's stop
reason may know. `foreign error`, in brackets: not one of the client's own, its user has to know the library below.
`never`: not within an hour. Then the attempts the server saw, and the seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec

from bench.fault_matrix import CASES, QUESTION, Case, heard
from shared_libs.atomic.llms import OpenAILLM
from shared_libs.testing import FaultServer, Healthy
from shared_libs.testing.clock import VirtualLoop

LIMIT_S = 3600.0
MESSAGES = [{"role": "user", "content": QUESTION}]

Ask = Callable[[str, str, bool], Awaitable[str]]
"""Ask a model at a base URL, streamed or not, and give the text."""


async def ours(model: str, url: str, stream: bool) -> str:
    chunks: list = []
    async with OpenAILLM(model, api_key="k", base_url=url) as llm:
        response = await llm.async_chat(QUESTION, on_chunk=chunks.append if stream else None)
    return heard(chunks) if stream else response.text


async def openai_chat(model: str, url: str, stream: bool) -> str:
    import openai

    async with openai.AsyncOpenAI(api_key="k", base_url=url) as client:
        if not stream:
            answer = await client.chat.completions.create(model=model, messages=MESSAGES)
            return answer.choices[0].message.content
        text = ""
        async for chunk in await client.chat.completions.create(model=model, messages=MESSAGES, stream=True):
            text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
        return text


async def openai_responses(model: str, url: str, stream: bool) -> str:
    import openai

    async with openai.AsyncOpenAI(api_key="k", base_url=url) as client:
        if not stream:
            return (await client.responses.create(model=model, input=QUESTION)).output_text
        text = ""
        async for event in await client.responses.create(model=model, input=QUESTION, stream=True):
            text += event.delta if event.type == "response.output_text.delta" else ""
        return text


async def anthropic_messages(model: str, url: str, stream: bool) -> str:
    import anthropic

    asked = {"model": model, "messages": MESSAGES, "max_tokens": 4096}
    async with anthropic.AsyncAnthropic(api_key="k", base_url=url) as client:
        if not stream:
            return "".join(block.text for block in (await client.messages.create(**asked)).content)
        text = ""
        async with client.messages.stream(**asked) as events:
            async for piece in events.text_stream:
                text += piece
        return text


async def ollama_chat(model: str, url: str, stream: bool) -> str:
    import ollama

    client = ollama.AsyncClient(host=url)
    async with client._client:  # noqa: SLF001 - it has no way of its own to be closed
        if not stream:
            return (await client.chat(model, MESSAGES)).message.content
        text = ""
        async for piece in await client.chat(model, MESSAGES, stream=True):
            text += piece.message.content or ""
        return text


async def pydantic_ai(model: str, url: str, stream: bool) -> str:
    import openai
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    async with openai.AsyncOpenAI(api_key="k", base_url=url) as client:
        agent = Agent(OpenAIChatModel(model, provider=OpenAIProvider(openai_client=client)))
        if not stream:
            return (await agent.run(QUESTION)).output
        text = ""
        async with agent.run_stream(QUESTION) as run:
            async for piece in run.stream_text(delta=True):
                text += piece
        return text


@dataclass(frozen=True)
class Client:
    name: str
    package: str
    format: str
    ask: Ask
    own: tuple[str, ...]
    """Packages whose errors its users expect."""

    @property
    def title(self) -> str:
        return f"{self.name} {version(self.package)}"


CLIENTS = [
    Client("OpenAILLM", "genai-factory", "openai", ours, ("shared_libs",)),
    Client("openai chat", "openai", "openai", openai_chat, ("openai",)),
    Client("openai responses", "openai", "openai-responses", openai_responses, ("openai",)),
    Client("anthropic", "anthropic", "anthropic", anthropic_messages, ("anthropic",)),
    Client("ollama", "ollama", "ollama", ollama_chat, ("ollama",)),
    Client("pydantic-ai", "pydantic-ai-slim", "openai", pydantic_ai, ("pydantic_ai",)),
]


@dataclass(frozen=True)
class Outcome:
    kind: str
    """`answer`, `truncated`, `empty`, `wrong`, `error`, `foreign error` or `never`."""
    told: str
    attempts: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.told}, {self.attempts}, {self.seconds:.0f} s"


async def meet(client: Client, case: Case, *, stream: bool) -> Outcome:
    """Let a client meet a fault."""
    loop = asyncio.get_running_loop()
    model = f"{client.name} {case.name} {stream}"  # what ours knows of one must not tell on another
    async with FaultServer({model: case.script}) as server:
        began = loop.time()
        try:
            async with asyncio.timeout(LIMIT_S) as limit:
                kind = told = _judged(await client.ask(model, server.url(client.format, model), stream), case.text)
        except Exception as error:  # noqa: BLE001 - whatever a client raises is what is measured
            package, name = type(error).__module__.split(".")[0], type(error).__name__
            own = package in client.own
            kind = "never" if limit.expired() else "error" if own else "foreign error"
            told = kind if limit.expired() else name if own else f"({package}.{name})"
        taken = loop.time() - began
        return Outcome(kind, told, len(server.requests) or server.handshakes, taken)


def _judged(text: str | None, wanted: str) -> str:
    if text == wanted:
        return "answer"
    return "empty" if not text else "truncated" if wanted.startswith(text) else "wrong"


def run(main, *, virtual: bool):
    factory = VirtualLoop if virtual else None
    with asyncio.Runner(loop_factory=factory) as runner:
        # what a client leaves behind complains to the loop when it is collected
        runner.get_loop().set_exception_handler(lambda *_: None)
        return runner.run(main)


def warm_up() -> None:
    """Let each client load and look about on the real clock: threads that do are overtaken by a virtual one."""
    fine = Case("nothing", Healthy(), *[None] * 4)
    for client in CLIENTS:
        for stream in (True, False):
            outcome = run(meet(client, fine, stream=stream), virtual=False)
            assert outcome.kind == "answer", (client.name, outcome)


def table(rows: dict[str, list[Outcome]]) -> str:
    lines = ["| fault | " + " | ".join(client.title for client in CLIENTS) + " |", "|---" * (len(CLIENTS) + 1) + "|"]
    lines += [f"| {name} | " + " | ".join(map(str, outcomes)) + " |" for name, outcomes in rows.items()]
    return "\n".join(lines)


def summary(modes: dict[str, dict[str, list[Outcome]]]) -> str:
    kinds = ["answer", "error", "foreign error", "truncated", "empty", "wrong", "never"]
    lines = [
        "| client | " + " | ".join(kinds) + " | attempts | longest wait |",
        "|---" * (len(kinds) + 3) + "|",
    ]
    for column, client in enumerate(CLIENTS):
        met = [outcomes[column] for rows in modes.values() for outcomes in rows.values()]
        counted = Counter(outcome.kind for outcome in met)
        asked, longest = sum(outcome.attempts for outcome in met), max(outcome.seconds for outcome in met)
        cells = " | ".join(str(counted[kind]) for kind in kinds)
        lines.append(f"| {client.title} | {cells} | {asked} | {longest:.0f} s |")
    return "\n".join(lines)


def main() -> None:
    missing = [client.package for client in CLIENTS if find_spec(client.own[0]) is None]
    if missing:
        sys.exit(f"not installed: {', '.join(missing)}; pip install 'pydantic-ai-slim[openai]' ollama anthropic")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--summary", action="store_true", help="only how many ended how")
    arguments = parser.parse_args()
    logging.disable()
    warm_up()
    modes = {}
    for mode, stream in (("streamed", True), ("whole", False)):
        modes[mode] = {
            case.name: [run(meet(client, case, stream=stream), virtual=not case.real_clock) for client in CLIENTS]
            for case in CASES
        }
        if not arguments.summary:
            print(f"\n{mode}: what came back, attempts the server saw, seconds\n\n{table(modes[mode])}", flush=True)
    print(f"\n{2 * len(CASES)} meetings for each client\n\n{summary(modes)}")


if __name__ == "__main__":
    main()
