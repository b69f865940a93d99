"""
What a function takes, as a tool needs to know it: its parameters with real types, and in which words it speaks of them.

Annotations are read one by one, and only those of parameters. One that is text is looked up where the function was
written: in its module, in the functions around it, and among what its module imports for type checkers only.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import inspect
import sys
import types
import typing
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.tools.annotations import called, is_required, portable
from shared_libs.atomic.tools.docstring import read_docstring

EMPTY = inspect.Parameter.empty

UNKNOWN = object()
"""The default of a parameter that may be left out, and of which nobody says what it is then."""


class Words(typing.NamedTuple):
    """How a function is told to a model."""

    name: str
    description: str
    parameters: dict[str, str]


def words_of(function: Callable[..., Any]) -> Words:
    """Name and describe a function; of a partial, method or callable object, as what is behind it."""
    inner: Any = function
    own: dict[str, Any] = {}  # what a partial says of itself goes before
    while isinstance(inner, functools.partial):
        own = vars(inner) | own
        inner = inner.func
    name = own.get("__name__") or getattr(inner, "__name__", None) or type(inner).__name__
    said_by = [inner] if hasattr(inner, "__name__") else [inner.__call__, inner]
    doc = own.get("__doc__") or next(filter(None, map(doc_of, said_by)), "")
    return Words(name, *read_docstring(inspect.cleandoc(doc)))


def doc_of(function: Any) -> str:
    """
    What a function says of itself, else the method that it overrides.

    `inspect.getdoc` reads the attributes of classes for that, and a tool that is written in a class is made by being
    read.
    """
    doc = getattr(function, "__doc__", None)
    if doc == functools.partial.__doc__:  # a decorator with `functools.wraps` over a partial took on Python's own words
        return doc_of(getattr(getattr(function, "__wrapped__", None), "func", None))
    owner = getattr(function, "__self__", None)
    kinds = () if owner is None else (owner if inspect.isclass(owner) else type(owner)).__mro__
    overridden = (getattr(vars(kind).get(getattr(function, "__name__", "")), "__doc__", None) for kind in kinds)
    return next((words for words in (doc, *overridden) if isinstance(words, str) and words), "")


def parameters_of(name: str, function: Callable[..., Any]) -> list[inspect.Parameter]:
    """
    Return the parameters of a function that a caller may give, each with its real type.

    What a partial has bound is none of them. `*args` and `**kwargs` without a type are left out.

    Raises:
        MisuseError: the signature cannot be read, or says nothing but `*args` and `**kwargs`.

    """
    try:
        signature = signature_of(function)
    except (NameError, TypeError, ValueError) as error:
        raise MisuseError(f"the signature of tool {name} cannot be read: {error}") from error
    first = next(iter(signature.parameters.values()), None)
    where, dot, _ = getattr(function, "__qualname__", "").rpartition(".")
    if (
        dot
        and not where.endswith("<locals>")
        and first is not None
        and first.annotation is EMPTY
        and (first.name in ("self", "cls") or _stands_in_a_class(function, where))
    ):
        raise MisuseError(f"tool {name} is a method without its object; give the one of an object of {where}")
    bound = function.keywords if isinstance(function, functools.partial) else {}
    given = [parameter for parameter in signature.parameters.values() if parameter.name not in bound]
    stars = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    open_ended = [parameter for parameter in given if parameter.kind in stars and _says_nothing(parameter.annotation)]
    if open_ended and len(open_ended) == len(given):
        raise MisuseError(
            f"tool {name}: parameter {open_ended[0]} cannot be described to a model; use named, typed parameters, "
            "or give `parameters` as a JSON Schema"
        )
    typed = [_typed(name, function, parameter) for parameter in given if parameter not in open_ended]
    return [one for parameter in typed for one in _unpacked(parameter)]


def _says_nothing(annotation: Any) -> bool:
    """Whether it is none, or what a decorator without `functools.wraps` writes: `*args: P.args, **kwargs: P.kwargs`."""
    if isinstance(annotation, str):
        return annotation.endswith((".args", ".kwargs"))
    return annotation is EMPTY or type(annotation).__name__ in ("ParamSpecArgs", "ParamSpecKwargs")


def _stands_in_a_class(function: Any, where: str) -> bool:
    """Whether a function is what its class binds to an object, however its first parameter is called."""
    found: Any = sys.modules.get(getattr(function, "__module__", ""))
    for part in where.split("."):
        found = getattr(found, "__dict__", {}).get(part)
    return getattr(found, "__dict__", {}).get(getattr(function, "__name__", "")) is function


def typed_where_read(name: str, function: Callable[..., Any]) -> list[inspect.Parameter]:
    """Return those parameters of a function whose type can be read; for a function that nobody describes by them."""
    found = []
    with contextlib.suppress(NameError, TypeError, ValueError):
        for parameter in signature_of(function).parameters.values():
            with contextlib.suppress(MisuseError):
                found.append(_typed(name, function, parameter))
    return found


def _unpacked(parameter: inspect.Parameter) -> list[inspect.Parameter]:
    """The parameters that `**kwargs: Unpack[…]` stands for; any other one alone."""
    if parameter.kind is not parameter.VAR_KEYWORD or called(typing.get_origin(parameter.annotation)) != "Unpack":
        return [parameter]
    (named,) = typing.get_args(parameter.annotation)
    found = []
    for name, hint in typing.get_type_hints(named, include_extras=True).items():
        default = EMPTY if is_required(named, name, hint) else UNKNOWN
        found.append(inspect.Parameter(name, parameter.KEYWORD_ONLY, default=default, annotation=portable(hint)))
    return found


def bound_by(function: Callable[..., Any]) -> frozenset[str]:
    """Name the parameters that a partial has bound: no caller may give them."""
    if not isinstance(function, functools.partial):
        return frozenset()
    free = inspect.signature(function).parameters
    taken = {name for name in inspect.signature(function.func).parameters if name not in free}
    return frozenset({*taken, *function.keywords}) | bound_by(function.func)


def signature_of(function: Callable[..., Any]) -> inspect.Signature:
    """
    Return what a function takes: behind decorators that pass on whatever they get, not behind one that does not.

    Raises:
        NameError, TypeError, ValueError: that cannot be read.

    """
    decides = _deciding(function)
    if sys.version_info >= (3, 14):
        from annotationlib import Format

        return inspect.signature(decides, follow_wrapped=False, annotation_format=Format.FORWARDREF)
    return inspect.signature(decides, follow_wrapped=False)


def _deciding(function: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.ismethod(function):
        return types.MethodType(_deciding(function.__func__), function.__self__)
    if isinstance(function, functools.partial):
        return functools.partial(_deciding(function.func), *function.args, **function.keywords)

    def is_told(one: Any) -> bool:
        return hasattr(one, "__signature__") or passes_on(one) == 0

    decides: Callable[..., Any] = inspect.unwrap(function, stop=is_told)
    return decides if decides is function else _deciding(decides)


def passes_on(function: Any) -> int | None:
    """Whether a function takes whatever it gets, by place or by name: those flags of its code; None: it has none."""
    code = getattr(function, "__code__", None)
    return code.co_flags & (inspect.CO_VARARGS | inspect.CO_VARKEYWORDS) if inspect.iscode(code) else None


def _typed(name: str, function: Callable[..., Any], parameter: inspect.Parameter) -> inspect.Parameter:
    if parameter.annotation is EMPTY:
        return parameter.replace(annotation=Any)
    written = _written(function)

    def holder() -> None: ...

    holder.__annotations__ = {"it": parameter.annotation}
    spaces = [
        vars(sys.modules.get(written.__module__, typing)) | getattr(written, "__globals__", {}),
        _closure(written),
    ]
    elsewhere = _elsewhere(written)
    while True:
        try:
            found = typing.get_type_hints(holder, spaces[0], spaces[1], include_extras=True)["it"]
            return parameter.replace(annotation=portable(found))
        except NameError as error:
            missing = error.name or ""
            place = next((space for space in elsewhere if missing in space), None)
            if place is None or missing in spaces[1]:
                raise MisuseError(
                    f"the signature of tool {name} cannot be read: the type of {parameter.name}: {error}"
                ) from error
            spaces[1] = {**spaces[1], missing: place[missing]}
            elsewhere = _elsewhere(written)
        except Exception as error:
            raise MisuseError(
                f"the signature of tool {name} cannot be read: the type of {parameter.name}, "
                f"{parameter.annotation!r}: {error}"
            ) from error


def _written(function: Any) -> Any:
    """The function as it stands in its module: behind partials, methods, decorators and `__call__`."""
    while True:
        if isinstance(function, functools.partial):
            function = function.func
        elif inspect.ismethod(function):
            function = function.__func__
        elif callable(inner := _innermost(function)):
            function = inner
        elif not hasattr(function, "__globals__") and inspect.ismethod(getattr(function, "__call__", None)):  # noqa: B004
            function = function.__call__
        else:
            return function


def _innermost(function: Any) -> Any:
    """What stands behind all decorators; None where there are none, or they lead in a circle."""
    with contextlib.suppress(ValueError):
        return inspect.unwrap(function) if hasattr(function, "__wrapped__") else None
    return None


def _closure(function: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, cell in zip(
        getattr(getattr(function, "__code__", None), "co_freevars", ()),
        getattr(function, "__closure__", None) or (),
        strict=False,
    ):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    return found


def _elsewhere(function: Any) -> Iterator[typing.Mapping[str, Any]]:
    """Where else a name may be: the functions around, as far as they run now, and what is for type checkers only."""
    around = getattr(function, "__qualname__", "").split(".<locals>")[:-1]
    frame = inspect.currentframe()
    while around and frame is not None:
        code = frame.f_code
        if code.co_filename == function.__code__.co_filename and code.co_qualname in _outer(function.__qualname__):
            yield frame.f_locals
        frame = frame.f_back
    yield _Imports(getattr(function, "__module__", ""))


def _outer(qualname: str) -> set[str]:
    parts = qualname.split(".<locals>.")
    return {".<locals>.".join(parts[:count]) for count in range(1, len(parts))}


class _Imports(dict[str, Any]):
    """What a module imports under `if TYPE_CHECKING:`, imported when it is asked for."""

    def __init__(self, module: str) -> None:
        super().__init__()
        self._module = sys.modules.get(module)
        try:
            tree = ast.parse(inspect.getsource(self._module)) if self._module is not None else ast.Module([], [])
        except (OSError, TypeError, SyntaxError):
            tree = ast.Module([], [])
        blocks = [
            node.body for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        ]
        self._lines = [line for block in blocks for line in block if isinstance(line, ast.Import | ast.ImportFrom)]

    def __contains__(self, name: object) -> bool:
        for line in self._lines:
            for alias in line.names:
                if name == (alias.asname or alias.name.partition(".")[0]):
                    found = self._imported(line, alias)
                    if found is not None:
                        self[str(name)] = found
                        return True
        return False

    def _imported(self, line: ast.Import | ast.ImportFrom, alias: ast.alias) -> Any:
        package = getattr(self._module, "__package__", "") or ""
        try:
            if isinstance(line, ast.Import):
                whole = import_module(alias.name)
                return whole if alias.asname else sys.modules[alias.name.partition(".")[0]]
            home = import_module("." * line.level + (line.module or ""), package)
            return getattr(home, alias.name, None) or import_module(f"{home.__name__}.{alias.name}")
        except ImportError:
            return None
