"""The JSON Schema of an agent's YAML, for editors: completions, types, words, defaults and examples for every key."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.llms.http_llm import HttpLLM
from shared_libs.atomic.tools.base import BaseTool
from shared_libs.atomic.tools.placement import is_async
from shared_libs.factory.chain import link_options
from shared_libs.factory.options import Options
from shared_libs.factory.registry import LLMS, TOOLS, Registry
from shared_libs.factory.schema_form import Json, either, named, told_apart, untitled, with_examples
from shared_libs.factory.spec import AgentSpec, LinkSpec, LLMSpec, ToolCommon, ToolSpec
from shared_libs.factory.toolbox import options_of


def agent_schema() -> Json:
    """Return the schema, with every provider and tool that is known here, those of installed packages included."""
    definitions: Json = {}
    schema = _schema_of(AgentSpec, definitions, "")
    links = _variants(LLMS, "provider", lambda target: (link_options(target), target), definitions)
    tools = _variants(TOOLS, "use", options_of, definitions)
    chain = definitions["LLMSpec"]
    policy = {key: value for key, value in chain["properties"].items() if key != "chain"}
    alone = {name: link | {"properties": link["properties"] | policy} for name, link in links.items()}
    bare = [name for name, tool in tools.items() if tool["required"] == ["use"]]
    one = named("provider", _words(LinkSpec, "provider"), alone)
    definitions |= {
        "LinkSpec": named("provider", _words(LinkSpec, "provider"), links),
        "LLMSpec": {"description": inspect.getdoc(LLMSpec), "type": "object"}
        | {"if": {"required": ["chain"]}, "then": chain, "else": one},
        "ToolSpec": either("string", {"enum": bare}, named("use", _words(ToolSpec, "use"), tools)),
    }
    schema["properties"]["llm"] = {"$ref": "#/$defs/LLMSpec", "description": _words(AgentSpec, "llm")}
    whole = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "GenAI Factory agent",
        **schema,
        "required": ["name", "llm"],
        "$defs": dict(sorted(definitions.items())),
    }
    found: Json = with_examples(told_apart(whole, definitions), "AgentSpec")
    return found


def _words(model: type[BaseModel], key: str) -> str:
    return model.model_fields[key].description or ""


def _variants(
    registry: Registry, key: str, read: Callable[[Any], tuple[Options, Any]], definitions: Json
) -> dict[str, Json]:
    """Describe every name of a registry: the key that names it, and its own options."""
    variants: dict[str, Json] = {}
    for name in registry.names():
        naming = {key: {"const": name}}
        try:
            target = registry.load(name)
            options = read(target)[0]
        except MisuseError as error:  # not usable here; an editor should still know the name
            variants[name] = {"description": str(error), "type": "object", "properties": naming, "required": [key]}
            continue
        own = _schema_of(options.model, definitions, f"{name}.")
        words = (inspect.getdoc(target) or name).split("\n", 1)[0]
        required = [key, *own.get("required", ())]
        inner = told_apart(own.get("properties", {}), definitions)
        for option, usual in _usual(target).items():
            if option in inner and option not in required:
                inner[option].setdefault("default", usual)
        properties = naming | with_examples({"properties": inner, "required": required}, name)["properties"]
        variants[name] = own | {"description": words, "properties": properties, "required": required}
    return variants


def _usual(target: Any) -> dict[str, Any]:
    """Return what options are when a definition does not say: what the class has, or takes from the environment."""
    if isinstance(target, type) and issubclass(target, HttpLLM):
        key = getattr(target, "key_variable", None)
        found = {"base_url": getattr(target, "own_base_url", None), "api_key": key and f"${{{key}:-}}"}
    else:
        kind: Any = target if hasattr(target, "timeout_s") else BaseTool
        found = {key: getattr(kind, key, None) for key in ToolCommon.model_fields}
        run = getattr(kind, "execute", None)
        found["isolation"] = found["isolation"] or ("loop" if run is not None and is_async(run) else "thread")
    return {key: value for key, value in found.items() if isinstance(value, str | int | float) and value != ""}


def _schema_of(model: type[BaseModel], definitions: Json, prefix: str) -> Json:
    """Return the schema of a model; what it refers to goes to the definitions."""
    schema: Json = untitled(model.model_json_schema(ref_template=f"#/$defs/{prefix}{{model}}"))
    definitions |= {f"{prefix}{name}": inner for name, inner in schema.pop("$defs", {}).items()}
    return schema
