"""Tools from the code people have: what becomes a tool, what a model reads of it, and what is refused."""

from __future__ import annotations

import functools
import json
import math
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated, ClassVar, LiteralString, NotRequired, Required, TypedDict, Unpack

import pytest
from pydantic import AliasChoices, BaseModel, Field
from typing_extensions import Doc

from shared_libs.agents import ReActAgent
from shared_libs.atomic import BaseTool, MisuseError, tool
from shared_libs.atomic.llms import ScriptedLLM
from shared_libs.atomic.llms.scripted_llm import Turn
from shared_libs.atomic.llms.structured import InvalidOutput, OutputSchema
from shared_libs.atomic.tools.function_tool import Declarations
from tests.support import run

if TYPE_CHECKING:
    import fractions as fr
    from collections.abc import Sequence as Several

    from nowhere import Unknown

pytestmark = pytest.mark.promise("tools-own")


def properties(made):
    return made.spec.parameters["properties"]


def called(made, **arguments):
    _ = made.spec
    return run(made.async_run(arguments)).content


def report(city: str, units: str = "C", *, days: int = 1, **more: int) -> str:
    """Tell the weather.

    Args:
        city: The city, with
            its country.
        units (str, optional): C or F.
        days: How many.

    Returns:
        The weather.
    """
    return f"{city} {units} {days} {more}"


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
    with pytest.raises(MisuseError, match=r"method without its object; give the one of an object of .*Shop"):
        _ = tool(Shop.price).spec


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


def numpy_style(a: int, b: int):
    """Add.

    Parameters
    ----------
    a : int
        First.
    b : int, optional
        Second
        one.

    Returns
    -------
    int
        The sum.
    """


def sphinx_style(a: int, b: int):
    """Add.

    :param a: First.
    :type a: int
    :param int b: Second
        one.
    :returns: The sum.
    """


def google_style(a: int, b: int):
    """Add.

    Args:
      a (dict[str, tuple(int)]): First.
      b: Second
        one.

    Returns:
      The sum.
    """


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


@pytest.mark.parametrize("function", [numpy_style, sphinx_style, google_style])
def test_a_docstring_describes_the_parameters_in_any_style(function):
    made = tool(function)
    assert {name: about["description"] for name, about in properties(made).items()} == {
        "a": "First.",
        "b": "Second one.",
    }
    assert made.description.startswith("Add.")
    assert "The sum." in made.description
    assert "First" not in made.description


def test_words_stand_where_people_write_them_and_the_nearest_wins():
    def find(
        a: Annotated[str, "the city's name"],
        b: Annotated[int, Doc("how many")] = 1,
        c: Annotated[str, Field(description="own"), "not this"] = "x",
        d: str = Field(default="y", description="of the default"),
        e: int = 2,
    ):
        """Find.

        Args:
            a: not this
            d: nor this
            e: of the docstring
        """

    told = [about["description"] for about in properties(tool(find)).values()]
    assert told == ["the city's name", "how many", "own", "of the default", "of the docstring"]


def test_defaults_and_aliases_of_fields_reach_the_function():
    def weather(
        city: str = Field(default="Berlin"),
        tags: list[str] = Field(default_factory=lambda: ["a"]),  # noqa: B008 - as people write it
        inner: Annotated[int, Field(default=7)] = Field(ge=1, default=3),
        named: str = Field(default="n", alias="theName"),
        other: int = Field(default=1, validation_alias=AliasChoices("one", "two")),
    ):
        return [city, tags, inner, named, other]

    made = tool(weather)
    assert list(properties(made)) == ["city", "tags", "inner", "theName", "one"]
    assert called(made) == '["Berlin",["a"],3,"n",1]'
    assert called(made, city="Rome", theName="m", two=2) == '["Rome",["a"],3,"m",2]'
    assert "inner: Input should be greater than or equal to 1" in called(made, inner=0)
    assert "allowed are: city, tags, inner, theName, one" in called(made, named="m")


def test_a_default_in_annotated_alone_reaches_the_function():
    def weather(city: Annotated[str, Field(default="Berlin")]):
        return city

    assert called(tool(weather)) == "Berlin"


