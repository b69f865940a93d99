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
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from typing import Annotated, Any

from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.tools.docstring import read_docstring

EMPTY = inspect.Parameter.empty

_SAID_OF_A_FIELD = ("Required", "NotRequired", "ReadOnly")
"""What is said of a field and is no part of its type, whatever module it is from."""


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
    doc = own.get("__doc__") or (
        inspect.getdoc(inner) if hasattr(inner, "__name__") else inspect.getdoc(inner.__call__) or inspect.getdoc(inner)
    )
    return Words(name, *read_docstring(inspect.cleandoc(doc or "")))


def parameters_of(name: str, function: Callable[..., Any]) -> list[inspect.Parameter]:
    """
    Return the parameters of a function that a caller may give, each with its real type.

    What a partial has bound is none of them. `*args` and `**kwargs` without a type are left out.

    Raises:
        MisuseError: the signature cannot be read, or says nothing but `*args` and `**kwargs`.

    """
    try:
        signature = _signature(function)
    except (NameError, TypeError, ValueError) as error:
        raise MisuseError(f"the signature of tool {name} cannot be read: {error}") from error
    first = next(iter(signature.parameters.values()), None)
    where, dot, _ = getattr(function, "__qualname__", "").rpartition(".")
    if (
        dot
        and not where.endswith("<locals>")
        and first is not None
        and (first.name, first.annotation) == ("self", EMPTY)
    ):
        raise MisuseError(f"tool {name} is a method without its object; give the one of an object of {where}")
    bound = function.keywords if isinstance(function, functools.partial) else {}
    given = [parameter for parameter in signature.parameters.values() if parameter.name not in bound]
    stars = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    open_ended = [parameter for parameter in given if parameter.kind in stars and parameter.annotation is EMPTY]
    if open_ended and len(open_ended) == len(given):
        raise MisuseError(
            f"tool {name}: parameter {open_ended[0]} cannot be described to a model; use named, typed parameters, "
            "or give `parameters` as a JSON Schema"
        )
    typed = [_typed(name, function, parameter) for parameter in given if parameter not in open_ended]
    return [one for parameter in typed for one in _unpacked(parameter)]


def typed_where_read(name: str, function: Callable[..., Any]) -> list[inspect.Parameter]:
    """Return those parameters of a function whose type can be read; for a function that nobody describes by them."""
    found = []
    with contextlib.suppress(NameError, TypeError, ValueError):
        for parameter in _signature(function).parameters.values():
            with contextlib.suppress(MisuseError):
                found.append(_typed(name, function, parameter))
    return found


def _unpacked(parameter: inspect.Parameter) -> list[inspect.Parameter]:
    """The parameters that `**kwargs: Unpack[…]` stands for; any other one alone."""
    if parameter.kind is not parameter.VAR_KEYWORD or _called(typing.get_origin(parameter.annotation)) != "Unpack":
        return [parameter]
    (named,) = typing.get_args(parameter.annotation)
    found = []
    for name, hint in typing.get_type_hints(named, include_extras=True).items():
        default = EMPTY if _is_required(named, name, hint) else None
        found.append(inspect.Parameter(name, parameter.KEYWORD_ONLY, default=default, annotation=portable(hint)))
    return found


def _is_required(named: Any, name: str, hint: Any) -> bool:
    """Whether a TypedDict always has that field; where annotations are texts, its `__required_keys__` do not know."""
    said = {"Required": True, "NotRequired": False}.get(_called(typing.get_origin(hint)))
    return name in named.__required_keys__ if said is None else said


def _called(origin: Any) -> str:
    return str(origin).rpartition(".")[2]


def bound_by(function: Callable[..., Any]) -> frozenset[str]:
    """Name the parameters that a partial has bound: no caller may give them."""
    if not isinstance(function, functools.partial):
        return frozenset()
    free = inspect.signature(function).parameters
    taken = {name for name in inspect.signature(function.func).parameters if name not in free}
    return frozenset({*taken, *function.keywords}) | bound_by(function.func)


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    if sys.version_info >= (3, 14):
        from annotationlib import Format

        return inspect.signature(function, annotation_format=Format.FORWARDREF)
    return inspect.signature(function)


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
        elif hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        elif not hasattr(function, "__globals__") and inspect.ismethod(getattr(function, "__call__", None)):  # noqa: B004
            function = function.__call__
        else:
            return function


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


def portable(annotation: Any) -> Any:
    """
    The annotation as pydantic takes it, and as who wrote it meant it.

    Before Python 3.12 pydantic knows no TypedDict but that of typing_extensions; of what may only be iterated it makes
    something that can be read once.
    """
    if annotation is typing.LiteralString:
        return str
    if sys.version_info < (3, 12) and typing.is_typeddict(annotation) and type(annotation).__module__ == "typing":
        return _portable_dict(annotation)
    parts = typing.get_args(annotation)
    origin = typing.get_origin(annotation)
    if not parts or origin in (typing.Literal, Callable):
        return annotation
    if origin is Annotated:
        return Annotated[(portable(parts[0]), *parts[1:])]
    if _called(origin) in _SAID_OF_A_FIELD:
        return portable(parts[0])
    changed = tuple(part if part is ... else portable(part) for part in parts)
    if origin is Iterable:
        return types.GenericAlias(list, changed)
    if changed == parts:
        return annotation
    if isinstance(annotation, types.UnionType):
        return typing.Union[changed]  # noqa: UP007 - made of parts
    return annotation.copy_with(changed) if hasattr(annotation, "copy_with") else origin[changed]


def _portable_dict(annotation: Any) -> Any:
    from typing import NotRequired, Required

    from typing_extensions import TypedDict

    fields: dict[str, Any] = {}
    for name, hint in typing.get_type_hints(annotation, include_extras=True).items():
        fields[name] = (Required if _is_required(annotation, name, hint) else NotRequired)[portable(hint)]
    made: Any = TypedDict(annotation.__name__, fields)  # type: ignore[misc]
    made.__doc__ = annotation.__doc__
    return made
