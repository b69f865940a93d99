"""`@tool`: a plain function as a tool."""

from __future__ import annotations

import functools
import inspect
import logging
import types
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypedDict, TypeVar, Unpack, overload

from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.tools.base import BaseTool
from shared_libs.atomic.tools.placement import Isolation
from shared_libs.atomic.tools.plan import Plan, plan_of
from shared_libs.atomic.tools.signature import doc_of, passes_on, signature_of, words_of

P = ParamSpec("P")
R = TypeVar("R")

_MANAGERS = ("contextmanager.<locals>", "asynccontextmanager.<locals>")
"""How the code is called that contextlib puts around a generator."""

_DISPATCHING = ("singledispatchmethod.__get__.<locals>._method", "_singledispatchmethod_get")
"""What a method of `functools.singledispatchmethod` is: a function with this code, from Python 3.14 on of this kind."""

_log = logging.getLogger(__name__)


class Declarations(TypedDict, total=False):
    """What may be said of a tool besides its function: the declarations of `BaseTool`."""

    name: str
    description: str
    parameters: dict[str, Any] | None
    timeout_s: float
    isolation: Isolation | None
    memory_limit_mb: int | None
    cpu_limit_s: float | None
    idempotent: bool | None
    passes_ports: bool
    needs_approval: bool
    sequential: bool
    max_observation_chars: int


class FunctionTool(BaseTool, Generic[P, R]):
    """
    A plain function as a tool; made by `@tool`. Calling it calls the function.

    Methods, partials and callable objects are functions too. What a partial has bound is not offered to the model; a
    tool that is written in a class is bound to the object that it is read from.

    Raises:
        MisuseError: it is no function, or a declaration is not known.

    """

    def __init__(self, function: Callable[P, R], **declarations: Unpack[Declarations]) -> None:
        self._bound_to = _bound_to(function)
        function = _checked_function(function)
        if unknown := [key for key in declarations if key not in Declarations.__annotations__]:
            raise MisuseError(
                f"@tool does not know {unknown[0]!r}. Allowed: {', '.join(sorted(Declarations.__annotations__))}"
            )
        self.function = function
        self.name, self.description, _ = words_of(function)
        self.__doc__ = inspect.cleandoc(doc_of(function))
        self._declarations = declarations
        for key, value in declarations.items():
            setattr(self, key, value)
        self.execute = _by_name(function)
        if not self.description:
            _log.info("tool %s has no description: the model sees its name and parameters alone", self.name)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function itself, unsupervised."""
        return self.function(*args, **kwargs)

    def __get__(self, instance: object | None, owner: type | None = None) -> FunctionTool[..., R]:
        """Bind a tool that is written as a method to its object."""
        first = next(iter(inspect.signature(self.function).parameters), "")
        # a function from elsewhere may be kept in a class too; that one is not bound
        within = getattr(self.function, "__qualname__", "").rpartition(".")[0]
        own = any(within == kind.__qualname__ for kind in getattr(owner, "__mro__", ()))
        binds = self._bound_to and (first if first in ("self", "cls") else self._bound_to if own else "")
        target = {"self": instance, "cls": owner}.get(binds)
        if target is None:
            return self
        return FunctionTool(self.function.__get__(target), **self._declarations)

    def _plan(self) -> Plan:
        return plan_of(self.name, self.function, ((), {}), self.memory_limit_mb)


@overload
def tool(function: Callable[P, R], /, **declarations: Unpack[Declarations]) -> FunctionTool[P, R]: ...
@overload
def tool(**declarations: Unpack[Declarations]) -> Callable[[Callable[P, R]], FunctionTool[P, R]]: ...
def tool(
    function: Callable[P, R] | None = None, /, **declarations: Unpack[Declarations]
) -> FunctionTool[P, R] | Callable[[Callable[P, R]], FunctionTool[P, R]]:
    """
    Make a tool of a function: its name, docstring and typed parameters are what the model sees.

    The docstring's words on a parameter (in the style of Google, NumPy or Sphinx), `Annotated[…, "words"]` and
    `Field(description=…)` describe it. With arguments (`@tool(timeout_s=5, sequential=True)`) it sets the declarations
    of `BaseTool`.

    Raises:
        MisuseError: it is no function, or a declaration is not known.

    """
    if function is not None:
        return FunctionTool(function, **declarations)
    return functools.partial(FunctionTool, **declarations)


def _bound_to(function: Any) -> str:
    """What a function that is written in a class is bound to: an object, the class or nothing."""
    return "" if isinstance(function, staticmethod) else "cls" if isinstance(function, classmethod) else "self"


def _checked_function(function: Any) -> Callable[..., Any]:
    if isinstance(function, classmethod | staticmethod):
        function = function.__func__
    if isinstance(function, types.MethodType) and isinstance(function.__func__, FunctionTool):
        function = types.MethodType(function.__func__.function, function.__self__)
    if isinstance(function, functools.partial) and isinstance(function.func, FunctionTool):
        function = functools.partial(function.func.function, *function.args, **function.keywords)
    if inspect.isclass(function) or not callable(function) or isinstance(function, BaseTool):
        what = f"the class {function.__name__}" if inspect.isclass(function) else f"a {type(function).__name__}"
        raise MisuseError(f"a tool is made of a function, method or callable object, not of {what}")
    made_by = function.__code__.co_qualname if type(function) is types.FunctionType else ""
    if made_by.startswith(_MANAGERS):
        raise MisuseError(f"{function.__name__} gives a context manager, which nobody enters: enter it in a function")
    if made_by in _DISPATCHING or type(function).__name__ in _DISPATCHING:  # it is bound already, which it does not say
        signature = inspect.signature(function)
        function.__signature__ = signature.replace(parameters=[*signature.parameters.values()][1:])
    made_of: Callable[..., Any] = function
    return made_of


def _by_name(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as one that takes every argument by its name; itself, where it does."""
    try:
        parameters = signature_of(function).parameters.values()
    except (TypeError, ValueError):
        return function  # told when the tool is described
    outermost: Any = function
    while isinstance(outermost, functools.partial):
        outermost = outermost.func
    how = passes_on(outermost) if hasattr(outermost, "__wrapped__") else None
    if how == inspect.CO_VARKEYWORDS:
        return function
    by_place = (
        inspect.Parameter.POSITIONAL_OR_KEYWORD if how == inspect.CO_VARARGS else inspect.Parameter.POSITIONAL_ONLY
    )
    ahead = [parameter for parameter in parameters if parameter.kind <= by_place]
    dispatches = how is not None or type(outermost).__name__ in _DISPATCHING
    if hasattr(outermost, "register") and dispatches:  # it dispatches, and looks at the first one alone
        ahead = [*parameters][:1]
    rest = next((parameter for parameter in parameters if parameter.kind is parameter.VAR_POSITIONAL), None)
    if rest is not None:
        ahead = [parameter for parameter in parameters if parameter.kind <= parameter.POSITIONAL_OR_KEYWORD]
    if not ahead and rest is None:
        return function

    def parted(arguments: dict[str, Any]) -> Any:
        given = list(arguments.pop(rest.name, ())) if rest is not None else []
        positional: list[Any] = []
        for parameter in reversed(ahead):
            if parameter.name in arguments:
                positional.insert(0, arguments.pop(parameter.name))
            elif positional or given:
                positional.insert(0, parameter.default)  # a later one is given
        return function(*positional, *given, **arguments)

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def call_async(**arguments: Any) -> Any:
            return await parted(arguments)

        return call_async

    @functools.wraps(function)
    def call(**arguments: Any) -> Any:
        return parted(arguments)

    return call
