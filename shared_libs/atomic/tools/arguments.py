"""
A tool's arguments: one JSON Schema, from the signature or given, and the check of a call against it.

Coercion is lossless only (20 becomes 20.0 where a float is due); no default is filled in, nothing is dropped.
pydantic is loaded when the first tool that needs it is described.
"""

from __future__ import annotations

import inspect
import itertools
import math
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, NamedTuple, Protocol

from shared_libs.atomic.errors import DeadlineExceeded, MisuseError
from shared_libs.atomic.json_schema import MAX_PROBLEMS, SchemaCheck, portable, portable_names, shown
from shared_libs.atomic.rescue import call_here
from shared_libs.atomic.supervise import said_by
from shared_libs.atomic.tools.annotations import called
from shared_libs.atomic.tools.dependencies import Dependency, dependencies_in
from shared_libs.atomic.tools.signature import UNKNOWN, bound_by, parameters_of, typed_where_read, words_of

MAX_VALUES = 100_000
"""Values in the arguments of a call whose schema says nothing of them: about 40 ms to copy."""

WHAT_ELSE = "Take what JSON has, bind it with functools.partial, or have the run give it: Deps[...]"
"""What may be done about a parameter that no JSON can be."""

_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
"""What pydantic says of a field that is none: of a model, and of a dataclass."""

_ADVICE = re.compile(r"Set `arbitrary_types_allowed|For further information")
_NOTHING = object()
_VALUES = (int, float, bytes, list, dict, set, tuple)
"""Whose instances are no types; from 3.13 on typing lets them pass."""


class InvalidArguments(Exception):
    """A call does not fit the schema; the text tells the model what was wrong and what is valid."""


class _Check(Protocol):
    def __call__(self, arguments: dict[str, Any], /) -> dict[str, Any]: ...


