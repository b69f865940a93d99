"""Tools from the code people have: what becomes a tool, what it declares, and what is refused."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable
from typing import ClassVar, LiteralString, NotRequired, Required, TypedDict, Unpack

import pytest

from shared_libs.agents import ReActAgent
from shared_libs.atomic import BaseTool, MisuseError, tool
from shared_libs.atomic.llms import ScriptedLLM
from shared_libs.atomic.llms.scripted_llm import Turn
from shared_libs.atomic.tools.function_tool import Declarations
from tests.support import run
from tests.unit.atomic.tools.functions import called, properties, report

pytestmark = pytest.mark.promise("tools-own")


def test_a_plain_function_is_a_tool_of_an_agent():
    def search(query: str) -> str:
        """Search."""
        return f"found {query}"

    llm = ScriptedLLM([Turn(calls=[("search", {"query": "x"})]), "done"])
    result = run(ReActAgent(llm=llm, tools=[search]).async_run("q"))
    assert [spec.name for spec in llm.tools[0]] == ["search"]
    assert result.steps[0].observations[0].content == "found x"


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (5, "not of a int"),
        ("search", "not of a str"),
        (dict, "not of the class dict"),
        (lambda q: q, "name=…"),
        (functools.partial(lambda q: q, 1), "name=…"),
        (BaseTool, "write BaseTool"),
        (max, "cannot be read"),
    ],
)
def test_what_cannot_be_a_tool_is_refused_when_the_agent_is_built(given, why):
    with pytest.raises(MisuseError, match=why):
        ReActAgent(llm=ScriptedLLM([]), tools=[given])


class Shop:
    currency = "EUR"

    def price(self, item: str) -> str:
        """Tell a price."""
        return f"{item} {self.currency}"

    @classmethod
    def named(cls, item: str) -> str:
        """Tell a name."""
        return f"{item} {cls.currency}"

    @staticmethod
    def plain(item: str) -> str:
        """Tell it."""
        return item

    @tool(timeout_s=3)
    async def stock(self, item: str) -> str:
        """Tell the stock."""
        return f"{item} {self.currency}"

    @tool
    @classmethod
    def kinds(cls, item: str) -> str:
        """Tell the kinds."""
        return f"{item} {cls.currency}"

    def __call__(self, item: str) -> str:
        """Buy."""
        return f"bought {item}"


def test_methods_and_callable_objects_are_tools():
    shop = Shop()
    made = [tool(given) for given in (shop.price, Shop.named, shop.named, shop.plain, shop)] + [shop.stock, shop.kinds]
    assert [one.name for one in made] == ["price", "named", "named", "plain", "Shop", "stock", "kinds"]
    assert all(list(properties(one)) == ["item"] for one in made)
    assert [called(one, item="x") for one in made] == ["x EUR", "x EUR", "x EUR", "x", "bought x", "x EUR", "x EUR"]
    assert (made[4].description, made[5].timeout_s) == ("Buy.", 3)
    for unbound in (Shop.price, vars(Shop)["named"]):
        with pytest.raises(MisuseError, match=r"method without its object; give the one of an object of .*Shop"):
            _ = tool(unbound).spec


def test_a_decorator_over_a_partial_is_told_in_the_words_of_its_function():
    partial = functools.partial(report, units="K")
    assert tool(functools.wraps(partial)(lambda city: city), name="r").description == tool(report).description


def test_what_a_partial_has_bound_is_neither_offered_nor_shown_nor_taken():
    for bound in (
        functools.partial(report, units="K"),
        functools.partial(functools.partial(report, units="K"), days=2),
    ):
        made = tool(bound)
        assert made.name == "report"
        assert made.description == "Tell the weather.\n\nReturns:\n    The weather."
        assert "units" not in properties(made)
        assert called(made, city="Rome").startswith("Rome K")
        assert "units: unknown argument" in called(made, city="Rome", units=5)
    assert "city" not in properties(tool(functools.partial(report, "Rome")))


class Named(TypedDict, total=False):
    city: Required[str]
    days: NotRequired[int]


def unpacked(**given: Unpack[Named]):
    """Read given."""
    return given


def said(words: LiteralString, cities: Iterable[str] = ()):
    """Read twice."""
    return [words, [*cities], [*cities]]


@functools.singledispatch
def by_kind(value: int):
    """Dispatch."""
    return value


def of_its_own():
    made = functools.partial(said, cities=["a"])
    functools.update_wrapper(made, unpacked, assigned=("__name__", "__doc__"), updated=())
    del made.__wrapped__
    return made


@pytest.mark.parametrize(
    ("function", "name", "arguments", "result"),
    [
        (unpacked, "unpacked", {"city": "Rome"}, '{"city":"Rome"}'),
        (said, "said", {"words": "x", "cities": ["a"]}, '["x",["a"],["a"]]'),
        (by_kind, "by_kind", {"value": 1}, "1"),
        (of_its_own(), "unpacked", {"words": "x"}, '["x",["a"],["a"]]'),
        (functools.partial(tool(said), words="y"), "said", {}, '["y",[],[]]'),
    ],
)
def test_what_people_make_of_functions_is_a_tool(function, name, arguments, result):
    made = tool(function)
    assert made.name == name
    assert run(made.async_run(arguments)).content == result
    assert unpacked is not function or made.spec.parameters["required"] == ["city"]


@pytest.mark.parametrize(
    ("declared", "why"),
    [
        ({"name": "a.b"}, r"'a\.b'; it has to be 1 to 64 letters"),
        ({"name": "x" * 65}, "64 letters"),
        ({"name": ""}, "has no name"),
        ({"timeout_s": "5"}, "timeout_s of tool report is '5'; it has to be a positive number"),
        ({"timeout_s": 0}, "positive number"),
        ({"timeout_s": 10**400}, "positive number"),
        ({"needs_approval": "yes"}, "True or False"),
        ({"parameters": {"type": "object", "properties": {1: {}}}}, "under their names"),
        ({"idempotent": "yes"}, "True, False, or None"),
        ({"max_observation_chars": 0.5}, "whole number"),
        ({"description": None}, "a text"),
        ({"parameters": {"type": "string"}}, "type object"),
        ({"parameters": {"properties": {"x": {"$ref": "#/components/schemas/Foo"}}}}, "leads nowhere"),
        ({"timeout": 5}, "does not know 'timeout'"),
    ],
)
def test_a_wrong_declaration_shows_when_the_agent_is_built(declared, why):
    with pytest.raises(MisuseError, match=why):
        ReActAgent(llm=ScriptedLLM([]), tools=[tool(report, **declared)])


def test_a_tool_that_asks_for_approval_never_raises_in_a_run():
    class Pay(BaseTool):
        name, needs_approval = "pay", True
        parameters: ClassVar = {"type": "object", "allOf": [{"$ref": "#"}]}

        def execute(self, **arguments):
            return "paid"

    llm = ScriptedLLM([Turn(calls=[("pay", {"x": 1})]), "done"])
    result = run(ReActAgent(llm=llm, tools=[Pay()]).async_run("q"))
    assert result.status == "answered"
    assert "nested too deep" in result.steps[0].observations[0].content


def test_what_a_tool_does_to_its_arguments_the_history_does_not_see():
    class Change(BaseTool):
        name = "change"
        parameters: ClassVar = {"type": "object", "properties": {"rows": {}, "opts": {"anyOf": [{}]}}}

        def execute(self, **arguments):
            arguments["rows"].clear()
            arguments["opts"]["connection"] = object()
            return "ok"

    given = {"rows": [1, 2], "opts": {"a": [1]}}
    llm = ScriptedLLM([Turn(calls=[("change", given)]), "done"])
    result = run(ReActAgent(llm=llm, tools=[Change()]).async_run("q"))
    assert result.status == "answered"
    assert result.steps[0].actions[0].input == {"rows": [1, 2], "opts": {"a": [1]}}
    assert [message.tool_calls[0].arguments for message in llm.requests[1] if message.tool_calls] == [given]


def test_the_declarations_of_functions_are_those_of_tools():
    of_tools = {name for name in BaseTool.__annotations__ if not name.startswith("_")}
    assert set(Declarations.__annotations__) == of_tools - {"elsewhere"}  # a function is here


def passed_on(function):
    @functools.wraps(function)
    def call(*args):
        return function(*args)

    return call


def with_five(function):
    @functools.wraps(function)
    def call(x):
        return function(x, 5)

    return call


def as_city(function):
    @functools.wraps(function)
    def call(city: str, again: int = 1):
        return function(city) * again

    return call


def plus(x: int, y: int = 2) -> int:
    """Add."""
    return x + y


class Kinds:
    @functools.singledispatchmethod
    def told(self, x: int) -> str:
        """Say what it is."""
        return f"a number, {x}"

    @told.register
    def _(self, x: str) -> str:
        return f"a text, {x}"

    @functools.singledispatchmethod
    @classmethod
    def of_class(cls, x: int) -> str:
        """Say what it is."""
        return f"{cls.__name__} {x}"


@pytest.mark.parametrize(
    ("function", "offered", "given", "said"),
    [
        (passed_on(plus), ["x", "y"], {"x": 1, "y": 3}, "4"),
        (with_five(plus), ["x"], {"x": 1}, "6"),
        (functools.partial(passed_on(with_five(plus))), ["x"], {"x": 1}, "6"),
        (as_city(str), ["city", "again"], {"city": "Rome", "again": 2}, "RomeRome"),
        (Kinds().told, ["x"], {"x": 1}, "a number, 1"),
        (Kinds().of_class, ["x"], {"x": 1}, "Kinds 1"),
    ],
)
def test_what_is_offered_is_what_the_outermost_decorator_takes(function, offered, given, said):
    made = tool(function, name="made")
    assert list(made.spec.parameters["properties"]) == offered
    assert run(made.async_run(given)).content == said


@pytest.mark.parametrize("manager", [contextlib.contextmanager, contextlib.asynccontextmanager])
def test_what_gives_a_context_manager_is_refused(manager):
    @manager
    def opened():
        yield 1

    with pytest.raises(MisuseError, match="context manager, which nobody enters"):
        tool(opened)


def test_decorators_in_a_circle_are_passed_over():
    def circle(x: int) -> int:
        return x

    circle.__wrapped__ = circle
    assert list(tool(circle).spec.parameters["properties"]) == ["x"]
