"""Checking JSON against a schema that somebody brings: a tool's parameters, a structured output."""

from shared_libs.atomic.json_schema.check import SchemaCheck, placed, unfenced
from shared_libs.atomic.json_schema.portable import portable, portable_names, top_of
from shared_libs.atomic.json_schema.values import MAX_PROBLEMS, shown

__all__ = ["MAX_PROBLEMS", "SchemaCheck", "placed", "portable", "portable_names", "shown", "top_of", "unfenced"]
