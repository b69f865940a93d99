"""Schemas and values of strangers: what is checked, what is told, and that the work has a bound."""

from __future__ import annotations

import gc
import json
import random
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from jsonschema.validators import Draft7Validator, Draft202012Validator

from shared_libs.atomic import MisuseError
from shared_libs.atomic.json_schema import MAX_PROBLEMS, SchemaCheck
from shared_libs.atomic.json_schema.check import FUEL
from tests.growth import assert_linear
from tests.schemas import a_schema, a_value

BLOCK_S = 0.5
"""CPU seconds no check takes; ten times what it may, for slow machines."""


def problems(schema, value):
    return SchemaCheck(schema, "x").problems(value)


def judged(check, value):
    """What is wrong with a value, and the seconds of CPU that took, without a collection of what other tests left."""
    gc.disable()
    try:
        began = time.thread_time()
        return check.problems(value), time.thread_time() - began
    finally:
        gc.enable()


@pytest.mark.promise("schema-bounded")
@pytest.mark.parametrize("part", range(10))
def test_ten_thousand_random_schemas_are_judged_as_by_jsonschema(part):
    for seed in range(part * 1_000, (part + 1) * 1_000):
        chance = random.Random(seed)
        schema = a_schema(chance)
        check = SchemaCheck(schema, "x")
        peer = (
            Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER) if seed % 5 == 0 else None
        )
        for _ in range(2):
            value = a_value(chance)
            wrong, took_s = judged(check, value)
            assert took_s < BLOCK_S, seed
            if peer is not None:
                assert (wrong == "") == peer.is_valid(value), seed


def doubling(word, levels=40):
    chain = {
        f"a{level}": {word: [{"$ref": f"#/$defs/a{level + 1}"}, {"$ref": f"#/$defs/a{level + 1}"}]}
        for level in range(levels)
    }
    return {"$defs": chain | {f"a{levels}": {"type": "string" if word == "anyOf" else "object"}}, "$ref": "#/$defs/a0"}


NESTED = {"$defs": {"n": {"properties": {"c": {"anyOf": [{"$ref": "#/$defs/n"}] * 2}}}}, "$ref": "#/$defs/n"}


def deep(levels):
    value = 1
    for _ in range(levels):
        value = {"c": value, "d": [value] if levels < 50 else 0}
    return value


# made where they are looked at: a process that has collected the tests would carry them for all others
HEAVY: dict[str, Callable[[], tuple[dict[str, Any], Any]]] = {
    **{word: partial(lambda word: (doubling(word), {}), word) for word in ("allOf", "anyOf", "oneOf")},
    "unevaluated": lambda: (doubling("anyOf") | {"unevaluatedProperties": False}, {"a": 1}),
    "itself": lambda: ({"allOf": [{"$ref": "#"}]}, {}),
    "itself-alone": lambda: ({"$ref": "#"}, {}),
    "in-a-circle": lambda: (
        {"properties": {"a": {"$ref": "#/properties/b"}, "b": {"$ref": "#/properties/a"}}},
        {"a": 1},
    ),
    "nested": lambda: (NESTED, deep(20)),
    "deep": lambda: (NESTED, deep(900)),
    "pattern": lambda: ({"pattern": "^(a+)+$"}, "a" * 5_000_000 + "!"),
    "repeated": lambda: ({"pattern": "(.{1,100}){1,5}x"}, "é" * 100_000),
    "names": lambda: ({"patternProperties": {f"a{n}": {} for n in range(1_000)}}, {f"x{n}": 1 for n in range(1_000)}),
    "unique": lambda: ({"uniqueItems": True}, [[n] if n % 2 else str(n) for n in range(100_000)]),
    "enum": lambda: ({"enum": [1]}, [[1] * 10] * 100_000),
    "items": lambda: ({"items": {"allOf": [{"type": "string"}] * 50}}, [{"a": list(range(1_000))}] * 1_000),
    "contains": lambda: ({"contains": {"const": 1}}, [0] * 100_000),
    "long-names": lambda: ({"propertyNames": {"maxLength": 1}}, {str(n): n for n in range(100_000)}),
    "additional": lambda: ({"additionalProperties": False}, {str(n) * 1_000: n for n in range(5_000)}),
    "format": lambda: ({"format": "ipv6"}, "1:" * 1_000_000),
}


