"""Checking JSON against a schema that somebody brings: a tool's parameters, a structured output."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from shared_libs.atomic.errors import MisuseError

_FENCE = re.compile(r"```(?:json)?\s*\n(?P<body>.*?)\n?\s*```", re.DOTALL)


class SchemaCheck:
    """
    Checks values against one JSON Schema.

    Args:
        schema: the schema; a `$ref` in it is never fetched from the network.
        what: what the schema is of, for the error.

    Raises:
        MisuseError: it is no JSON Schema.

    """

    def __init__(self, schema: dict[str, Any], what: str) -> None:
        from jsonschema import SchemaError
        from jsonschema.validators import validator_for
        from referencing.jsonschema import EMPTY_REGISTRY

        kind = validator_for(schema)
        try:
            kind.check_schema(schema)
        except SchemaError as error:
            raise MisuseError(f"{what} is not a JSON Schema: {error.message}") from error
        self._validator = kind(schema, format_checker=kind.FORMAT_CHECKER, registry=EMPTY_REGISTRY)

    def problems(self, value: Any) -> str:
        """What is wrong with a value, with the place of each problem; empty where it fits."""
        found = sorted(self._validator.iter_errors(value), key=lambda problem: list(map(str, problem.absolute_path)))
        return placed((problem.absolute_path, problem.message) for problem in found)


def unfenced(text: str) -> str:
    """Take JSON out of the code fence a model may have put around it."""
    fenced = _FENCE.search(text)
    return (fenced["body"] if fenced else text).strip()


def placed(found: Iterable[tuple[Iterable[Any], str]]) -> str:
    """Join problems, each behind the path of its place."""
    places = [(".".join(map(str, path)), why) for path, why in found]
    return "; ".join(f"{at}: {why}" if at else why for at, why in places)
