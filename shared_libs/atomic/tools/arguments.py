"""
A tool's arguments: one JSON Schema, from the signature or given, and the check of a call against it.

Coercion is lossless only (20 becomes 20.0 where a float is due); no default is filled in, nothing is dropped.
pydantic is loaded when the first tool that needs it is described.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Protocol

from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.json_schema import SchemaCheck, shown


class InvalidArguments(Exception):
    """A call does not fit the schema; the text tells the model what was wrong and what is valid."""


class _Check(Protocol):
    def __call__(self, arguments: dict[str, Any], /) -> dict[str, Any]: ...


class Arguments:
    """The schema of a tool's arguments, and the check."""

    __slots__ = ("_check", "schema")

    def __init__(self, schema: dict[str, Any], check: _Check) -> None:
        self.schema = schema
        self._check = check

    @classmethod
    def of(cls, name: str, execute: Callable[..., Any], parameters: dict[str, Any] | None) -> Arguments:
        """Take the schema as given, or derive it from the signature of `execute`."""
        if parameters is not None:
            return cls(parameters, _by_schema(name, parameters))
        model = _model_of(name, execute)
        return cls(_schema_of(model), _by_model(model))

    def check(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """
        Return the arguments to call with.

        Raises:
            InvalidArguments: they do not fit; the text names each problem.

        """
        if not isinstance(arguments, Mapping):
            raise InvalidArguments(f"expected a JSON object, got {type(arguments).__name__}")
        return self._check(dict(arguments))


def _model_of(name: str, execute: Callable[..., Any]) -> Any:
    from pydantic import ConfigDict, Field, PydanticSchemaGenerationError, PydanticUserError, create_model

    try:
        signature = inspect.signature(execute, eval_str=True)
    except (NameError, TypeError) as error:
        raise MisuseError(f"the signature of tool {name} cannot be read: {error}") from error
    fields: dict[str, Any] = {}
    for index, parameter in enumerate(signature.parameters.values()):
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise MisuseError(
                f"tool {name}: parameter {parameter} cannot be described to a model; use named, typed parameters, "
                "or give `parameters` as a JSON Schema"
            )
        annotation = Any if parameter.annotation is parameter.empty else parameter.annotation
        default = ... if parameter.default is parameter.empty else parameter.default
        # a parameter may be called `schema` or `_x`, which a model's field may not
        fields[f"p{index}"] = (Annotated[annotation, Field(alias=parameter.name)], default)
    try:
        return create_model(name, __config__=ConfigDict(extra="forbid"), **fields)
    except (PydanticSchemaGenerationError, PydanticUserError) as error:
        raise MisuseError(f"tool {name}: its signature has no JSON Schema: {str(error).splitlines()[0]}") from error


def _schema_of(model: Any) -> dict[str, Any]:
    schema: dict[str, Any] = model.model_json_schema()
    schema.pop("title", None)
    for key, value in schema.get("properties", {}).items():
        if value.get("title") == key.replace("_", " ").title():
            del value["title"]
    return schema


def _by_model(model: Any) -> _Check:
    from pydantic import ValidationError
    from pydantic_core import to_json

    names = {field: info.alias for field, info in model.model_fields.items()}

    def validated(arguments: dict[str, Any]) -> Any:
        # as JSON, where strict still reads a date from its text and a tuple from an array
        return model.model_validate_json(to_json(arguments), strict=True)

    def check(arguments: dict[str, Any]) -> dict[str, Any]:
        try:
            valid = validated(arguments)
        except ValidationError as error:
            try:
                valid = validated(_whole(arguments))
            except ValidationError:
                raise InvalidArguments(_problems(error, model)) from None
        except ValueError as error:
            raise InvalidArguments(str(error)) from None
        return {names[field]: getattr(valid, field) for field in valid.model_fields_set}

    return check


def _whole(value: Any) -> Any:
    """Write 20.0 as 20: to JSON Schema it is an integer."""
    if isinstance(value, float) and value.is_integer() and abs(value) <= 2**53:
        return int(value)
    if isinstance(value, list):
        return [_whole(item) for item in value]
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    return value


def _problems(error: Any, model: Any) -> str:
    allowed = ", ".join(info.alias for info in model.model_fields.values()) or "none"
    lines = []
    found = error.errors(include_url=False, include_context=False)
    for problem in sorted(
        found, key=lambda problem: problem["type"] == "extra_forbidden"
    ):  # versions differ in the order
        place = ".".join(str(part) for part in problem["loc"]) or "arguments"
        if problem["type"] == "extra_forbidden":
            lines.append(f"{place}: unknown argument; allowed are: {allowed}")
        elif problem["type"] == "missing":
            lines.append(f"{place}: missing")
        else:
            lines.append(f"{place}: {problem['msg']}, got {shown(problem['input'])}")
    return "; ".join(lines)


def _by_schema(name: str, schema: dict[str, Any]) -> _Check:
    schema_check = SchemaCheck(schema, f"tool {name}: `parameters`")

    def check(arguments: dict[str, Any]) -> dict[str, Any]:
        if wrong := schema_check.problems(arguments):
            raise InvalidArguments(wrong)
        properties = schema.get("properties", {})
        return {key: _lossless(value, properties.get(key)) for key, value in arguments.items()}

    return check


def _lossless(value: Any, schema: Any) -> Any:
    """
    Copy a value, each number in the Python type its schema names; JSON itself does not tell 20 from 20.0.

    A copy: a tool may change its arguments, and what the model said stays as it was.
    """
    given = schema if isinstance(schema, Mapping) else {}
    if isinstance(value, list):
        items = given.get("items")
        return [_lossless(item, items) for item in value]
    if isinstance(value, dict):
        inner = given.get("properties") or {}
        return {key: _lossless(item, inner.get(key)) for key, item in value.items()}
    kind = given.get("type")
    if kind == "number" and isinstance(value, int) and not isinstance(value, bool):
        return float(value) if abs(value) <= 2**53 else value
    if kind == "integer" and isinstance(value, float):
        return int(value)
    return value