@pytest.mark.promise("schema-bounded")
@pytest.mark.parametrize("name", HEAVY)
def test_no_value_keeps_a_check_at_work(name):
    schema, value = HEAVY[name]()
    check = SchemaCheck(schema, "x")
    wrong, took_s = judged(check, value)
    assert took_s < BLOCK_S
    assert len(wrong) < 20_000


@pytest.mark.promise("schema-bounded")
@pytest.mark.parametrize("pattern", [r"^(a+)+$", r"^(\w+\s?)*$", r"(x+x+)+y", r"^(a|a)*$", r"^(a|aa)+$"])
def test_a_pattern_never_backtracks(pattern):
    assert problems({"pattern": pattern}, "a" * 48 + "!") != ""
    assert_linear(lambda text: SchemaCheck({"pattern": pattern}, "x").problems(text), lambda n: "a" * n + "!")


@pytest.mark.promise("schema-bounded")
def test_building_and_checking_grow_with_their_size_alone():
    assert_linear(
        lambda schema: SchemaCheck(schema, "x"),
        lambda n: {"properties": {f"p{k}": {"type": "string"} for k in range(min(n, 4_000))}},
    )
    check = SchemaCheck({"items": {"properties": {"a": {"type": "integer"}}, "required": ["a"]}}, "x")
    assert_linear(check.problems, lambda n: [{"a": 1}] * n)


@pytest.mark.promise("schema-bounded")
def test_hundreds_of_tools_are_read_in_no_time():
    piece = {"type": "object", "properties": {c: {"type": "string"} for c in "abc"}, "required": ["a"]}
    text = json.dumps({"type": "object", "properties": {f"p{n}": piece for n in range(8)}})
    listed = [json.loads(text) for _ in range(300)]
    began = time.thread_time()
    for schema in listed:
        SchemaCheck(schema, "x")
    assert time.thread_time() - began < 0.5  # jsonschema: 1.4; it takes 0.05 here


@pytest.mark.promise("schema-bounded")
@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"properties": {f"p{n}": {"type": "string"} for n in range(60_000)}}, "too large: 1,608,906 bytes"),
        ({"properties": {f"{n}": {} for n in range(6_000)}}, "more than 5,000 schemas"),
        ({"enum": list(range(6_000))}, "more than 5,000"),
        ({"description": "x" * 300_000}, "too large"),
        (json.loads('{"properties":{"a":' * 150 + "{}" + "}}" * 150), "nested more than 100 deep"),
        ({"properties": {"x": {"$ref": "#/components/schemas/Foo"}}}, "'#/components/schemas/Foo' leads nowhere"),
        ({"properties": {"x": {"$ref": "#foo"}}}, "'#foo' leads nowhere"),
        ({"properties": {"x": {"$ref": "https://example.org/x.json"}}}, "leads out of the schema"),
        ({"properties": {"x": {"type": "nothing"}}}, "at #/properties/x/type: 'nothing' is not one of array"),
        ({"properties": []}, "#/properties"),
        ({"required": "a"}, "#/required: 'a' is not a list of names"),
        ({"items": 5}, "#/items: 5 is no schema"),
        ({"anyOf": []}, "#/anyOf"),
        ({"minLength": "a"}, "#/minLength"),
        ({"multipleOf": 0}, "#/multipleOf"),
        ({"$ref": 5}, "5 is no reference"),
        ({"x": object()}, "not JSON"),
    ],
)
def test_what_is_no_schema_is_refused_with_its_place(schema, why):
    with pytest.raises(MisuseError, match="x is ") as caught:
        SchemaCheck(schema, "x")
    assert why in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_schema_that_holds_itself_is_refused():
    schema = {}
    schema["properties"] = {"a": schema}
    with pytest.raises(MisuseError, match="holds itself"):
        SchemaCheck(schema, "x")


