"""`@tool`: a plain function as a tool."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, overload

from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.tools.base import BaseTool
from shared_libs.atomic.tools.plan import Plan, plan_of


class FunctionTool(BaseTool):
    """A plain function as a tool; made by `@tool`. Calling it calls the function."""

    def __init__(self, function: Callable[..., Any], **declarations: Any) -> None:
        self.name = getattr(function, "__name__", "")
        self.description = inspect.getdoc(function) or ""
        for key, value in declarations.items():
            if key not in _DECLARATIONS:
                raise MisuseError(f"@tool does not know {key!r}. Allowed: {', '.join(sorted(_DECLARATIONS))}")
            setattr(self, key, value)
        self.execute = function
        self.__doc__ = function.__doc__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function itself, unsupervised."""
        return self.execute(*args, **kwargs)

    def _plan(self) -> Plan:
        return plan_of(self.name, self.execute, ((), {}), self.memory_limit_mb)


_DECLARATIONS = frozenset(name for name in BaseTool.__annotations__ if not name.startswith("_"))


@overload
def tool(function: Callable[..., Any], /) -> FunctionTool: ...
@overload
def tool(**declarations: Any) -> Callable[[Callable[..., Any]], FunctionTool]: ...
def tool(
    function: Callable[..., Any] | None = None, /, **declarations: Any
) -> FunctionTool | Callable[[Callable[..., Any]], FunctionTool]:
    """
    Make a tool of a function: its name, docstring and typed parameters are what the model sees.

    With arguments (`@tool(timeout_s=5, sequential=True)`) it sets the declarations of `BaseTool`.
    """
    if function is not None:
        return FunctionTool(function)
    return lambda decorated: FunctionTool(decorated, **declarations)
