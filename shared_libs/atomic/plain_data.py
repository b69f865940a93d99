"""
Plain data that leaves: as JSON-ready dicts, through pydantic, and so through FastAPI, in both directions.

Every message, result and event is one. pydantic is loaded when it asks; reading is strict and msgspec's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, Self, get_args, get_origin

import msgspec

from shared_libs.atomic.misuse import MisuseError


class PlainData:
    """What a struct that leaves can do besides; `msgspec.json.encode` writes it too."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """Return it as data that `json.dumps` takes, all the way down."""
        data: dict[str, Any] = msgspec.to_builtins(self, enc_hook=_dumped, str_keys=True)
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """
        Read what `to_dict` has written, or its JSON as `json.loads` has read it.

        Raises:
            MisuseError: it does not fit; names the field.

        """
        try:
            return msgspec.convert(data, cls)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise MisuseError(f"this is no {cls.__name__}: {error}") from None

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        """Give its fields with their values, as `dict(…)` asks for them (a pydantic model does the same)."""
        return iter(self.to_dict().items())

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        def read(given: Any) -> PlainData:
            if isinstance(given, cls):
                return given
            try:
                return cls.from_dict(given)
            except MisuseError as error:
                raise ValueError(str(error)) from None

        return core_schema.no_info_plain_validator_function(
            read,
            serialization=core_schema.plain_serializer_function_ser_schema(_picked, info_arg=True),
            ref=f"{cls.__module__}.{cls.__name__}:{hash(source)}",
            metadata={_SOURCE: source},
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> Any:
        from pydantic import TypeAdapter

        made = handler(TypeAdapter(_as_model(schema["metadata"][_SOURCE])).core_schema)
        return handler.resolve_ref_schema(made)

    @classmethod
    def _described(cls, of: tuple[Any, ...]) -> dict[str, Any]:
        """What the JSON Schema says of fields that differ from their own types; `of` is what a generic one is of."""
        return {}


_SOURCE = "shared_libs.source"


def _picked(value: PlainData, info: Any) -> dict[str, Any]:
    """Write what pydantic was asked for: `include`, `exclude` and `exclude_none`, as of a model."""
    data = value.to_dict()
    if info.include is not None or info.exclude is not None:
        from pydantic import TypeAdapter

        data = TypeAdapter(dict[str, Any]).dump_python(data, include=info.include, exclude=info.exclude)
    return {name: item for name, item in data.items() if item is not None} if info.exclude_none else data


def _dumped(value: Any) -> Any:
    """Write what a caller's own types hold: a pydantic model."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    raise NotImplementedError(f"a {type(value).__name__} is no plain data")


def _as_model(source: Any) -> Any:
    """The struct as a pydantic model of the same fields: it writes the JSON Schema."""
    from pydantic import ConfigDict, Field, create_model

    struct = get_origin(source) or source
    config = struct.__struct_config__
    fields: dict[str, Any] = {}
    if config.tag is not None:
        fields[str(config.tag_field)] = (Literal[config.tag], config.tag)
    described = struct._described(get_args(source))  # noqa: SLF001 - its family
    for known in msgspec.structs.fields(struct):
        kind = described.get(known.encode_name, known.type)
        fields[known.encode_name] = (kind, ... if known.required else Field(default_factory=lambda: None))
    # a field may be called as a method of a model is, which only a warning forbids
    made: Any = create_model(struct.__name__, __config__=ConfigDict(protected_namespaces=()), **fields)
    made.__doc__ = struct.__doc__
    return made