@pytest.mark.parametrize(
    ("schema", "fits", "not_"),
    [
        ({"pattern": "^(?<y>\\d{4})$"}, "2026", "26"),
        ({"pattern": "^\\/a\\-b$"}, "/a-b", "a"),
        ({"pattern": r"^\<\w+\>$"}, "<b>", "b"),
        ({"pattern": r"^[^[\]]+$"}, "ab", "a[b"),
        ({"pattern": r"^[[a-z]]$"}, "[]", "a"),
        ({"pattern": r"^[\]\<\>]+$"}, "]<>", "a"),
        ({"pattern": r"^[a-z&&9]$"}, "&", "8"),
        ({"pattern": r"^[\d~~x]$"}, "~", "y"),
        ({"pattern": r"^[[:alpha:]]$"}, "a", "1"),
        (
            {"pattern": "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"},
            f"{'0' * 8}{'-0000' * 3}-{'0' * 12}",
            "0",
        ),
        ({"minimum": 0, "exclusiveMinimum": True}, 1, 0),
        ({"items": [{"type": "string"}], "additionalItems": {"type": "integer"}}, ["a", 1], ["a", "b"]),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "items": [{}], "additionalItems": False}, [1], [1, 2]),
        ({"$ref": "#/a/b", "a": {"b": {"type": "null"}}}, None, 1),
        ({"$ref": "#/$defs/a~1b%20c", "$defs": {"a/b c": {"type": "null"}}}, None, 1),
        ({"$id": "http://x/a.json", "$ref": "b.json#/q", "$defs": {"b": {"$id": "b.json", "q": {"const": 1}}}}, 1, 2),
        ({"dependencies": {"a": ["b"]}}, {"a": 1, "b": 1}, {"a": 1}),
        ({"const": True}, True, 1),
        ({"enum": [1]}, 1.0, True),
        ({"type": "integer"}, 20.0, 20.5),
        ({"unevaluatedProperties": False, "allOf": [{"properties": {"a": {}}}]}, {"a": 1}, {"b": 1}),
    ],
)
def test_what_other_tools_write_is_understood(schema, fits, not_):
    assert problems(schema, fits) == ""
    assert problems(schema, not_) != ""


@pytest.mark.parametrize(
    "pattern", ["^(?=.*[a-z]).+$", r"(a)\1", "(?!x)y", "(", "[", "(.{1,900}){9}", "x" * 2_000, "/^a$/i", "^[+--/]$"]
)
def test_a_pattern_that_cannot_be_checked_in_bounds_is_not_checked(pattern):
    assert problems({"pattern": pattern}, "b") == ""
    assert problems({"patternProperties": {pattern: {}}, "additionalProperties": False}, {"b": 1}) == ""


def test_a_schema_of_schemas_is_taken():
    assert problems({"properties": {"s": {"$ref": "https://json-schema.org/draft/2020-12/schema"}}}, {"s": {}}) == ""


def test_beside_a_reference_nothing_counts_in_draft_7_and_all_does_later():
    schema = {"$ref": "#/definitions/a", "minimum": 5, "definitions": {"a": {"type": "integer"}}}
    old = schema | {"$schema": Draft7Validator.META_SCHEMA["$id"]}
    assert (problems(old, 1), problems(schema, 1)) == ("", "1 is less than the minimum of 5")


def test_problems_are_told_with_their_places_and_not_without_end():
    told = problems({"items": {"type": "string"}}, list(range(1_000)))
    assert told.startswith("0: 0 is not of type 'string'; 1: 1 is not")
    assert told.count("is not of type") == MAX_PROBLEMS
    assert told.endswith("; and more")
    long = problems({"type": "integer"}, "x" * 1_000_000)
    assert len(long) < 200
    assert "(1000000 characters)" in long


def test_an_ordinary_table_is_within_the_bounds():
    row = {"type": "object", "properties": {c: {"type": "string"} for c in "abcde"}, "required": ["a"]}
    table = [dict.fromkeys("abcde", "x") for _ in range(1_000)]
    assert problems({"properties": {"rows": {"type": "array", "items": row}}}, {"rows": table}) == ""
    assert FUEL >= 10_000
