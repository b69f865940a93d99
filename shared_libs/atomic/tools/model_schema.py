"""A model of pydantic as JSON Schema, as it reaches other models: in JSON alone, and with what numbers stand for."""

from __future__ import annotations

import enum
import functools
import json
import operator
import typing
from typing import Any

from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import PydanticSerializationError

from shared_libs.atomic.tools.annotations import SAID_OF_A_FIELD, called, words_beside


class ModelSchema(GenerateJsonSchema):
    """Leaves out a default that is no JSON, and what of a choice is none; says which number means what."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}

    def encode_default(self, dft: Any) -> Any:
        """Return a default as JSON; infinities, and halves of characters, are none."""
        encoded = super().encode_default(dft)
        try:
            json.dumps(encoded, allow_nan=False, ensure_ascii=False).encode()
        except ValueError as error:
            raise PydanticSerializationError(str(error)) from error
        return encoded

    def field_is_present(self, field: Any) -> bool:
        """Whether a field is taken; one that the constructor of a dataclass does not take is none."""
        return bool(super().field_is_present(field)) and field.get("init", True) is not False

    def model_schema(self, schema: Any) -> dict[str, Any]:
        """Describe a model, with the words that stand beside its fields' types."""
        return _with_words(super().model_schema(schema), schema["cls"])

    def dataclass_schema(self, schema: Any) -> dict[str, Any]:
        """Describe a dataclass, with those words."""
        return _with_words(super().dataclass_schema(schema), schema["cls"])

    def typed_dict_schema(self, schema: Any) -> dict[str, Any]:
        """Describe a TypedDict, with those words."""
        return _with_words(super().typed_dict_schema(schema), schema.get("cls"))

    def enum_schema(self, schema: Any) -> dict[str, Any]:
        """Describe an enumeration; its numbers say nothing to a model, and flags are summed."""
        made = super().enum_schema(schema)
        members = [one for one in schema["members"] if type(one.value) is int]
        if len(members) < len(schema["members"]):
            return made
        said = ", ".join(f"{one.value} = {one.name}" for one in members)
        if issubclass(schema["cls"], enum.Flag):
            most = functools.reduce(operator.or_, (one.value for one in members), 0)
            made = {word: told for word, told in made.items() if word not in ("enum", "const")}
            made |= {"type": "integer", "minimum": 0, "maximum": most}
            said = f"the sum of those that hold: {said}"
        return {**made, "description": " ".join(filter(None, [made.get("description"), f"({said})"]))}


def _with_words(made: dict[str, Any], kind: Any) -> dict[str, Any]:
    """A record's schema in which fields without a description have the words that stand beside their types."""
    properties = made.get("properties", {})
    if not all("description" in field for field in properties.values()):
        try:
            hints = typing.get_type_hints(kind, include_extras=True)
        except Exception:  # noqa: BLE001 - a name that cannot be resolved: pydantic knew better, and the words are a help
            return made
        for name, hint in hints.items():
            inner = hint
            while called(typing.get_origin(inner)) in SAID_OF_A_FIELD:
                inner = typing.get_args(inner)[0]
            words = words_beside(getattr(inner, "__metadata__", ()))
            if words and "description" not in properties.get(name, {"description": ""}):
                properties[name]["description"] = words
    return made
