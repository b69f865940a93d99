"""The types that people write: what a model is told of them, what reaches the function, and which are refused."""

from __future__ import annotations

import dataclasses
import decimal
import enum
import typing
from collections.abc import Callable, Collection, Container, Iterable, Reversible
from typing import Annotated, Any, AnyStr, ClassVar, Literal, NoReturn, Self, TypedDict, Unpack

import attrs
import msgspec
import pytest
from pydantic import BaseModel, ConfigDict, Field, model_validator
from typing_extensions import TypeAliasType

from shared_libs.agents import ReActAgent
from shared_libs.atomic import BaseTool, MisuseError, tool
from shared_libs.atomic.llms import ScriptedLLM
from shared_libs.atomic.tools.dependencies import Deps
from tests.support import run
from tests.unit.atomic.tools.functions import called, properties

pytestmark = pytest.mark.promise("tools-own")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Size(enum.Enum):
    SMALL = (1, 2)
    LARGE = decimal.Decimal("1.5")


class Doing(enum.Enum):
    LENGTH = staticmethod(len)
    NOTHING = object()


class Level(enum.IntEnum):
    LOW = enum.auto()
    HIGH = enum.auto()


class Right(enum.Flag):
    READ = 1
    WRITE = 2


class Nothing(enum.Enum):
    pass


@attrs.define
class Point:
    x: int = attrs.field(validator=attrs.validators.gt(0))
    _y: int = 5
    inner: Point | None = None


@attrs.define
class Kept:
    x: int = attrs.field(validator=attrs.validators.instance_of(bool))


class Order(msgspec.Struct, rename="camel"):
    item_name: str
    amount: Annotated[int, msgspec.Meta(gt=0)] = 1
    note: str | msgspec.UnsetType = msgspec.UNSET


class Paid(msgspec.Struct, tag="paid"):
    by: str


class Open(msgspec.Struct, tag="open"):
    days: int


Corner = typing.NewType("Corner", Point)
Reds = TypeAliasType("Reds", list[Literal[Colour.RED]])
Nested = TypeAliasType("Nested", "int | list[Nested]")


class Tree(TypedDict):
    value: int
    children: list[Tree]


@dataclasses.dataclass
class Sum:
    a: int
    total: int = dataclasses.field(init=False, default=0)


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")
    a: int
    children: list[Strict] = []


class Fussy(BaseModel):
    a: int

    @model_validator(mode="before")
    @classmethod
    def look(cls, given):
        return {"a": given["nowhere"]}


def made_of(annotation, *default):
    def it(x):
        return f"{type(x).__name__} {x!r}"

    it.__annotations__, it.__defaults__ = {"x": annotation}, default
    return tool(it)


@pytest.mark.parametrize(
    ("annotation", "value", "got"),
    [
        (Literal[Colour.RED], "red", "Colour <Colour.RED: 'red'>"),
        (Literal[Colour.RED, "auto"], "auto", "str 'auto'"),
        (Literal[b"x"], "x", "bytes b'x'"),
        (list[Literal[Colour.RED]] | None, ["red"], "list [<Colour.RED: 'red'>]"),
        (Size, [1, 2], "Size <Size.SMALL: (1, 2)>"),
        (Size, "1.5", "Size <Size.LARGE: Decimal('1.5')>"),
        (Level, 2, "Level <Level.HIGH: 2>"),
        (Right, 3, "Right <Right.READ|WRITE: 3>"),
        (AnyStr, "x", "str 'x'"),
        (bytes | str, "x", "str 'x'"),
        (bytes, "x", "bytes b'x'"),
        (Iterable, [1], "list [1]"),
        (typing.Iterable, [1], "list [1]"),
        (Collection[str], ["a"], "list ['a']"),
        (Container[int], [1], "list [1]"),
        (Reversible[int], [1], "list [1]"),
        (Point, {"x": 1}, "Point Point(x=1, _y=5, inner=None)"),
        (
            Point,
            {"x": 1, "y": 2, "inner": {"x": 3}},
            "Point Point(x=1, _y=2, inner=Point(x=3, _y=5, inner=None))",
        ),
        (Order, {"itemName": "a"}, "Order Order(item_name='a', amount=1, note=UNSET)"),
        (list[Order], [{"itemName": "a", "amount": 2}], "list [Order(item_name='a', amount=2, note=UNSET)]"),
        (Paid | Open, {"type": "open", "days": 2}, "Open Open(days=2)"),
        (Corner, {"x": 1}, "Point Point(x=1, _y=5, inner=None)"),
        (Reds, ["red"], "list [<Colour.RED: 'red'>]"),
        (Nested, [1, [2]], "list [1, [2]]"),
        (Tree, {"value": 1, "children": [{"value": 2, "children": []}]}, None),
        (Sum, {"a": 1}, "Sum Sum(a=1, total=0)"),
    ],
)
def test_what_json_says_otherwise_than_python_reaches_the_function_as_its_type_says(annotation, value, got):
    made = made_of(annotation)
    assert called(made, x=value) == (f"dict {value!r}" if got is None else got)


@pytest.mark.parametrize(
    ("annotation", "told"),
    [
        (Literal[Colour.RED, Colour.BLUE], {"type": "string", "enum": ["red", "blue"]}),
        (Size, {"enum": [[1, 2], "1.5"]}),
        (Doing, {"type": "string", "enum": ["NOTHING"]}),
        (bytes | str, {"type": "string"}),
        (Collection[str], {"type": "array", "items": {"type": "string"}}),
    ],
)
def test_a_model_is_told_what_is_taken(annotation, told):
    assert properties(made_of(annotation)) == {"x": told}


