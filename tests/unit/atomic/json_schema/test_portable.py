"""What a model is told of a schema: what every provider takes, and the same where it is that already."""

from __future__ import annotations

import json
import random
import re
from typing import ClassVar

import pytest
from jsonschema import Draft202012Validator

from shared_libs.atomic import BaseTool
from shared_libs.atomic.json_schema import portable, portable_names
from tests.growth import assert_linear
from tests.schemas import a_schema
from tests.support import run

pytestmark = pytest.mark.promise("tools-taken")

A = {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]}


def complaints(schema, place=""):
    """What OpenAI, Anthropic and Gemini say of a tool's schema, besides that it has to be one of draft 2020-12."""
    if not isinstance(schema, dict):
        return
    if not place:
        yield from (f"top: {word}" for word in ("anyOf", "oneOf", "allOf", "not", "enum", "const") if word in schema)
        if schema.get("type") != "object" or not isinstance(schema.get("properties"), dict):
            yield "object schema missing properties"
        if not all(re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", name) for name in schema.get("properties", {})):
            yield "property keys should match pattern"
    if "array" in (schema.get("type") or ()) and "items" not in schema:
        yield f"{place}: array schema missing items"
    if "properties" in schema and not set(schema.get("required", ())) <= schema["properties"].keys():
        yield f"{place}: required: property is not defined"
    for word, given in schema.items():
        if word in ("properties", "patternProperties", "$defs", "definitions"):
            for name, inner in given.items():
                yield from complaints(inner, f"{place}/{word}/{name}")
        elif word in ("anyOf", "allOf", "oneOf", "prefixItems"):
            for number, inner in enumerate(given):
                yield from complaints(inner, f"{place}/{word}/{number}")
        elif word in ("items", "additionalProperties", "not", "contains", "if", "then", "else"):
            yield from complaints(given, f"{place}/{word}")


CASES = [
    ({"type": "object"}, {"type": "object", "properties": {}}),
    (
        {"properties": {"x": {"type": "array", "items": False}, "y": False}},
        {
            "type": "object",
            "properties": {"x": {"type": "array", "items": {}, "maxItems": 0}, "y": {"not": {}}},
        },
    ),
    (
        {"type": "object", "properties": {"x": {"type": "array"}, "y": {"type": ["array", "null"]}}},
        {
            "type": "object",
            "properties": {"x": {"type": "array", "items": {}}, "y": {"type": ["array", "null"], "items": {}}},
        },
    ),
    (
        {"properties": {"x": {"type": "number", "minimum": 0, "exclusiveMinimum": True, "required": True}}},
        {"type": "object", "properties": {"x": {"type": "number", "exclusiveMinimum": 0}}, "required": ["x"]},
    ),
    (
        {"properties": {"x": {"type": "array", "items": [{}, {"type": "array"}], "additionalItems": False}}},
        {
            "type": "object",
            "properties": {
                "x": {
                    "type": "array",
                    "prefixItems": [{}, {"type": "array", "items": {}}],
                    "items": {},
                    "maxItems": 2,
                }
            },
        },
    ),
    (
        {"properties": {"x": True, "y": {"enum": []}, "z": {"enum": [1, True, 1]}}, "required": ["x", "x", "q", 3]},
        {
            "type": "object",
            "properties": {"x": {}, "y": {}, "z": {"enum": [1, True]}, "q": {}},
            "required": ["x", "q"],
        },
    ),
    (
        {"title": 5, "properties": {"x": {"description": ["a"], "examples": "a", "deprecated": "yes"}}},
        {"type": "object", "properties": {"x": {}}},
    ),
    ({"$ref": "#/$defs/A", "$defs": {"A": A}}, {**A, "$defs": {"A": A}}),
    (
        {"type": "object", "properties": {"a": {}, "b": {}}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
        {
            "type": "object",
            "properties": {"a": {}, "b": {}},
            "description": 'The arguments also have to fit {"anyOf": [{"required": ["a"]}, {"required": ["b"]}]}',
        },
    ),
]


@pytest.mark.parametrize(("given", "told"), CASES)
def test_what_a_provider_would_refuse_is_told_otherwise(given, told):
    before = json.dumps(given)
    assert json.loads(json.dumps(portable(given))) == told
    assert json.dumps(given) == before
    assert portable(told) is told


def test_the_properties_of_what_is_combined_at_the_top_are_told():
    told = portable({"$defs": {"A": A}, "description": "Ask.", "oneOf": [{"$ref": "#/$defs/A"}, {**A, "title": "B"}]})
    assert told["properties"] == A["properties"]
    assert told["required"] == ["q"]
    assert told["description"].startswith("Ask.\nThe arguments also have to fit")
    told = portable({"allOf": [A, {"properties": {"n": {"type": "integer"}}}]})
    assert ([*told["properties"]], told["required"]) == (["q", "n"], ["q"])
    assert len(portable({"not": {"enum": ["x" * 9000]}})["description"]) < 1100


@pytest.mark.parametrize("part", range(2))
def test_no_random_schema_is_refused_or_raises(part):
    chance = random.Random(part)
    for _ in range(150):
        schema = {"type": "object", "properties": {"a": a_schema(chance, root=False)}, **a_schema(chance)}
        told, _ = portable_names(portable(schema))
        Draft202012Validator.check_schema(told)
        assert [*complaints(told)] == []
        assert portable(told) is told


@pytest.mark.parametrize(
    "junk",
    [
        {"properties": []},
        {"properties": {"x": 7, "y": [], "z": None}},
        {"$ref": "#/a/b"},
        {"$ref": "#"},
        {"anyOf": {"a": 1}},
        {"anyOf": [{"$ref": "#/$defs/x"}, 3]},
        {"required": {"a": 1}},
        {"items": 4, "type": []},
        {"enum": [{1, 2}]},
    ],
)
def test_what_nobody_has_checked_does_not_raise(junk):
    assert portable(junk)["type"] == "object"


def test_names_that_no_provider_takes_are_told_otherwise_and_taken_under_both():
    class Search(BaseTool):
        name = "search"
        description = "d"
        parameters: ClassVar = {
            "type": "object",
            "properties": {"$filter": {"type": "string"}, "_filter": {}, "ids[]": {"type": "array"}, "é" * 70: {}},
            "required": ["$filter"],
        }

        def execute(self, **arguments):
            return sorted(arguments)

    tool = Search()
    told = tool.spec.parameters
    assert [*complaints(told)] == []
    assert [*told["properties"]][:3] == ["_filter_2", "_filter", "ids__"]
    assert told["required"] == ["_filter_2"]
    assert run(tool.async_run({"_filter_2": "x", "ids__": [1]})).content == '["$filter","ids[]"]'
    assert run(tool.async_run({"$filter": "x"})).content == '["$filter"]'
    assert run(tool.async_run({"_filter_2": 5})).is_error


def test_the_work_grows_with_the_schema():
    assert_linear(portable, lambda n: {"properties": {f"p{k}": {"type": "array"} for k in range(n)}})
    assert_linear(portable_names, lambda n: {"properties": {f"p[{k}]": {} for k in range(n)}})
    assert_linear(portable_names, lambda n: {"properties": {chr(k + 256): {} for k in range(n)}}, start=128)
    assert_linear(portable, lambda n: {"anyOf": [{"properties": {f"p{k}": {}}, "required": ["x"]} for k in range(n)]})
