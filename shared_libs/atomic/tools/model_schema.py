"""A model of pydantic as JSON Schema, as it reaches other models: in JSON alone, and with what numbers stand for."""

from __future__ import annotations

import enum
import functools
import json
import operator
from typing import Any

from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import PydanticSerializationError


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
