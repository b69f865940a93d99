"""What model servers put on the wire, read by our adapters: the cases of tests/wire_cases."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from shared_libs.agents import ReActAgent
from shared_libs.atomic import Resilience, tool
from shared_libs.atomic.errors import LLMError
from shared_libs.atomic.events import StreamRestarted
from shared_libs.atomic.llms.anthropic_llm import AnthropicLLM
from shared_libs.atomic.llms.dialect import forget
from shared_libs.atomic.llms.ollama_llm import OllamaLLM
from shared_libs.atomic.llms.openai_llm import OpenAILLM
from shared_libs.atomic.types import ToolSpec
from tests.support import run_virtual
from tests.wire_case import Case, Heard, cases, judged

KEY = "sk-test-0123456789"
PROVIDERS = {
    "chat": OpenAILLM,
    "responses": lambda *args, **options: OpenAILLM(*args, api="responses", **options),
    "anthropic": AnthropicLLM,
    "ollama": OllamaLLM,
}


@tool
async def get_weather(city: str) -> str:
    """Tells the weather of a city."""
    return f"weather of {city}"


@tool
async def get_time(tz: str) -> str:
    """Tells the time of a zone."""
    return f"time of {tz}"


@tool
async def weather_here(city: str = "home") -> str:
    """Tells the weather here, or in a city."""
    return f"weather of {city}"


@tool
async def no_arguments() -> str:
    """Tells the weather here."""
    return "fine"


ODATA = ToolSpec("odata", "Asks.", {"type": "object", "properties": {"$filter": {"type": "string"}}})
TOOLS = {made.name: made for made in (get_weather, get_time, weather_here, no_arguments, ODATA)}


def wrapper(case: Case, base_url: str, second: str | None):
    fallbacks = []
    if second is not None:
        api = case.fallback if isinstance(case.fallback, str) else case.api
        options = {"thinking": {"type": "enabled", "budget_tokens": 1024}} if api == "anthropic" else {}
        fallbacks = [PROVIDERS[api]("second", api_key=KEY, base_url=second, options=options)]
    arguments = {"api_key": KEY, "options": case.options, "resilience": Resilience(**case.resilience)} | case.arguments
    return PROVIDERS[case.api]("m", base_url=base_url, fallbacks=fallbacks, **arguments)


async def ours(case: Case, base_url: str, second: str | None) -> Heard:
    """What our adapters, and an agent of them, make of a case."""
    began = asyncio.get_running_loop().time()
    heard = Heard(error="")
    try:
        async with wrapper(case, base_url, second) as llm:
            if case.ask == "agent":
                await by_agent(case, llm, heard)
            elif case.ask == "embed":
                heard.vectors = (await llm.async_embed(case.texts, timeout=case.timeout)).tolist()
            else:
                await by_model(case, llm, heard)
    except LLMError as error:
        heard.error, heard.words = type(error).__name__, str(error)
        heard.error = type(error.causes[-1]).__name__ if error.causes and heard.error == "LLMError" else heard.error
    except Exception as error:
        heard.error, heard.words = type(error).__name__, str(error)
    heard.took_s = asyncio.get_running_loop().time() - began
    return heard


async def by_model(case: Case, llm, heard: Heard) -> None:
    chunks = []
    response = await llm.async_chat(
        case.messages,
        [TOOLS[name] for name in case.tools],
        timeout=case.timeout,
        on_chunk=chunks.append if case.ask == "stream" else None,
        output_schema=case.output_schema,
    )
    heard.text, heard.finish, heard.model = response.text, response.finish_reason, response.model
    heard.thinking = "".join(block.text for block in response.thinking)
    heard.calls = [[call.name, call.input] for call in response.tool_calls]
    usage = response.usage
    heard.usage = {
        "input": usage.input_tokens,
        "output": usage.output_tokens,
        "cached": usage.cached_input_tokens,
        "total": usage.total_tokens,
        "written": usage.cache_creation_input_tokens,
    }
    heard.parsed = response.parsed
    if case.ask == "stream":
        heard.deltas = {
            kind: "".join(chunk.text for chunk in chunks if chunk.kind == kind) for kind in ("text", "thinking")
        }


async def by_agent(case: Case, llm, heard: Heard) -> None:
    agent = ReActAgent(llm=llm, tools=[TOOLS[name] for name in case.tools], limits=case.limits, protocol=case.protocol)
    deltas, restarts = {"text": "", "thinking": ""}, 0
    kinds = {"TextDelta": "text", "ThinkingDelta": "thinking"}
    question = case.messages if isinstance(case.messages, str) else case.messages[-1]["content"]
    async for event in agent.async_stream(question, timeout=case.timeout, stream=case.streams):
        if (kind := kinds.get(type(event).__name__)) is not None:
            deltas[kind] += event.text
        if isinstance(event, StreamRestarted):
            restarts, deltas["text"] = restarts + 1, ""
        last = event
    result = last.result
    # "": there is none, which is judged; None is what a client cannot tell
    heard.answer, heard.status, heard.deltas, heard.restarts = result.answer or "", result.status, deltas, restarts
    heard.actions = [[action.tool, action.input] for step in result.steps for action in step.actions]
    heard.words = result.error or ""


@pytest.mark.promise("wire-read")
@pytest.mark.parametrize("api", PROVIDERS)
def test_every_case_is_heard_as_it_says(api):
    wrong = {}
    for case in cases():
        if case.api == api:
            forget()
            if found := run_virtual(judged(case, ours)):
                wrong[case.id] = found
    assert wrong == {}


def test_ids_are_unique():
    ids = [case.id for case in cases()]
    assert len(ids) == len(set(ids))


def test_cases_that_the_page_names_are_there():
    known = {case.id for case in cases()} | {case.id.partition("[")[0] for case in cases()}
    page = Path("docs/servers.md").read_text("utf-8")
    families = page.partition("\n## Families")[2].partition("\n## Other clients")[0]
    first = page.partition("\n## The cases that this began with")[2].partition("\nJudged otherwise")[0]
    last_cells = " ".join(line.rstrip("| ").rpartition("|")[2] for line in first.splitlines() if line.startswith("| `"))
    named = {name for text in (families, last_cells) for name in re.findall(r"`([^` ]+)`", text)}
    assert len(named) > 140
    assert {name for name in named if not name.startswith("test_")} <= known
