"""A tool's arguments: the schema a model sees, and the check of what it sends."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import date, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import pydantic
import pytest

from shared_libs.atomic import BaseTool, MisuseError, tool
from shared_libs.atomic.tools.arguments import Arguments, InvalidArguments
from tests.support import run


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Place(pydantic.BaseModel):
    name: str
    floor: int = 0


@dataclass
class Point:
    x: float
    y: float


def arguments(function, parameters=None):
    return Arguments.of("t", function, parameters)


def properties(function):
    return arguments(function).schema["properties"]


def refused(checked, given):
    with pytest.raises(InvalidArguments) as caught:
        checked.check(given)
    return str(caught.value)


def test_the_signature_is_the_schema():
    def search(query: str, k: int = 5, *, exact: bool = False) -> str:
        return ""

    assert arguments(search).schema == {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "query": {"type": "string"},
            "k": {"type": "integer", "default": 5},
            "exact": {"type": "boolean", "default": False},
        },
        "required": ["query"],
    }
    assert arguments(lambda: 1).schema == {"type": "object", "additionalProperties": False, "properties": {}}


def test_rich_types_are_described():
    def rich(
        a: str | None,
        b: Literal["x", "y"],
        c: Color,
        d: datetime,
        e: Annotated[int, pydantic.Field(description="How many.", ge=1)],
        f: list[Point],
        g: Place,
        h: dict[str, float],
    ) -> None: ...

    found = properties(rich)
    assert found["a"]["anyOf"] == [{"type": "string"}, {"type": "null"}]
    assert found["b"]["enum"] == ["x", "y"]
    assert found["c"] == {"$ref": "#/$defs/Color"}
    assert found["d"] == {"type": "string", "format": "date-time"}
    assert found["e"] == {"type": "integer", "minimum": 1, "description": "How many."}
    assert found["f"] == {"type": "array", "items": {"$ref": "#/$defs/Point"}}
    assert found["g"] == {"$ref": "#/$defs/Place"}
    assert found["h"] == {"type": "object", "additionalProperties": {"type": "number"}}


@pytest.mark.parametrize(
    ("annotation", "given", "expected"),
    [
        (float, 20, 20.0),
        (int, 20.0, 20),
        (int | None, 20.0, 20),
        (list[int], [1.0, 2], [1, 2]),
        (int | None, None, None),
        (bool, True, True),
        (datetime, "2013-01-01T05:00:00", datetime(2013, 1, 1, 5, 0, 0)),  # noqa: DTZ001
        (date, "2013-01-01", date(2013, 1, 1)),
        (UUID, "12345678-1234-5678-1234-567812345678", UUID(int=0x12345678123456781234567812345678)),
        (Color, "red", Color.RED),
        (Literal[1, 2], 2, 2),
        (tuple[int, str], [1, "a"], (1, "a")),
        (set[int], [1, 2], {1, 2}),
        (Place, {"name": "hall"}, Place(name="hall")),
        (Point, {"x": 1, "y": 2.5}, Point(1.0, 2.5)),
        (Any, {"a": [1, "2", None]}, {"a": [1, "2", None]}),
        (float | str, "20", "20"),
    ],
)
def test_what_is_valid_arrives_in_its_type(annotation, given, expected):
    def take(value): ...

    take.__annotations__["value"] = annotation
    got = arguments(take).check({"value": given})["value"]
    assert got == expected
    assert type(got) is type(expected)


@pytest.mark.parametrize(
    ("annotation", "given"),
    [
        (int, "20"),
        (float, "20"),
        (int, 20.5),
        (int, True),
        (float, False),
        (str, 20),
        (str, None),
        (bool, 1),
        (bool, "true"),
        (list[int], "1,2"),
        (list[int], {"0": 1}),
        (Color, "green"),
        (Literal["x"], "X"),
        (datetime, "yesterday"),
        (Place, {"name": "hall", "floor": "1"}),
        (dict[str, int], [["a", 1]]),
    ],
)
def test_what_would_have_to_be_guessed_is_refused(annotation, given):
    def take(value): ...

    take.__annotations__["value"] = annotation
    assert refused(arguments(take), {"value": given}).startswith("value")


def test_no_default_is_filled_in():
    def search(query: str, k: int = 5, place: Place = Place(name="x")): ...  # noqa: B008

    assert arguments(search).check({"query": "a"}) == {"query": "a"}
    assert arguments(search).check({"query": "a", "k": 5}) == {"query": "a", "k": 5}


def test_every_problem_is_told_at_once():
    def search(query: str, k: int = 5): ...

    told = refused(arguments(search), {"k": "many", "limit": 3})
    assert told.split("; ") == [
        "query: missing",
        "k: Input should be a valid integer, got 'many'",
        "limit: unknown argument",
        "allowed are: query, k",
    ]
    assert refused(arguments(search), ["a"]) == "expected a JSON object, got list"


@pytest.mark.parametrize(
    "name",
    ["schema", "_x", "self", "model_config", "copy", "json", "validate", "class_", "p0", "model_fields", "dict", "été"],
)
def test_a_parameter_may_have_any_name(name):
    scope = {}
    exec(f"def take({name}: int, p1: int = 0): return {name}", scope)
    checked = arguments(scope["take"])
    assert list(checked.schema["properties"]) == [name, "p1"]
    assert checked.check({name: 1, "p1": 2}) == {name: 1, "p1": 2}
    assert run(tool(scope["take"]).async_run({name: 7})).content == "7"


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (lambda *args: 1, r"\*args"),
        (lambda **options: 1, r"\*\*options"),
        (lambda *args, **options: 1, r"\*args"),
    ],
)
def test_a_parameter_no_model_can_name_is_misuse(function, why):
    with pytest.raises(MisuseError, match=why):
        arguments(function)


def test_a_type_without_a_schema_is_misuse():
    def take(stream: BaseTool): ...

    def unknown(value: Missing): ...  # noqa: F821

    with pytest.raises(MisuseError, match="no JSON Schema"):
        arguments(take)
    with pytest.raises(MisuseError, match="cannot be read"):
        arguments(unknown)


NESTED = {
    "type": "object",
    "properties": {
        "where": {"$ref": "#/$defs/place"},
        "size": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        "ratio": {"type": "number"},
        "count": {"type": "integer"},
        "many": {"type": "array", "items": {"type": "number"}},
        "box": {"type": "object", "properties": {"n": {"type": "integer"}}},
    },
    "required": ["where"],
    "$defs": {"place": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}},
}


def test_a_given_schema_is_taken_as_it_stands():
    checked = arguments(None, NESTED)
    assert checked.schema is NESTED
    given = {"where": {"name": "hall"}, "size": None, "extra": [1]}
    assert checked.check(given) == given


def test_numbers_get_the_type_a_given_schema_names():
    given = {"where": {"name": "x"}, "ratio": 20, "count": 20.0, "many": [1, 2.5], "box": {"n": 3.0}}
    got = arguments(None, NESTED).check(given)
    assert repr(got) == "{'where': {'name': 'x'}, 'ratio': 20.0, 'count': 20, 'many': [1.0, 2.5], 'box': {'n': 3}}"
    big = 2**53 + 1
    assert arguments(None, NESTED).check({"where": {"name": "x"}, "ratio": big})["ratio"] == big


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "'where' is a required property"),
        ({"where": {"name": 1}}, "where.name: 1 is not of type 'string'"),
        ({"where": {"name": "x"}, "count": "20"}, "count: '20' is not of type 'integer'"),
        ({"where": {"name": "x"}, "count": 20.5}, "count: 20.5 is not of type 'integer'"),
        ({"where": {"name": "x"}, "size": "s"}, "size: 's' is not valid under any of the given schemas"),
    ],
)
def test_a_call_that_does_not_fit_a_given_schema_is_told_where(given, told):
    assert refused(arguments(None, NESTED), given) == told


def test_a_schema_that_is_none_is_misuse():
    with pytest.raises(MisuseError, match="is not a JSON Schema"):
        arguments(None, {"type": "nothing"})


def test_a_reference_is_never_fetched_and_one_that_leads_out_is_misuse():
    with pytest.raises(MisuseError, match="leads out of the schema"):
        arguments(None, {"type": "object", "properties": {"a": {"$ref": "http://127.0.0.1:9/a.json"}}})


@pytest.mark.parametrize("schema", [{}, {"rows": {}}, {"rows": {"anyOf": [{"type": "array"}, {"type": "null"}]}}])
def test_a_tool_changes_a_copy_of_its_arguments(schema):
    given = {"rows": [1, {"a": [2]}]}
    got = arguments(None, {"type": "object", "properties": schema}).check(given)
    got["rows"][1]["a"].clear()
    got["rows"].clear()
    assert given == {"rows": [1, {"a": [2]}]}
