"""Parameters of people's functions: what a model reads of them, what reaches the function, and what is refused."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, NotRequired, Required, TypedDict

import pytest
from pydantic import AliasChoices, BaseModel, Field
from typing_extensions import Doc

from shared_libs.agents import ReActAgent
from shared_libs.atomic import BaseTool, MisuseError, tool
from shared_libs.atomic.llms import ScriptedLLM
from shared_libs.atomic.llms.structured import InvalidOutput, OutputSchema
from tests.support import run
from tests.unit.atomic.tools.functions import called, properties, report

if TYPE_CHECKING:
    import fractions as fr
    from collections.abc import Sequence as Several

    from nowhere import Unknown

pytestmark = pytest.mark.promise("tools-own")


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


def javadoc_style(a: int, b: int):
    """Add.

    @param a First.
    @param {int} b - Second
        one.
    @returns The sum.
    """


def markdown_style(a: int, b: int):
    """Add.

    **Params:**
    - `a` (int): First.
    - **b** - Second one.

    The sum.
    """


@pytest.mark.parametrize("function", [numpy_style, sphinx_style, google_style, javadoc_style, markdown_style])
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


class Where(BaseModel):
    city: Annotated[str, "the city's name"]


class Told(TypedDict):
    city: Annotated[str, "the city's name"]


@dataclasses.dataclass
class Kept:
    city: Annotated[str, "the city's name"]


def test_words_beside_a_type_reach_the_model_however_deep_it_stands():
    def find(
        a: Annotated[str, "the city's name"] | None,
        b: list[Annotated[str, "the city's name"]],
        c: Where,
        d: Told,
        e: Kept,
        *f: Annotated[str, "the city's name"],
    ): ...

    assert json.dumps(tool(find).spec.parameters).count("the city's name") == 6


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


class Shop:
    """What no JSON can be."""


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
