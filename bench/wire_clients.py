"""
What clients make of what real servers put on the wire: `python -m bench.wire_clients [--cases] [--only WORD]`.

The cases of `tests/wire_cases` that ask one model (no chain), met by our client, the SDKs of vendors, LiteLLM and
pydantic-ai, each with its own defaults and its own retries, on a virtual clock. A client is judged by what it can tell:
text, calls, usage and vectors as the case expects them, or an error where the case expects one, of whatever class.

`right`: as expected. `error`: an error where there is an answer to be had. `silently wrong`: no error, and not what was
said. `never`: not within an hour. Cases in a format that a client does not speak, and those that only concern what is
sent back, are left out of its column.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

from bench.peers_on_faults import run
from tests.unit.atomic.llms.test_wire_cases import TOOLS
from tests.unit.atomic.llms.test_wire_cases import ours as our_wrapper
from tests.wire_case import Case, Heard, cases, judged

LIMIT_S = 3600.0
JUDGED = {"text", "calls", "usage", "vectors", "answer", "actions", "error"}
"""What a foreign client is judged by: what was heard. How often it asked, and whom, is its own affair."""

Ask = Callable[[Case, str], Awaitable[Heard]]


def _messages(case: Case) -> list[dict[str, Any]]:
    return [{"role": "user", "content": case.messages}] if isinstance(case.messages, str) else case.messages


def _tools(case: Case) -> list[dict[str, Any]]:
    return [
        {"type": "function", "function": {"name": name, "description": TOOLS[name].description, "parameters": schema}}
        for name in case.tools
        for schema in [TOOLS[name].parameters]
    ]


def _calls(pairs: list[tuple[str, Any]]) -> list[list[Any]]:
    """Calls with their arguments read as its user reads them: as JSON, or as they stand where they are none."""
    return [[name, _read(arguments)] for name, arguments in pairs]


def _read(arguments: Any) -> Any:
    try:
        return json.loads(arguments) if isinstance(arguments, str) else arguments
    except ValueError:
        return arguments


def _usage(usage: Any, given: str = "prompt_tokens", said: str = "completion_tokens") -> dict[str, int]:
    return {"input": getattr(usage, given, None) or 0, "output": getattr(usage, said, None) or 0}


async def openai_chat(case: Case, url: str) -> Heard:
    import openai

    async with openai.AsyncOpenAI(api_key="k", base_url=url) as client:
        if case.ask == "embed":
            answer = await client.embeddings.create(model="m", input=case.texts)
            return Heard(vectors=[item.embedding for item in answer.data])
        asked: dict[str, Any] = {"model": "m", "messages": _messages(case), **_optional(case)}
        if case.ask == "stream":
            stream = await client.chat.completions.create(**asked, stream=True)
            return await _folded([chunk async for chunk in stream])
        answer = await client.chat.completions.create(**asked)
        return _whole(answer)


def _optional(case: Case) -> dict[str, Any]:
    return {"tools": _tools(case)} if case.tools else {}


def _whole(answer: Any) -> Heard:
    message = answer.choices[0].message
    calls = [(call.function.name, call.function.arguments) for call in message.tool_calls or ()]
    return Heard(text=message.content or "", calls=_calls(calls), usage=_usage(answer.usage))


async def _folded(chunks: list[Any]) -> Heard:
    """Chunks put together as the vendor's own documentation does it: by index."""
    text, usage, calls = "", None, {}
    for chunk in chunks:
        usage = getattr(chunk, "usage", None) or usage
        for choice in chunk.choices[:1]:
            text += choice.delta.content or ""
            for piece in choice.delta.tool_calls or ():
                call = calls.setdefault(piece.index, ["", ""])
                call[0] += (piece.function and piece.function.name) or ""
                call[1] += (piece.function and piece.function.arguments) or ""
    return Heard(
        text=text, calls=_calls([(name, arguments) for name, arguments in calls.values()]), usage=_usage(usage)
    )


