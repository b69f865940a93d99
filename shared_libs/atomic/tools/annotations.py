"""
The types that people write, as pydantic takes them and as they were meant.

What JSON says otherwise than Python gets a reader of its own: a choice among values that are no JSON, records of attrs
and msgspec, a TypedDict of `typing`. A type that no JSON can be is refused here, when the tool is described, and not by
every call.
"""

from __future__ import annotations

import enum
import inspect
import json
import sys
import types
import typing
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Reversible
from typing import Annotated, Any, NamedTuple, NotRequired, Required

import msgspec

from shared_libs.atomic.tools.dependencies import is_of_the_run

SAID_OF_A_FIELD = ("Required", "NotRequired", "ReadOnly")
"""What is said of a field and is no part of its type, whatever module it is from."""

_READ_ONCE = (Iterable, Collection, Container, Reversible)
"""What may be read more than once, and of which pydantic makes what can be read once, or nothing."""

_NO_JSON = {
    "ClassVar": "says what belongs to a class",
    "Self": "says nothing outside its class",
    "type": "is a class, and no JSON says one",
    "Never": "is no value",
    "NoReturn": "is no value",
}
_SCALARS = (str, int, float)
_META = (
    *("gt", "ge", "lt", "le", "multiple_of", "pattern", "min_length", "max_length"),
    *("title", "description", "examples"),
)
"""What msgspec says of a type in the words of pydantic."""


def called(origin: Any) -> str:
    """The name of a form of typing, whatever module it is from."""
    return str(getattr(origin, "__name__", None) or origin).rpartition(".")[2]


def is_required(named: Any, name: str, hint: Any) -> bool:
    """Whether a TypedDict always has that field; where annotations are texts, its `__required_keys__` do not know."""
    said = {"Required": True, "NotRequired": False}.get(called(typing.get_origin(hint)))
    return name in named.__required_keys__ if said is None else said


def portable(annotation: Any, made: dict[Any, Any] | None = None) -> Any:
    """
    The annotation as pydantic takes it, and as who wrote it meant it.

    Args:
        annotation: a type, its names resolved.
        made: what became of the records around it, for those that hold themselves.

    Raises:
        TypeError: no JSON is of that type; the text says why.

    """
    made = {} if made is None else made
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    form = annotation if origin is None else origin
    if (form is type or not inspect.isclass(form)) and (why := _NO_JSON.get(called(form))):
        raise TypeError(why)
    if not parts:
        return _alone(annotation, made)
    if origin is typing.Literal:
        return annotation if all(map(_is_json, parts)) else Annotated[Any, _Choice.of(parts)]
    if origin is Callable:
        return annotation
    if origin is Annotated:
        return annotation if is_of_the_run(annotation) else Annotated[(portable(parts[0], made), *_read(parts[1:]))]
    if called(origin) in SAID_OF_A_FIELD:
        return portable(parts[0], made)
    changed = tuple(part if part is ... else portable(part, made) for part in parts)
    if origin in _READ_ONCE:
        return types.GenericAlias(list, changed)
    if origin in (typing.Union, types.UnionType):
        # JSON has texts alone, and what is not set is left out
        passed = {msgspec.UnsetType, bytes if str in changed else msgspec.UnsetType}
        kept = tuple(part for part in changed if not any(part is one for one in passed))
        return annotation if kept == parts else typing.Union[kept]  # noqa: UP007 - made of parts
    if changed == parts:
        return annotation
    return annotation.copy_with(changed) if hasattr(annotation, "copy_with") else origin[changed]


def _alone(annotation: Any, made: dict[Any, Any]) -> Any:
    """A type that has no parts."""
    if inspect.isclass(annotation):
        return _class(annotation, made)
    if typing.get_origin(annotation) in _READ_ONCE:
        return list
    if annotation is typing.LiteralString:
        return str
    if hasattr(annotation, "__supertype__") or type(annotation).__name__ == "TypeAliasType":
        return _behind_a_name(annotation, made)
    if isinstance(annotation, typing.TypeVar) and {str, bytes} <= {*annotation.__constraints__}:
        return portable(typing.Union[annotation.__constraints__], made)  # noqa: UP007 - made of parts
    return annotation


def _behind_a_name(named: Any, made: dict[Any, Any]) -> Any:
    """A type alias or a `NewType`: itself, where pydantic takes what it is another name of."""
    if named in made:
        return made[named]
    made[named] = named  # one that holds itself is pydantic's
    meant = named.__supertype__ if hasattr(named, "__supertype__") else named.__value__
    found = portable(meant, made)
    return named if found == meant else found


def _is_json(value: Any) -> bool:
    return value is None or (isinstance(value, _SCALARS) and not isinstance(value, enum.Enum))


def _class(kind: Any, made: dict[Any, Any]) -> Any:
    if kind in made:
        return made[kind]
    if kind in _READ_ONCE:
        return list
    if issubclass(kind, enum.Enum) and not issubclass(kind, enum.Flag):
        if not (members := [*kind]):
            raise TypeError("has no members")
        return kind if all(_is_json(one.value) for one in members) else Annotated[Any, _Choice.of(members)]
    if typing.is_typeddict(kind) and type(kind).__module__ == "typing" and sys.version_info < (3, 12):
        return _dict(kind, _fields_of_dict(kind), made)  # pydantic knows no other than that of typing_extensions
    if hasattr(kind, "__attrs_attrs__"):
        return _dict(kind, _fields_of_attrs(kind), made)
    if hasattr(kind, "__struct_config__"):
        return _dict(kind, _fields_of_struct(kind), made)
    return kind