class Arguments:
    """
    The schema of a tool's arguments, and the check; `dependencies` are those the run gives, and no model.

    `told` is the schema as every provider takes it; a name that is told otherwise is taken under both.
    """

    __slots__ = ("_check", "_names", "dependencies", "schema", "told")

    def __init__(self, schema: dict[str, Any], check: _Check, dependencies: tuple[Dependency, ...] = ()) -> None:
        self.schema = schema
        self.told, self._names = portable_names(portable(schema))
        self.dependencies = dependencies
        self._check = check

    @classmethod
    def of(cls, name: str, execute: Callable[..., Any], parameters: dict[str, Any] | None) -> Arguments:
        """Take the schema as given, or derive it from the signature of `execute`."""
        if parameters is not None:
            given = dependencies_in(typed_where_read(name, execute))
            return cls(parameters, _by_schema(name, parameters), given)
        typed = parameters_of(name, execute)
        given = dependencies_in(typed)
        ours = {dependency.parameter for dependency in given}
        taken = _model_of(name, execute, [parameter for parameter in typed if parameter.name not in ours], ours)
        schema = _schema_of(taken.model)
        return cls(schema, _by_model(taken, schema), given)

    def check(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """
        Return the arguments to call with.

        Raises:
            InvalidArguments: they do not fit; the text names each problem.

        """
        if type(arguments) is not dict and not isinstance(arguments, Mapping):
            raise InvalidArguments(f"expected a JSON object, got {type(arguments).__name__}")
        if self._names:
            arguments = {self._names.get(name, name): value for name, value in arguments.items()}
        return self._check(dict(arguments))


class _Model(NamedTuple):
    """A signature as a pydantic model, and how its fields lead to the function's parameters."""

    model: Any
    names: dict[str, str]
    """The parameter of every field."""
    filled: frozenset[str]
    """Fields whose default the function itself does not have."""
    bound: frozenset[str]
    """What a partial has bound or the run gives, which `**kwargs` would let through."""


def _model_of(
    name: str, execute: Callable[..., Any], parameters: Sequence[inspect.Parameter], ours: set[str]
) -> _Model:
    told = words_of(execute).parameters
    fields: dict[str, Any] = {}
    names: dict[str, str] = {}
    filled: set[str] = set()
    extra = None
    for index, parameter in enumerate(parameters):
        if parameter.kind is parameter.VAR_KEYWORD:
            extra = parameter.annotation
            continue
        # a parameter may be called `schema` or `_x`, which a model's field may not
        field = f"p{index}"
        try:
            fields[field], own_default = _field(parameter, told.get(parameter.name))
        except (TypeError, AttributeError) as error:  # typing takes nearly anything for a type, but not all
            raise MisuseError(f"tool {name}: {shown(parameter.annotation)} of {parameter.name} is no type") from error
        names[field] = parameter.name
        if own_default:
            filled.add(field)
    model = _made(name, fields, extra, parameters)
    return _Model(model, names, frozenset(filled), bound_by(execute) | ours)


def _field(parameter: inspect.Parameter, told: str | None) -> tuple[tuple[Any, Any], bool]:
    """The field of one parameter, and whether pydantic alone knows its default."""
    from pydantic import Field
    from pydantic.fields import FieldInfo

    annotation: Any = parameter.annotation
    if isinstance(annotation, _VALUES):
        raise TypeError(annotation)
    default = parameter.default
    if parameter.kind is parameter.VAR_POSITIONAL:
        annotation, default = _of_the_rest(annotation), ()
    if default is None:  # it is what the function takes for "nothing", whether its type says so or not
        annotation = _or_none(annotation)
    metadata = getattr(annotation, "__metadata__", ())
    infos = [part for part in (*metadata, default) if isinstance(part, FieldInfo)]
    options: dict[str, Any] = {} if any(info.description for info in infos) or not told else {"description": told}
    if not any(info.alias or info.validation_alias for info in infos):
        options["alias"] = parameter.name
    if default is parameter.empty:
        default = ...
    own_default = isinstance(default, FieldInfo) or (default is ... and any(not info.is_required() for info in infos))
    if default is UNKNOWN:
        return (Annotated[annotation, Field(default_factory=object, **options)], _NOTHING), False
    if default is ... and own_default:
        return (Annotated[annotation, Field(**options)], _NOTHING), True
    return (Annotated[annotation, Field(**options)], default), own_default


def _of_the_rest(annotation: Any) -> Any:
    """What `*args` are together: a list of what each is, or the tuple that is unpacked there."""
    if getattr(annotation, "__unpacked__", False):
        return types.GenericAlias(tuple, typing.get_args(annotation))
    if called(typing.get_origin(annotation)) == "Unpack":
        return typing.get_args(annotation)[0]
    return types.GenericAlias(list, (annotation,))


def _or_none(annotation: Any) -> Any:
    if annotation in (Any, object, None):
        return annotation
    if typing.get_origin(annotation) is Annotated:
        inner, *beside = typing.get_args(annotation)
        return Annotated[(_or_none(inner), *beside)]
    return typing.Union[annotation, None]  # noqa: UP007 - it may be a name or a special form


def _made(name: str, fields: dict[str, Any], extra: Any, parameters: Sequence[inspect.Parameter]) -> Any:
    from pydantic import ConfigDict, create_model

    from shared_libs.atomic.tools.model_schema import ModelSchema

    def make(some: dict[str, Any]) -> Any:
        given: dict[str, Any] = {
            field: kind if default is _NOTHING else (kind, default) for field, (kind, default) in some.items()
        }
        config = ConfigDict(extra="forbid" if extra is None else "allow", arbitrary_types_allowed=False)
        if extra is not None:
            given["__pydantic_extra__"] = dict[str, extra]
        model = create_model(name, __config__=config, **given)
        model.model_json_schema(schema_generator=ModelSchema)
        return model

    try:
        return make(fields)
    except Exception as error:  # the types are foreign, and what pydantic raises for them is of many kinds
        for field, parameter in zip(fields, parameters, strict=False):
            try:
                make({field: fields[field]})
            except Exception as own:  # noqa: BLE001 - as above
                where, why = f"its parameter {parameter.name}", own
                break
        else:
            where, why = "its signature", error
        raise MisuseError(f"tool {name}: {where} has no JSON Schema: {_reason(why):.300}") from error


def _reason(error: Exception) -> str:
    """Why there is no schema; what pydantic advises then is done in classes of one's own."""
    told = _ADVICE.split(" ".join(str(error).split()), maxsplit=1)
    return told[0] if len(told) == 1 else f"{told[0].strip()} {WHAT_ELSE}"


def _schema_of(model: Any) -> dict[str, Any]:
    from shared_libs.atomic.tools.model_schema import ModelSchema

    schema: dict[str, Any] = model.model_json_schema(schema_generator=ModelSchema)
    schema.pop("title", None)
    for key, value in schema.get("properties", {}).items():
        if value.get("title") == key.replace("_", " ").title():
            del value["title"]
    return schema


def _by_model(taken: _Model, schema: dict[str, Any]) -> _Check:
    from pydantic import ValidationError
    from pydantic_core import to_json

    model = taken.model
    allowed = ", ".join(schema.get("properties", {})) or "none"

    def validated(arguments: dict[str, Any]) -> Any:
        # as JSON, where strict still reads a date from its text and a tuple from an array
        return call_here(partial(model.model_validate_json, to_json(arguments), strict=True))

    simple = _simple(taken)
    required = {parameter for field, parameter in taken.names.items() if model.model_fields[field].is_required()}

    # in types that hold themselves pydantic's work has no bound
    bound = SchemaCheck(schema, f"the parameters of tool {model.__name__}") if "$defs" in schema else None

    def check(arguments: dict[str, Any]) -> dict[str, Any]:
        if simple and required <= arguments.keys() <= simple.keys() and _fit(arguments, simple):
            return arguments
        if bound is not None and (too_much := bound.too_much(arguments)):
            raise InvalidArguments(too_much)
        try:
            valid = validated(arguments)
        except ValidationError as error:
            try:
                valid = validated(_whole(arguments))
            except ValidationError:
                raise InvalidArguments(_problems(error, schema)) from None
        except ValueError as error:
            raise InvalidArguments(str(error)) from None
        except DeadlineExceeded:
            raise
        except Exception as error:  # a validator of the tool's own types may raise whatever it likes
            raise InvalidArguments(said_by(error)) from error
        given = valid.model_fields_set
        found = {
            parameter: getattr(valid, field)
            for field, parameter in taken.names.items()
            if field in given or field in taken.filled
        }
        extra = valid.model_extra or {}
        if closed := sorted(taken.bound & {*extra}):
            raise InvalidArguments(f"{closed[0]}: unknown argument; allowed are: {allowed}")
        return found | extra

    return check


_PLAIN = (str, bool, int, float)


def _simple(taken: _Model) -> dict[str, type]:
    """The types of parameters that are nothing but texts, truths and numbers, which need no pydantic; else nothing."""
    fields = taken.model.model_fields
    if taken.filled or taken.bound or taken.model.model_config["extra"] != "forbid":
        return {}
    if not all(
        info.annotation in _PLAIN and not info.metadata and info.alias == info.validation_alias == taken.names[field]
        for field, info in fields.items()
    ):
        return {}
    return {taken.names[field]: info.annotation for field, info in fields.items()}


def _fit(arguments: dict[str, Any], kinds: dict[str, type]) -> bool:
    """Whether plain values are just what they are declared to be, and JSON says them without loss."""
    for name, value in arguments.items():
        kind = type(value)
        if kind is not kinds[name]:
            return False
        if (
            (kind is str and not value.isascii())
            or (kind is int and not -(2**63) <= value < 2**63)
            or (kind is float and not math.isfinite(value))
        ):
            return False
    return True


def _whole(value: Any) -> Any:
    """Write 20.0 as 20: to JSON Schema it is an integer."""
    if isinstance(value, float) and value.is_integer() and abs(value) <= 2**53:
        return int(value)
    if isinstance(value, list):
        return [_whole(item) for item in value]
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    return value


def _problems(error: Any, schema: dict[str, Any]) -> str:
    lines: list[str] = []
    found = error.errors(include_url=False, include_context=False)
    for problem in sorted(found, key=lambda problem: problem["type"] in _UNKNOWN):  # versions differ in the order
        place = ".".join(str(part) for part in problem["loc"]) or "arguments"
        if problem["type"] in _UNKNOWN:
            allowed = _fields_at(schema, problem["loc"][:-1])
            lines.append(f"{place}: unknown {'field' if problem['loc'][1:] else 'argument'}{allowed}")
        elif problem["type"] == "missing":
            lines.append(f"{place}: missing")
        else:
            lines.append(f"{place}: {problem['msg']}, got {shown(problem['input'])}")
    return "; ".join(lines[:MAX_PROBLEMS]) + ("; and more" if len(lines) > MAX_PROBLEMS else "")


def _fields_at(schema: dict[str, Any], place: Sequence[Any]) -> str:
    """Say which fields there are at a place of what a schema describes, where it says so."""
    named = schema.get("$defs", {})
    ways = [schema]
    for part in [*place, None]:
        seen: dict[int, dict[str, Any]] = {}  # each once: a type may hold itself
        for way in ways:  # what stands behind references and in choices is looked at too
            target = _behind(way, named)
            seen |= {id(one): one for one in (target, *(_behind(one, named) for one in _choices(target)))}
        if part is None:
            break
        ways = [inner for one in seen.values() for inner in _inside(one, part)] or [*seen.values()]  # it names a choice
    known = {", ".join(one["properties"]) for one in seen.values() if "properties" in one}
    return f"; allowed are: {known.pop() or 'none'}" if len(known) == 1 else ""


def _behind(schema: dict[str, Any], named: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = named.get(str(schema.get("$ref", "")).rpartition("/")[2], schema)
    return found


def _choices(schema: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for word in ("anyOf", "oneOf", "allOf") for one in schema.get(word, ()) if isinstance(one, dict)]


def _inside(schema: dict[str, Any], part: Any) -> list[dict[str, Any]]:
    if isinstance(part, int):
        listed = schema.get("prefixItems", ())
        return [listed[part]] if part < len(listed) else [one for one in [schema.get("items")] if isinstance(one, dict)]
    found = schema.get("properties", {}).get(part, schema.get("additionalProperties"))
    return [found] if isinstance(found, dict) else []


def _by_schema(name: str, schema: dict[str, Any]) -> _Check:
    schema_check = SchemaCheck(schema, f"tool {name}: `parameters`")

    def check(arguments: dict[str, Any]) -> dict[str, Any]:
        if wrong := schema_check.problems(arguments):
            raise InvalidArguments(wrong)
        properties, copied = schema.get("properties", {}), itertools.count(1)
        return {key: _lossless(value, properties.get(key), copied) for key, value in arguments.items()}

    return check


def _lossless(value: Any, schema: Any, copied: Iterator[int]) -> Any:
    """
    Copy a value, each number in the Python type its schema names; JSON itself does not tell 20 from 20.0.

    A copy: a tool may change its arguments, and what the model said stays as it was.
    """
    if next(copied) > MAX_VALUES:
        raise InvalidArguments(f"they hold more than {MAX_VALUES:,} values")
    given = schema if isinstance(schema, Mapping) else {}
    if isinstance(value, list):
        items = given.get("items")
        return [_lossless(item, items, copied) for item in value]
    if isinstance(value, dict):
        inner = given.get("properties") or {}
        return {key: _lossless(item, inner.get(key), copied) for key, item in value.items()}
    kind = given.get("type")
    if kind == "number" and isinstance(value, int) and not isinstance(value, bool):
        return float(value) if abs(value) <= 2**53 else value
    if kind == "integer" and isinstance(value, float):
        return int(value)
    return value
