"""From a YAML definition to an agent: `load_agent` is the way in."""

from typing import TYPE_CHECKING

from shared_libs.lazy import lazy

if TYPE_CHECKING:
    from shared_libs.factory.build import (
        agent_from_dict,
        check_file,
        definition_hash,
        load_agent,
        load_collections,
        load_definition,
    )
    from shared_libs.factory.schema import agent_schema

_HOMES = {
    "agent_from_dict": "build",
    "agent_schema": "schema",
    "check_file": "build",
    "definition_hash": "build",
    "load_agent": "build",
    "load_collections": "build",
    "load_definition": "build",
}

__all__ = [
    "agent_from_dict",
    "agent_schema",
    "check_file",
    "definition_hash",
    "load_agent",
    "load_collections",
    "load_definition",
]

__getattr__ = lazy(__name__, _HOMES)
