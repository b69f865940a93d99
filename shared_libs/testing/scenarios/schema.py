"""The JSON Schema of a scenario file, for editors: completions, types, words, defaults and examples for every key."""

from __future__ import annotations

from typing import Any

from shared_libs.factory.schema_form import ROW, Json, either, or_row, told_apart, untitled, with_examples
from shared_libs.testing.scenarios.port_faults import KINDS, OPERATIONS
from shared_libs.testing.scenarios.spec import ScenarioSpec

_BARE = ("TurnSpec", "OutcomeSpec", "WantedCallSpec", "AnswerSpec", "TextSpec", "EvaluatorSpec", "QuestionSpec")
"""What a text may stand for."""


def scenario_schema() -> Json:
    """Return the schema; an agent in it is that of `agent.schema.json` in the same folder."""
    schema: Json = untitled(ScenarioSpec.model_json_schema())
    definitions = schema["$defs"]
    for name in _BARE:
        definitions[name] = {"type": ["string", "object"], **either("object", definitions[name], {})}
    number = {"type": ["string", "number", "object"], **either("string", {"$ref": "#/$defs/Row"}, {})}
    definitions["RangeSpec"] = number | {"else": either("object", definitions["RangeSpec"], {})}
    schema = _open_to_rows(with_examples(told_apart(schema, definitions), "ScenarioSpec"))
    definitions = schema.pop("$defs")
    definitions["Row"] = ROW
    fault = definitions["FaultSpec"]["properties"]
    fault["fault"] |= or_row({"enum": sorted({name for kinds in KINDS.values() for name in kinds})})
    places = "|".join((*KINDS, *(f"memory {name}" for name in OPERATIONS), "(model|tool) .+"))
    fault["on"] |= or_row({"pattern": f"^({places})$"})
    for name in ("CallSpec", "FaultSpec"):
        definitions[name] = or_row(definitions[name])
    properties = schema["properties"]
    for key in ("models", "tools"):
        rows = properties[key]["additionalProperties"]
        properties[key]["additionalProperties"] = either("array", rows, rows["items"])
    agent = properties["agent"]
    said = {key: agent[key] for key in ("description", "examples")}
    properties["agent"] = {"type": ["string", "object"], **either("object", {"$ref": "agent.schema.json"}, {})} | said
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "GenAI Factory scenario",
        **schema,
        "$defs": dict(sorted(definitions.items())),
    }


def _open_to_rows(schema: Any) -> Any:
    """Let a value of the matrix stand where a number, a truth or a name of a list does."""
    if isinstance(schema, list):
        return [_open_to_rows(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kinds = schema.get("type", ())
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if ("string" not in kinds and {"number", "integer", "boolean"} & set(kinds)) or "enum" in schema:
        said = {key: schema.pop(key) for key in ("description", "default", "examples") if key in schema}
        return or_row(schema) | said
    return {key: value if key in ("default", "examples") else _open_to_rows(value) for key, value in schema.items()}
