"""Memory back ends; each is loaded when it is first named."""

from typing import TYPE_CHECKING

from shared_libs.lazy import lazy

if TYPE_CHECKING:
    from shared_libs.memory.sql import SQLMemory

__all__ = ["SQLMemory"]

__getattr__ = lazy(__name__, {"SQLMemory": "sql"})
