"""What the pages speak of without showing it: names a reader has in his own program, and what a model would say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from shared_libs.agents import ReActAgent
from shared_libs.atomic import tool
from shared_libs.atomic.llms import OpenAILLM
from shared_libs.atomic.types import ToolCall
from shared_libs.testing import Healthy
from shared_libs.testing.faults.server import SeenRequest

CALLS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "Write to Ann and Bob.": [("write_to", {"name": "Ann"}), ("write_to", {"name": "Bob"})],
    "Do we have": [("stock", {"item": "apple"})],
    "How many apples": [("on_the_shelf", {"item": "apple"})],
    "Where is order 7?": [("state_of_order", {"number": 7})],
}
"""Parts of questions that a model with tools answers with calls."""

ANSWERS = {
    "Judge only what": '{"reason": "It does.", "mark": 5}',
    "<answer>": '{"reason": "It does.", "mark": 5}',
    "What is 17 * 23?": "391",
}
"""Parts of what is asked, and the answer; what is in no table is answered with itself."""

OUTPUTS: list[Callable[[str], dict[str, Any]]] = [
    lambda seen: {"item": "apple", "count": int(seen or 3)},
    lambda seen: {"number": 7, "state": seen},
    lambda _: {"carrier": "F9", "delay_min": 20.2},
]
"""Answers that have a schema, which is known by its keys; they are made of what was seen last."""


def said(request: SeenRequest) -> Healthy:
    """Answer as a model would."""
    messages = request.body.get("messages") or request.body.get("input") or []
    last = messages[-1] if isinstance(messages, list) and messages else {"content": messages}
    text, tools = _text(last), [_name(tool) for tool in request.body.get("tools") or ()]
    seen = text if last.get("role") == "tool" else ""
    calls = next((calls for part, calls in CALLS.items() if tools and part in text), None)
    if calls and not seen:
        return Healthy("", tuple(ToolCall(f"call_{n}", name, given) for n, (name, given) in enumerate(calls)))
    wanted = json.dumps(request.body).replace("\\", "")
    output = next((make(seen) for make in OUTPUTS if all(f'"{key}"' in wanted for key in make("0"))), None)
    if output and "final_result" in tools:  # how pydantic-ai asks for it
        return Healthy("", (ToolCall("call_last", "final_result", output),))
    if output:
        return Healthy(json.dumps(output))
    if seen:
        return Healthy(f"We have {seen} apples." if seen.isdigit() else "Done.")
    return Healthy(next((answer for part, answer in ANSWERS.items() if part in text), None))


def _text(message: dict[str, Any]) -> str:
    content = message.get("content")
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content or ())


def _name(tool: dict[str, Any]) -> str:
    name: str = tool.get("function", tool).get("name", "")
    return name


GIVEN: dict[str, Callable[[Path], dict[str, Any]]] = {}
"""A page, and what makes the names that it takes for granted, in the folder its blocks run in."""


def given(page: str) -> Callable[[Callable[[Path], dict[str, Any]]], Callable[[Path], dict[str, Any]]]:
    """Register what a page takes for granted."""

    def register(make: Callable[[Path], dict[str, Any]]) -> Callable[[Path], dict[str, Any]]:
        GIVEN[page] = make
        return make

    return register


@tool
async def look_up(q: str, limit: int = 10) -> str:
    """Look something up."""
    return "12"


def an_agent() -> ReActAgent:
    """Return an agent as a reader has one."""
    return ReActAgent(OpenAILLM("gpt-5.4-mini"), [look_up])


@given("docs/agents.md")
def _(folder: Path) -> dict[str, Any]:
    (folder / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return {}


@given("docs/cassettes.md")
def _(_: Path) -> dict[str, Any]:
    return {"look_up": look_up}


@given("docs/definitions.md")
def _(_: Path) -> dict[str, Any]:
    return {"my_tool": look_up}


@given("docs/evaluation.md")
def _(_: Path) -> dict[str, Any]:
    return {"agent": an_agent()}


@given("docs/evaluators.md")
def _(_: Path) -> dict[str, Any]:
    return {"agent": an_agent(), "judge": OpenAILLM("gpt-5.4")}


@given("docs/journal.md")
def _(_: Path) -> dict[str, Any]:
    return {"agent": an_agent(), "journal": None, "question": "How many?"}


@given("docs/retrieval.md")
def _(folder: Path) -> dict[str, Any]:
    (folder / "handbook").mkdir()
    (folder / "handbook" / "leave.md").write_text("# Leave\n\nEverybody has 30 days of leave.\n")
    return {}


@given("docs/tools.md")
def _(folder: Path) -> dict[str, Any]:
    (folder / "billing.yaml").write_text("name: billing\nllm: {provider: openai, model: m}\n")

    class Shop:
        def __init__(self, database: Any, user: str) -> None:
            self.database, self.user = database, user

    async def fetch(city: str) -> dict[str, Any]:
        return {"city": city}

    return {"Shop": Shop, "fetch": fetch, "database": SimpleNamespace(), "user": "Ann"}