def test_numbers_that_stand_for_something_are_told_with_what_they_stand_for():
    def described(kind):
        (found,) = made_of(kind).spec.parameters["$defs"].values()
        return found

    assert described(Level)["description"] == "(1 = LOW, 2 = HIGH)"
    flags = described(Right)
    assert (flags["minimum"], flags["maximum"], "enum" in flags) == (0, 3, False)
    assert flags["description"] == "(the sum of those that hold: 1 = READ, 2 = WRITE)"


@pytest.mark.parametrize(
    ("annotation", "value", "why"),
    [
        (Literal[Colour.RED], "blue", 'should be one of "red"'),
        (Point, {"x": 0}, "must be > 0"),
        (Kept, {"x": 1}, "must be <class 'bool'>"),
        (Order, {"itemName": "a", "amount": 0}, "greater than 0"),
        (Order, {"item_name": "a"}, "itemName: missing"),
        (Paid | Open, {"type": "paid", "days": 2}, "by: missing"),
        (Strict, {"a": 1, "b": 2}, "x.b: unknown field; allowed are: a, children"),
        (list[Strict], [{"a": 1, "children": [{"c": 1, "a": 1}]}], "x.0.children.0.c: unknown field; allowed are: a, "),
        (list[int] | Strict, {"a": 1, "b": 2}, "x.Strict.b: unknown field; allowed are: a, children"),
        (Sum, {"a": 1, "total": 2}, "x.total: unknown field; allowed are: a"),
        (Tree, {"value": 1, "children": [], "y": 1}, "x.y: unknown field; allowed are: value, children"),
        (Fussy, {}, "KeyError: 'nowhere'"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_would(annotation, value, why):
    made = made_of(annotation)
    assert why in called(made, x=value)
    assert made.accepts({"x": value}) is False


@pytest.mark.parametrize(
    ("annotation", "why"),
    [
        (type[int], "no JSON says one"),
        (type, "no JSON says one"),
        (Self, "outside its class"),
        (list[Self], "outside its class"),
        (ClassVar[int], "belongs to a class"),
        (NoReturn, "is no value"),
        (Nothing, "has no members"),
        (Callable[[], int], r"CallableSchema Take what JSON has, .* or have the run give it: Deps\["),
        (MisuseError, r"MisuseError'>\. Take what JSON has"),
        (Literal[Doing.NOTHING, ...], "is no JSON"),
    ],
)
def test_a_type_that_no_json_can_be_is_refused_when_the_agent_is_built(annotation, why):
    with pytest.raises(MisuseError, match=why):
        ReActAgent(llm=ScriptedLLM([]), tools=[made_of(annotation)])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("default", [float("inf"), float("nan"), "\ud800", object(), b"\xff", Point(1)])
def test_a_default_that_is_no_json_is_not_told_and_holds(default):
    made = made_of(Any, default)
    assert properties(made) == {"x": {}}
    assert called(made) == f"{type(default).__name__} {default!r}".replace("\ud800", "?")


def test_none_is_taken_where_it_is_the_default():
    def it(x: int = None, y: Annotated[str, Field(description="words", max_length=2)] = None):  # noqa: RUF013
        return f"{x} {y}"

    made = tool(it)
    assert properties(made)["y"]["description"] == "words"
    assert called(made, x=None, y=None) == "None None"
    assert "at most 2" in called(made, y="abc")


def test_a_decorator_that_hides_what_it_wraps_is_named_as_that():
    given = typing.ParamSpec("given")

    def around(function: Callable[given, str]):
        def inner(*args: given.args, **kwargs: given.kwargs):
            return function(*args, **kwargs)

        return inner

    @around
    def hidden(x: int):
        return str(x)

    with pytest.raises(MisuseError, match="cannot be described to a model; use named, typed parameters"):
        _ = tool(hidden).spec


class Options(TypedDict, total=False):
    units: str


def test_what_may_be_left_out_has_no_default_that_nobody_wrote():
    def it(*pair: *tuple[int, str], **options: Unpack[Options]):
        return f"{pair} {options}"

    made = tool(it)
    assert properties(made)["units"] == {"type": "string"}
    assert called(made, pair=[1, "a"]) == "(1, 'a') {}"
    assert "units" in called(made, pair=[1, "a"], units=None)


def test_what_the_run_gives_may_be_of_any_type():
    def it(x: int, point: Deps[Point], kind: Deps[type[int]]):
        return f"{x} {point}"

    assert list(properties(tool(it))) == ["x"]


class Shop:
    currency = "EUR"

    @tool
    @classmethod
    def undocumented(cls, item: str):
        return f"{item} {cls.currency}"

    @classmethod
    @tool
    def outside_in(cls, item: str):
        return f"{item} {cls.currency}"

    @tool
    def this_way(this, item: str):  # noqa: N805
        return f"{item} {this.currency}"

    @tool
    @staticmethod
    def alone(item: str):
        return item

    def plain(this, item: str):  # noqa: N805
        return item


def test_a_method_is_bound_to_its_object_however_that_is_called():
    made = [one if isinstance(one, BaseTool) else tool(one) for one in (Shop.undocumented, Shop.outside_in)]
    made += [Shop().this_way, Shop().undocumented]
    assert [list(properties(one)) for one in made] == [["item"]] * 4
    assert [called(one, item="x") for one in made] == ["x EUR"] * 4
    assert called(Shop().alone, item="x") == "x"
    with pytest.raises(MisuseError, match="method without its object; give the one of an object of Shop"):
        _ = tool(Shop.plain).spec
    assert run(tool(Shop().plain).async_run({"item": "y"})).content == "y"
