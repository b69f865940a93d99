"""What a run gives its tools and no model: `deps`, and a parameter of type `Deps[…]`."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, Protocol

import pytest

from shared_libs.agents import ReActAgent
from shared_libs.atomic import BaseTool, Deps, MisuseError, current_scope, tool
from shared_libs.atomic.llms import ScriptedLLM, Turn
from shared_libs.atomic.scope import Scope, use_scope
from shared_libs.tools.agent import AgentTool
from tests.support import run, run_virtual
from tests.unit.agents.cast import NO_RETRY, agent, call


@dataclass
class Shop:
    user: str
    seen: list


class HasUser(Protocol):
    user: str


@tool
async def stock(item: str, shop: Deps[Shop]) -> str:
    """Say what is in stock."""
    shop.seen.append((shop.user, item))
    return f"{item} for {shop.user}"


@tool
def in_a_thread(item: str, *, deps: Deps[Shop]) -> str:
    """Say where it runs."""
    deps.seen.append(threading.current_thread() is threading.main_thread())
    return deps.user


@tool
async def perhaps(deps: Deps[Shop] | None = None, *, default: Deps[Shop] = None) -> str:
    """Say whether it has any."""
    return f"{deps and deps.user} {default and default.user}"


@tool
async def either(deps: Deps[Shop | str | None]) -> str:
    """Say which it is."""
    return type(deps).__name__


class Own(BaseTool):
    name = "own"
    description = "A tool with a schema of its own."
    parameters = {"type": "object", "additionalProperties": True}  # noqa: RUF012

    async def execute(self, shop: Deps[Shop], **arguments: Any) -> str:
        return f"{shop.user} {sorted(arguments)}"


def observed(calls, *tools, deps=None, **settings):
    llm = ScriptedLLM([Turn(calls=calls), "done"], resilience=NO_RETRY)
    result = run_virtual(ReActAgent(llm, tools, **settings).async_run("?", **({} if deps is None else {"deps": deps})))
    assert result.status == "answered", result
    return [seen.content for seen in result.steps[0].observations]


@pytest.mark.promise("deps")
def test_a_tool_gets_what_the_run_was_given():
    shop = Shop("ann", [])
    assert observed([("stock", {"item": "tea"})], stock, deps=shop) == ["tea for ann"]
    assert shop.seen == [("ann", "tea")]
    assert observed([("stock", {"item": "tea"})], stock, deps=Shop("bob", shop.seen)) == ["tea for bob"]
    assert observed([("own", {"x": 1})], Own(), deps=shop) == ["ann ['x']"]


@pytest.mark.promise("deps")
@pytest.mark.parametrize(
    ("deps", "said"), [(Shop("ann", []), "Shop"), ("ann", "str"), (None, "NoneType"), (5, "is a int")]
)
def test_what_a_tool_takes_may_be_one_of_several_types(deps, said):
    """A union was fitted by nothing, and None of one was not given."""
    try:
        told = observed([("either", {})], either, deps=deps)[0]
    except MisuseError as error:
        told = str(error)
    assert told.endswith(said)


@pytest.mark.promise("deps")
def test_a_tool_in_a_thread_gets_the_very_object():
    shop = Shop("ann", [])

    async def main():
        with use_scope(Scope(deps=shop)):
            return await in_a_thread.async_run({"item": "tea"})

    assert run(main()).content == "ann"
    assert shop.seen == [False]


@pytest.mark.promise("deps")
def test_the_agent_s_own_hold_where_the_run_gives_none():
    mine, other = Shop("ann", []), Shop("bob", [])
    llm = ScriptedLLM([call("stock", item="tea"), "done"] * 2, resilience=NO_RETRY)
    built = ReActAgent(llm, [stock], deps=mine)
    run_virtual(built.async_run("?"))
    run_virtual(built.async_run("?", deps=other))
    assert (len(mine.seen), len(other.seen)) == (1, 1)


@pytest.mark.promise("deps")
@pytest.mark.parametrize("shown", [stock, in_a_thread, perhaps, Own()])
def test_no_model_is_told_of_it_and_none_can_give_it(shown):
    told = str(shown.spec.parameters)
    assert "shop" not in told
    assert "deps" not in told
    assert "Shop" not in told


@pytest.mark.promise("deps")
def test_what_a_model_gives_in_its_place_is_no_argument():
    shop = Shop("ann", [])
    [said] = observed([("stock", {"item": "tea", "shop": {"user": "root"}})], stock, deps=shop)
    assert "unknown argument" in said
    assert observed([("own", {"shop": {"user": "root"}})], Own(), deps=shop) == ["ann []"]

    @tool
    async def open_ended(deps: Deps[Shop], **rest: str) -> str:
        """Take anything."""
        return f"{deps.user} {rest}"

    [said] = observed([("open_ended", {"deps": "root"})], open_ended, deps=shop)
    assert "unknown argument" in said


@pytest.mark.promise("deps")
@pytest.mark.parametrize(
    ("deps", "why"),
    [(None, r"stock takes shop: Deps\[Shop\] from the run; pass deps=Shop"), ({"user": "ann"}, "deps is a dict")],
)
def test_a_run_that_lacks_it_is_refused_before_it_begins(deps, why):
    built = agent([], stock)
    with pytest.raises(MisuseError, match=why):
        run_virtual(built.async_run("?", deps=deps))
    with pytest.raises(MisuseError, match="stock takes shop"):
        run_virtual(stock.async_run({"item": "tea"}))


@pytest.mark.promise("deps")
def test_what_has_a_default_may_be_missing():
    assert observed([("perhaps", {})], perhaps) == ["None None"]
    assert observed([("perhaps", {})], perhaps, deps=Shop("ann", [])) == ["ann ann"]


def test_a_protocol_is_a_type_of_it_too():
    @tool
    async def who(deps: Deps[HasUser]) -> str:
        """Say who asks."""
        return deps.user

    assert observed([("who", {})], who, deps=Shop("ann", [])) == ["ann"]


@pytest.mark.promise("deps")
def test_a_sub_agent_hands_it_on():
    inner = agent([call("stock", item="tea"), "inner done"], stock, name="inner")
    shop = Shop("ann", [])
    observed([("inner", {"question": "?"})], AgentTool(inner, description="asks"), deps=shop)
    assert shop.seen == [("ann", "tea")]


@pytest.mark.promise("deps")
def test_a_tool_in_a_process_cannot_have_it():
    with pytest.raises(MisuseError, match="shop is the run's own object, which cannot be taken to another"):
        agent([], tool(stock.function, isolation="process"))


def test_outside_a_run_the_function_is_called_with_it():
    shop = Shop("ann", [])
    assert run_virtual(stock("tea", shop)) == "tea for ann"
    assert current_scope().deps is None