def test_types_are_found_where_the_function_was_written():
    class Local(BaseModel):
        a: int

    def around(x: Local, y: Several[int] = (), z: fr.Fraction | None = None) -> Unknown:
        return [x.a, list(y), z is None]

    class Inner(BaseTool):
        name = "inner"

        def execute(self, x: Local) -> Unknown:
            return x.a

    assert called(tool(around), x={"a": 1}, y=[2]) == "[1,[2],true]"
    assert called(Inner(), x={"a": 1}) == "1"


class Place(TypedDict):
    name: str
    floor: NotRequired[int]


class Trip(TypedDict, total=False):
    to: Required[Place]
    via: list[Place]


def test_typed_dicts_are_parameters_on_every_python():
    def go(trip: Trip, more: list[Trip] | None = None):
        return trip

    made = tool(go)
    assert called(made, trip={"to": {"name": "x"}}) == '{"to":{"name":"x"}}'
    assert "trip.to: missing" in called(made, trip={})
    assert "trip.to.name: missing" in called(made, trip={"to": {}})


def test_every_kind_of_parameter_can_be_given_by_its_name():
    def all_kinds(a: int, b: int = 2, /, c: int = 3, *rest: int, d: int = 4, **more: str):
        return [a, b, c, rest, d, more]

    async def waits(a: int, /, *words: str):
        return [a, words]

    made = tool(all_kinds)
    assert called(made, a=1) == "[1,2,3,[],4,{}]"
    assert called(made, a=1, c=5) == "[1,2,5,[],4,{}]"
    assert called(made, a=1, rest=[7, 8], d=9, x="y") == '[1,2,3,[7,8],9,{"x":"y"}]'
    assert "x: Input should be a valid string" in called(made, a=1, x=5)
    assert called(tool(waits), a=1, words=["b"]) == '[1,["b"]]'
    assert called(tool(math.sqrt), x=4) == "2.0"


def test_stars_without_a_type_are_left_out_and_wrappers_are_seen_through():
    def loose(a: int, *args, **kwargs):
        return [a, args, kwargs]

    @functools.wraps(report)
    def wrapper(*args, **kwargs):
        return report(*args, **kwargs)

    assert list(properties(tool(loose))) == ["a"]
    assert list(properties(tool(wrapper))) == ["city", "units", "days"]


@pytest.mark.parametrize(
    ("annotation", "why"),
    [
        ("how many", "the type of value"),
        ("Missing", "name 'Missing' is not defined"),
        ("Unknown", "name 'Unknown' is not defined"),
        (5, "5 of value is no type"),
        (Callable[[int], int], "parameter value has no JSON Schema: Cannot generate"),
        (Shop, "parameter value has no JSON Schema"),
        (Annotated[str, Field(pattern="(?=a)")], "parameter value has no JSON Schema: .*look-around"),
    ],
)
def test_a_type_no_model_can_fill_is_refused_with_its_parameter(annotation, why):
    def take(first: int, value): ...

    take.__annotations__["value"] = annotation
    with pytest.raises(MisuseError, match=why):
        ReActAgent(llm=ScriptedLLM([]), tools=[take])


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


class Left(BaseModel):
    c: Left | Right | int


class Right(BaseModel):
    c: Right | Left | int


@pytest.mark.promise("schema-bounded")
@pytest.mark.parametrize("depth", [3, 8, 12, 16, 25, 200])
def test_types_that_hold_themselves_are_checked_in_bounds(depth):
    def take(x: Left | Right):
        return "ok"

    value, good = "bad", 1
    for _ in range(depth):
        value, good = {"c": value}, {"c": good}
    made = tool(take)
    _ = made.spec
    output = OutputSchema(Left)
    began = time.thread_time()
    told = run(made.async_run({"x": value})).content
    with pytest.raises(InvalidOutput) as caught:
        output.parse(json.dumps(value))
    assert time.thread_time() - began < 2.0
    assert told.startswith("Invalid arguments for take")
    assert max(len(told), len(str(caught.value))) < 20_000
    assert called(made, x=good) == "ok" or (depth > 8 and "Invalid arguments" in called(made, x=good))


def test_the_declarations_of_functions_are_those_of_tools():
    assert set(Declarations.__annotations__) == {name for name in BaseTool.__annotations__ if not name.startswith("_")}
