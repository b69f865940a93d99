"""
What a definition may say about a tool or a model: the keyword parameters of its class or function.

So a tool's constructor is the one place where its options are named, typed and described; the check of a definition,
its errors and its JSON Schema all come from there.
"""

from __future__ import annotations

import builtins
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PydanticUserError, TypeAdapter, create_model
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticSchemaGenerationError
from pydantic.fields import FieldInfo
from pydantic_core import to_json

from shared_libs.atomic.errors import MisuseError
from shared_libs.factory.spec import Section

_ARGUMENT = re.compile(r"(?P<names>\w+(?:, \w+)*)(?: \([^)]*\))?: (?P<text>.+)")


@dataclass(frozen=True, slots=True)
class Options:
    """
    The options of one class or function.

    Args:
        model: checks them; its fields' aliases are their names.
        parameters: every keyword parameter of the class or function, those that are no plain data included.

    """

    model: type[BaseModel]
    parameters: frozenset[str]

    @classmethod
    def of(
        cls,
        target: Callable[..., Any],
        common: type[Section],
        *,
        without: frozenset[str] = frozenset(),
        attributes: type[Section] | None = None,
    ) -> Options:
        """
        Read the signature.

        Args:
            target: the class or function.
            common: types, bounds and words of the options that all of its kind share.
            without: the parameters that are not for a definition to set.
            attributes: options that may be given too though they are no parameter, for the finished object.

        Raises:
            MisuseError: it has a parameter without default that no definition could give.

        """
        read = _read if getattr(type(target), "__hash__", None) else _read.__wrapped__
        return read(target, common, without, attributes)

    @property
    def names(self) -> list[str]:
        """The names a definition may use."""
        return [info.alias or key for key, info in self.model.model_fields.items()]

    def read(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """
        Return the options that were given, checked.

        Raises:
            pydantic.ValidationError: they do not fit.

        """
        # as JSON, where strict still reads an enum, a path or a tuple from what YAML has
        valid = self.model.model_validate_json(to_json(settings))
        return {self.model.model_fields[key].alias or key: getattr(valid, key) for key in valid.model_fields_set}


@lru_cache(maxsize=256)
def _read(
    target: Callable[..., Any], common: type[Section], without: frozenset[str], attributes: type[Section] | None
) -> Options:
    name = getattr(target, "__name__", type(target).__name__)
    parameters = _named_parameters(name, target)
    words = _argument_words(target)
    fields: dict[str, tuple[Any, FieldInfo]] = {}
    for key, parameter in parameters.items():
        required = parameter.default is parameter.empty
        shared = common.model_fields.get(key)
        annotation = _annotation(shared) if shared else parameter.annotation
        if key not in without and (shared or _is_plain(annotation)):
            said = words.get(key) or (shared.description if shared else None)
            fields[key] = (annotation, _field(parameter.default, said, required=required))
        elif required:
            raise MisuseError(f"{name} cannot stand in a definition: its parameter {key} is no plain data")
    for key, shared in attributes.model_fields.items() if attributes else ():
        fields.setdefault(key, (_annotation(shared), _field(None, shared.description, required=False)))
    return Options(_model_of(name, fields), frozenset(parameters))


class _Unknown:
    """What a name stands for that exists for type checkers only: no plain data."""

    def __class_getitem__(cls, _: Any) -> type[_Unknown]:
        return cls


class _Names(dict[str, Any]):
    """The names a signature's annotations may use."""

    def __init__(self, function: Any) -> None:
        super().__init__(vars(builtins) | getattr(inspect.unwrap(function), "__globals__", {}))

    def __missing__(self, name: str) -> type[_Unknown]:
        return _Unknown


def _named_parameters(name: str, target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    function = target.__init__ if isinstance(target, type) else target  # type: ignore[misc]
    try:
        signature = inspect.signature(target, eval_str=True, locals=_Names(function))
    except (TypeError, ValueError) as error:
        raise MisuseError(f"the signature of {name} cannot be read: {error}") from error
    named = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return {key: parameter for key, parameter in signature.parameters.items() if parameter.kind in named}


def _annotation(info: FieldInfo) -> Any:
    return Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation


def _field(default: Any, words: str | None, *, required: bool) -> Any:
    if required:
        return Field(description=words)
    if isinstance(default, str | int | float):
        return Field(default=default, description=words)
    shown: dict[str, Any] = {"default": list(default)} if isinstance(default, tuple | list) else {}
    return Field(default_factory=lambda: default, description=words, json_schema_extra=shown)


def _model_of(name: str, fields: Mapping[str, tuple[Any, FieldInfo]]) -> type[BaseModel]:
    # an option may be called `schema` or `_x`, which a field may not
    aliases = {f"o{index}": key for index, key in enumerate(fields)}
    config = ConfigDict(extra="forbid", strict=True, alias_generator=aliases.__getitem__)
    described: dict[str, Any] = {field: fields[key] for field, key in aliases.items()}
    return create_model(name, __config__=config, **described)


def _is_plain(annotation: Any) -> bool:
    """Whether a value of this type can be written in YAML."""
    if annotation is inspect.Parameter.empty:
        return True
    try:
        TypeAdapter(annotation).json_schema()
    except (PydanticInvalidForJsonSchema, PydanticSchemaGenerationError, PydanticUserError):
        return False
    return True


def _argument_words(target: Any) -> dict[str, str]:
    """Read what the docstrings of a class and its bases (or of a function) say under "Args:"."""
    words: dict[str, str] = {}
    for owner in reversed(inspect.getmro(target)) if inspect.isclass(target) else (target,):
        _, _, section = inspect.cleandoc(owner.__doc__ or "").partition("\nArgs:\n")
        names: list[str] = []
        for line in section.split("\n"):
            if line.strip() and not line.startswith("    "):
                break
            if not line.startswith("     ") and (argument := _ARGUMENT.fullmatch(line.strip())):
                names = argument["names"].split(", ")
                words |= dict.fromkeys(names, argument["text"])
            elif line.strip():
                words |= {name: f"{words[name]} {line.strip()}" for name in names}
    return words
