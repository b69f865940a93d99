"""The JSON Schema of a scenario file, for editors: completions, types and words for every key."""

from __future__ import annotations

from typing import Any

from shared_libs.testing.scenarios.port_faults import KINDS, OPERATIONS
from shared_libs.testing.scenarios.spec import ScenarioSpec

_Json = dict[str, Any]

_BARE = ("TurnSpec", "OutcomeSpec", "WantedCallSpec", "AnswerSpec", "TextSpec", "EvaluatorSpec", "QuestionSpec")
"""What a text may stand for."""


def scenario_schema() -> _Json:
    """Return the schema; an agent in it is that of `agent.schema.json` in the same folder."""
    schema: _Json = _open_to_rows(_untitled(ScenarioSpec.model_json_schema()))
    definitions = schema.pop("$defs")
    for name in _BARE:
        definitions[name] = {"anyOf": [{"type": "string"}, definitions[name]]}
    definitions["RangeSpec"] = {"anyOf": [{"type": "number"}, {"$ref": "#/$defs/Row"}, definitions["RangeSpec"]]}
    definitions["Row"] = {"type": "string", "pattern": r"\$\{\{", "description": "A value of the matrix."}
    fault = definitions["FaultSpec"]["properties"]
    for name in ("CallSpec", "FaultSpec"):
        definitions[name] = {"anyOf": [definitions[name], {"$ref": "#/$defs/Row"}]}
    fault["fault"] = {
        "anyOf": [{"enum": sorted({name for kinds in KINDS.values() for name in kinds})}, {"$ref": "#/$defs/Row"}],
        "description": fault["fault"]["description"],
    }
    places = [*KINDS, *(f"memory {name}" for name in OPERATIONS)]
    fault["on"] = {"anyOf": [{"enum": places}, {"type": "string"}], "description": fault["on"]["description"]}
    properties = schema["properties"]
    for key in ("models", "tools"):
        rows = properties[key]["additionalProperties"]
        properties[key]["additionalProperties"] = {"anyOf": [rows["items"], rows]}
    properties["agent"] = {
        "anyOf": [{"type": "string"}, {"$ref": "agent.schema.json"}],
        "description": properties["agent"]["description"],
    }
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "GenAI Factory scenario",
        **schema,
        "$defs": dict(sorted(definitions.items())),
    }


def _untitled(schema: Any) -> Any:
    """Leave out the titles pydantic makes of names, which an editor would show instead of the words."""
    if isinstance(schema, list):
        return [_untitled(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {key: _untitled(value) for key, value in schema.items() if key != "title" or not isinstance(value, str)}


def _open_to_rows(schema: Any) -> Any:
    """Let a value of the matrix stand where a number, a truth or a name of a list does."""
    if isinstance(schema, list):
        return [_open_to_rows(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("type") in ("number", "integer", "boolean") or "enum" in schema:
        said = {key: schema.pop(key) for key in ("description", "default") if key in schema}
        return {"anyOf": [schema, {"$ref": "#/$defs/Row"}]} | said
    return {key: _open_to_rows(value) for key, value in schema.items()}