async def openai_responses(case: Case, url: str) -> Heard:
    import openai

    asked = {"model": "m", "input": _messages(case)}
    async with openai.AsyncOpenAI(api_key="k", base_url=url) as client:
        if case.ask == "stream":
            async with client.responses.stream(**asked) as stream:
                answer = await stream.get_final_response()
        else:
            answer = await client.responses.create(**asked)
    calls = [(item.name, item.arguments) for item in answer.output if item.type == "function_call"]
    usage = _usage(answer.usage, "input_tokens", "output_tokens")
    return Heard(text=answer.output_text, calls=_calls(calls), usage=usage)


async def anthropic_messages(case: Case, url: str) -> Heard:
    import anthropic

    asked = {"model": "m", "messages": _messages(case), "max_tokens": 4096}
    async with anthropic.AsyncAnthropic(api_key="k", base_url=url) as client:
        if case.ask == "stream":
            async with client.messages.stream(**asked) as stream:
                answer = await stream.get_final_message()
        else:
            answer = await client.messages.create(**asked)
    calls = [(block.name, block.input) for block in answer.content if block.type == "tool_use"]
    text = "".join(block.text for block in answer.content if block.type == "text")
    return Heard(text=text, calls=_calls(calls), usage=_usage(answer.usage, "input_tokens", "output_tokens"))


async def litellm_chat(case: Case, url: str) -> Heard:
    import litellm

    asked = {"model": "openai/m", "api_base": url, "api_key": "k"}
    if case.ask == "embed":
        answer = await litellm.aembedding(**asked, input=case.texts)
        return Heard(vectors=[item["embedding"] for item in answer.data])
    asked |= {"messages": _messages(case), "num_retries": 2, **_optional(case)}
    if case.ask == "stream":
        return await _folded([chunk async for chunk in await litellm.acompletion(**asked, stream=True)])
    return _whole(await litellm.acompletion(**asked))


async def pydantic_ai(case: Case, url: str) -> Heard:
    import openai
    from pydantic_ai import Agent
    from pydantic_ai.messages import ModelResponse, ToolCallPart
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    async with openai.AsyncOpenAI(api_key="k", base_url=url) as client:
        agent = Agent(OpenAIChatModel("m", provider=OpenAIProvider(openai_client=client)))
        for name in case.tools:
            agent.tool_plain(TOOLS[name].function, name=name)
        question = case.messages if isinstance(case.messages, str) else case.messages[-1]["content"]
        if case.streams:
            async with agent.run_stream(question) as streamed:
                output, messages, usage = await streamed.get_output(), streamed.all_messages(), streamed.usage
        else:
            whole = await agent.run(question)
            output, messages, usage = whole.output, whole.all_messages(), whole.usage
        parts = [part for message in messages if isinstance(message, ModelResponse) for part in message.parts]
        actions = [[part.tool_name, part.args_as_dict()] for part in parts if isinstance(part, ToolCallPart)]
        usage = usage() if callable(usage) else usage
        told = {"input": usage.input_tokens, "output": usage.output_tokens}
        return Heard(text=output, answer=output, actions=actions, usage=told)


async def ours(case: Case, url: str) -> Heard:
    return await our_wrapper(case, url, None)


@dataclass(frozen=True)
class Client:
    name: str
    package: str
    ask: Ask
    speaks: tuple[str, ...]
    does: tuple[str, ...] = ("chat", "stream")

    @property
    def title(self) -> str:
        return f"{self.name} {version(self.package)}"

    def meets(self, case: Case) -> bool:
        """Whether a case says something about this client: its format, its kind of question, something it heard."""
        heard = case.expect.keys() & JUDGED or case.expect.get("error")
        plain = not case.fallback and case.output_schema is None and not case.options and not case.arguments
        calls_of_a_model = "calls" in case.expect and self.name == "pydantic-ai"
        return bool(heard) and plain and case.api in self.speaks and case.ask in self.does and not calls_of_a_model


