"""Checking JSON against a schema that somebody brings: a tool's parameters, a structured output."""

from shared_libs.atomic.json_schema.check import SchemaCheck, placed, unfenced
from shared_libs.atomic.json_schema.values import MAX_PROBLEMS, shown

__all__ = ["MAX_PROBLEMS", "SchemaCheck", "placed", "shown", "unfenced"]
