"""
Which names a definition may use, and what they stand for.

The built-in names are listed here and in `atomic/llms/names.py`; no definition can name anything else.
"""

from __future__ import annotations

from shared_libs.atomic.database_url import DRIVERS
from shared_libs.atomic.llms.names import LLMS
from shared_libs.atomic.registry import GROUP, Builtin, Registry

__all__ = ["GROUP", "LIMITS", "LLMS", "MEMORIES", "TOOLS", "Builtin", "Registry"]


def _needs(scheme: str) -> str:
    return "asyncpg" if scheme.startswith("postgres") else ""


TOOLS = Registry(
    "tool",
    {
        "agent": Builtin("shared_libs.factory.subagent", "sub_agent"),
        "calculator": Builtin("shared_libs.tools.calculator", "CalculatorTool"),
        "files": Builtin("shared_libs.tools.files", "files"),
        "graph": Builtin("shared_libs.factory.library", "graph", "kglite"),
        "http": Builtin("shared_libs.tools.http_tool", "HttpTool"),
        "mcp": Builtin("shared_libs.tools.mcp", "MCPToolset", "mcp"),
        "python": Builtin("shared_libs.tools.python", "PythonTool", "pydantic_monty"),
        "retrieval": Builtin("shared_libs.factory.library", "retrieval"),
        "sql": Builtin("shared_libs.tools.sql", "SQLTool"),
        "time": Builtin("shared_libs.tools.time_tool", "TimeTool"),
    },
)
MEMORIES = Registry(
    "memory",
    {
        "memory": Builtin("shared_libs.factory.storage", "in_process"),
        **{scheme: Builtin("shared_libs.memory.sql", "SQLMemory", _needs(scheme)) for scheme in DRIVERS},
    },
)
"""Memories by the scheme of their URL."""

LIMITS = Registry(
    "limit", {scheme: Builtin("shared_libs.limits.sql", "SQLLimitStore", _needs(scheme)) for scheme in DRIVERS}
)
"""Stores of shared rate limits by the scheme of their URL."""