OURS = ("chat", "responses", "anthropic", "ollama")
CLIENTS = [
    Client("ours", "genai-factory", ours, OURS, ("chat", "stream", "embed", "agent")),
    Client("openai", "openai", openai_chat, ("chat",), ("chat", "stream", "embed")),
    Client("openai responses", "openai", openai_responses, ("responses",)),
    Client("anthropic", "anthropic", anthropic_messages, ("anthropic",)),
    Client("litellm", "litellm", litellm_chat, ("chat",), ("chat", "stream", "embed")),
    Client("pydantic-ai", "pydantic-ai-slim", pydantic_ai, ("chat",), ("chat", "stream", "agent")),
]


async def meet(client: Client, case: Case) -> str:
    """Let a client meet a case; what came of it."""
    expect = {key: value for key, value in case.expect.items() if key in JUDGED}
    wants_error = bool(expect.pop("error", ""))
    usage = {key: value for key, value in expect.get("usage", {}).items() if key in {"input", "output"}}
    expect |= {"usage": usage} if usage else {}
    if not usage:
        expect.pop("usage", None)
    outcome = "right"

    async def ask(told: Case, url: str, _: str | None) -> Heard:
        nonlocal outcome
        try:
            async with asyncio.timeout(LIMIT_S) as limit:
                heard = await client.ask(told, url)
        except Exception as error:  # noqa: BLE001 - whatever a client raises is what is measured
            outcome = "never" if limit.expired() else "right" if wants_error else "error"
            return Heard(error=type(error).__name__, words=str(error))
        failed = bool(heard.error) or heard.status == "failed"
        if failed or wants_error:
            outcome = "right" if failed and wants_error else "error" if failed else "silently wrong"
            return heard
        return heard

    told = replace(case, expect={} if wants_error else expect)
    complaints = await judged(told, ask)
    return "silently wrong" if outcome == "right" and complaints and not wants_error else outcome


def table(rows: dict[str, list[str]]) -> str:
    lines = ["| case | " + " | ".join(client.title for client in CLIENTS) + " |", "|---" * (len(CLIENTS) + 1) + "|"]
    lines += [f"| {name} | " + " | ".join(cells) + " |" for name, cells in rows.items()]
    return "\n".join(lines)


def summary(rows: dict[str, list[str]]) -> str:
    kinds = ["right", "error", "silently wrong", "never"]
    lines = ["| client | met | " + " | ".join(kinds) + " |", "|---" * (len(kinds) + 2) + "|"]
    for column, client in enumerate(CLIENTS):
        counted = Counter(cells[column] for cells in rows.values())
        met = sum(counted[kind] for kind in kinds)
        lines.append(f"| {client.title} | {met} | " + " | ".join(str(counted[kind]) for kind in kinds) + " |")
    return "\n".join(lines)


def main() -> None:
    missing = sorted(
        {client.package for client in CLIENTS if find_spec(client.package.split("-")[0]) is None} - {"genai-factory"}
    )
    missing += [] if find_spec("pydantic_ai") else ["pydantic-ai-slim[openai]"]
    if missing:
        sys.exit(f"not installed: {', '.join(missing)}; pip install litellm 'pydantic-ai-slim[openai]' anthropic")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", action="store_true", help="each case, not only how many ended how")
    parser.add_argument("--only", default="", help="cases whose id holds this")
    arguments = parser.parse_args()
    logging.disable()
    chosen = [case for case in cases() if arguments.only in case.id and CLIENTS[0].meets(case)]
    rows = {
        case.id: [run(meet(client, case), virtual=True) if client.meets(case) else "" for client in CLIENTS]
        for case in chosen
    }
    if arguments.cases:
        print(table(rows))
    print(f"\n{len(rows)} cases\n\n{summary(rows)}")


if __name__ == "__main__":
    main()
