"""
The fields of a chat completions request, as the other providers name them.

Whoever has such a request at hand, as a gateway does, passes its fields as the option `chat_fields`: every model of a
chain gets what it has a field for, so that a fallback of another provider does not refuse what the first one takes.
What a provider has no field for is left out there. A request of another wire passes its own words beside them, as
`wire_fields`, by the wire (`anthropic`, `responses`): a model that speaks it gets these instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shared_libs.atomic.llms.structured import OutputSchema

Fields = dict[str, Any]

_EFFORT_TOKENS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16384, "xhigh": 32768}
"""How many tokens of thinking an effort stands for, where a provider wants a number."""

_ANSWER_TOKENS = 4096
"""What is left for the answer beside the thinking where the caller did not say."""

_CHOICES = {"auto": "auto", "required": "any", "none": "none"}


def schema_of(fields: Mapping[str, Any]) -> dict[str, Any] | None:
    """The JSON Schema that `response_format` asks for, with its name as the title; None where it asks for none."""
    form = fields.get("response_format")
    if isinstance(form, Mapping) and form.get("type") == "json_object":
        return {"title": "output", "type": "object"}
    told = form.get("json_schema") if isinstance(form, Mapping) else None
    schema = told.get("schema") if isinstance(told, Mapping) else None
    if not isinstance(schema, Mapping) or not isinstance(told, Mapping):
        return None
    return {"title": str(told.get("name", "output")), **schema}


def as_responses(fields: Mapping[str, Any]) -> Fields:
    """As OpenAI's Responses API names them."""
    made = _renamed(fields, _RESPONSES)
    if isinstance(choice := fields.get("tool_choice"), Mapping):
        made["tool_choice"] = {"type": "function", "name": _named(choice)}
    elif choice is not None:
        made["tool_choice"] = choice
    if fields.get("reasoning_effort") is not None:
        made["reasoning"] = {"effort": fields["reasoning_effort"]}
    form = fields.get("response_format")
    if isinstance(form, Mapping):
        told = form.get("json_schema")
        made["text"] = {"format": {"type": form.get("type"), **(told if isinstance(told, Mapping) else {})}}
    if (verbosity := fields.get("verbosity")) is not None:
        made["text"] = made.get("text", {}) | {"verbosity": verbosity}
    return made


def as_anthropic(fields: Mapping[str, Any]) -> Fields:
    """As Anthropic's messages API names them."""
    made = _renamed(fields, _ANTHROPIC)
    if (stop := fields.get("stop")) is not None:
        made["stop_sequences"] = [stop] if isinstance(stop, str) else stop
    if "temperature" in made:
        made["temperature"] = min(1.0, made["temperature"])
    choice: Fields = {}
    if isinstance(given := fields.get("tool_choice"), Mapping):
        choice = {"type": "tool", "name": _named(given)}
    elif given in _CHOICES:
        choice = {"type": _CHOICES[given]}
    if fields.get("parallel_tool_calls") is False and choice.get("type") != "none":
        choice = {"type": "auto", **choice, "disable_parallel_tool_use": True}
    if choice:
        made["tool_choice"] = choice
    if user := fields.get("user"):
        made["metadata"] = {"user_id": user}
    if (tokens := _EFFORT_TOKENS.get(str(fields.get("reasoning_effort")))) is not None:
        made["max_tokens"] = max(made.get("max_tokens", 0), tokens + _ANSWER_TOKENS)
        made["thinking"] = {"type": "enabled", "budget_tokens": tokens}
        made.pop("temperature", None)  # the API refuses both
        made.pop("top_p", None)
    return _with_schema(made, fields)


def as_ollama(fields: Mapping[str, Any]) -> Fields:
    """As Ollama names them."""
    made = _renamed(fields, _OLLAMA)
    if (stop := fields.get("stop")) is not None:
        made["stop"] = [stop] if isinstance(stop, str) else stop
    return _with_schema(made, fields)


_RESPONSES = {
    "max_completion_tokens": "max_output_tokens",
    "max_tokens": "max_output_tokens",
    **dict.fromkeys(("metadata", "moderation", "parallel_tool_calls", "prompt_cache_key", "prompt_cache_options"), ""),
    **dict.fromkeys(("prompt_cache_retention", "safety_identifier", "service_tier", "temperature"), ""),
    **dict.fromkeys(("top_logprobs", "top_p", "user"), ""),
}
"""What a field is called there; "": the same."""

_ANTHROPIC = {
    **dict.fromkeys(("max_completion_tokens", "max_tokens"), "max_tokens"),
    **dict.fromkeys(("temperature", "top_k", "top_p"), ""),
}
_OLLAMA = {
    "max_completion_tokens": "num_predict",
    "max_tokens": "num_predict",
    **dict.fromkeys(("frequency_penalty", "presence_penalty", "seed", "temperature", "top_k", "top_p"), ""),
}

_OTHERWISE = ("tool_choice", "reasoning_effort", "response_format")
_TAKEN = {
    "responses": frozenset({*_RESPONSES, *_OTHERWISE, "verbosity"}),
    "anthropic": frozenset({*_ANTHROPIC, *_OTHERWISE, "stop", "parallel_tool_calls", "user"}),
    "ollama": frozenset({*_OLLAMA, "stop", "response_format"}),
}


def left_out(wire: str, fields: Mapping[str, Any]) -> list[str]:
    """Which fields of a chat completions request mean nothing on a wire; on that of chat completions they all go on."""
    taken = _TAKEN.get(wire)
    return [] if taken is None else [name for name in fields if name not in taken]


def _renamed(fields: Mapping[str, Any], names: Mapping[str, str]) -> Fields:
    return {names[name] or name: value for name, value in fields.items() if name in names and value is not None}


def _named(choice: Mapping[str, Any]) -> str:
    """The tool that a choice names."""
    function = choice.get("function")
    return str((function if isinstance(function, Mapping) else choice).get("name", ""))


def _with_schema(made: Fields, fields: Mapping[str, Any]) -> Fields:
    if (schema := schema_of(fields)) is not None:
        made["output_schema"] = OutputSchema(schema)
    return made