class _Choice:
    """One of some values that JSON says otherwise than Python."""

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values

    @classmethod
    def of(cls, values: Iterable[Any]) -> _Choice:
        """Take values by what JSON makes of them; of those that are no JSON, by the names that an enumeration gives."""
        from pydantic_core import to_jsonable_python

        told: dict[str, Any] = {}
        for value in values:
            try:
                said = to_jsonable_python(value)
            except (TypeError, ValueError) as error:
                if not isinstance(value, enum.Enum):
                    raise TypeError(f"{value!r} is no JSON") from error
                said = value.name
            told[json.dumps(said)] = value
        return cls(told)

    def __get_pydantic_core_schema__(self, _source: Any, _handler: Any) -> Any:
        """How pydantic reads it."""
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(self._read)

    def __get_pydantic_json_schema__(self, _schema: Any, _handler: Any) -> dict[str, Any]:
        """How it is told to a model."""
        values = [*map(json.loads, self._values)]
        kind = {"type": "string"} if all(isinstance(value, str) for value in values) else {}
        return {**kind, "enum": values}

    def _read(self, value: Any) -> Any:
        try:
            return self._values[json.dumps(value)]
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"Input should be one of {', '.join(self._values)}") from None


class _Field(NamedTuple):
    """A field of a record: its name in JSON, what its constructor calls it (nothing: not given to it), its type."""

    name: str
    given_as: str | None
    kind: Any
    required: bool
    default: Any = None


def _dict(kind: Any, fields: Iterable[_Field], made: dict[Any, Any]) -> Any:
    """A record as a TypedDict that pydantic takes; what is no TypedDict itself is made of it afterwards."""
    from pydantic import AfterValidator, Field
    from typing_extensions import TypedDict

    read: Any = TypedDict(kind.__name__, {})  # type: ignore[misc]
    read.__doc__, read.__module__ = kind.__doc__ if typing.is_typeddict(kind) else None, kind.__module__
    names: dict[str, str | None] = {}
    made[kind] = read if typing.is_typeddict(kind) else Annotated[read, AfterValidator(_maker(kind, names))]
    hints: dict[str, Any] = {}
    for field in fields:  # it may hold itself, so it is filled when it is there
        names[field.name] = field.given_as
        hint = portable(field.kind, made)
        if isinstance(field.default, str | int | float):
            hint = Annotated[hint, Field(json_schema_extra={"default": field.default})]
        hints[field.name] = (Required if field.required else NotRequired)[hint]
    read.__annotations__ = hints
    read.__required_keys__ = frozenset(name for name, hint in hints.items() if typing.get_origin(hint) is Required)
    read.__optional_keys__ = frozenset(hints) - read.__required_keys__
    return made[kind]


def _maker(kind: Any, names: Mapping[str, str | None]) -> Callable[[dict[str, Any]], Any]:
    def make(given: dict[str, Any]) -> Any:
        try:
            return kind(**{called: given[name] for name, called in names.items() if name in given and called})
        except (TypeError, ValueError) as error:  # validators of attrs raise both
            raise ValueError(str(error)) from error

    return make


def _fields_of_dict(kind: Any) -> Iterator[_Field]:
    for name, hint in typing.get_type_hints(kind, include_extras=True).items():
        yield _Field(name, name, hint, is_required(kind, name, hint))


def _fields_of_attrs(kind: Any) -> Iterator[_Field]:
    hints = typing.get_type_hints(kind, include_extras=True)
    nothing = sys.modules["attr"].NOTHING  # it is loaded where a class of it is
    for one in kind.__attrs_attrs__:
        if one.init:
            yield _Field(one.alias, one.alias, hints.get(one.name, Any), one.default is nothing, one.default)


def _fields_of_struct(kind: Any) -> Iterator[_Field]:
    settings = kind.__struct_config__
    if settings.tag is not None:
        yield _Field(settings.tag_field, None, typing.Literal[settings.tag], required=True)
    for one in msgspec.structs.fields(kind):
        yield _Field(one.encode_name, one.name, one.type, one.required, one.default)


def _read(metadata: Iterable[Any]) -> Iterator[Any]:
    """What stands beside a type, as pydantic reads it."""
    from pydantic import Field

    metadata = tuple(metadata)
    for part in metadata:
        if isinstance(part, msgspec.Meta):
            said = {word: getattr(part, word) for word in _META if getattr(part, word) is not None}
            yield Field(**said)
        else:
            yield part
    if (words := words_beside(metadata)) and not any(getattr(part, "description", None) for part in metadata):
        yield Field(description=words)


def words_beside(metadata: Iterable[Any]) -> str | None:
    """The words beside a type, `Annotated[str, "the city"]` or `Doc("the city")`, of which pydantic knows nothing."""
    said = [part if isinstance(part, str) else getattr(part, "documentation", None) for part in metadata]
    return next((words for words in said if isinstance(words, str)), None)
