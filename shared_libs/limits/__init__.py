"""Rate limits that several processes keep together; a store is loaded when it is first named."""

from typing import TYPE_CHECKING

from shared_libs.lazy import lazy

if TYPE_CHECKING:
    from shared_libs.limits.sql import SQLLimitStore

__all__ = ["SQLLimitStore"]

__getattr__ = lazy(__name__, {"SQLLimitStore": "sql"})
