"""
Checking values against one schema, within bounds.

A schema is often foreign (a tool of an MCP server) and so is every value (what a model wrote). The work of both is
bounded: a schema by its size, a check by its *fuel*, one unit for every visit of a schema, about a microsecond. A value
that would take more is an error like any other, whatever `$ref` and `anyOf` multiply.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.json_schema.plan import Plan, SchemaProblem, unspoken
from shared_libs.atomic.json_schema.values import MAX_PROBLEMS, shown
from shared_libs.atomic.json_schema.visit import Enough, TooMuchWork, Visit

MAX_BYTES = 256 * 1024
"""Bytes of the largest schema, as JSON: all of it goes to the model with every call."""

FUEL = 30_000
"""Visits of one check: a table of some thousand rows, and less than 50 ms of the event loop."""

_FENCE = re.compile(r"```(?:json)?\s*\n(?P<body>.*?)\n?\s*```", re.DOTALL)


class SchemaCheck:
    """
    Checks values against one JSON Schema, of draft 2020-12 or one before it.

    A `$ref` in it is never fetched from the network. A `pattern` that needs look-around or back references, or is very
    large, and a `format` that people read in several ways are not checked.

    Args:
        schema: the schema.
        what: what the schema is of, for the error.
        own: somebody wrote it for this: one that says nothing (bare properties, a provider's wrapper) is a mistake.

    Raises:
        MisuseError: it is no JSON Schema, a reference in it leads nowhere, or it is larger than `MAX_BYTES`,
            `plan.MAX_NODES` or `plan.MAX_DEPTH`; tells where.

    """

    def __init__(self, schema: Mapping[str, Any], what: str, *, own: bool = False) -> None:
        try:
            size = len(msgspec.json.encode(schema))
            self._root = Plan(schema if size <= MAX_BYTES else {}).root
        except RecursionError:
            raise MisuseError(f"{what} is not a JSON Schema: it is nested too deep, or holds itself") from None
        except (TypeError, ValueError, msgspec.MsgspecError) as error:
            raise MisuseError(f"{what} is not a JSON Schema: it is not JSON: {error}") from error
        except SchemaProblem as problem:
            raise MisuseError(f"{what} is not a JSON Schema: {problem}") from None
        if size > MAX_BYTES:
            raise MisuseError(f"{what} is too large: {size:,} bytes as JSON, of {MAX_BYTES:,} that are allowed")
        if own and (odd := unspoken(schema)):
            raise MisuseError(
                f"{what} is not a JSON Schema: it holds no word of one, but {shown(odd[0])}; write "
                "{type: object, properties: {…}, required: […]}"
            )

    def problems(self, value: Any) -> str:
        """What is wrong with a value, with the place of each problem; empty where it fits."""
        found = self.found(value)
        return placed(found) + ("; and more" if len(found) >= MAX_PROBLEMS else "")

    def found(self, value: Any) -> list[tuple[Sequence[Any], str]]:
        """The problems of a value, each behind its path; a last one may say that the check was given up."""
        visit = Visit(FUEL)
        given_up = self._visited(value, visit)
        found: list[tuple[Sequence[Any], str]] = sorted(visit.problems, key=lambda problem: list(map(str, problem[0])))
        return [*found, *([((), given_up)] if given_up else [])]

    def too_much(self, value: Any) -> str:
        """
        Why another checker of this schema had better not begin with a value; empty where it will come to its end.

        pydantic tries every member of a union at every level, to its end: in types that hold themselves that doubles
        with every level, also for a value that fits.
        """
        return self._visited(value, Visit(FUEL, thorough=True))

    def _visited(self, value: Any, visit: Visit) -> str:
        try:
            self._root.check(value, (), visit)
        except Enough:
            pass
        except TooMuchWork:
            return "checking it takes too much work: it is too large or too nested for its schema"
        except RecursionError:
            return "it is nested too deep to be checked"
        return ""


def unfenced(text: str) -> str:
    """Take JSON out of the code fence a model may have put around it; of several nobody knows which is meant."""
    fenced = _FENCE.findall(text)
    return (fenced[0] if len(fenced) == 1 else text).strip()


def placed(found: Iterable[tuple[Iterable[Any], str]]) -> str:
    """Join problems, each behind the path of its place."""
    places = [(".".join(map(str, path)), why) for path, why in found]
    return "; ".join(f"{at}: {why}" if at else why for at, why in places)
