"""OpenAI's strict subset: what qualifies, what is closed, and what is left alone."""

from __future__ import annotations

import enum
from typing import Literal

import pydantic
import pytest

from shared_libs.atomic.llms.strict_schema import strict_schema


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Place(pydantic.BaseModel):
    city: str = pydantic.Field(min_length=1, pattern="^[A-Z]")
    kind: Literal["town", "village"]


class Node(pydantic.BaseModel):
    name: str
    children: list[Node]


class Report(pydantic.BaseModel):
    place: Place = pydantic.Field(description="Where it is.")
    colours: list[Colour]
    score: float | None = pydantic.Field(ge=0)
    tree: Node


class Tree(pydantic.BaseModel):
    inner: Tree | None = pydantic.Field(description="Smaller.")


def objects(node):
    if isinstance(node, dict):
        if node.get("type") == "object":
            yield node
        for inner in node.values():
            yield from objects(inner)
    if isinstance(node, list):
        for inner in node:
            yield from objects(inner)


def test_a_model_that_qualifies_is_closed_and_otherwise_left_as_it_is():
    before = Report.model_json_schema()
    strict = strict_schema(before)
    assert before == Report.model_json_schema()
    assert [found["additionalProperties"] for found in objects(strict)] == [False] * 4
    # the words beside a reference stand, what it points to is written out
    assert strict["properties"]["place"]["description"] == "Where it is."
    assert strict["properties"]["place"]["properties"]["city"]["pattern"] == "^[A-Z]"
    assert strict["$defs"]["Node"]["properties"]["children"]["items"] == {"$ref": "#/$defs/Node"}
    assert strict["required"] == before["required"]


def test_a_reference_at_the_root_is_written_out():
    strict = strict_schema(Node.model_json_schema())
    assert (strict["type"], strict["additionalProperties"]) == ("object", False)
    assert strict["$defs"]["Node"]["additionalProperties"] is False
    assert strict_schema(Tree.model_json_schema())["properties"]["inner"]["anyOf"][0] == {"$ref": "#/$defs/Tree"}


ANYTHING = True


def with_property(schema):
    return {"type": "object", "properties": {"x": schema}, "required": ["x"]}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"x": {"type": "string"}}},
        {"type": "object", "properties": {"x": {"type": "string"}}, "required": ["x"], "additionalProperties": True},
        {"type": "object"},
        {"type": "array", "items": {"type": "string"}},
        {"anyOf": [with_property({"type": "string"})]},
        with_property({"type": "object", "additionalProperties": {"type": "integer"}}),
        with_property({"type": ["object", "null"]}),
        with_property({}),
        with_property(ANYTHING),
        with_property({"type": "array", "items": {}}),
        with_property({"oneOf": [{"type": "string"}]}),
        with_property({"type": "string", "default": "a"}),
        with_property({"type": "string", "format": "uri"}),
        with_property({"$ref": "https://example.com/schema"}),
        with_property({"$ref": "#/$defs/Missing"}),
        with_property({"$ref": "#/properties/x", "description": "Itself."}),
        {**with_property({"$ref": "#/$defs/A", "description": "All."}), "$defs": {"A": True}},
        with_property({"$ref": "#/$defs/A", "maxLength": 3}) | {"$defs": {"A": {"type": "string"}}},
    ],
    ids=str,
)
def test_what_would_change_its_meaning_has_no_strict_form(schema):
    assert strict_schema(schema) is None
