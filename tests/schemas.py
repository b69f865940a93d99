"""Random schemas and values, as many as wanted, the same ones for the same seed."""

from __future__ import annotations

import random
from typing import Any

NAMES = ("a", "b", "c", "x-y", "é", "")
TYPES = ("string", "integer", "number", "boolean", "null", "array", "object")
PATTERNS = ("^a", "b$", "[0-9]+", "^(a+)+$", "x{2,3}", "^.*$")


def a_value(chance: random.Random, depth: int = 3) -> Any:
    """A JSON value."""
    kind = chance.choice(TYPES if depth else TYPES[:5])
    if kind == "array":
        return [a_value(chance, depth - 1) for _ in range(chance.randrange(4))]
    if kind == "object":
        return {name: a_value(chance, depth - 1) for name in chance.sample(NAMES, chance.randrange(4))}
    simple = {
        "string": ["", "a", "b", "aab", "xx1", "é", "2020-01-31", "a@b", "1.2.3.4"],
        "integer": [0, 1, -1, 2, 3, 12, 2**60],
        "number": [0.0, 1.0, 0.5, -2.25, 1e300],
        "boolean": [True, False],
        "null": [None],
    }
    return chance.choice(simple[kind])


def a_schema(chance: random.Random, depth: int = 3, *, root: bool = True) -> Any:
    """A JSON Schema of draft 2020-12 with local references that lead somewhere."""
    if depth <= 0:
        return chance.choice([{}, True, False, {"type": chance.choice(TYPES)}])

    def inner() -> Any:
        return a_schema(chance, depth - chance.choice([1, 1, 2]), root=False)

    def few(make: Any, least: int = 1) -> list[Any]:
        return [make() for _ in range(chance.randint(least, 3))]

    words = {
        "type": lambda: chance.choice([chance.choice(TYPES), chance.sample(TYPES, 2)]),
        "enum": lambda: few(lambda: a_value(chance, 1)),
        "const": lambda: a_value(chance, 1),
        "minimum": lambda: chance.choice([0, 1, 0.5]),
        "maximum": lambda: chance.choice([0, 2, 1.5]),
        "exclusiveMinimum": lambda: chance.choice([0, 1]),
        "multipleOf": lambda: chance.choice([1, 2, 0.25]),
        "minLength": lambda: chance.randrange(3),
        "maxLength": lambda: chance.randrange(4),
        "pattern": lambda: chance.choice(PATTERNS),
        "format": lambda: chance.choice(["date", "email", "ipv4", "unknown"]),
        "required": lambda: chance.sample(NAMES, 2),
        "minProperties": lambda: chance.randrange(2),
        "maxProperties": lambda: chance.randrange(4),
        "properties": lambda: {name: inner() for name in chance.sample(NAMES, 2)},
        "patternProperties": lambda: {chance.choice(PATTERNS): inner()},
        "additionalProperties": inner,
        "unevaluatedProperties": inner,
        "unevaluatedItems": inner,
        "propertyNames": inner,
        "dependentRequired": lambda: {chance.choice(NAMES): chance.sample(NAMES, 1)},
        "dependentSchemas": lambda: {chance.choice(NAMES): inner()},
        "items": inner,
        "prefixItems": lambda: few(inner),
        "contains": inner,
        "minItems": lambda: chance.randrange(3),
        "maxItems": lambda: chance.randrange(3),
        "uniqueItems": lambda: True,
        "allOf": lambda: few(inner),
        "anyOf": lambda: few(inner),
        "oneOf": lambda: few(inner),
        "not": inner,
        "if": inner,
        "then": inner,
        "else": inner,
        "$ref": lambda: chance.choice(["#/$defs/one", "#/$defs/two", "#two"]),
    }
    schema = {word: words[word]() for word in chance.sample(sorted(words), chance.randint(1, 4))}
    if root:
        schema["$defs"] = {
            "one": {"type": chance.choice(TYPES)},
            "two": {"$anchor": "two", "anyOf": [{"type": chance.choice(TYPES)}, {"maxLength": 2}]},
        }
    return schema
