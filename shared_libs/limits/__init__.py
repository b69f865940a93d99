"""Rate limits that several processes keep together; a store is loaded when it is first named."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shared_libs.limits.sql import SQLLimitStore

__all__ = ["SQLLimitStore"]


def __getattr__(name: str) -> Any:
    if name != "SQLLimitStore":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from shared_libs.limits.sql import SQLLimitStore

    return SQLLimitStore
